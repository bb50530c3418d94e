//! UDP, echo and fragments through the gateway, against servers on the host's loopback. A test that is
//! named after a requirement enforces it; what needs a network beyond the host is in `tests/netns.rs`.

#![cfg(all(feature = "runtime", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support_guest;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use framegate::{Builder, DropReason, Limits, Runtime, UdpFiltering};

use support_guest::host::descriptors;
use support_guest::raw::{SYN, Segment};
use support_guest::udp::{
    Datagram, Peer, Seen, echo, fragments, icmp, icmp_body, quoted, set_hop_limit,
};
use support_guest::{
    GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, PATIENCE, alone, alone_after, assert_same,
    guest_address, pattern,
};

fn loopback() -> Builder {
    Runtime::builder().host_loopback(true)
}

fn with_limits(change: impl FnOnce(&mut Limits)) -> Builder {
    let mut limits = Limits::default();
    change(&mut limits);
    loopback().limits(limits)
}

/// A server on the loopback, and where the guest finds it.
struct Server {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Server {
    fn new() -> Self {
        Self::bound(false)
    }

    fn ipv6() -> Self {
        Self::bound(true)
    }

    fn bound(ipv6: bool) -> Self {
        let (host, gateway): (_, IpAddr) =
            if ipv6 { ("[::1]:0", GATEWAY_V6.into()) } else { ("127.0.0.1:0", GATEWAY_V4.into()) };
        let socket = UdpSocket::bind(host).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self { socket, address: SocketAddr::new(gateway, port) }
    }

    #[track_caller]
    fn receive(&self) -> (SocketAddr, Vec<u8>) {
        let mut bytes = vec![0; 70_000];
        let (len, from) = self.socket.recv_from(&mut bytes).unwrap();
        bytes.truncate(len);
        (from, bytes)
    }

