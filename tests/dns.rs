//! The DNS forwarder against upstreams that the test plays, on the host's loopback. The guest makes its
//! datagrams by hand and puts fragments together itself; its TCP is smoltcp's.

#![cfg(all(feature = "runtime", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use framegate::{Builder, Dns, DropReason, Limits, Runtime};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Packet, IpProtocol, Ipv4Packet, Ipv6FragmentHeader,
    Ipv6Packet, UdpPacket,
};
use support_guest::guest::Guest;
use support_guest::wire::{self, Wire};
use support_guest::{GATEWAY_MAC, GATEWAY_V4, GATEWAY_V6, GUEST_MAC, PATIENCE, guest_address, raw};

const A: u16 = 1;
const AAAA: u16 = 28;
const TXT: u16 = 16;
const NOERROR: u8 = 0;
const FORMERR: u8 = 1;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;

/// What the guest can be sure of when nothing came for so long.
const SILENCE: Duration = Duration::from_millis(150);

// --- Messages ----------------------------------------------------------------------------------

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(&labels(name));
    message.extend_from_slice(&qtype.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message
}

/// Adds an OPT record with this payload size and these options.
fn with_opt(mut message: Vec<u8>, size: u16, options: &[u8]) -> Vec<u8> {
    message[11] += 1;
    message.extend_from_slice(&[0, 0, 41]);
    message.extend_from_slice(&size.to_be_bytes());
    message.extend_from_slice(&[0, 0, 0x80, 0]);
    message.extend_from_slice(&u16::try_from(options.len()).unwrap().to_be_bytes());
    message.extend_from_slice(options);
    message
}

fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

fn with_id(message: &[u8], id: u16) -> Vec<u8> {
    [&id.to_be_bytes()[..], &message[2..]].concat()
}

fn rcode(message: &[u8]) -> u8 {
    message[3] & 15
}

/// The answer with these flags in the third byte, this code, and one A record for each address.
fn answer(query: &[u8], rcode: u8, addresses: &[[u8; 4]]) -> Vec<u8> {
    let end = question_end(query);
    let mut message = query[..end].to_vec();
    message[2] |= 0x80;
    message[3] = 0x80 | rcode;
    message[6..12].fill(0);
    message[7] = addresses.len() as u8;
    for address in addresses {
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        message.extend_from_slice(address);
    }
    message
}

fn question_end(message: &[u8]) -> usize {
    let mut at = 12;
    while message[at] != 0 {
        at += 1 + usize::from(message[at]);
    }
    at + 5
}

