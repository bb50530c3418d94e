//! Everything at once: a guest that sends every kind of frame, sound and broken, to a gateway that has every
//! feature on, while other threads change it and clients of published ports come and go. Nothing panics,
//! nothing hangs, every bound holds, and nothing is left.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use framegate::{
    Action, Capture, Dns, Limits, LiveFlows, NetworkFrameQueues, Policy, Publish, RateLimit,
    Runtime, RuntimeHandle, StopReason, UdpFiltering,
};
use smoltcp::wire::{IpProtocol, Ipv4Packet};

use support_guest::host::{descriptors, threads_joined};
use support_guest::raw::{ACK, FIN, PSH, RST, SYN, Segment, arp_request, ip_frame};
use support_guest::udp::{Datagram, echo, fragments, icmp};
use support_guest::{GATEWAY_V4, GATEWAY_V6, GUEST_V4, alone, gateway, say};

/// Frames of the guest.
const FRAMES: usize = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

/// A generator whose every run is the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }
}

/// A segment of the gateway that the guest may answer: its own port, the other's address, and what it
/// acknowledges.
#[derive(Clone, Copy)]
struct Heard {
    port: u16,
    remote: SocketAddr,
    acknowledges: u32,
    is_call: bool,
}

impl Heard {
    /// A SYN or SYN-ACK over IPv4.
    fn of(frame: &[u8]) -> Option<Self> {
        let two = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
        if frame.len() < 54 || frame[12..14] != [8, 0] || frame[23] != 6 || frame[47] & SYN == 0 {
            return None;
        }
        let address: [u8; 4] = frame[26..30].try_into().unwrap();
        let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
        Some(Self {
            port: two(36),
            remote: (address, two(34)).into(),
            acknowledges: sequence.wrapping_add(1),
            is_call: frame[47] & ACK == 0,
        })
    }

    fn answer(self, random: &mut Random, data: &[u8]) -> Vec<u8> {
        let flags = match self.is_call {
            true => random.of(&[SYN | ACK, SYN | ACK, RST | ACK, ACK]),
            false => random.of(&[ACK, ACK | PSH, FIN | ACK, RST]),
        };
        let sequence = if self.is_call { 1000 } else { 1001 };
        let segment = Segment::new(self.port, self.remote, flags).at(sequence, self.acknowledges);
        if self.is_call { segment.frame() } else { segment.with(data).frame() }
    }
}

/// Where the guest sends to: what it may reach, and what it may not.
struct Targets {
    tcp: SocketAddr,
    udp: SocketAddr,
    published: Vec<SocketAddr>,
}

const SERVICE: ([u8; 4], u16) = ([169, 254, 169, 254], 80);
const QUERY: &[u8] = b"\x4d\x01\x01\0\0\x01\0\0\0\0\0\0\x04here\x07example\0\0\x01\0\x01";

fn frame(random: &mut Random, targets: &Targets, heard: Option<Heard>) -> Vec<u8> {
    let v6 = |at: SocketAddr| SocketAddr::new(GATEWAY_V6.into(), at.port());
    let denied: SocketAddr = ([192, 0, 2, 1], 80).into();
    let from = 2000 + random.below(300) as u16;
    let data = vec![7; random.of(&[0, 1, 8, 100, 1400])];
    let mut frame = match random.below(12) {
        0..5 => {
            let to = [targets.tcp, v6(targets.tcp), SERVICE.into(), gateway(53), denied];
            let flags =
                random.of(&[SYN, SYN, ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, SYN | ACK]);
            let to = random.of(&to);
            let sequence = random.of(&[1000, 1001, 1001 + data.len() as u32, 77]);
            let segment = Segment::new(from, to, flags).at(sequence, random.next() as u32);
            match heard.filter(|_| random.below(2) == 0) {
                Some(heard) => heard.answer(random, &data),
                None => segment.with(&data).frame(),
            }
        }
        5..8 => {
            let to = random.of(&[targets.udp, v6(targets.udp), gateway(53), denied, gateway(9)]);
            let payload = if to.port() == 53 { QUERY } else { &data };
            let mut datagram = Datagram::new(from, to, payload);
            datagram.hop_limit = random.of(&[0, 1, 2, 64]);
            datagram.dont_fragment = random.below(2) == 0;
            datagram.frame()
        }
        8 => {
            let to = random.of(&[IpAddr::from(GATEWAY_V4), GATEWAY_V6.into(), denied.ip()]);
            echo(to, from, 1, &data)
        }
        9 => {
            let to = random.of(&[IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()]);
            let id = random.below(4) as u16;
            let body = vec![id as u8; 2000];
            let protocol = random.of(&[IpProtocol::Udp, IpProtocol::Tcp, IpProtocol::Icmp]);
            let pieces = fragments(to, protocol, &body, id, 1000);
            pieces[random.below(pieces.len())].clone()
        }
        10 => {
            let quote = ip_frame(GATEWAY_V4.into(), GUEST_V4.into(), IpProtocol::Udp, &data);
            icmp(GATEWAY_V4.into(), random.of(&[0, 3, 5, 8, 11]), 0, 0, &quote[14..])
        }
        _ => arp_request(),
    };
    if random.below(3) == 0 {
        for _ in 0..=random.below(4) {
            // The addresses of the link stay as they are, mostly, or nothing would get further.
            let at = if random.below(50) == 0 { 0 } else { 14.min(frame.len() - 1) };
            let at = at + random.below(frame.len() - at);
            frame[at] = random.next() as u8;
        }
        if frame.len() > 34 && frame[12..14] == [8, 0] && frame[14] == 0x45 {
            Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        }
        frame.truncate(frame.len() - random.of(&[0, 0, 0, 1, 20]).min(frame.len()));
    }
    frame
}