    /// Whether nothing waits.
    fn is_quiet(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let result = self.socket.recv_from(&mut [0; 1]);
        self.socket.set_nonblocking(false).unwrap();
        result.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }
}

/// Both families.
fn servers() -> [Server; 2] {
    [Server::new(), Server::ipv6()]
}

// --- The mapping -------------------------------------------------------------------------------

#[test]
fn datagrams_pass_both_ways() {
    for server in servers() {
        let (_runtime, mut guest) = Peer::start(loopback());
        guest.send(4000, server.address, b"question");
        let (mapped, payload) = server.receive();
        assert_eq!(payload, b"question");
        server.socket.send_to(b"answer", mapped).unwrap();
        assert_eq!(guest.datagram(), (server.address, 4000, b"answer".to_vec()));
    }
}

#[test]
fn rfc_4787_req_1_the_mapping_does_not_depend_on_the_destination() {
    let (one, two) = (Server::new(), Server::new());
    let (runtime, guest) = Peer::start(loopback());
    for round in 0..3 {
        guest.send(4000, one.address, &[round]);
        guest.send(4000, two.address, &[round]);
    }
    let mapped: HashSet<_> = (0..3).flat_map(|_| [one.receive().0, two.receive().0]).collect();
    assert_eq!(mapped.len(), 1, "one external endpoint for all destinations");
    assert_eq!(runtime.stats().udp_mappings, 1);
    guest.send(4001, one.address, b"another");
    assert!(!mapped.contains(&one.receive().0), "another endpoint of the guest has its own");
}

#[test]
fn rfc_4787_req_3_no_two_endpoints_share_an_external_port() {
    let server = Server::new();
    let (_runtime, guest) = Peer::start(loopback());
    let mut mapped = HashSet::new();
    for port in 10_000..10_300 {
        guest.send(port, server.address, b"x");
        assert!(mapped.insert(server.receive().0));
    }
}

#[test]
fn rfc_4787_req_5_a_mapping_lasts_five_minutes_by_default_and_thirty_seconds_for_dns() {
    let limits = Limits::default();
    assert_eq!(limits.udp_idle, Duration::from_secs(300));
    assert_eq!(limits.udp_dns_idle, Duration::from_secs(30));
    assert!(limits.ping_idle >= Duration::from_secs(60), "RFC 5508 REQ-2");
}

#[test]
fn rfc_4787_req_5_a_silent_mapping_ends() {
    let server = Server::new();
    let (runtime, mut guest) =
        Peer::start(with_limits(|limits| limits.udp_idle = Duration::from_millis(50)));
    guest.send(4000, server.address, b"x");
    let (mapped, _) = server.receive();
    guest.until(&runtime, |stats| stats.udp_mappings == 0);
    // Nobody has the port any more.
    server.socket.send_to(b"late", mapped).unwrap();
    assert!(guest.barrier().is_empty());
    guest.send(4000, server.address, b"y");
    assert_eq!(server.receive().1, b"y");
    assert_eq!(runtime.stats().udp_opened, 2);
}

#[test]
fn time_outs_may_be_as_long_as_there_are_numbers() {
    let server = Server::new();
    let (_runtime, mut guest) = Peer::start(with_limits(|limits| {
        limits.udp_idle = Duration::MAX;
        limits.udp_dns_idle = Duration::MAX;
        limits.ping_idle = Duration::MAX;
    }));
    guest.send(4000, server.address, b"question");
    let (mapped, _) = server.receive();
    server.socket.send_to(b"answer", mapped).unwrap();
    assert_eq!(guest.datagram(), (server.address, 4000, b"answer".to_vec()));
}

#[test]
fn rfc_4787_req_8_filtering_is_address_dependent_by_default() {
    let (server, other) = (Server::new(), Server::new());
    let (runtime, mut guest) = Peer::start(loopback());
    guest.send(4000, server.address, b"x");
    let (mapped, _) = server.receive();
    // Another port of the same address passes.
    other.socket.send_to(b"same address", mapped).unwrap();
    assert_eq!(guest.datagram(), (other.address, 4000, b"same address".to_vec()));
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    stranger.send_to(b"another address", mapped).unwrap();
    guest.until(&runtime, |stats| stats.dropped(DropReason::Filtered) == 1);
    assert!(guest.barrier().is_empty());
}

#[test]
fn rfc_4787_req_8_endpoint_independent_filtering_opens_no_way_in_from_the_loopback() {
    let server = Server::new();
    let builder = loopback().udp_filtering(UdpFiltering::EndpointIndependent);
    let (runtime, mut guest) = Peer::start(builder);
    guest.send(4000, server.address, b"x");
    let (mapped, _) = server.receive();
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    stranger.send_to(b"a martian", mapped).unwrap();
    guest.until(&runtime, |stats| stats.dropped(DropReason::Filtered) == 1);
}

#[test]
fn rfc_4787_req_10_payloads_pass_unchanged_on_the_ports_of_applications() {
    // What the gateways of old rewrote.
    let texts: [&[u8]; 4] = [
        b"PORT 100,96,0,2,15,160\r\n",
        b"INVITE sip:a@100.96.0.2 SIP/2.0\r\nVia: SIP/2.0/UDP 100.96.0.2:5060\r\n\r\n",
        b"\x01DCC SEND a 1683619842 4000\x01",
        b"4000, 21\r\n",
    ];
    let server = Server::new();
    let (_runtime, mut guest) = Peer::start(loopback());
    for port in [21, 69, 113, 194, 5060, 6667] {
        for text in texts {
            guest.send(port, server.address, text);
            let (mapped, payload) = server.receive();
            assert_eq!(payload, text);
            server.socket.send_to(text, mapped).unwrap();
            assert_eq!(guest.datagram(), (server.address, port, text.to_vec()));
        }
    }
}

#[test]
fn rfc_4787_req_12_errors_do_not_end_a_mapping() {
    for ipv6 in [false, true] {
        let (live, dead) = (Server::bound(ipv6), Server::bound(ipv6));
        let closed = dead.address;
        drop(dead);
        let (runtime, mut guest) = Peer::start(loopback());
        guest.send(4000, live.address, b"before");
        let (mapped, _) = live.receive();
        for _ in 0..10 {
            guest.send(4000, closed, b"nobody");
            let Seen::Icmp { .. } = guest.next() else { panic!("no error") };
        }
        guest.send(4000, live.address, b"after");
        assert_eq!(live.receive(), (mapped, b"after".to_vec()));
        live.socket.send_to(b"back", mapped).unwrap();
        assert_eq!(guest.datagram().2, b"back");
        assert_eq!(runtime.stats().udp_opened, 1);
    }
}

/// RFC 4787 REQ-12 and RFC 5508 REQ-4: what makes a connected socket of the guest say ECONNREFUSED.
#[test]
fn a_closed_port_is_unreachable_with_the_guest_s_own_datagram_as_evidence() {
    for ipv6 in [false, true] {
        let closed = Server::bound(ipv6).address;
        let (runtime, mut guest) = Peer::start(loopback());
        guest.send(4000, closed, b"is anybody there?");
        let Seen::Icmp { from, kind, code, rest, quote } = guest.next() else { panic!() };
        assert_eq!((from, rest), (closed.ip(), 0));
        assert_eq!((kind, code), if ipv6 { (1, 4) } else { (3, 3) });
        let source = SocketAddr::new(guest_address(closed.ip()), 4000);
        assert_eq!(quoted(&quote), (source, closed, b"is anybody there?".to_vec()));
        guest.until(&runtime, |stats| stats.icmp_errors == 1);
    }
}

#[test]
fn the_gateway_refuses_without_host_loopback() {
    let server = Server::new();
    let (runtime, mut guest) = Peer::start(Runtime::builder());
    guest.send(4000, server.address, b"let me in");
    let Seen::Icmp { from, kind: 3, code: 3, quote, .. } = guest.next() else { panic!() };
    assert_eq!(from, IpAddr::from(GATEWAY_V4));
    assert_eq!(quoted(&quote).1, server.address);
    assert_eq!(runtime.stats().dropped(DropReason::Policy), 1);
    assert_eq!(runtime.stats().udp_opened, 0, "a refused destination costs no socket");
    assert!(server.is_quiet());
}

#[test]
fn rfc_5508_req_8_a_prohibited_destination_is_said_to_be_prohibited() {
    let (runtime, mut guest) = Peer::start(loopback());
    for to in ["169.254.169.254:53", "100.100.100.200:80", "[fd00:ec2::254]:80"] {
        let to: SocketAddr = to.parse().unwrap();
        guest.send(4000, to, b"credentials, please");
        let Seen::Icmp { kind, code, quote, .. } = guest.next() else { panic!() };
        assert_eq!((kind, code), if to.is_ipv4() { (3, 13) } else { (1, 1) });
        assert_eq!(quoted(&quote).1, to);
    }
    guest.wire.send(&echo(Ipv4Addr::new(169, 254, 169, 254).into(), 1, 1, b"ping"));
    assert!(matches!(guest.next(), Seen::Icmp { kind: 3, code: 13, .. }));
    assert_eq!(runtime.stats().udp_opened, 0);
}

#[test]
fn a_mapping_is_in_the_list_of_flows() {
    let server = Server::new();
    let (runtime, mut guest) = Peer::start(loopback());
    guest.send(4000, server.address, b"twelve bytes");
    let (mapped, _) = server.receive();
    server.socket.send_to(b"four", mapped).unwrap();
    guest.datagram();
    let flows = runtime.handle().flows().unwrap();
    let [flow] = &flows[..] else { panic!("{flows:?}") };
    assert_eq!((flow.protocol, flow.remote), (framegate::Protocol::Udp, None));
    assert_eq!(flow.guest, SocketAddr::new(GUEST_V4.into(), 4000));
    assert_eq!((flow.bytes_to_host, flow.bytes_to_guest), (12, 4));
}

// --- Sizes -------------------------------------------------------------------------------------

#[test]
fn datagrams_of_every_size_pass_both_ways() {
    for server in servers() {
        let (_runtime, mut guest) = Peer::start(loopback());
        // A server of the loopback: 65,507 over IPv4, 20 bytes more over IPv6.
        let most = if server.address.is_ipv4() { 65_507 } else { 65_527 };
        for len in [0, 1, 1472, 1473, 2000, 8000, 65_000, most, 0, 5] {
            let payload = pattern(len);
            let datagram = Datagram::new(4000, server.address, &payload);
            if len <= 1452 {
                guest.wire.send(&datagram.frame());
            } else {
                for fragment in datagram.fragments(len as u16, 1448) {
                    guest.wire.send(&fragment);
                }
            }
            let (mapped, got) = server.receive();
            assert_same(&got, &payload);
            server.socket.send_to(&payload, mapped).unwrap();
            let (from, _, got) = guest.datagram();
            assert_eq!(from, server.address);
            assert_same(&got, &payload);
        }
    }
}

#[test]
fn an_empty_datagram_is_no_end_and_stops_nothing() {
    let server = Server::new();
    let (_runtime, mut guest) = Peer::start(loopback());
    for _ in 0..50 {
        guest.send(4000, server.address, b"");
        let (mapped, payload) = server.receive();
        assert_eq!(payload, b"");
        for payload in [&b""[..], b"", b"x", b""] {
            server.socket.send_to(payload, mapped).unwrap();
            assert_eq!(guest.datagram().2, payload);
        }
    }
}

#[test]
fn a_burst_of_a_thousand_datagrams_arrives_whole_and_in_order() {
    let server = Server::new();
    socket2::SockRef::from(&server.socket).set_recv_buffer_size(8 << 20).unwrap();
    let (runtime, mut guest) = Peer::start(loopback());
    guest.send(4000, server.address, b"open");
    let (mapped, _) = server.receive();
    let payloads: Vec<Vec<u8>> =
        (0..1000u16).map(|i| [&i.to_be_bytes()[..], &[7; 198]].concat()).collect();
    let frames: Vec<Vec<u8>> = payloads
        .iter()
        .map(|payload| Datagram::new(4000, server.address, payload).frame())
        .collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    guest.wire.send_all(&frames);
    for payload in &payloads {
        assert_eq!(&server.receive().1, payload);
    }
    for payload in &payloads {
        server.socket.send_to(payload, mapped).unwrap();
    }
    for payload in &payloads {
        assert_eq!(&guest.datagram().2, payload);
    }
    assert_eq!(runtime.stats().drops().count(), 0, "{}", runtime.stats());
}

#[test]
fn datagrams_wait_for_a_guest_that_reads_nothing_and_none_is_lost() {
    let server = Server::new();
    let (runtime, mut guest) = Peer::start(with_limits(|limits| {
        limits.queue_frames = 64;
        limits.queue_bytes = 1 << 18;
    }));
    guest.send(4000, server.address, b"open");
    let (mapped, _) = server.receive();
    // More than the queue holds; the rest stays with the kernel.
    for i in 0..40u8 {
        server.socket.send_to(&vec![i; 4000], mapped).unwrap();
    }
    for i in 0..40u8 {
        assert_eq!(guest.datagram().2, vec![i; 4000]);
    }
    assert_eq!(runtime.stats().drops().count(), 0, "{}", runtime.stats());
}

// --- Fragments ---------------------------------------------------------------------------------

#[test]
fn rfc_4787_req_14_fragments_of_the_guest_in_every_order() {
    for server in servers() {
        let (runtime, guest) = Peer::start(loopback());
        let payload = pattern(3000);
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for (id, order) in orders.into_iter().enumerate() {
            let fragments =
                Datagram::new(4000, server.address, &payload).fragments(id as u16, 1200);
            assert_eq!(fragments.len(), 3);
            for i in order {
                guest.wire.send(&fragments[i]);
            }
            assert_same(&server.receive().1, &payload);
        }
        assert_eq!(runtime.stats().reassembled, 6);
    }
}

#[test]
fn rfc_4787_req_14a_a_flood_of_first_fragments_disturbs_no_other_flow() {
    let server = Server::new();
    let (runtime, mut guest) = Peer::start(loopback());
    let payload = pattern(2800);
    for round in 0..100u16 {
        let flood: Vec<Vec<u8>> = (0..100)
            .map(|i| {
                let datagram = Datagram::new(5000, server.address, &payload);
                datagram.fragments(1000 + round * 100 + i, 1480).swap_remove(0)
            })
            .collect();
        guest.wire.send_all(&flood.iter().map(Vec::as_slice).collect::<Vec<_>>());
        guest.send(4000, server.address, b"an honest datagram");
        assert_eq!(server.receive().1, b"an honest datagram");
        for fragment in Datagram::new(4000, server.address, &payload).fragments(round, 1480) {
            guest.wire.send(&fragment);
        }
        let (mapped, got) = server.receive();
        assert_same(&got, &payload);
        server.socket.send_to(b"and back", mapped).unwrap();
        assert_eq!(guest.datagram().2, b"and back");
    }
    assert!(runtime.stats().dropped(DropReason::FragmentLimit) > 9_000);
}

#[test]
fn stopping_while_fragments_wait_is_clean() {
    let server = Server::new();
    let (runtime, mut guest) = Peer::start(loopback());
    let fragments = Datagram::new(4000, server.address, &pattern(5000)).fragments(1, 1480);
    guest.wire.send(&fragments[2]);
    guest.wire.send(&fragments[0]);
    guest.barrier();
    runtime.shutdown();
}

// --- ICMP --------------------------------------------------------------------------------------

#[test]
fn rfc_1812_5_3_1_the_gateway_is_a_hop() {
    let (runtime, mut guest) = Peer::start(loopback());
    for to in ["192.0.2.1:33434", "[2001:db9::1]:33434"] {
        let to: SocketAddr = to.parse().unwrap();
        for hop_limit in [0, 1] {
            let mut datagram = Datagram::new(4000, to, b"traceroute");
            datagram.hop_limit = hop_limit;
            guest.wire.send(&datagram.frame());
            let Seen::Icmp { from, kind, code, quote, .. } = guest.next() else { panic!() };
            let gateway: IpAddr = if to.is_ipv4() { GATEWAY_V4.into() } else { GATEWAY_V6.into() };
            assert_eq!(from, gateway);
            assert_eq!((kind, code), if to.is_ipv4() { (11, 0) } else { (3, 0) });
            assert_same(&quote, &datagram.frame()[14..]);
            let mut ping = echo(to.ip(), 1, 1, b"traceroute -I");
            set_hop_limit(&mut ping, hop_limit);
            guest.wire.send(&ping);
            assert!(matches!(guest.next(), Seen::Icmp { kind: 11 | 3, code: 0, .. }));
            let mut syn = Segment::new(4000, to, SYN).frame();
            set_hop_limit(&mut syn, hop_limit);
            guest.wire.send(&syn);
            assert!(matches!(guest.next(), Seen::Icmp { kind: 11 | 3, code: 0, .. }));
        }
    }
    let stats = runtime.stats();
    assert_eq!((stats.dropped(DropReason::HopLimit), stats.udp_opened), (12, 0));
}

#[test]
fn the_last_hop_needs_no_hops() {
    let server = Server::new();
    let (_runtime, guest) = Peer::start(loopback());
    let mut datagram = Datagram::new(4000, server.address, b"to the gateway itself");
    datagram.hop_limit = 1;
    guest.wire.send(&datagram.frame());
    assert_eq!(server.receive().1, b"to the gateway itself");
}

#[test]
fn echo_to_the_gateway_of_every_size_is_answered() {
    let (runtime, mut guest) = Peer::start(Runtime::builder());
    for to in [IpAddr::from(GATEWAY_V4), GATEWAY_V6.into()] {
        for len in [0, 56, 1400, 8000, 60_000] {
            let data = pattern(len);
            if len <= 1400 {
                guest.wire.send(&echo(to, 7, 9, &data));
            } else {
                let kind = if to.is_ipv4() { 8 } else { 128 };
                let protocol = if to.is_ipv4() { 1 } else { 58 };
                let body = icmp_body(to, kind, 0, 7 << 16 | 9, &data);
                for fragment in fragments(to, protocol.into(), &body, len as u16, 1400) {
                    guest.wire.send(&fragment);
                }
            }
            let wanted = Seen::EchoReply { from: to, identifier: 7, sequence: 9, data };
            assert!(guest.next() == wanted, "{len} bytes to {to}");
        }
    }
    assert_eq!(runtime.stats().echo_replies, 10);
}

#[test]
fn a_host_without_ping_sockets_says_so_and_still_answers_for_itself() {
    if std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").unwrap().trim() != "1\t0" {
        return; // this host allows them
    }
    let (runtime, mut guest) = Peer::start(Runtime::builder());
    for to in ["192.0.2.1", "2001:db9::1"] {
        let to: IpAddr = to.parse().unwrap();
        guest.wire.send(&echo(to, 1, 1, b"ping"));
        let Seen::Icmp { kind, code, .. } = guest.next() else { panic!() };
        assert_eq!((kind, code), if to.is_ipv4() { (3, 13) } else { (1, 1) });
    }
    assert_eq!(runtime.stats().dropped(DropReason::PingForbidden), 2);
    guest.wire.send(&echo(GATEWAY_V4.into(), 1, 1, b"ping"));
    assert!(matches!(guest.next(), Seen::EchoReply { .. }));
}

