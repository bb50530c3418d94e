//! Echo, ICMP errors and path MTU discovery through the gateway, with the tools that people use for
//! them (RFC 5508, RFC 1191, RFC 8201). Needs what `netns` needs, `ping` and `tracepath`.
//!
//! ```text
//! cargo test --release --features cli --test netns_icmp
//! ```

#![cfg(all(feature = "cli", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use support::beyond::{Beyond, FAR_V4, FAR_V6};
use support::lab::{
    GATEWAY_V4, GATEWAY_V6, Lab, SECOND_V4, SECOND_V6, SERVER_V4, SERVER_V6, Setup,
};
use support::pattern::{self, MIB, Pattern};
use support::{eventually, say, sys, tcp, udp};

/// The MTU of the small link, in bytes.
const SMALL: u16 = 1400;

/// What a program that may fail prints in the guest, on both streams.
fn said(lab: &Lab, command: &str) -> String {
    let output = lab.guest.output(60, &command.split_whitespace().collect::<Vec<_>>());
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with("---")) {
        say(format_args!("{}: {line}", command.split(' ').next().unwrap()));
    }
    text
}

// --- Echo --------------------------------------------------------------------------------------

/// RFC 5508 REQ-1; replies of every size, whole and in fragments.
#[test]
fn pings_of_every_size_are_answered() {
    let Some(lab) = Setup::of("ping sizes").tools(&["ping"]).start() else { return };
    for (ip, whole) in
        [(SERVER_V4, 1472), (SERVER_V6, 1452), (GATEWAY_V4, 1472), (GATEWAY_V6, 1452)]
    {
        for size in [0, 1, 16, 56, whole - 1, whole] {
            assert_answered(&lab, &format!("-M do -s {size} {ip}"));
        }
        for size in [whole + 1, 8000, 30_000, 65_507 - 8] {
            assert_answered(&lab, &format!("-s {size} {ip}"));
        }
    }
}

/// Three pings are answered, one after the other: with several under way ping would wait for the last one
/// no longer than for the others.
fn assert_answered(lab: &Lab, arguments: &str) {
    for _ in 0..3 {
        let output = said(lab, &format!("ping -n -q -c 1 -W 10 {arguments}"));
        assert!(output.contains(" 1 received"), "ping {arguments}: {output}");
    }
}

/// RFC 5508 REQ-1: two hosts, one identifier, at the same time; each reply to its request.
#[test]
fn echoes_with_one_identifier_to_two_hosts_do_not_mix() {
    const ID: u16 = 4711;
    let Some(lab) = Setup::of("echo with one identifier").start() else { return };
    lab.guest.sysctl("ipv4/ping_group_range", "0 2147483647");
    for (hosts, protocol, request) in [
        ([SERVER_V4, SECOND_V4], Protocol::ICMPV4, 8),
        ([SERVER_V6, SECOND_V6], Protocol::ICMPV6, 128),
    ] {
        let any = SocketAddr::new(udp::unspecified(hosts[0]), ID);
        // The port of an ICMP socket is its identifier. It has datagrams, as one of UDP.
        let socket =
            lab.guest.run(|| Socket::new(Domain::for_address(any), Type::DGRAM, Some(protocol)));
        let socket = UdpSocket::from(socket.unwrap());
        SockRef::from(&socket).bind(&any.into()).unwrap();
        socket.set_read_timeout(Some(tcp::LIMIT)).unwrap();
        for sequence in 0..20_u8 {
            for ip in hosts {
                let header = [request, 0, 0, 0, 0, 0, 0, sequence];
                let echo = [&header[..], ip.to_string().as_bytes()].concat();
                socket.send_to(&echo, (ip, 0)).unwrap();
            }
            let mut seen = Vec::new();
            for _ in hosts {
                let (reply, from) = udp::receive(&socket).unwrap();
                assert_eq!(&reply[8..], from.ip().to_string().as_bytes(), "the reply's own bytes");
                let id = u16::from_be_bytes([reply[4], reply[5]]);
                assert_eq!((id, reply[7]), (ID, sequence), "{reply:?}");
                seen.push(from.ip());
            }
            seen.sort_unstable();
            assert_eq!(seen, hosts);
        }
        say(format_args!("identifier {ID}: 20 replies from each of {hosts:?}"));
    }
}