fn policies(targets: &Targets) -> [Policy; 3] {
    let allow = |policy: Policy, rule: String| policy.rule(rule.parse().unwrap());
    let ports = [targets.tcp.port(), targets.udp.port()];
    let open = ports.into_iter().fold(Policy::new(Action::Deny), |policy, port| {
        let policy = allow(policy, format!("allow {GATEWAY_V4}:{port}"));
        allow(policy, format!("allow [{GATEWAY_V6}]:{port}"))
    });
    let some = allow(Policy::new(Action::Deny), format!("allow {GATEWAY_V4}:{}", ports[0]));
    [open, some, allow(Policy::new(Action::Deny), "allow here.example".to_owned())]
}

/// Changes the network until it has stopped.
fn meddle(handle: &RuntimeHandle, seed: u64, targets: &Targets) {
    let mut random = Random(seed);
    let policies = policies(targets);
    loop {
        let stopped = match random.below(7) {
            0 => handle
                .set_policy(
                    random.of(&[&policies[0], &policies[0], &policies[1], &policies[2]]),
                    random.of(&[LiveFlows::Recheck, LiveFlows::Keep]),
                )
                .is_err(),
            1 => handle.flows().is_err(),
            2 => {
                let limit = random.of(&[
                    RateLimit::default(),
                    RateLimit::default(),
                    RateLimit::bytes(1 << 20),
                    RateLimit::packets(5000),
                ]);
                handle.set_rate_limits(limit, limit).is_err()
            }
            3 => handle.publish(&Publish::tcp_port(0, 80)).is_err(),
            4 => handle.publish(&Publish::udp_port(0, 7)).is_err(),
            5 => handle.published().map_or(true, |published| {
                let others = published.get(2..).unwrap_or_default();
                for published in others {
                    // Another thread may have been faster.
                    let _ = match random.below(2) {
                        0 => handle.unpublish(published.id),
                        _ => handle.unpublish_and_reset(published.id),
                    };
                }
                false
            }),
            _ => {
                if let Ok(Some(mut events)) = handle.policy_events() {
                    while events.try_next().is_some() {}
                }
                false
            }
        };
        if stopped && handle.flows().is_err() {
            return;
        }
    }
}

/// Calls the guest, until nobody is there.
fn call(targets: &Targets, seed: u64) {
    let mut random = Random(seed);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    while let Ok(mut client) =
        TcpStream::connect(targets.published[0]).or_else(|error| match error.kind() {
            io::ErrorKind::ConnectionReset => TcpStream::connect(targets.published[0]),
            _ => Err(error),
        })
    {
        let _ = socket.send_to(&[1; 64], targets.published[1]);
        let _ = client.write(&[1; 64]);
        if random.below(2) == 0 {
            client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            let _ = client.read(&mut [0; 64]);
        }
    }
}