#[test]
fn rfc_5508_req_5_errors_of_the_guest_count_only_for_what_it_received() {
    let server = Server::new();
    let (runtime, mut guest) = Peer::start(loopback());
    guest.send(4000, server.address, b"x");
    let (mapped, _) = server.receive();
    server.socket.send_to(b"unwanted", mapped).unwrap();
    guest.datagram();
    let quote = |from: SocketAddr, to_port: u16| {
        let mut packet = Datagram::new(to_port, from, b"unwanted").frame()[14..].to_vec();
        // As it came: the other way round.
        let (source, destination) = (from.ip(), IpAddr::V4(GUEST_V4));
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (source, destination) else { panic!() };
        packet[12..16].copy_from_slice(&source.octets());
        packet[16..20].copy_from_slice(&destination.octets());
        packet[20..22].copy_from_slice(&from.port().to_be_bytes());
        packet[22..24].copy_from_slice(&to_port.to_be_bytes());
        packet
    };
    let to = server.address.ip();
    guest.wire.send(&icmp(to, 3, 3, 0, &quote(server.address, 4000)));
    guest.until(&runtime, |stats| stats.icmp_errors_from_guest == 1);
    // Of no mapping, and of nothing at all.
    guest.wire.send(&icmp(to, 3, 3, 0, &quote(server.address, 4001)));
    guest.wire.send(&icmp(to, 3, 3, 0, &quote("192.0.2.7:53".parse().unwrap(), 4000)));
    guest.wire.send(&icmp(to, 3, 3, 0, b""));
    guest.wire.send(&icmp(to, 11, 0, 0, &[0x45; 3]));
    guest.until(&runtime, |stats| stats.dropped(DropReason::IcmpUnmatched) == 4);
    assert!(guest.barrier().is_empty(), "no error about an error");
    guest.send(4000, server.address, b"RFC 5508 REQ-6: the mapping lives");
    assert_eq!(server.receive().0, mapped);
}

