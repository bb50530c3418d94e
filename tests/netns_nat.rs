//! UDP through the gateway with a real Linux stack as the guest and real servers (RFC 4787). Needs
//! what `netns` needs, and coturn and iperf3 for the tests that run them.
//!
//! ```text
//! cargo test --release --features cli --test netns_nat
//! ```

#![cfg(all(feature = "cli", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use support::daemon::Daemon;
use support::lab::{GUEST_V4, GUEST_V6, Lab, SECOND_V4, SECOND_V6, SERVER_V4, SERVER_V6, Setup};
use support::pattern::Pattern;
use support::{say, udp};

/// A datagram that is on its way for longer than this has been lost: nothing here is slow.
const LOST: Duration = Duration::from_secs(5);

fn bytes(seed: u64, length: usize) -> Vec<u8> {
    Pattern::new(seed, length as u64).bytes()
}

/// A socket of the guest and one of the server, the server's address, and the guest's as the server
/// sees it: one datagram has passed.
fn pair(lab: &Lab, ip: IpAddr) -> (UdpSocket, UdpSocket, SocketAddr, SocketAddr) {
    let guest = udp::bind(&lab.guest, (udp::unspecified(ip), 0));
    let server = udp::bind(&lab.server, (ip, 0));
    let address = server.local_addr().unwrap();
    let mapped = udp::pass(&guest, address, &server, b"hello");
    (guest, server, address, mapped)
}

// --- Mappings ----------------------------------------------------------------------------------

/// RFC 4787 REQ-1 and REQ-8, in the words of a tool that is made to find out.
#[test]
fn coturn_finds_independent_mapping_and_dependent_filtering() {
    const TOOLS: &[&str] = &["turnserver", "turnutils_natdiscovery"];
    let Some(lab) = Setup::of("coturn").tools(TOOLS).start() else { return };
    for (first, second) in [(SERVER_V4, SECOND_V4), (SERVER_V6, SECOND_V6)] {
        let directory = tempfile::tempdir_in(lab.directory()).unwrap();
        let _server = stun_server(&lab, directory.path(), first, second);
        let discovery = format!("turnutils_natdiscovery -m -f {first}");
        let said = String::from_utf8(lab.guest.stdout_of(120, &discovery)).unwrap();
        for line in
            said.lines().filter(|line| line.contains("NAT with") || line.contains("reflexive"))
        {
            say(format_args!("natdiscovery: {line}"));
        }
        assert!(said.contains("NAT with Endpoint Independent Mapping!"), "{said}");
        assert!(said.contains("NAT with Address Dependent Filtering!"), "{said}");
    }
}

/// A STUN server with two addresses and two ports, as RFC 5780 has it.
fn stun_server(lab: &Lab, directory: &std::path::Path, first: IpAddr, second: IpAddr) -> Daemon {
    // From some version on discovery has to be asked for; before, the option was unknown.
    let help = Command::new("turnserver").arg("-h").output().unwrap();
    let asked_for = String::from_utf8_lossy(&help.stdout).contains(" --rfc5780");
    let words = format!(
        "turnserver -n -L {first} -L {second} -p 3478 --alt-listening-port=3479 --stun-only
         --no-tls --no-dtls --no-cli --log-file=stdout --pidfile={0}/pid --userdb={0}/users {1}",
        directory.display(),
        if asked_for { "--rfc5780" } else { "" },
    );
    let words: Vec<_> = words.split_whitespace().collect();
    // The last that it opens is the second port of the second address.
    Daemon::start(&lab.server, directory, &words, (3479, 2))
}