/// An answer of this length, filled up with a TXT record of as many strings as it takes.
fn long_answer(query: &[u8], len: usize) -> Vec<u8> {
    let mut message = answer(query, NOERROR, &[]);
    message[7] = 1;
    let data = len - message.len() - 12;
    message.extend_from_slice(&[0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
    message.extend_from_slice(&u16::try_from(data).unwrap().to_be_bytes());
    let pattern = support_guest::pattern(data);
    message.extend_from_slice(&pattern);
    message
}

/// The data of the first answer record of a message whose names are those of [`answer`].
fn first_data(message: &[u8]) -> Option<Vec<u8>> {
    let at = question_end(message);
    let records = u16::from_be_bytes([message[6], message[7]]);
    (records > 0).then(|| {
        let owner = if message[at] >= 0xc0 { 2 } else { question_end(&message[at - 12..]) - 16 };
        let length = u16::from_be_bytes([message[at + owner + 8], message[at + owner + 9]]);
        message[at + owner + 10..][..usize::from(length)].to_vec()
    })
}

// --- The upstream ------------------------------------------------------------------------------

struct Upstream {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Upstream {
    /// UDP and TCP at one port, as long as that is free in both.
    fn new() -> Self {
        for _ in 0..100 {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = udp.local_addr().unwrap();
            if let Ok(tcp) = TcpListener::bind(address) {
                udp.set_read_timeout(Some(PATIENCE)).unwrap();
                return Self { udp, tcp, address };
            }
        }
        panic!("no port is free for both");
    }

    fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_535];
        let (n, from) = self.udp.recv_from(&mut buffer).expect("a query comes");
        buffer.truncate(n);
        (buffer, from)
    }

    fn send(&self, message: &[u8], to: SocketAddr) {
        self.udp.send_to(message, to).unwrap();
    }

    fn is_asked(&self) -> bool {
        self.udp.set_nonblocking(true).unwrap();
        let asked = self.udp.peek_from(&mut [0; 1]).is_ok();
        self.udp.set_nonblocking(false).unwrap();
        asked
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.tcp.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }
}

fn read_message(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn with_length(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

// --- The guest ---------------------------------------------------------------------------------

fn gateway_v4() -> SocketAddr {
    (GATEWAY_V4, 53).into()
}

/// A piece of a packet: where it lies, whether more follow, and its bytes.
type Fragment = (usize, bool, Vec<u8>);

/// A guest that sends and receives datagrams.
struct Resolver {
    wire: Wire,
    mtu: usize,
    partial: HashMap<(IpAddr, u32), Vec<Fragment>>,
}

#[derive(Debug)]
struct Datagram {
    from: SocketAddr,
    to_port: u16,
    payload: Vec<u8>,
}

impl Resolver {
    fn new(wire: Wire) -> Self {
        Self { wire, mtu: 1500, partial: HashMap::new() }
    }

    fn frame(port: u16, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
        let guest = guest_address(to.ip());
        let mut udp = vec![0; 8 + payload.len()];
        udp[8..].copy_from_slice(payload);
        let mut packet = UdpPacket::new_unchecked(&mut udp[..]);
        packet.set_src_port(port);
        packet.set_dst_port(to.port());
        packet.set_len(8 + payload.len() as u16);
        packet.fill_checksum(&guest.into(), &to.ip().into());
        raw::ip_frame(guest, to.ip(), IpProtocol::Udp, &udp)
    }

    fn send(&self, port: u16, to: SocketAddr, payload: &[u8]) {
        self.wire.send(&Self::frame(port, to, payload));
    }

    /// The next datagram, put together if it came in fragments. What is no UDP is passed over.
    fn receive(&mut self, limit: Duration) -> Option<Datagram> {
        let until = Instant::now() + limit;
        loop {
            let frame = self.wire.receive(until.saturating_duration_since(Instant::now()))?;
            assert!(frame.len() <= self.mtu + 14, "{} bytes wedge the guest", frame.len());
            let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
            assert_eq!((ethernet.src_addr().0, ethernet.dst_addr().0), (GATEWAY_MAC, GUEST_MAC));
            if let Some(datagram) = self.packet(&ethernet) {
                return Some(datagram);
            }
        }
    }

    fn packet(&mut self, ethernet: &EthernetFrame<&[u8]>) -> Option<Datagram> {
        let (from, to, key, offset, more, bytes): (IpAddr, IpAddr, u32, usize, bool, Vec<u8>) =
            match ethernet.ethertype() {
                EthernetProtocol::Ipv4 => {
                    let ip = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
                    assert!(ip.verify_checksum());
                    if ip.next_header() == IpProtocol::Icmp {
                        Icmpv4Packet::new_checked(ip.payload()).unwrap();
                        return None;
                    }
                    assert_eq!(ip.next_header(), IpProtocol::Udp);
                    (
                        ip.src_addr().into(),
                        ip.dst_addr().into(),
                        ip.ident().into(),
                        ip.frag_offset().into(),
                        ip.more_frags(),
                        ip.payload().to_vec(),
                    )
                }
                EthernetProtocol::Ipv6 => {
                    let ip = Ipv6Packet::new_checked(ethernet.payload()).unwrap();
                    let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
                    match ip.next_header() {
                        IpProtocol::Udp => (from, to, 0, 0, false, ip.payload().to_vec()),
                        IpProtocol::Ipv6Frag => {
                            // The header of RFC 8200 section 4.5, its next-header field before it.
                            let header = &ip.payload()[2..8];
                            let fragment = Ipv6FragmentHeader::new_checked(header).unwrap();
                            assert_eq!(ip.payload()[0], u8::from(IpProtocol::Udp));
                            (
                                from,
                                to,
                                fragment.ident(),
                                usize::from(fragment.frag_offset()) * 8,
                                fragment.more_frags(),
                                ip.payload()[8..].to_vec(),
                            )
                        }
                        _ => return None,
                    }
                }
                _ => return None,
            };
        let whole = if offset == 0 && !more {
            bytes
        } else {
            let parts = self.partial.entry((from, key)).or_default();
            parts.push((offset, more, bytes));
            parts.sort();
            let mut whole = Vec::new();
            for (offset, _, bytes) in parts.iter() {
                if *offset != whole.len() {
                    return None;
                }
                whole.extend_from_slice(bytes);
            }
            if parts.last()?.1 {
                return None;
            }
            self.partial.remove(&(from, key));
            whole
        };
        let udp = UdpPacket::new_checked(&whole[..]).unwrap();
        assert!(udp.verify_checksum(&from.into(), &to.into()), "the UDP checksum");
        assert_eq!(to, guest_address(from));
        Some(Datagram {
            from: SocketAddr::new(from, udp.src_port()),
            to_port: udp.dst_port(),
            payload: udp.payload().to_vec(),
        })
    }

    /// Asks and expects the answer from where it was asked.
    #[track_caller]
    fn ask(&mut self, port: u16, to: SocketAddr, message: &[u8]) -> Vec<u8> {
        self.send(port, to, message);
        self.expect(port, to)
    }

    #[track_caller]
    fn expect(&mut self, port: u16, from: SocketAddr) -> Vec<u8> {
        let datagram = self.receive(PATIENCE).expect("an answer");
        assert_eq!((datagram.from, datagram.to_port), (from, port));
        datagram.payload
    }
}

fn builder(upstreams: &[&Upstream]) -> Builder {
    let servers = upstreams.iter().map(|upstream| upstream.address).collect();
    Runtime::builder().dns(Dns::Servers(servers))
}

fn start(builder: Builder) -> (Runtime, Resolver) {
    let (runtime, wire) = wire::start(builder);
    (runtime, Resolver::new(wire))
}

/// One upstream and a gateway that asks it.
fn lab() -> (Upstream, Runtime, Resolver) {
    let upstream = Upstream::new();
    let (runtime, guest) = start(builder(&[&upstream]));
    (upstream, runtime, guest)
}

/// Passes one query up and its answer back, and compares all but the id.
#[track_caller]
fn pass(upstream: &Upstream, guest: &mut Resolver, to: SocketAddr, message: &[u8], reply: &[u8]) {
    guest.send(5353, to, message);
    let (seen, from) = upstream.receive();
    assert_eq!(with_id(&seen, id(message)), message, "the upstream sees what the guest sent");
    upstream.send(&with_id(reply, id(&seen)), from);
    assert!(guest.expect(5353, to) == with_id(reply, id(message)), "the guest sees the answer");
}

// --- RFC 5625 ----------------------------------------------------------------------------------

#[test]
fn rfc_5625_4_1_unknown_flags_pass() {
    let (upstream, _runtime, mut guest) = lab();
    for to in [gateway_v4(), (GATEWAY_V6, 53).into()] {
        for flags in 0..=255 {
            let mut message = query(u16::from(flags) << 8 | 7, "example.com", A);
            // RD, RA, Z, AD, CD and a response code; a standard query.
            message[2] |= flags & 7;
            message[3] = flags;
            let mut reply = answer(&message, NOERROR, &[[192, 0, 2, 1]]);
            // The codes that mean "ask another" are not passed on so simply.
            reply[3] = if matches!(flags & 15, 2 | 5) { flags & 0xf0 } else { flags };
            pass(&upstream, &mut guest, to, &message, &reply);
        }
    }
}

#[test]
fn rfc_5625_4_2_names_pass_compressed_or_not() {
    let (upstream, _runtime, mut guest) = lab();
    let message = query(7, "www.Example.com", A);
    let compressed = answer(&message, NOERROR, &[[192, 0, 2, 1]]);
    pass(&upstream, &mut guest, gateway_v4(), &message, &compressed);
    let mut plain = answer(&message, NOERROR, &[]);
    plain[7] = 1;
    plain.extend_from_slice(&labels("WWW.example.COM"));
    plain.extend_from_slice(&[0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    pass(&upstream, &mut guest, gateway_v4(), &message, &plain);
}

#[test]
fn rfc_5625_4_3_any_type_and_class_passes() {
    let (upstream, _runtime, mut guest) = lab();
    for (qtype, class) in [(65_280, 1), (255, 255), (TXT, 3), (64, 1), (41, 1), (0, 0), (250, 9)] {
        let mut message = query(7, "example.com", qtype);
        let end = message.len();
        message[end - 2..].copy_from_slice(&u16::to_be_bytes(class));
        let mut reply = answer(&message, NOERROR, &[]);
        reply[7] = 1;
        reply.extend_from_slice(&[0xc0, 12, 0xff, 0, 0xff, 0, 1, 2, 3, 4, 0, 3, 9, 9, 9]);
        pass(&upstream, &mut guest, gateway_v4(), &message, &reply);
    }
}

#[test]
fn rfc_5625_4_4_answers_are_never_cut_and_tc_stays() {
    let (upstream, _runtime, mut guest) = lab();
    for to in [gateway_v4(), (GATEWAY_V6, 53).into()] {
        for len in [512, 513, 600, 1232, 1472, 1473, 4096, 16_000, 65_507] {
            let message = with_opt(query(7, "example.com", TXT), 65_535, &[]);
            let mut reply = long_answer(&message, len);
            pass(&upstream, &mut guest, to, &message, &reply);
            reply[2] |= 2;
            pass(&upstream, &mut guest, to, &message, &reply);
        }
    }
}

#[test]
fn rfc_5625_4_4_2_edns_passes() {
    let (upstream, _runtime, mut guest) = lab();
    // A cookie, an empty NSID, a client subnet and an option that nobody knows.
    let options = [
        &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8][..],
        &[0, 3, 0, 0],
        &[0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2],
        &[0xff, 0, 0, 1, 42],
    ]
    .concat();
    for size in [0, 512, 4096, 65_535] {
        let message = with_opt(query(7, "example.com", A), size, &options);
        let reply = with_opt(answer(&message, NOERROR, &[[192, 0, 2, 1]]), 1232, &options);
        pass(&upstream, &mut guest, gateway_v4(), &message, &reply);
    }
}

/// TSIG signs the id that its own record holds (RFC 8945 section 4.2), so another id in the header
/// harms nothing as long as the record stays.
#[test]
fn rfc_5625_4_5_tsig_passes_unchanged() {
    let (upstream, _runtime, mut guest) = lab();
    let signed = |mut message: Vec<u8>| {
        message[11] += 1;
        message.extend_from_slice(&labels("key.example"));
        message.extend_from_slice(&[0, 250, 0, 255, 0, 0, 0, 0]);
        let data = [&labels("hmac-sha256")[..], &[0, 0, 1, 2, 3, 4, 1, 44, 0, 4], &[0xaa; 4]];
        let data = [&data.concat()[..], &[0xbe, 0xef, 0, 0, 0, 0]].concat();
        message.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend_from_slice(&data);
        message
    };
    let message = signed(query(0xbeef, "example.com", A));
    let reply = signed(answer(&message, NOERROR, &[[192, 0, 2, 1]]));
    pass(&upstream, &mut guest, gateway_v4(), &message, &reply);
}

// --- RFC 5452 ----------------------------------------------------------------------------------

#[test]
fn rfc_5452_9_1_lies_do_not_reach_the_guest() {
    let (upstream, liar) = (Upstream::new(), Upstream::new());
    let (runtime, mut guest) = start(builder(&[&upstream]));
    guest.send(5353, gateway_v4(), &query(7, "example.com", A));
    let (seen, from) = upstream.receive();
    let lie = [[192, 0, 2, 66]];
    liar.send(&answer(&seen, NOERROR, &lie), from);
    let others = [("example.org", A), ("example.com", AAAA)];
    for (name, qtype) in others {
        upstream.send(&answer(&query(id(&seen), name, qtype), NOERROR, &lie), from);
    }
    upstream.send(&with_id(&answer(&seen, NOERROR, &lie), id(&seen) ^ 0x100), from);
    upstream.send(&seen, from);
    upstream.send(&answer(&seen, NOERROR, &[[192, 0, 2, 1]]), from);
    let reply = guest.expect(5353, gateway_v4());
    assert_eq!(first_data(&reply).unwrap(), [192, 0, 2, 1]);
    assert!(guest.receive(SILENCE).is_none(), "one answer");
    let stats = runtime.stats();
    assert_eq!((stats.dns_queries, stats.dns_answers, stats.dns_mismatched), (1, 1, 4));
}

#[test]
fn rfc_5452_9_2_two_gateways_use_other_ids_and_ports() {
    let seen: Vec<Vec<(u16, u16)>> = (0..2)
        .map(|_| {
            let (upstream, _runtime, guest) = lab();
            (0..20)
                .map(|port| {
                    guest.send(port + 1, gateway_v4(), &query(7, "example.com", A));
                    let (message, from) = upstream.receive();
                    (id(&message), from.port())
                })
                .collect()
        })
        .collect();
    assert_ne!(seen[0], seen[1]);
    let ids: HashSet<u16> = seen[0].iter().map(|(id, _)| *id).collect();
    let ports: HashSet<u16> = seen[0].iter().map(|(_, port)| *port).collect();
    assert!(ids.len() > 10, "20 random ids: {ids:?}");
    assert_eq!(ports.len(), 20, "each query has its port");
}

// --- Many, and repeated ------------------------------------------------------------------------

#[test]
fn a_thousand_queries_at_once_are_answered() {
    let (upstream, runtime, mut guest) = lab();
    let socket = upstream.udp.try_clone().unwrap();
    let server = thread::spawn(move || {
        let mut waiting = Vec::new();
        let mut buffer = [0; 2048];
        for _ in 0..1000 {
            let (n, from) = socket.recv_from(&mut buffer).unwrap();
            waiting.push((answer(&buffer[..n], NOERROR, &[[192, 0, 2, 1]]), from));
            // Not all of them in the end: the socket's buffer is not that large.
            if waiting.len() == 100 {
                for (reply, from) in waiting.drain(..).rev() {
                    socket.send_to(&reply, from).unwrap();
                }
            }
        }
    });
    let mut asked = 0;
    let mut answered = HashSet::new();
    while answered.len() < 1000 {
        if asked < 1000 {
            let frames: Vec<Vec<u8>> = (asked..asked + 50)
                .map(|n| {
                    let message = query(n, &format!("host{n}.example"), A);
                    Resolver::frame(1000 + n % 7, gateway_v4(), &message)
                })
                .collect();
            guest.wire.send_all(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
            asked += 50;
        }
        let limit = if asked < 1000 { Duration::ZERO } else { PATIENCE };
        while let Some(datagram) = guest.receive(limit) {
            let n = id(&datagram.payload);
            assert_eq!(datagram.to_port, 1000 + n % 7);
            assert_eq!(
                datagram.payload[13..],
                query(n, &format!("host{n}.example"), A)[13..]
                    .iter()
                    .copied()
                    .chain([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1])
                    .collect::<Vec<_>>()
            );
            assert!(answered.insert(n), "{n} twice");
            if answered.len() == 1000 {
                break;
            }
        }
    }
    server.join().unwrap();
    assert_eq!(runtime.stats().dns_answers, 1000);
    assert_eq!(runtime.stats().dns_failures, 0);
}

#[test]
fn a_query_above_the_limit_is_servfail_and_the_others_live() {
    let upstream = Upstream::new();
    let mut limits = Limits::default();
    limits.dns_queries = 2;
    let (runtime, mut guest) = start(builder(&[&upstream]).limits(limits));
    for n in 0..2 {
        guest.send(1000, gateway_v4(), &query(n, "example.com", A));
    }
    let refused = guest.ask(1000, gateway_v4(), &query(2, "example.com", A));
    assert_eq!((id(&refused), rcode(&refused)), (2, SERVFAIL));
    assert_eq!(runtime.stats().dropped(DropReason::DnsLimit), 1);
    for n in 0..2 {
        let (seen, from) = upstream.receive();
        upstream.send(&answer(&seen, NOERROR, &[[192, 0, 2, 1]]), from);
        assert_eq!(id(&guest.expect(1000, gateway_v4())), n);
    }
}

/// Without descriptors a query is SERVFAIL and counted; those under way are answered, and then there
/// are descriptors again.
#[test]
fn without_descriptors_queries_fail_and_the_forwarder_recovers() {
    if !support_guest::alone_after(
        "without_descriptors_queries_fail_and_the_forwarder_recovers",
        "ulimit -n 40",
    ) {
        return;
    }
    let (upstream, runtime, mut guest) = lab();
    for n in 0..60 {
        guest.send(1000, gateway_v4(), &query(n, "example.com", A));
    }
    let mut failed = 0;
    // Each is answered as soon as it is read: after the second all failures are here.
    let mut garbled = query(99, "example.com", A);
    garbled[5] = 2;
    for _ in 0..2 {
        guest.send(1000, gateway_v4(), &garbled);
        loop {
            match rcode(&guest.expect(1000, gateway_v4())) {
                FORMERR => break,
                code => assert_eq!(code, SERVFAIL),
            }
            failed += 1;
        }
    }
    assert!((20..60).contains(&failed), "{failed}");
    assert_eq!(runtime.stats().dropped(DropReason::HostResource), failed);
    for _ in failed..60 {
        let (seen, from) = upstream.receive();
        upstream.send(&answer(&seen, NOERROR, &[]), from);
        assert_eq!(rcode(&guest.expect(1000, gateway_v4())), NOERROR);
    }
    let message = query(7, "example.com", A);
    pass(&upstream, &mut guest, gateway_v4(), &message, &answer(&message, NOERROR, &[]));
}

#[test]
fn a_guest_that_repeats_itself_is_asked_for_once() {
    let (upstream, runtime, mut guest) = lab();
    let message = query(7, "example.com", A);
    for _ in 0..50 {
        guest.send(5353, gateway_v4(), &message);
    }
    let (seen, from) = upstream.receive();
    upstream.send(&answer(&seen, NOERROR, &[]), from);
    guest.expect(5353, gateway_v4());
    // Those that came after the answer are queries of their own, if any did.
    let stats = runtime.stats();
    assert!(stats.dns_repeated > 0, "{stats}");
}

// --- What the guest does wrong -----------------------------------------------------------------

/// RUSTSEC-2023-0041: two forwarders that answer answers never stop.
#[test]
fn a_response_from_the_guest_is_dropped() {
    let (upstream, runtime, mut guest) = lab();
    let message = query(7, "example.com", A);
    guest.send(53, gateway_v4(), &answer(&message, NOERROR, &[[192, 0, 2, 1]]));
    guest.send(53, gateway_v4(), &[]);
    guest.send(53, gateway_v4(), &message[..11]);
    let mut garbled = message.clone();
    garbled[5] = 2;
    let reply = guest.ask(53, gateway_v4(), &garbled);
    assert_eq!((id(&reply), rcode(&reply), reply.len()), (7, FORMERR, 12));
    assert!(!upstream.is_asked());
    assert_eq!(runtime.stats().dropped(DropReason::Dns), 4);
}

// --- Names of the gateway's own ----------------------------------------------------------------

#[test]
fn the_host_has_a_name_where_its_loopback_is_allowed() {
    let upstream = Upstream::new();
    let (runtime, mut guest) = start(builder(&[&upstream]).host_loopback(true));
    let reply = guest.ask(1, gateway_v4(), &query(7, "Host.Framegate.Internal", A));
    assert_eq!(first_data(&reply).unwrap(), GATEWAY_V4.octets());
    let reply = guest.ask(1, gateway_v4(), &query(7, "host.framegate.internal", AAAA));
    assert_eq!(first_data(&reply).unwrap(), GATEWAY_V6.octets());
    let reply = guest.ask(1, gateway_v4(), &query(7, "host.framegate.internal", TXT));
    assert_eq!((rcode(&reply), first_data(&reply)), (NOERROR, None));
    let reply = guest.ask(1, gateway_v4(), &query(7, "1.0.96.100.in-addr.arpa", 12));
    assert_eq!(first_data(&reply).unwrap(), labels("host.framegate.internal"));
    assert!(!upstream.is_asked());
    assert_eq!(runtime.stats().dns_local, 4);
}

#[test]
fn the_gateways_names_never_go_upstream() {
    let (upstream, _runtime, mut guest) = lab();
    for name in ["host.framegate.internal", "x.framegate.internal", "a.b.FRAMEGATE.internal"] {
        let reply = guest.ask(1, gateway_v4(), &query(7, name, A));
        assert_eq!((rcode(&reply), first_data(&reply)), (NXDOMAIN, None), "{name}");
    }
    let reply = guest.ask(1, gateway_v4(), &query(7, "framegate.internal", A));
    assert_eq!((rcode(&reply), first_data(&reply)), (NOERROR, None));
    assert!(!upstream.is_asked());
}

#[test]
fn records_of_the_embedder_are_answered() {
    let upstream = Upstream::new();
    let builder = builder(&[&upstream])
        .dns_record("db.test.", [192, 0, 2, 7].into())
        .dns_record("meta.framegate.internal", [192, 0, 2, 8].into());
    let (_runtime, mut guest) = start(builder);
    for (name, last) in [("DB.test", 7), ("meta.framegate.internal", 8)] {
        let reply = guest.ask(1, gateway_v4(), &query(7, name, A));
        assert_eq!(first_data(&reply).unwrap(), [192, 0, 2, last]);
    }
    assert!(!upstream.is_asked());
}

#[test]
fn a_configuration_without_sense_is_refused() {
    assert!(Runtime::builder().dns(Dns::Servers(vec![])).check().is_err());
    for name in ["", "a b", "..", "bücher.example"] {
        let builder = Runtime::builder().dns_record(name, [192, 0, 2, 1].into());
        assert!(builder.check().is_err(), "{name:?}");
    }
}

// --- Where it answers --------------------------------------------------------------------------

#[test]
fn any_address_is_answered_with_interception_and_in_its_name() {
    let upstream = Upstream::new();
    let (_runtime, mut guest) = start(builder(&[&upstream]).dns_intercept(true));
    for to in ["8.8.8.8:53", "[2001:db8::53]:53", "100.96.0.1:53"] {
        let to = to.parse().unwrap();
        let message = query(7, "example.com", A);
        let reply = answer(&message, NOERROR, &[[192, 0, 2, 1]]);
        pass(&upstream, &mut guest, to, &message, &reply);
    }
}

#[test]
fn off_means_off() {
    let (runtime, mut guest) = start(Runtime::builder().dns(Dns::Off).dns_intercept(true));
    guest.send(1, gateway_v4(), &query(7, "host.framegate.internal", A));
    assert!(guest.receive(SILENCE).is_none());
    assert_eq!(runtime.stats().dns_queries, 0);
}

// --- Upstreams that come and go ----------------------------------------------------------------

#[test]
fn upstreams_are_asked_in_order_and_the_dead_are_remembered() {
    let (gone, live) = (Upstream::new(), Upstream::new());
    let builder = builder(&[&gone, &live]);
    drop(gone);
    let (runtime, mut guest) = start(builder);
    for n in 0..3 {
        guest.send(n + 1, gateway_v4(), &query(n, "example.com", A));
        let (seen, from) = live.receive();
        live.send(&answer(&seen, NOERROR, &[[192, 0, 2, 1]]), from);
        assert_eq!(id(&guest.expect(n + 1, gateway_v4())), n);
    }
    assert_eq!(runtime.stats().dns_timeouts, 0, "a refusal is heard at once");
}

#[test]
fn a_silent_upstream_gives_way_and_others_are_not_held_up() {
    let (silent, live) = (Upstream::new(), Upstream::new());
    let (runtime, mut guest) = start(builder(&[&silent, &live]).host_loopback(true));
    guest.send(1, gateway_v4(), &query(1, "example.com", A));
    let (first, _) = silent.receive();
    let reply = guest.ask(2, gateway_v4(), &query(2, "host.framegate.internal", A));
    assert_eq!(rcode(&reply), NOERROR, "the poll loop waits for nobody");
    let (seen, from) = live.receive();
    assert_eq!(seen[2..], first[2..]);
    live.send(&answer(&seen, NOERROR, &[[192, 0, 2, 1]]), from);
    assert_eq!(id(&guest.expect(1, gateway_v4())), 1);
    assert_eq!(runtime.stats().dns_timeouts, 1);
    guest.send(3, gateway_v4(), &query(3, "example.com", A));
    let (seen, from) = live.receive();
    live.send(&answer(&seen, NOERROR, &[]), from);
    assert_eq!(id(&guest.expect(3, gateway_v4())), 3);
    assert!(!silent.is_asked(), "it is asked last now");
}

#[test]
fn without_any_answer_the_guest_hears_servfail() {
    let (silent, runtime, mut guest) = lab();
    let reply = guest.ask(1, gateway_v4(), &query(1, "example.com", A));
    assert_eq!(rcode(&reply), SERVFAIL);
    assert!(silent.is_asked());
    assert_eq!(runtime.stats().dns_failures, 1);
}

#[test]
fn the_hosts_resolver_file_is_followed_while_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let (runtime, mut guest) = start(Runtime::builder().resolver_file(&path));
    // Upstreams of the file have port 53, which the test has not: refused, or answered by somebody
    // else's server, never silent. An address that nobody has would be.
    let mut ask = |n: u16| rcode(&guest.ask(n + 1, gateway_v4(), &query(n, "example.invalid", A)));
    assert_eq!(ask(0), SERVFAIL, "no file");
    let before = runtime.stats().dns_failures;
    assert_eq!(before, 1);
    fs::write(&path, "# nothing\nnameserver\nnameserver garbage\n").unwrap();
    assert_eq!(ask(1), SERVFAIL, "no nameserver");
    assert_eq!(runtime.stats().dns_failures, 2);
    assert_eq!(runtime.stats().dns_timeouts, 0, "both at once");
}

// --- TCP ---------------------------------------------------------------------------------------

#[test]
fn rfc_5625_4_4_1_tcp_carries_the_largest_message_both_ways() {
    let upstream = Upstream::new();
    let (runtime, wire) = wire::start(builder(&[&upstream]));
    let mut guest = Guest::new(wire);
    let mut message = query(7, "example.com", TXT);
    message[11] = 1;
    message.resize(65_535, 0);
    let expected = message.clone();
    let server = thread::spawn(move || {
        let mut stream = upstream.accept();
        let seen = read_message(&mut stream);
        assert!(with_id(&seen, 7) == expected);
        let reply = long_answer(&seen, 65_535);
        stream.write_all(&with_length(&reply)).unwrap();
        reply
    });
    let handle = guest.connect(gateway_v4());
    guest.send(handle, &with_length(&message));
    let reply = guest.read_exact(handle, 2 + 65_535);
    let sent = server.join().unwrap();
    assert!(reply == with_length(&with_id(&sent, 7)));
    guest.finish(handle);
    let (rest, clean) = guest.read_to_end(handle);
    assert!(rest.is_empty() && clean, "the guest's end is answered with the end");
    assert_eq!(runtime.stats().dns_queries, 1);
    assert_eq!(runtime.stats().dns_answers, 1);
}

#[test]
fn rfc_5625_4_4_1_the_length_may_come_byte_by_byte() {
    let upstream = Upstream::new();
    let (_runtime, wire) = wire::start(builder(&[&upstream]));
    let mut guest = Guest::new(wire);
    let server = thread::spawn(move || {
        let mut stream = upstream.accept();
        let seen = read_message(&mut stream);
        for byte in with_length(&answer(&seen, NOERROR, &[[192, 0, 2, 1]])) {
            stream.write_all(&[byte]).unwrap();
        }
    });
    let handle = guest.connect(gateway_v4());
    let message = query(7, "example.com", A);
    for byte in with_length(&message) {
        guest.send(handle, &[byte]);
    }
    let reply = answer(&message, NOERROR, &[[192, 0, 2, 1]]);
    assert_eq!(guest.read_exact(handle, 2 + reply.len()), with_length(&reply));
    server.join().unwrap();
}

/// RFC 7766 section 6.2.1.1 and 7: many queries at once, answers in any order.
#[test]
fn rfc_7766_7_pipelined_queries_are_answered_in_any_order() {
    let upstream = Upstream::new();
    let (runtime, wire) = wire::start(builder(&[&upstream]).host_loopback(true));
    let mut guest = Guest::new(wire);
    let server = thread::spawn(move || {
        // More than a connection may have under way: they come as others are answered.
        for _ in 0..5 {
            let mut waiting: Vec<(TcpStream, Vec<u8>)> = (0..8)
                .map(|_| {
                    let mut stream = upstream.accept();
                    let seen = read_message(&mut stream);
                    (stream, seen)
                })
                .collect();
            for (stream, seen) in waiting.iter_mut().rev() {
                stream.write_all(&with_length(&answer(seen, NOERROR, &[]))).unwrap();
            }
        }
    });
    let handle = guest.connect(gateway_v4());
    let mut all = Vec::new();
    for n in 0..40 {
        all.extend(with_length(&query(n, &format!("host{n}.example"), A)));
    }
    all.extend(with_length(&query(1000, "host.framegate.internal", A)));
    guest.send(handle, &all);
    guest.finish(handle);
    let (mut replies, clean) = guest.read_to_end(handle);
    assert!(clean, "the end comes after the last answer");
    let mut order = Vec::new();
    while !replies.is_empty() {
        let length = usize::from(u16::from_be_bytes([replies[0], replies[1]]));
        let rest = replies.split_off(2 + length);
        order.push(id(&replies[2..]));
        replies = rest;
    }
    server.join().unwrap();
    assert_eq!(order.len(), 41);
    assert_eq!(order.iter().collect::<HashSet<_>>().len(), 41);
    assert!(!order.is_sorted(), "{order:?}");
    assert_eq!(runtime.stats().dns_answers, 41);
}

#[test]
fn a_response_over_tcp_resets_the_connection() {
    let upstream = Upstream::new();
    let (runtime, wire) = wire::start(builder(&[&upstream]));
    let mut guest = Guest::new(wire);
    for message in [answer(&query(7, "example.com", A), NOERROR, &[]), vec![], vec![1, 2, 3]] {
        let handle = guest.connect(gateway_v4());
        guest.send(handle, &with_length(&message));
        let (rest, clean) = guest.read_to_end(handle);
        assert!(rest.is_empty() && !clean);
    }
    assert_eq!(runtime.stats().dropped(DropReason::Dns), 3);
}

#[test]
fn connections_above_the_limit_are_refused_and_make_way_when_they_close() {
    let upstream = Upstream::new();
    let mut limits = Limits::default();
    limits.dns_connections = 2;
    let (runtime, wire) = wire::start(builder(&[&upstream]).limits(limits));
    let mut guest = Guest::new(wire);
    let first = guest.connect(gateway_v4());
    let _second = guest.connect(gateway_v4());
    let third = guest.dial(gateway_v4());
    guest.until("the refusal", |guest| guest.state(third) == smoltcp::socket::tcp::State::Closed);
    assert_eq!(runtime.stats().dropped(DropReason::DnsLimit), 1);
    guest.socket(first).abort();
    guest.until("room", |_| runtime.stats().tcp_flows == 1);
    guest.connect(gateway_v4());
}

#[test]
fn interception_takes_tcp_too() {
    let upstream = Upstream::new();
    let (_runtime, wire) = wire::start(builder(&[&upstream]).dns_intercept(true));
    let mut guest = Guest::new(wire);
    let server = thread::spawn(move || {
        let mut stream = upstream.accept();
        let seen = read_message(&mut stream);
        stream.write_all(&with_length(&answer(&seen, NXDOMAIN, &[]))).unwrap();
    });
    let handle = guest.connect("8.8.8.8:53".parse().unwrap());
    let message = query(7, "example.com", A);
    guest.send(handle, &with_length(&message));
    let reply = guest.read_exact(handle, 2 + message.len());
    assert_eq!(rcode(&reply[2..]), NXDOMAIN);
    server.join().unwrap();
}

#[test]
fn a_zone_transfer_over_tcp_is_refused() {
    let upstream = Upstream::new();
    let (_runtime, wire) = wire::start(builder(&[&upstream]));
    let mut guest = Guest::new(wire);
    let handle = guest.connect(gateway_v4());
    let message = query(7, "example.com", 252);
    guest.send(handle, &with_length(&message));
    let reply = guest.read_exact(handle, 2 + message.len());
    assert_eq!(rcode(&reply[2..]), 5);
}

/// A guest that asks and reads nothing holds what its connection may hold, and no more; others go on.
#[test]
fn answers_that_nobody_reads_stop_their_own_connection_alone() {
    let upstream = Upstream::new();
    let (runtime, wire) = wire::start(builder(&[&upstream]));
    let mut guest = Guest::new(wire);
    guest.buffer = 16 * 1024;
    let server = thread::spawn(move || {
        let mut served = 0;
        loop {
            let mut stream = upstream.accept();
            let seen = read_message(&mut stream);
            if id(&seen[..2]) == id(&seen) && seen[13..].starts_with(b"last") {
                stream.write_all(&with_length(&answer(&seen, NOERROR, &[]))).unwrap();
                return served;
            }
            served += 1;
            stream.write_all(&with_length(&long_answer(&seen, 60_000))).unwrap();
        }
    });
    let greedy = guest.connect(gateway_v4());
    let mut all = Vec::new();
    for n in 0..200 {
        all.extend(with_length(&query(n, "greedy.example", TXT)));
    }
    guest.send(greedy, &all);
    guest.until("answers", |_| runtime.stats().dns_answers >= 2);
    guest.live(Duration::from_millis(300));
    let other = guest.connect(gateway_v4());
    let message = query(7, "last.example", A);
    guest.send(other, &with_length(&message));
    assert_eq!(guest.read_exact(other, 2 + message.len())[2..4], [0, 7]);
    let served = server.join().unwrap();
    // The guest's 16 KiB and the window of the flow besides.
    assert!(served < 60, "{served} answers of 60,000 bytes are held");
}