/// Where the host allows no ICMP socket the gateway says so, and answers for itself.
#[test]
fn a_host_without_ping_sockets_is_reported() {
    let setup = Setup::of("no ping sockets").tools(&["ping"]).without_ping_sockets();
    let Some(lab) = setup.gateway(&["--once", "--stats", "1"]).start() else { return };
    for (gateway, server) in [(GATEWAY_V4, SERVER_V4), (GATEWAY_V6, SERVER_V6)] {
        assert_answered(&lab, &gateway.to_string());
        let output = said(&lab, &format!("ping -n -c 1 -W 10 {server}"));
        let prohibited = output.contains("Packet filtered") || output.contains("prohibited");
        assert!(prohibited && output.contains(" 0 received"), "{output}");
    }
    let reported = || {
        lab.gateway
            .said()
            .lines()
            .find_map(|line| line.contains("ping_group_range").then(|| line.to_owned()))
    };
    let line = eventually(tcp::LIMIT, reported);
    say(line.unwrap_or_else(|| panic!("nothing of ping_group_range in:\n{}", lab.gateway.said())));
}

// --- Errors on the way -------------------------------------------------------------------------

/// Time exceeded: from the gateway for a TTL of 1, and from each router behind it for more.
#[test]
fn every_router_on_the_path_shows_itself() {
    let Some(lab) = Setup::of("time exceeded").tools(&["ping"]).start() else { return };
    let _beyond = Beyond::of(&lab, 1500);
    for (far, exceeded, routers) in [
        (FAR_V4, "Time to live exceeded", [GATEWAY_V4, SERVER_V4, ip("203.0.113.2")]),
        (FAR_V6, "Time exceeded: Hop limit", [GATEWAY_V6, SERVER_V6, ip("2001:db8:e::2")]),
    ] {
        for (router, ttl) in routers.into_iter().zip(1..) {
            let output = said(&lab, &format!("ping -n -c 1 -W 5 -t {ttl} {far}"));
            let from = output.lines().find(|line| line.contains(exceeded));
            let from = from.unwrap_or_else(|| panic!("no error for a TTL of {ttl}: {output}"));
            assert!(from.contains(&format!("From {router} ")), "{from}");
        }
        let output = said(&lab, &format!("ping -n -c 1 -W 5 -t 4 {far}"));
        assert!(output.contains(" 1 received"), "a TTL of 4 is enough: {output}");
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn tracepath_finds_a_small_link_behind_the_host() {
    let Some(lab) = Setup::of("tracepath").tools(&["tracepath"]).start() else { return };
    let _beyond = Beyond::of(&lab, SMALL);
    for far in [FAR_V4, FAR_V6] {
        let output = said(&lab, &format!("tracepath -n {far}"));
        assert!(output.contains("Resume: pmtu 1400"), "{output}");
        let reached =
            output.lines().any(|line| line.contains(&far.to_string()) && line.contains("reached"));
        assert!(reached, "{output}");
    }
}

/// Too big for the path: an error for a ping that may not be fragmented, and a reply for one that may.
#[test]
fn ping_finds_a_small_link_behind_the_host() {
    let Some(lab) = Setup::of("ping, path MTU").tools(&["ping"]).start() else { return };
    let _beyond = Beyond::of(&lab, SMALL);
    let output = said(&lab, &format!("ping -n -c 2 -i 0.1 -W 2 -M do -s 1472 {FAR_V4}"));
    // The router's answer to the first, and the guest's own kernel's to the second.
    assert!(output.contains("mtu = 1400") || output.contains("mtu=1400"), "{output}");
    let output = said(&lab, &format!("ping -n -c 2 -i 0.1 -W 2 -M do -s 1452 {FAR_V6}"));
    assert!(output.contains("mtu = 1400") || output.contains("mtu=1400"), "{output}");
    for (far, fits) in [(FAR_V4, 1372), (FAR_V6, 1352)] {
        assert_answered(&lab, &format!("-M do -s {fits} {far}"));
        // The far host, too, learns of the link from what is lost.
        let output = said(&lab, &format!("ping -n -q -c 4 -i 0.1 -W 5 -M dont -s 4000 {far}"));
        assert!(!output.contains(" 0 received"), "{output}");
    }
}

/// Unreachable hosts and networks are said to be so.
#[test]
fn unreachable_destinations_are_named() {
    let Some(lab) = Setup::of("ping, unreachable").tools(&["ping"]).start() else { return };
    lab.server.sysctl("ipv4/ip_forward", "1");
    lab.server.sysctl("ipv6/conf/all/forwarding", "1");
    // The near router has no route there.
    for to in ["203.0.113.9", "2001:db8:dead::1"] {
        let output = said(&lab, &format!("ping -n -c 2 -i 0.1 -W 5 {to}"));
        assert!(output.contains("nreachable"), "{output}");
        assert!(output.contains(" 0 received"), "{output}");
    }
}

#[test]
fn a_host_without_a_route_says_so() {
    let Some(lab) = Setup::of("no route").tools(&["ping", "tracepath"]).start() else { return };
    lab.host.ip("route del default
         route del default via 2001:db8::1");
    for (far, reason) in [(FAR_V4, "Destination Net Unreachable"), (FAR_V6, "No route")] {
        let output = said(&lab, &format!("ping -n -c 1 -W 10 {far}"));
        assert!(output.contains(reason), "{output}");
        // By UDP.
        let output = said(&lab, &format!("tracepath -n -m 3 {far}"));
        assert!(output.contains("!N"), "{output}");
    }
}

// --- Path MTU ----------------------------------------------------------------------------------

/// RFC 4787 REQ-13a: a datagram that may be fragmented is; every one arrives.
#[test]
fn datagrams_that_may_be_fragmented_cross_a_small_link() {
    let Some(lab) = Setup::of("UDP through a small link").start() else { return };
    let beyond = Beyond::of(&lab, SMALL);
    for (far, (level, option)) in [
        (FAR_V4, (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)),
        (FAR_V6, (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)),
    ] {
        let server = udp::bind(&beyond.far, (far, 0));
        let to = server.local_addr().unwrap();
        let guest = udp::bind(&lab.guest, (udp::unspecified(far), 0));
        sys::set_option(&guest, (level, option), libc::IP_PMTUDISC_DONT).unwrap();
        for size in [1, 1352, 1372, 1373, 1400, 1452, 1472, 1473, 4000, 65_507] {
            // An IPv6 router does not fragment: the gateway's host learns of the link by what is lost.
            let tries = if far.is_ipv6() { 3 } else { 1 };
            let payload = Pattern::new(size, size).bytes();
            let mapped = (0..tries).find_map(|_| passed(&guest, to, &server, &payload));
            let mapped = mapped.unwrap_or_else(|| panic!("{size} bytes to {far} are lost"));
            // The server's own datagrams are fragmented before the link, too.
            sys::set_option(&server, (level, option), libc::IP_PMTUDISC_DONT).unwrap();
            let back = (0..tries).find_map(|_| passed(&server, mapped, &guest, &payload));
            back.unwrap_or_else(|| panic!("{size} bytes from {far} are lost"));
        }
        say(format_args!("{far}: up to 65,507 bytes through {SMALL}, both ways"));
    }
}

/// Sends it and says from where it came; `None` if it does not come.
fn passed(from: &UdpSocket, to: SocketAddr, at: &UdpSocket, payload: &[u8]) -> Option<SocketAddr> {
    // An error of a datagram before may be waiting.
    while from.send_to(payload, to).is_err() {}
    at.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let (got, source) = udp::receive(at).ok()?;
    assert!(got == payload, "{} bytes, not the {} sent", got.len(), payload.len());
    Some(source)
}

/// RFC 4787 REQ-13: a datagram that may not be fragmented and is too big is an error that names the
/// MTU.
#[test]
fn datagrams_that_may_not_be_fragmented_are_too_big() {
    let Some(lab) = Setup::of("UDP too big").start() else { return };
    let beyond = Beyond::of(&lab, SMALL);
    for (far, (level, option), fits) in [
        (FAR_V4, (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), 1372),
        (FAR_V6, (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER), 1352),
    ] {
        let server = udp::bind(&beyond.far, (far, 0));
        let guest = udp::bind(&lab.guest, (udp::unspecified(far), 0));
        sys::set_option(&guest, (level, option), libc::IP_PMTUDISC_DO).unwrap();
        guest.connect(server.local_addr().unwrap()).unwrap();
        // The guest's own kernel knows as soon as it has the error.
        let too_big = eventually(tcp::LIMIT, || {
            let error = guest.send(&vec![1; fits + 1]).err()?;
            assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE), "{error}");
            Some(error)
        });
        say(format_args!(
            "{far}, {} bytes: {}",
            fits + 1,
            too_big.expect("an error for the guest")
        ));
        // The socket may still have an error to tell.
        let sent = eventually(tcp::LIMIT, || guest.send(&vec![2; fits]).ok());
        assert_eq!(sent, Some(fits));
        let (got, mapped) = udp::receive(&server).unwrap();
        assert!(got == vec![2; fits]);
        udp::pass(&server, mapped, &guest, b"and back");
    }
}

/// TCP goes through byte-exact: towards the small link each end finds out for itself.
#[test]
fn tcp_crosses_a_small_link_both_ways() {
    let Some(lab) = Setup::of("TCP through a small link").start() else { return };
    let beyond = Beyond::of(&lab, SMALL);
    for far in [FAR_V4, FAR_V6] {
        let listener = beyond.far.listen((far, 0));
        let address = listener.local_addr().unwrap();
        for (way, seed) in [("up", 201), ("down", 202)] {
            let client = lab.guest.connect(address).unwrap();
            let server = tcp::accept(&listener).unwrap();
            let (from, to) = if way == "up" { (client, server) } else { (server, client) };
            let (moved, time) = tcp::transfer(from, to, seed, 32 * MIB);
            say(format_args!("{far} {way}: {moved}, {}", pattern::rate(32 * MIB, time)));
        }
        let refused = lab.guest.connect((far, 9).into()).expect_err("nobody is there");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
}

/// RFC 5382 REQ-10: an ICMP error in the middle of a connection is a hint, and ends nothing.
#[test]
fn icmp_errors_end_no_connection() {
    let Some(lab) = Setup::of("TCP and ICMP errors").start() else { return };
    let beyond = Beyond::of(&lab, 1500);
    for (far, network, router) in
        [(FAR_V4, "198.51.100.0/24", "203.0.113.2"), (FAR_V6, "2001:db8:f::/64", "2001:db8:e::2")]
    {
        let listener = beyond.far.listen((far, 0));
        let mut client = lab.guest.connect(listener.local_addr().unwrap()).unwrap();
        let mut server = tcp::accept(&listener).unwrap();
        for (round, reason) in ["unreachable", "prohibit", "unreachable"].into_iter().enumerate() {
            lab.server.ip(&format!("route del {network}"));
            lab.server.ip(&format!("route add {reason} {network} metric 1"));
            let sent = || lab.server.counter("Icmp", "OutDestUnreachs");
            let before = sent();
            let bytes = Pattern::new(round as u64, 100_000).bytes();
            client.write_all(&bytes).unwrap();
            let errors = eventually(tcp::LIMIT, || {
                let errors = sent() - before;
                (errors >= 2).then_some(errors)
            });
            lab.server.ip(&format!("route del {network} metric 1"));
            lab.server.ip(&format!("route add {network} via {router}"));
            let mut got = vec![0; bytes.len()];
            server.read_exact(&mut got).unwrap();
            assert!(got == bytes, "round {round}");
            server.write_all(&got).unwrap();
            client.read_exact(&mut got).unwrap();
            assert!(got == bytes, "round {round}, back");
            say(format_args!("{far} {reason}: {} errors, and on it goes", errors.unwrap()));
        }
    }
}