/// RFC 4787 REQ-1: one socket of the guest is one address outside, whomever it talks to.
#[test]
fn one_socket_has_one_address_for_all_destinations() {
    let Some(lab) = Setup::of("one mapping").start() else { return };
    for [first, second] in [[SERVER_V4, SECOND_V4], [SERVER_V6, SECOND_V6]] {
        let guests = [(); 2].map(|()| udp::bind(&lab.guest, (udp::unspecified(first), 0)));
        let servers = [first, first, second].map(|ip| udp::bind(&lab.server, (ip, 0)));
        let mapped = guests.each_ref().map(|guest| {
            let seen = servers
                .each_ref()
                .map(|server| udp::pass(guest, server.local_addr().unwrap(), server, b"who am I"));
            assert!(seen.iter().all(|address| *address == seen[0]), "{seen:?}");
            seen[0]
        });
        assert_ne!(mapped[0], mapped[1], "two sockets, two addresses");
        say(format_args!("seen from three endpoints: {}", mapped[0]));
        // And each answer goes to the socket that asked, from where it was sent.
        for (guest, mapped) in guests.iter().zip(mapped) {
            for server in &servers {
                let from = udp::pass(server, mapped, guest, &mapped.port().to_be_bytes());
                assert_eq!(from, server.local_addr().unwrap());
            }
        }
    }
}

/// RFC 4787 REQ-8: whom the guest has not sent to does not reach it, and another port of whom it has
/// does.
#[test]
fn a_stranger_is_filtered() {
    let Some(lab) = Setup::of("filter").start() else { return };
    for [ip, other] in [[SERVER_V4, SECOND_V4], [SERVER_V6, SECOND_V6]] {
        let (guest, server, address, mapped) = pair(&lab, ip);
        udp::bind(&lab.server, (other, 0)).send_to(b"stranger", mapped).unwrap();
        assert_eq!(udp::pass(&server, mapped, &guest, b"friend"), address);
        let another_port = udp::bind(&lab.server, (ip, 0));
        udp::pass(&another_port, mapped, &guest, b"friend of a friend");
    }
}

/// RFC 4787 REQ-12: an ICMP error does not end the mapping.
#[test]
fn an_icmp_error_does_not_end_a_mapping() {
    let Some(lab) = Setup::of("mapping after an error").start() else { return };
    for ip in [SERVER_V4, SERVER_V6] {
        let (guest, server, address, mapped) = pair(&lab, ip);
        for round in 0..3_u8 {
            // Nobody listens there. An unconnected socket does not hear of it.
            guest.send_to(b"knock", (ip, 9)).unwrap();
            assert_eq!(udp::pass(&guest, address, &server, &[round]), mapped, "the same mapping");
            udp::pass(&server, mapped, &guest, &[round]);
        }
        say(format_args!("{ip}: {mapped} outlived three errors"));
    }
}

