//! The egress policy with the tools and sockets of a real Linux guest: what is allowed works, what is
//! denied fails at once and says so, and no way leads to the host itself. Needs what `netns` needs, and
//! curl, ping and dnsmasq for the tests that run them.
//!
//! ```text
//! cargo test --release --features cli --test netns_policy
//! ```

#![cfg(all(feature = "cli", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use support::daemon::Daemon;
use support::http::HttpServer;
use support::lab::{
    GATEWAY_V4, GATEWAY_V6, GUEST_V4, GUEST_V6, Lab, SECOND_V4, SECOND_V6, SERVER_V4, SERVER_V6,
    Setup,
};
use support::pattern::Pattern;
use support::{names, say, udp};

const PAGE: u64 = 100_000;
/// The ports of the server are known before it starts: the rules name them.
const OPEN: u16 = 8080;
const CLOSED: u16 = 8081;

/// What curl says with these exit statuses.
const NO_SUCH_NAME: i32 = 6;
const NO_CONNECTION: i32 = 7;

/// Web servers on two ports of each address of the server.
fn web(lab: &Lab) -> Vec<HttpServer> {
    let all = [SERVER_V4, SECOND_V4, SERVER_V6, SECOND_V6];
    let ends = all.into_iter().flat_map(|ip| [(ip, OPEN), (ip, CLOSED)]);
    ends.map(|end| HttpServer::start(&lab.server, end)).collect()
}

/// A name server of names that all are the server's.
fn name_server(lab: &Lab) -> Daemon {
    let name = |name: &str, v4: IpAddr, v6: IpAddr| format!("--host-record={name},{v4},{v6}");
    let records = [
        name("allowed.test", SERVER_V4, SERVER_V6),
        name("www.allowed.test", SERVER_V4, SERVER_V6),
        name("other.test", SECOND_V4, SECOND_V6),
        name("sub.other.test", SECOND_V4, SECOND_V6),
    ];
    let records = records.each_ref().map(String::as_str);
    names::start(&lab.server, lab.directory(), SERVER_V4, &records)
}

/// The page, or the status that curl failed with. It never waits for longer than it has to.
fn curl(lab: &Lab, family: &str, host: &str, port: u16) -> Result<(), i32> {
    let url = format!("http://{host}:{port}/{PAGE}");
    let curl = ["curl", "-sS", "--fail", "--globoff", family, "--max-time", "30", &url];
    let words = names::resolving_at(lab.directory(), GATEWAY_V4);
    let words: Vec<_> = words.iter().map(String::as_str).chain(curl).collect();
    let output = lab.guest.output(60, &words);
    let result = match output.status.code().unwrap() {
        0 => Ok(()),
        status => Err(status),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    say(format_args!("curl {family} {url}: {} bytes {}", output.stdout.len(), errors.trim_end()));
    assert!(result.is_err() || output.stdout == Pattern::new(PAGE, PAGE).bytes(), "other bytes");
    result
}

#[test]
fn names_open_a_network_that_is_closed() {
    let setup = Setup::of("allowed names").tools(&["curl", names::DNSMASQ]);
    let dns = SERVER_V4.to_string();
    let rule = format!("tcp:.allowed.test:{OPEN}");
    let options = ["--once", "--dns", &dns, "--allow", &rule, "--deny", "*"];
    let Some(lab) = setup.gateway(&options).start() else { return };
    let (_web, _names) = (web(&lab), name_server(&lab));
    // An address counts for the name that the gateway gave it for, and not before.
    assert_eq!(curl(&lab, "-4", "192.0.2.1", OPEN), Err(NO_CONNECTION));
    assert_eq!(curl(&lab, "-6", "[2001:db8::1]", OPEN), Err(NO_CONNECTION));
    for family in ["-4", "-6"] {
        for name in ["allowed.test", "www.allowed.test", "WWW.Allowed.Test"] {
            assert_eq!(curl(&lab, family, name, OPEN), Ok(()), "{family} {name}");
        }
        assert_eq!(curl(&lab, family, "allowed.test", CLOSED), Err(NO_CONNECTION), "another port");
        for name in ["other.test", "sub.other.test", "notallowed.test"] {
            assert_eq!(curl(&lab, family, name, OPEN), Err(NO_SUCH_NAME), "{family} {name}");
        }
    }
    assert_eq!(curl(&lab, "-4", "192.0.2.3", OPEN), Err(NO_CONNECTION));
    assert_eq!(curl(&lab, "-6", "[2001:db8::3]", OPEN), Err(NO_CONNECTION));
}

#[test]
fn names_close_a_network_that_is_open() {
    let setup = Setup::of("denied names").tools(&["curl", names::DNSMASQ]);
    let dns = SERVER_V4.to_string();
    let options = ["--once", "--dns", &dns, "--deny", ".other.test"];
    let Some(lab) = setup.gateway(&options).start() else { return };
    let (_web, _names) = (web(&lab), name_server(&lab));
    for family in ["-4", "-6"] {
        assert_eq!(curl(&lab, family, "allowed.test", OPEN), Ok(()));
        for name in ["other.test", "sub.other.test"] {
            assert_eq!(curl(&lab, family, name, OPEN), Err(NO_SUCH_NAME), "{family} {name}");
        }
    }
}

/// How the guest's kernel reports that a destination is prohibited: ICMP code 13 as EHOSTUNREACH, ICMPv6
/// code 1 as EACCES.
fn is_prohibited(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::PermissionDenied)
}

