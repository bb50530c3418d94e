//! A gateway with everything open and nothing to do sleeps, also while the guest reads nothing and all
//! that is for it has to wait; and then nothing of it was forgotten.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use framegate::{
    Builder, Capture, Dns, NetworkFrameQueues, Publish, RateLimit, RelayStream, Runtime,
};

use support_guest::host::Server;
use support_guest::listening::client_of;
use support_guest::raw::{ACK, FIN, PSH, Raw, SYN, Segment};
use support_guest::udp::{Datagram, echo};
use support_guest::wire::{start, start_with_queues};
use support_guest::{GATEWAY_V4, PATIENCE, gateway, pattern};

/// Turns of a quarter of a second with nothing to do. Timers of TCP and DNS may expire in it.
const FEW: u64 = 20;

fn service() -> SocketAddr {
    ([169, 254, 169, 254], 80).into()
}

fn everything(upstream: &UdpSocket) -> (Builder, mpsc::Receiver<RelayStream>) {
    let (tell, told) = mpsc::channel();
    let builder = Runtime::builder()
        .host_loopback(true)
        .dns(Dns::Servers(vec![upstream.local_addr().unwrap()]))
        .rate_from_guest(RateLimit::bytes(1 << 40))
        .rate_to_guest(RateLimit::bytes(1 << 40))
        .capture(Capture::to_writer(io::sink()))
        .service(service(), move |stream| tell.send(stream).unwrap());
    (builder, told)
}

fn bound() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[track_caller]
fn sleeps(runtime: &Runtime, mut live: impl FnMut(Duration)) {
    let until = Instant::now() + PATIENCE;
    loop {
        let before = runtime.stats().turns;
        live(Duration::from_millis(250));
        let turns = runtime.stats().turns - before;
        if turns < FEW {
            return;
        }
        assert!(Instant::now() < until, "{turns} turns in a quarter of a second");
    }
}

#[test]
fn with_everything_open_and_nothing_to_do() {
    for begin in [start, start_with_queues] {
        let upstream = bound();
        let (builder, streams) = everything(&upstream);
        let (runtime, wire) = begin(builder);
        let mut events = runtime.handle().policy_events().unwrap().unwrap();
        let tcp = runtime.handle().publish(&Publish::tcp_port(0, 80)).unwrap();
        let udp = runtime.handle().publish(&Publish::udp_port(0, 7)).unwrap();
        let (server, datagrams) = (Server::new(), bound());
        let mut raw = Raw::new(wire);
        // Flows: open, half closed by the guest, half open.
        let _open = (raw.open(5000, server.address), server.accept());
        let (sequence, acknowledges) = raw.open(5001, server.address);
        let _half = server.accept();
        raw.send(Segment::new(5001, server.address, FIN | ACK).at(sequence, acknowledges));
        raw.send(Segment::new(5002, server.address, SYN));
        // Services: idle, and one whose guest has sent what nobody reads.
        raw.open(5003, service());
        let (sequence, acknowledges) = raw.open(5004, service());
        let data = Segment::new(5004, service(), ACK | PSH).at(sequence, acknowledges);
        raw.send(data.with(b"never read"));
        let _streams = [(); 2].map(|()| streams.recv_timeout(PATIENCE).unwrap());
        // DNS over TCP with half a message, and over UDP without an answer.
        let (sequence, acknowledges) = raw.open(5005, gateway(53));
        let data = Segment::new(5005, gateway(53), ACK | PSH).at(sequence, acknowledges);
        raw.send(data.with(&[0, 40, 1]));
        let query = b"\x4d\x01\x01\0\0\x01\0\0\0\0\0\0\x04here\x07example\0\0\x01\0\x01";
        raw.wire.send(&Datagram::new(5006, gateway(53), query).frame());
        // Datagrams, echo, half a packet.
        let address = gateway(datagrams.local_addr().unwrap().port());
        raw.wire.send(&Datagram::new(5007, address, b"hello").frame());
        let (_, mapped) = datagrams.recv_from(&mut [0; 8]).unwrap();
        datagrams.send_to(b"hello", mapped).unwrap();
        raw.wire.send(&Datagram::new(5007, gateway(1), b"nobody").frame());
        raw.wire.send(&echo(GATEWAY_V4.into(), 1, 1, b"hello"));
        raw.wire.send(&Datagram::new(5008, address, &[0; 3000]).fragments(1, 1024)[0]);
        // Clients of published ports, of which the guest answers none.
        let _client = client_of(tcp.addresses[0]);
        datagrams.send_to(b"hello", udp.addresses[0]).unwrap();
        let until = Instant::now() + PATIENCE;
        while {
            let stats = runtime.stats();
            (stats.tcp_flows, stats.udp_mappings, stats.udp_clients) != (7, 1, 1)
        } {
            let _ = raw.wire.receive(Duration::from_millis(1));
            assert!(Instant::now() < until, "{}", runtime.stats());
        }
        while events.try_next().is_some() {}
        sleeps(&runtime, |time| while raw.wire.receive(time).is_some() {});
    }
}

/// Nothing is taken from `wire` meanwhile.
#[track_caller]
fn sleeps_unread(runtime: &Runtime) {
    let (_never, wait) = mpsc::channel::<()>();
    sleeps(runtime, |time| assert!(wait.recv_timeout(time).is_err()));
}