#[test]
fn everything_at_once() {
    if !alone("everything_at_once") {
        return;
    }
    let before = (1 + threads_of_harness(), descriptors());
    {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let upstream = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        upstream.set_nonblocking(true).unwrap();
        let mut limits = Limits::default();
        limits.tcp_flows = 200;
        limits.tcp_half_open = 100;
        limits.udp_mappings = 50;
        limits.ping_mappings = 20;
        limits.dns_queries = 30;
        limits.tcp_connect = Duration::from_millis(200);
        limits.tcp_transitory = Duration::from_millis(200);
        let mut targets = Targets {
            tcp: gateway(tcp.local_addr().unwrap().port()),
            udp: gateway(udp.local_addr().unwrap().port()),
            published: Vec::new(),
        };
        let queues = NetworkFrameQueues::try_shared(256).unwrap();
        let runtime = Runtime::builder()
            .host_loopback(true)
            .policy(policies(&targets)[0].clone().resolve_all(true))
            .limits(limits)
            .dns(Dns::Servers(vec![upstream.local_addr().unwrap()]))
            .dns_intercept(true)
            .udp_filtering(UdpFiltering::EndpointIndependent)
            .capture(Capture::to_writer(io::sink()).snap_len(64))
            .service(SERVICE.into(), |mut stream| {
                let mut buffer = [0; 64];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
            })
            .publish(Publish::tcp_port(0, 80))
            .publish(Publish::udp_port(0, 7))
            .start_with_queues(queues.clone())
            .unwrap();
        let handle = runtime.handle();
        targets.published =
            handle.published().unwrap().iter().flat_map(|it| it.addresses.clone()).collect();
        let targets = &targets;
        thread::scope(|scope| {
            for seed in 1..4 {
                let handle = &handle;
                scope.spawn(move || meddle(handle, seed * 0x9e37_79b9, targets));
                scope.spawn(move || call(targets, seed * 0x85eb_ca6b));
            }
            let mut random = Random(0x2545_f491_4f6c_dd1d);
            let (mut kept, mut heard) = (Vec::new(), None);
            for n in 0..FRAMES {
                let mut frame = frame(&mut random, targets, heard.take());
                while let Err(refused) = queues.push_from_guest().push(frame) {
                    assert!(runtime.stop_reason().is_none(), "{:?}", runtime.stop_reason());
                    frame = refused;
                    thread::yield_now();
                }
                let mut drain = queues.drain_to_guest();
                while let Some(frame) = drain.pop() {
                    assert!(frame.len() <= 1514);
                    heard = Heard::of(&frame).or(heard);
                }
                if n % 64 == 0 {
                    if let Ok((stream, _)) = tcp.accept() {
                        kept.push(stream);
                    }
                    if let Ok((_, from)) = udp.recv_from(&mut [0; 2000]) {
                        let _ = udp.send_to(&[9; 3000], from);
                    }
                    if let Ok((n, from)) = upstream.recv_from(&mut [0; 2000])
                        && n % 2 == 0
                    {
                        let _ = upstream.send_to(QUERY, from);
                    }
                    kept.truncate(20);
                }
                if n % 4096 == 0 {
                    let stats = runtime.stats();
                    assert!(stats.tcp_flows <= 200 && stats.tcp_half_open <= 100, "{stats}");
                    assert!(stats.udp_mappings <= 50 && stats.udp_clients <= 50, "{stats}");
                    assert!(stats.ping_mappings <= 20, "{stats}");
                }
            }
            handle.set_rate_limits(RateLimit::default(), RateLimit::default()).unwrap();
            let stats = runtime.stats();
            say(&stats);
            assert!(stats.tcp_bytes_to_host > 0 && stats.tcp_bytes_to_guest > 0, "{stats}");
            assert!(
                stats.tcp_inbound > 0 && stats.udp_opened > 0 && stats.reassembled > 0,
                "{stats}"
            );
            assert!(matches!(runtime.shutdown(), StopReason::Requested));
            let stats = handle.stats();
            assert_eq!((stats.tcp_flows, stats.tcp_half_open), (0, 0));
            assert_eq!((stats.udp_mappings, stats.udp_clients, stats.ping_mappings), (0, 0, 0));
            assert_eq!(stats.tcp_opened, stats.tcp_closed);
        });
    }
    assert_eq!((threads_joined(before.0), descriptors()), before);
}

/// Threads of the harness besides the test's own.
fn threads_of_harness() -> usize {
    support_guest::host::threads() - 1
}