/// RFC 4787 REQ-7: the network outside may have the guest's own addresses.
#[test]
fn the_network_outside_may_be_the_guest_s_own() {
    let Some(lab) = Setup::of("the same network on both sides").start() else { return };
    // The guest's network is 100.96.0.0/30, and here it is part of the host's; so is the IPv6 prefix.
    let outside: [IpAddr; 2] = ["100.96.0.9", "fd53:4d00:0:1::9"].map(|ip| ip.parse().unwrap());
    lab.host.ip("addr add 100.96.0.2/24 dev d0
         addr add fd53:4d00::2/48 dev d0 nodad");
    lab.server.ip("addr add 100.96.0.9/24 dev d1
         addr add fd53:4d00:0:1::9/48 dev d1 nodad");
    for ip in outside.into_iter().chain([SERVER_V4, SERVER_V6]) {
        let (guest, server, _, mapped) = pair(&lab, ip);
        udp::pass(&server, mapped, &guest, b"and back");
        let (listener, address) = lab.listen(ip);
        lab.guest.connect(address).unwrap_or_else(|error| panic!("TCP {address}: {error}"));
        drop(listener);
        say(format_args!("{ip}: seen as {mapped}"));
    }
}

// --- Every size --------------------------------------------------------------------------------

/// Up to 64 KiB; the guest's kernel fragments on the way up, the gateway on the way down.
#[test]
fn datagrams_of_every_size_pass_both_ways() {
    let Some(lab) = Setup::of("datagrams of every size").start() else { return };
    for (ip, most) in [SERVER_V4, SERVER_V6].into_iter().zip(udp::MOST) {
        let (guest, server, address, mapped) = pair(&lab, ip);
        let around_the_mtu = (1440..=1480).chain(2900..=2970);
        let large = [4096, 8192, 9000, 16_384, 32_768, 65_000, most - 1, most];
        let sizes = (0..=2).chain(around_the_mtu).chain(large);
        let mut passed = 0;
        for size in sizes {
            let payload = bytes(size as u64, size);
            assert_eq!(udp::pass(&guest, address, &server, &payload), mapped);
            assert_eq!(udp::pass(&server, mapped, &guest, &payload), address);
            passed += 1;
        }
        say(format_args!("{ip}: {passed} sizes from 0 to {most} bytes, both ways"));
    }
}

/// An empty datagram is a datagram, and neither an end nor a stop.
#[test]
fn empty_datagrams_pass_both_ways() {
    let Some(lab) = Setup::of("empty datagrams").start() else { return };
    for ip in [SERVER_V4, SERVER_V6] {
        let (guest, server, address, mapped) = pair(&lab, ip);
        for round in 0..10_u8 {
            for payload in [&[][..], &[], &[round]] {
                udp::pass(&guest, address, &server, payload);
                udp::pass(&server, mapped, &guest, payload);
            }
        }
    }
}

/// RFC 4787 REQ-14: fragments are received in any order.
#[test]
fn fragments_in_every_order_arrive_whole() {
    let Some(lab) = Setup::of("fragments").start() else { return };
    for (ends, most) in [(GUEST_V4, SERVER_V4), (GUEST_V6, SERVER_V6)].into_iter().zip(udp::MOST) {
        let (guest, server, to, mapped) = pair(&lab, ends.1);
        let from = SocketAddr::new(ends.0, guest.local_addr().unwrap().port());
        let raw = udp::raw(&lab.guest, ends.0);
        let mut id = 0;
        let mut pass = |payload: &[u8], size: usize, order: &[usize]| {
            id += 1;
            let datagram = udp::datagram(from, to, payload);
            let fragments = udp::fragments(ends, &datagram, size, id);
            assert_eq!(fragments.len(), order.len());
            for index in order {
                udp::send_raw(&raw, &fragments[*index], ends.1);
            }
            let (got, source) = udp::receive(&server)
                .unwrap_or_else(|error| panic!("{ends:?} {order:?} of {size} bytes: {error}"));
            assert!(got == payload, "{order:?}: {} bytes, not those sent", got.len());
            assert_eq!(source, mapped, "the mapping of the guest's socket");
        };
        let mut passed = 0;
        // 1,000 bytes in 4 fragments, of which the last is short.
        for (count, size) in [(1, 1008), (2, 504), (3, 336), (4, 256)] {
            for order in udp::orders(count) {
                pass(&bytes(count as u64, 1000), size, &order);
                passed += 1;
            }
        }
        // The largest datagram, forwards, backwards and in ten orders between.
        let count = (8 + most).div_ceil(1400);
        let mut large = vec![(0..count).collect(), (0..count).rev().collect()];
        large.extend((1..=10).map(|seed| udp::shuffled(count, seed)));
        for (seed, order) in large.iter().enumerate() {
            pass(&bytes(seed as u64, most), 1400, order);
            passed += 1;
        }
        udp::pass(&server, mapped, &guest, b"and back");
        say(format_args!("{}: {passed} orders, up to {count} fragments", ends.1));
    }
}

// --- Many at once ------------------------------------------------------------------------------

/// A burst of a thousand datagrams arrives. On the way down it first meets the host's kernel, whose
/// socket holds what the host allows: what that drops is not ours, but one burst of a few must be
/// whole.
#[test]
fn a_thousand_datagrams_at_once_pass_both_ways() {
    let Some(lab) = Setup::of("bursts").start() else { return };
    for ip in [SERVER_V4, SERVER_V6] {
        let (guest, server, address, mapped) = pair(&lab, ip);
        for (way, from, to, at) in
            [("up", &guest, address, &server), ("down", &server, mapped, &guest)]
        {
            let mut bursts = Vec::new();
            while bursts.len() < 5 && bursts.last() != Some(&1000) {
                let dropped = || lab.host.counter("Udp", "RcvbufErrors");
                let before = dropped();
                let arrived = burst(from, to, at);
                let dropped = dropped() - before;
                assert_eq!(arrived as u64 + dropped, 1000, "{way}: {dropped} by the host's kernel");
                bursts.push(arrived);
            }
            say(format_args!("{ip} {way}: {bursts:?} of 1,000 arrived"));
            assert_eq!(bursts.last(), Some(&1000), "{way}: none came whole");
        }
    }
}

/// Sends 1,000 different datagrams and returns how many arrived: each once, none changed.
fn burst(from: &UdpSocket, to: SocketAddr, at: &UdpSocket) -> usize {
    let payload = |seed: u16| [&seed.to_be_bytes()[..], &bytes(seed.into(), 510)].concat();
    let payloads: Vec<_> = (0..1000).map(payload).collect();
    for payload in &payloads {
        from.send_to(payload, to).unwrap();
    }
    at.set_read_timeout(Some(LOST)).unwrap();
    let mut seen = vec![false; payloads.len()];
    for _ in 0..payloads.len() {
        let got = match udp::receive(at) {
            Ok((got, _)) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        };
        let index = usize::from(u16::from_be_bytes([got[0], got[1]]));
        assert!(got == payloads[index], "datagram {index} came changed");
        assert!(!std::mem::replace(&mut seen[index], true), "datagram {index} came twice");
    }
    seen.iter().filter(|seen| **seen).count()
}

/// Here, too, what is lost is lost in front of a socket whose owner was too slow, and not by the gateway.
#[test]
fn iperf3_sends_datagrams_both_ways() {
    let Some(lab) = Setup::of("iperf3 -u").tools(&["iperf3"]).start() else { return };
    for (way, flags) in [
        ("upload", ""),
        ("download", "-R"),
        ("upload of large datagrams", "-l 16000"),
        ("download of large datagrams", "-l 16000 -R"),
    ] {
        let mut server = Command::new("timeout");
        server.args(["60", "iperf3", "--server", "--one-off", "--forceflush"]);
        let mut server = lab.server.run(|| server.stdout(Stdio::piped()).spawn()).unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.contains("listening")), "iperf3 listens");
        let drained = thread::spawn(move || lines.count());
        let dropped = || {
            let kernels = [&lab.guest, &lab.host, &lab.server];
            kernels.map(|kernel| kernel.counter("Udp", "RcvbufErrors"))
        };
        let before = dropped();
        let client = format!("iperf3 -u -b 100M --client {SERVER_V4} --time 2 --json {flags}");
        let report = String::from_utf8(lab.guest.stdout_of(60, &client)).unwrap();
        drained.join().unwrap();
        assert!(server.wait().unwrap().success());
        let (_, sum) = report.split_once("\"sum\":").expect("a sum in the report");
        let number = |name: &str| -> f64 {
            let (_, value) = sum.split_once(&format!("\"{name}\":")).unwrap();
            value.split([',', '}', '\n']).next().unwrap().trim().parse().unwrap()
        };
        let (packets, lost) = (number("packets"), number("lost_packets"));
        assert!(packets > 100.0 && lost < packets, "{report}");
        assert!(!report.contains("\"error\""), "{report}");
        let [guest, host, server] = std::array::from_fn(|at| dropped()[at] - before[at]);
        say(format_args!(
            "iperf3 -u {way}: {packets} datagrams, {lost} lost; by sockets: {guest} of the guest, \
             {host} of the host, {server} of the server"
        ));
        assert!(lost <= (guest + host + server) as f64, "the gateway lost some");
    }
}

// --- Errors ------------------------------------------------------------------------------------

/// Port unreachable: the guest's connected socket has ECONNREFUSED, and can be used again.
#[test]
fn a_closed_port_refuses_the_guest_s_socket() {
    let Some(lab) = Setup::of("UDP refused").start() else { return };
    for ip in [SERVER_V4, SERVER_V6] {
        let guest = udp::bind(&lab.guest, (udp::unspecified(ip), 0));
        // A port that was just free.
        let closed = udp::bind(&lab.server, (ip, 0)).local_addr().unwrap();
        guest.connect(closed).unwrap();
        for _ in 0..3 {
            guest.send(b"knock").unwrap();
            let error = guest.recv(&mut [0; 16]).expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{closed}: {error}");
        }
        say(format_args!("{closed}: ECONNREFUSED three times"));
        // The one who comes later is reached.
        let server = udp::bind(&lab.server, closed);
        let mapped = udp::pass_connected(&guest, &server, b"now you are");
        udp::pass(&server, mapped, &guest, b"yes");
    }
}