#[test]
fn while_everything_waits_for_the_guest() {
    const DATAGRAMS: u32 = 100;
    let upstream = bound();
    let (builder, streams) = everything(&upstream);
    // Its queue is smaller than a stream.
    let (runtime, wire) = start_with_queues(builder);
    let udp = runtime.handle().publish(&Publish::udp_port(0, 7)).unwrap();
    let (server, datagrams) = (Server::new(), bound());
    let mut raw = Raw::new(wire);
    let address = gateway(datagrams.local_addr().unwrap().port());
    raw.wire.send(&Datagram::new(5007, address, b"hello").frame());
    let (_, mapped) = datagrams.recv_from(&mut [0; 8]).unwrap();
    const WIDE: &[u8] = &[2, 4, 0x05, 0xb4, 1, 3, 3, 14];
    raw.open_with(5000, server.address, WIDE);
    let mut flow = server.accept();
    raw.open_with(5001, service(), WIDE);
    let stream = streams.recv_timeout(PATIENCE).unwrap();
    // More than the queue holds. Whoever writes it waits.
    flow.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let block = pattern(1 << 20);
    let mut blocks = 0;
    while flow.write_all(&block).is_ok() {
        blocks += 1;
        assert!(blocks < 64, "the flow takes everything");
    }
    let writer = std::thread::spawn(move || {
        let mut stream = stream;
        while stream.write_all(&block).is_ok() {}
    });
    for n in 0..DATAGRAMS {
        datagrams.send_to(&n.to_be_bytes(), mapped).unwrap();
        datagrams.send_to(&n.to_be_bytes(), udp.addresses[0]).unwrap();
    }
    sleeps_unread(&runtime);
    let before = runtime.stats().udp_datagrams_to_guest;
    assert!(before < 2 * u64::from(DATAGRAMS), "the guest has everything already");
    // The guest reads again, and acknowledges nothing.
    let until = Instant::now() + PATIENCE;
    while runtime.stats().udp_datagrams_to_guest < 2 * u64::from(DATAGRAMS) {
        let _ = raw.wire.receive(Duration::from_millis(1));
        assert!(Instant::now() < until, "forgotten: {}", runtime.stats());
    }
    runtime.shutdown();
    writer.join().unwrap();
    let _ = flow.read(&mut [0; 1]);
}

/// What the guest sends is taken all the same, at once and for long: only its own side is full.
#[test]
fn while_the_vmm_receives_nothing() {
    let (runtime, wire) = start(Runtime::builder().host_loopback(true));
    let (server, datagrams) = (Server::new(), bound());
    let mut raw = Raw::new(wire);
    const WIDE: &[u8] = &[2, 4, 0x05, 0xb4, 1, 3, 3, 14];
    // Eight windows are more than the stream and the queue hold.
    let mut flows: Vec<_> = (0..16)
        .map(|n| {
            raw.open_with(5000 + n, server.address, WIDE);
            server.accept()
        })
        .collect();
    let block = pattern(1 << 20);
    for flow in &mut flows {
        flow.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut blocks = 0;
        while flow.write_all(&block).is_ok() {
            blocks += 1;
            assert!(blocks < 64, "the flow takes everything");
        }
    }
    let address = gateway(datagrams.local_addr().unwrap().port());
    for n in 0..100_u32 {
        raw.wire.send(&Datagram::new(5007, address, &n.to_be_bytes()).frame());
        let mut received = [0; 4];
        datagrams.recv_from(&mut received).unwrap();
        assert_eq!(u32::from_be_bytes(received), n);
    }
    sleeps_unread(&runtime);
}

#[test]
fn while_many_mappings_wait_for_room_that_no_datagram_fits() {
    const MAPPINGS: u16 = 150;
    // Nobody takes from them: no room is made.
    let queues = NetworkFrameQueues::try_shared(256).unwrap();
    let builder = Runtime::builder().host_loopback(true);
    let runtime = builder.start_with_queues(queues.clone()).unwrap();
    let server = bound();
    let address = gateway(server.local_addr().unwrap().port());
    let mapped: Vec<SocketAddr> = (0..MAPPINGS)
        .map(|n| {
            let frame = Datagram::new(4000 + n, address, b"hello").frame();
            queues.push_from_guest().push(frame).unwrap();
            server.recv_from(&mut [0; 8]).unwrap().1
        })
        .collect();
    // Held back by a rate, and then by the queue of a guest that reads nothing.
    let rate = |rate| runtime.handle().set_rate_limits(RateLimit::default(), rate).unwrap();
    let mut nothing = RateLimit::packets(0);
    nothing.burst_packets = 0;
    rate(nothing);
    for _ in 0..4 {
        for to in &mapped {
            server.send_to(&[0; 1000], to).unwrap();
        }
    }
    sleeps_unread(&runtime);
    rate(RateLimit::bytes(1 << 40));
    sleeps_unread(&runtime);
    let all = 4 * u64::from(MAPPINGS);
    assert!(runtime.stats().udp_datagrams_to_guest < all, "the guest has everything already");
    let until = Instant::now() + PATIENCE;
    while runtime.stats().udp_datagrams_to_guest < all {
        while queues.drain_to_guest().pop().is_some() {}
        assert!(Instant::now() < until, "forgotten: {}", runtime.stats());
    }
}