// --- Limits ------------------------------------------------------------------------------------

#[test]
fn above_the_limit_the_mapping_closest_to_its_end_gives_way() {
    let server = Server::new();
    let (runtime, guest) = Peer::start(with_limits(|limits| limits.udp_mappings = 8));
    let mut first = None;
    for port in 1..=8 {
        guest.send(port, server.address, b"x");
        first.get_or_insert(server.receive().0);
    }
    guest.send(1, server.address, b"still in use");
    assert_eq!(Some(server.receive().0), first);
    guest.send(9, server.address, b"one too many");
    server.receive();
    guest.send(1, server.address, b"kept");
    assert_eq!(Some(server.receive().0), first);
    let stats = runtime.stats();
    assert_eq!((stats.udp_mappings, stats.dropped(DropReason::MappingLimit)), (8, 1));
}

#[test]
fn a_storm_of_sources_stays_within_the_limit_of_descriptors() {
    if !alone("a_storm_of_sources_stays_within_the_limit_of_descriptors") {
        return;
    }
    let server = Server::new();
    let (runtime, mut guest) = Peer::start(with_limits(|limits| limits.udp_mappings = 64));
    guest.barrier();
    let before = descriptors();
    let to = server.address;
    for chunk in (1..=50_000u16).collect::<Vec<_>>().chunks(500) {
        let frames: Vec<_> =
            chunk.iter().map(|port| Datagram::new(*port, to, b"one shot").frame()).collect();
        guest.wire.send_all(&frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
        while server.is_quiet() {}
    }
    guest.barrier();
    guest.until(&runtime, |stats| stats.udp_opened == 50_000);
    assert!(descriptors() <= before + 64);
    let stats = runtime.stats();
    assert_eq!((stats.udp_mappings, stats.udp_datagrams_to_host), (64, 50_000));
    runtime.shutdown();
}

#[test]
fn without_descriptors_new_mappings_are_prohibited_and_old_ones_live() {
    let name = "without_descriptors_new_mappings_are_prohibited_and_old_ones_live";
    if !alone_after(name, "ulimit -n 40") {
        return;
    }
    let server = Server::new();
    let (runtime, mut guest) = Peer::start(loopback());
    guest.send(4000, server.address, b"x");
    let (mapped, _) = server.receive();
    for port in 5000..5100 {
        guest.send(port, server.address, b"more");
    }
    assert!(matches!(guest.next(), Seen::Icmp { kind: 3, code: 13, .. }));
    guest.until(&runtime, |stats| {
        stats.udp_mappings + stats.dropped(DropReason::HostResource) == 101
    });
    while !server.is_quiet() {}
    guest.send(4000, server.address, b"still there");
    assert_eq!(server.receive(), (mapped, b"still there".to_vec()));
    server.socket.send_to(b"as before", mapped).unwrap();
    let payloads: Vec<_> = guest.barrier();
    assert!(
        payloads
            .iter()
            .any(|seen| matches!(seen, Seen::Udp { payload, .. } if payload == b"as before"))
    );
}

#[test]
fn mappings_leave_nothing_behind() {
    if !alone("mappings_leave_nothing_behind") {
        return;
    }
    let server = Server::new();
    let before = descriptors();
    for _ in 0..20 {
        let (runtime, guest) = Peer::start(loopback());
        for port in 1..=50 {
            guest.send(port, server.address, b"x");
            server.receive();
        }
        assert_eq!(runtime.stats().udp_mappings, 50);
        let stats = runtime.stats_reader();
        runtime.shutdown();
        assert_eq!(stats.read().udp_mappings, 0);
        drop(guest);
    }
    assert_eq!(descriptors(), before);
}

// --- What no honest guest sends ----------------------------------------------------------------

#[test]
fn broken_datagrams_are_counted_and_harm_nothing() {
    let server = Server::new();
    let (runtime, mut guest) = Peer::start(loopback());
    let good = Datagram::new(4000, server.address, b"0123456789").frame();
    let mut sent = 0;
    // The length field: too small, beyond the packet.
    for length in (0..8).chain([19, 100, u16::MAX]) {
        let mut frame = good.clone();
        frame[38..40].copy_from_slice(&length.to_be_bytes());
        guest.wire.send(&frame);
        sent += 1;
    }
    // Cut short at every byte of the headers.
    for len in 14..42 {
        guest.wire.send(&good[..len]);
        sent += 1;
    }
    guest.until(&runtime, |stats| stats.dropped(DropReason::Malformed) == sent);
    // Port zero.
    for at in [34, 36] {
        let mut frame = good.clone();
        frame[at..at + 2].copy_from_slice(&[0, 0]);
        guest.wire.send(&frame);
    }
    guest.until(&runtime, |stats| stats.dropped(DropReason::UdpPort) == 2);
    assert!(guest.barrier().is_empty());
    assert!(server.is_quiet());
    // Ports at the edge are ports.
    guest.send(65_535, server.address, b"edge");
    assert_eq!(server.receive().1, b"edge");
    // What a length field leaves out is not sent.
    let mut frame = good;
    frame[38..40].copy_from_slice(&12u16.to_be_bytes());
    guest.wire.send(&frame);
    assert_eq!(server.receive().1, b"0123");
}

#[test]
fn datagrams_to_groups_martians_and_from_others_go_nowhere() {
    let (runtime, mut guest) = Peer::start(loopback());
    for to in [
        "0.0.0.0:9",
        "127.0.0.1:9",
        "224.0.0.1:9",
        "255.255.255.255:9",
        "240.0.0.1:9",
        "100.96.0.3:9",
        "[::1]:9",
        "[::]:9",
        "[ff02::1]:9",
        "[fe80::9]:9",
    ] {
        let to: SocketAddr = to.parse().unwrap();
        let before = runtime.stats().dropped(DropReason::DestinationAddress);
        guest.send(4000, to, b"x");
        guest.until(&runtime, |stats| stats.dropped(DropReason::DestinationAddress) == before + 1);
    }
    let land = SocketAddr::new(GUEST_V4.into(), 4000);
    guest.send(4000, land, b"LAND");
    guest.send(4000, SocketAddr::new(GUEST_V6.into(), 4000), b"LAND");
    assert!(guest.barrier().is_empty());
    assert_eq!(runtime.stats().udp_opened, 0);
}

#[test]
fn rfc_1812_4_3_2_8_every_error_is_sent_or_counted() {
    let (runtime, mut guest) = Peer::start(Runtime::builder());
    let frame = Datagram::new(4000, SocketAddr::new(GATEWAY_V4.into(), 9), b"x").frame();
    let frames = vec![&frame[..]; 500];
    let mut errors = 0;
    for _ in 0..20 {
        guest.wire.send_all(&frames);
        errors += guest.barrier().len() as u64;
    }
    let stats = runtime.stats();
    assert_eq!(stats.dropped(DropReason::Policy), 10_000);
    assert_eq!(stats.icmp_errors, errors);
    let total =
        errors + stats.dropped(DropReason::IcmpRate) + stats.dropped(DropReason::ReplyNoRoom);
    assert_eq!(total, 10_000);
}