fn assert_tcp_prohibited(lab: &Lab, to: SocketAddr) {
    let error = lab.guest.connect(to).expect_err("a connection that must not be");
    say(format_args!("TCP {to}: {error}"));
    assert!(is_prohibited(&error), "TCP {to}: {error}");
}

fn assert_udp_prohibited(lab: &Lab, to: SocketAddr) {
    let socket = udp::bind(&lab.guest, (udp::unspecified(to.ip()), 0));
    socket.connect(to).unwrap();
    socket.send(b"knock").unwrap();
    let error = socket.recv(&mut [0; 16]).expect_err("a datagram that must not be");
    say(format_args!("UDP {to}: {error}"));
    assert!(is_prohibited(&error), "UDP {to}: {error}");
}

fn ping(lab: &Lab, to: IpAddr) -> String {
    let ping = format!("ping -n -c 1 -W 5 {to}");
    let output = lab.guest.output(20, &ping.split(' ').collect::<Vec<_>>());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn assert_ping_prohibited(lab: &Lab, to: IpAddr) {
    let said = ping(lab, to);
    let line = said.lines().find(|line| line.starts_with("From ")).unwrap_or(&said);
    say(format_args!("ping {to}: {line}"));
    let words = ["Packet filtered", "rohibited"];
    assert!(words.iter().any(|words| line.contains(words)), "ping {to}: {said}");
}

#[test]
fn rules_by_address_port_and_protocol() {
    let setup = Setup::of("rules").tools(&["ping"]);
    let rules = [
        ("--deny", "tcp:192.0.2.1:8081"),
        ("--deny", "tcp:[2001:db8::1]:8081"),
        ("--deny", "udp:192.0.2.0/24:9000-9010"),
        ("--deny", "udp:[2001:db8::/64]:9000-9010"),
        ("--deny", "icmp:192.0.2.3"),
        ("--deny", "icmp:2001:db8::3"),
        // The first that matches decides: these come too late.
        ("--allow", "192.0.2.0/24"),
        ("--allow", "2001:db8::/64"),
    ];
    let mut options = vec!["--once"];
    options.extend(rules.iter().flat_map(|(option, rule)| [*option, *rule]));
    let Some(lab) = setup.gateway(&options).start() else { return };
    let _web = web(&lab);
    for (ip, second) in [(SERVER_V4, SECOND_V4), (SERVER_V6, SECOND_V6)] {
        lab.guest.connect((ip, OPEN).into()).expect("another port");
        lab.guest.connect((second, CLOSED).into()).expect("another address");
        assert_tcp_prohibited(&lab, (ip, CLOSED).into());
        for port in [9000, 9010] {
            assert_udp_prohibited(&lab, (second, port).into());
        }
        for port in [8999, 9011, CLOSED] {
            let server = udp::bind(&lab.server, (ip, port));
            let guest = udp::bind(&lab.guest, (udp::unspecified(ip), 0));
            udp::pass(&guest, (ip, port).into(), &server, b"another port");
        }
        assert!(ping(&lab, ip).contains(" 1 received"), "another address");
        assert_ping_prohibited(&lab, second);
    }
}

/// A rule for an IPv4 address holds for the forms in which IPv6 carries it.
#[test]
fn rules_hold_for_every_form_of_an_address() {
    let setup = Setup::of("forms of an address").gateway(&["--once", "--deny", "192.0.2.1:8081"]);
    let Some(lab) = setup.start() else { return };
    let forms =
        ["64:ff9b::c000:201", "2002:c000:201::1"].map(|form| form.parse::<IpAddr>().unwrap());
    for form in forms {
        lab.server.ip(&format!("addr add {form}/128 dev lo nodad"));
        let (_open, _closed) = (lab.server.listen((form, OPEN)), lab.server.listen((form, CLOSED)));
        lab.guest.connect((form, OPEN).into()).expect("another port");
        assert_tcp_prohibited(&lab, (form, CLOSED).into());
        assert_udp_prohibited(&lab, (form, CLOSED).into());
    }
}

// --- The host itself ---------------------------------------------------------------------------

/// Services of the host on every address that it has, also on these.
struct Services {
    tcp: [TcpListener; 2],
    udp: [UdpSocket; 2],
}

impl Services {
    fn start(lab: &Lab, addresses: &[IpAddr]) -> Self {
        for address in addresses {
            let nodad = if address.is_ipv6() { "nodad" } else { "" };
            lab.host.ip(&format!("addr add {address} dev lo {nodad}"));
        }
        let all = ["0.0.0.0:80", "[::]:80"].map(|all| all.parse::<SocketAddr>().unwrap());
        Self {
            tcp: all.map(|all| lab.host.listen(all)),
            // Only [::] takes IPv6, and not IPv4 with it.
            udp: all.map(|all| {
                let socket = lab.host.run(|| udp::bind_alone(all)).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            }),
        }
    }

    /// Nothing has come by the time that what the guest sent later has arrived elsewhere.
    fn assert_untouched(&self, lab: &Lab) {
        for ip in [SERVER_V4, SERVER_V6] {
            let server = udp::bind(&lab.server, (ip, 0));
            let guest = udp::bind(&lab.guest, (udp::unspecified(ip), 0));
            udp::pass(&guest, server.local_addr().unwrap(), &server, b"and then this");
        }
        for listener in &self.tcp {
            listener.set_nonblocking(true).unwrap();
            let error = listener.accept().expect_err("a connection that must not be");
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
        for socket in &self.udp {
            let error = socket.recv_from(&mut [0; 16]).expect_err("a datagram that must not be");
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
    }
}

/// Sends a datagram from a raw socket: the guest's kernel has no say in where it may go.
fn knock_raw(lab: &Lab, to: IpAddr) {
    let from = if to.is_ipv4() { GUEST_V4 } else { GUEST_V6 };
    let datagram = udp::datagram((from, 4711).into(), (to, 80).into(), b"knock");
    let raw = udp::raw(&lab.guest, to);
    for packet in udp::fragments((from, to), &datagram, 1024, 1) {
        udp::send_raw(&raw, &packet, to);
    }
}

/// The ways to a metadata service and to the host's loopback, by TCP, UDP and ICMP.
#[test]
fn metadata_and_loopback_are_out_of_reach_by_every_alias() {
    let Some(lab) = Setup::of("aliases").tools(&["ping"]).start() else { return };
    let aliases = [
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::7f00:1",
        "2002:a9fe:a9fe::1",
        "2002:7f00:1::1",
        "::ffff:0:a9fe:a9fe",
        "::ffff:0:7f00:1",
    ]
    .map(|address| address.parse::<IpAddr>().unwrap());
    let services = Services::start(&lab, &aliases);
    for alias in aliases {
        let error = lab.guest.connect((alias, 80).into()).expect_err("out of reach");
        assert_ne!(error.kind(), ErrorKind::TimedOut, "TCP {alias}: {error}");
        let socket = udp::bind(&lab.guest, (udp::unspecified(alias), 0));
        socket.connect((alias, 80)).unwrap();
        socket.send(b"knock").unwrap();
        let datagram = socket.recv(&mut [0; 16]).expect_err("out of reach");
        assert_ne!(datagram.kind(), ErrorKind::WouldBlock, "UDP {alias}: silence");
        let ping = ping(&lab, alias);
        assert!(ping.contains(" 0 received"), "{ping}");
        say(format_args!("{alias}: TCP {error}; UDP {datagram}"));
    }
    services.assert_untouched(&lab);
}

/// The forms that no kernel sends by itself, from raw sockets. Silence is an answer.
#[test]
fn mapped_addresses_from_raw_sockets_are_out_of_reach() {
    let Some(lab) = Setup::of("mapped addresses").start() else { return };
    let services = Services::start(&lab, &[]);
    let v4 = ["127.0.0.1", "169.254.169.254", "192.0.2.2", "100.96.0.1", "0.0.0.0"];
    for v4 in v4.map(|v4| v4.parse::<std::net::Ipv4Addr>().unwrap()) {
        let [a, b] = [v4.to_bits() >> 16, v4.to_bits() & 0xffff].map(|half| half as u16);
        let compatible = Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b);
        // `::` and `::1` are not sent by the guest's kernel even from here.
        for form in [v4.to_ipv6_mapped(), compatible] {
            if !form.is_unspecified() {
                knock_raw(&lab, form.into());
            }
        }
    }
    services.assert_untouched(&lab);
}

/// What listens on all addresses of the host trusts its network, and the guest is not in it.
#[test]
fn the_host_s_own_addresses_are_out_of_reach() {
    let Some(lab) = Setup::of("the host's own addresses").tools(&["ping"]).start() else { return };
    lab.host.ip("addr add 203.0.113.77/32 dev lo");
    let services = Services::start(&lab, &[]);
    for own in ["192.0.2.2", "2001:db8::2", "203.0.113.77", "64:ff9b::c000:202"] {
        let own: IpAddr = own.parse().unwrap();
        assert_tcp_prohibited(&lab, (own, 80).into());
        assert_udp_prohibited(&lab, (own, 80).into());
        assert_ping_prohibited(&lab, own);
    }
    // An address that the host gets later, too.
    lab.host.ip("addr add 203.0.113.78/32 dev lo");
    assert_tcp_prohibited(&lab, "203.0.113.78:80".parse().unwrap());
    services.assert_untouched(&lab);
}

/// The switches open what they are for; the services of the tests here are there.
#[test]
fn the_host_s_own_addresses_and_metadata_open_on_request() {
    let setup = Setup::of("the host's own addresses, open");
    let options = ["--once", "--host-addresses", "--metadata"];
    let Some(lab) = setup.gateway(&options).start() else { return };
    let metadata = ["169.254.169.254", "fd00:ec2::254"].map(|address| address.parse().unwrap());
    let services = Services::start(&lab, &metadata);
    let own = ["192.0.2.2", "2001:db8::2"].map(|address| address.parse::<IpAddr>().unwrap());
    for to in own.into_iter().chain(metadata) {
        lab.guest.connect((to, 80).into()).unwrap_or_else(|error| panic!("TCP {to}: {error}"));
        let at = &services.udp[usize::from(to.is_ipv6())];
        at.set_nonblocking(false).unwrap();
        let guest = udp::bind(&lab.guest, (udp::unspecified(to), 0));
        let mapped = udp::pass(&guest, (to, 80).into(), at, b"knock");
        say(format_args!("{to}: TCP and UDP, from {mapped}"));
    }
}

/// The gateway's own address is the host's loopback for those who open it, and closed by default.
#[test]
fn the_gateway_s_address_leads_nowhere_by_default() {
    let Some(lab) = Setup::of("the gateway's address").start() else { return };
    let services = Services::start(&lab, &[]);
    for gateway in [GATEWAY_V4, GATEWAY_V6] {
        let error = lab.guest.connect((gateway, 80).into()).expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "TCP {gateway}: {error}");
        let socket = udp::bind(&lab.guest, (udp::unspecified(gateway), 0));
        socket.connect((gateway, 80)).unwrap();
        socket.send(b"knock").unwrap();
        let error = socket.recv(&mut [0; 16]).expect_err("closed");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "UDP {gateway}: {error}");
    }
    services.assert_untouched(&lab);
}

/// A connection that the guest's kernel lets go to 127.0.0.1 by the wire goes nowhere.
#[test]
fn loopback_on_the_wire_goes_nowhere() {
    let Some(lab) = Setup::of("loopback on the wire").start() else { return };
    let services = Services::start(&lab, &[]);
    lab.guest.sysctl("ipv4/conf/tap0/route_localnet", "1");
    lab.guest.ip("route del table local local 127.0.0.0/8 dev lo
         route del table local local 127.0.0.1 dev lo
         route add 127.0.0.0/8 via 100.96.0.1 dev tap0 src 100.96.0.2");
    for to in ["127.0.0.1:80", "127.9.9.9:80"].map(|to| to.parse::<SocketAddr>().unwrap()) {
        let limit = Duration::from_millis(500);
        let connected = lab.guest.run(|| TcpStream::connect_timeout(&to, limit));
        assert!(connected.is_err());
        let socket = udp::bind(&lab.guest, (GUEST_V4, 0));
        // An error at once is as good.
        let _ = socket.send_to(b"knock", to);
    }
    services.assert_untouched(&lab);
}

#[test]
fn a_closed_network_still_configures_its_guest() {
    let setup = Setup::of("everything denied").tools(&["ping"]);
    let Some(lab) = setup.gateway(&["--once", "--deny", "*"]).start() else { return };
    for gateway in [GATEWAY_V4, GATEWAY_V6] {
        assert!(ping(&lab, gateway).contains(" 1 received"), "the gateway answers for itself");
    }
    for ip in [SERVER_V4, SERVER_V6] {
        let (_listener, address) = lab.listen(ip);
        assert_tcp_prohibited(&lab, address);
        assert_udp_prohibited(&lab, address);
        assert_ping_prohibited(&lab, ip);
    }
}
