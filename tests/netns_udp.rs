//! UDP and ICMP against real kernels: the shipped program, a Linux guest and a server in network
//! namespaces. Needs what `tests/netns.rs` needs.

#![cfg(all(feature = "cli", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::lab::{GATEWAY_V4, GATEWAY_V6, Lab, SERVER_V4, SERVER_V6, Setup};
use support::namespace::Namespace;
use support::{WAIT, say};

const PATIENCE: Duration = Duration::from_secs(20);
const BOTH: [IpAddr; 2] = [SERVER_V4, SERVER_V6];

fn bind(namespace: &Namespace, ip: IpAddr) -> UdpSocket {
    let socket = namespace.run(|| UdpSocket::bind((ip, 0))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { [0; 4].into() } else { [0; 16].into() }
}

/// A socket of the guest, and the server's, with its address.
fn pair(lab: &Lab, ip: IpAddr) -> (UdpSocket, UdpSocket, SocketAddr) {
    let server = bind(&lab.server, ip);
    let address = server.local_addr().unwrap();
    (bind(&lab.guest, any(ip)), server, address)
}

fn received(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = vec![0; 70_000];
    let (len, from) = socket.recv_from(&mut bytes).unwrap();
    bytes.truncate(len);
    (bytes, from)
}

/// The error that the kernel of the guest has for a connected socket, once it has one.
fn error_of(socket: &UdpSocket) -> io::Error {
    let error = socket.recv(&mut [0; 10]).unwrap_err();
    assert_ne!(error.kind(), ErrorKind::WouldBlock, "no error came");
    error
}

/// What a path between the host and the server takes.
fn set_mtu(lab: &Lab, mtu: u16) {
    lab.host.ip(&format!("link set d0 mtu {mtu}"));
    lab.server.ip(&format!("link set d1 mtu {mtu}"));
}

#[test]
fn datagrams_of_every_size_pass_between_kernels() {
    let Some(lab) = Setup::of("datagrams").start() else { return };
    for ip in BOTH {
        let (guest, server, address) = pair(&lab, ip);
        for len in [0, 1, 1400, 1472, 1473, 8000, 65_000, 65_507] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 31 / 7) as u8).collect();
            guest.send_to(&bytes, address).unwrap();
            let (got, from) = received(&server);
            assert!(got == bytes, "{len} bytes to {ip}");
            server.send_to(&bytes, from).unwrap();
            assert!(received(&guest) == (bytes, address), "{len} bytes back from {ip}");
        }
    }
}

#[test]
fn rfc_4787_req_1_one_external_endpoint_for_two_servers() {
    let Some(lab) = Setup::of("mapping").start() else { return };
    lab.server.ip("addr add 192.0.2.77/24 dev d1");
    let guest = bind(&lab.guest, any(SERVER_V4));
    let second: IpAddr = [192, 0, 2, 77].into();
    let mut seen = HashSet::new();
    for ip in [SERVER_V4, SERVER_V4, second] {
        let server = bind(&lab.server, ip);
        guest.send_to(b"x", server.local_addr().unwrap()).unwrap();
        seen.insert(received(&server).1);
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

/// An opinion from outside (RFC 5780).
#[test]
fn coturn_finds_independent_mapping_and_dependent_filtering() {
    let tools = ["turnserver", "turnutils_natdiscovery"];
    let Some(lab) = Setup::of("natdiscovery").tools(&tools).start() else { return };
    lab.server.ip("addr add 192.0.2.77/24 dev d1");
    let directory = lab.directory();
    let mut server = Command::new("turnserver");
    server.args(["-n", "--no-auth", "--no-tls", "--no-dtls", "--no-cli", "--log-file", "stdout"]);
    server.args(["-L", "192.0.2.1", "-L", "192.0.2.77", "--userdb"]).arg(directory.join("db"));
    server.arg("--pidfile").arg(directory.join("pid")).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = lab.server.run(|| server.spawn()).unwrap();
    let mut said = String::new();
    for _ in 0..50 {
        let command = "turnutils_natdiscovery -m -f 192.0.2.1";
        let output = lab.guest.output(60, &command.split(' ').collect::<Vec<_>>());
        said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if said.contains("Mapping!") {
            break;
        }
        support::pause(Duration::from_millis(100));
    }
    server.kill().unwrap();
    server.wait().unwrap();
    say(&said);
    assert!(said.contains("NAT with Endpoint Independent Mapping!"), "{said}");
    assert!(said.contains("NAT with Address Dependent Filtering!"), "{said}");
}

#[test]
fn rfc_4787_req_8_a_stranger_is_filtered() {
    let Some(lab) = Setup::of("filter").start() else { return };
    lab.server.ip("addr add 192.0.2.77/24 dev d1");
    let (guest, server, address) = pair(&lab, SERVER_V4);
    guest.send_to(b"x", address).unwrap();
    let (_, mapped) = received(&server);
    bind(&lab.server, [192, 0, 2, 77].into()).send_to(b"stranger", mapped).unwrap();
    server.send_to(b"friend", mapped).unwrap();
    assert_eq!(received(&guest).0, b"friend");
}

#[test]
fn rfc_4787_req_12_a_closed_port_is_refused_to_the_guest_s_socket() {
    let Some(lab) = Setup::of("refused").start() else { return };
    for ip in BOTH {
        let (guest, server, address) = pair(&lab, ip);
        drop(server);
        guest.connect(address).unwrap();
        for _ in 0..3 {
            guest.send(b"is anybody there?").unwrap();
            assert_eq!(error_of(&guest).kind(), ErrorKind::ConnectionRefused, "{ip}");
        }
    }
}

#[test]
fn a_host_without_a_route_is_unreachable() {
    let Some(lab) = Setup::of("no route").tools(&["ping", "tracepath"]).start() else { return };
    lab.host.ip("route del default
         route del default via 2001:db8::1");
    for (to, said, short) in
        [("198.51.100.1", "Destination Net Unreachable", "!N"), ("2001:db9::1", "No route", "!N")]
    {
        let ping = lab.guest.output(20, &["ping", "-n", "-c", "1", "-W", "5", to]);
        let output = String::from_utf8(ping.stdout).unwrap();
        assert!(output.contains(said), "{output}");
        // By UDP.
        let output = lab.guest.stdout_of(30, &format!("tracepath -n -m 3 {to}"));
        let output = String::from_utf8(output).unwrap();
        assert!(output.contains(short), "{output}");
    }
}

/// RFC 4787 REQ-13 and 13a, over IPv4: with DF the guest hears the path's MTU, without it the datagram
/// is cut on the way.
#[test]
fn rfc_4787_req_13_a_smaller_path_is_told_or_the_datagram_is_cut() {
    let Some(lab) = Setup::of("path MTU").tools(&["ping"]).start() else { return };
    set_mtu(&lab, 1400);
    for ip in BOTH {
        let (guest, server, address) = pair(&lab, ip);
        guest.connect(address).unwrap();
        let header = if ip.is_ipv4() { 28 } else { 48 };
        let large = vec![7; 1500 - header];
        // The kernel of the guest sets DF, hears of 1400 and then cuts by itself.
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 10, "no datagram arrives over {ip}");
            match guest.send(&large) {
                Ok(_) => {}
                Err(error) => assert_eq!(error.raw_os_error(), Some(90), "{error}"),
            }
            server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            if server.recv_from(&mut vec![0; 2000]).is_ok_and(|(len, _)| len == large.len()) {
                break;
            }
        }
        let route = lab.guest.stdout_of(5, &format!("ip route get {ip}"));
        let route = String::from_utf8(route).unwrap();
        assert!(route.contains("mtu 1400"), "{route}");
    }
    lab.guest.ip("route flush cache");
    let ping = |arguments: &str| {
        let command = format!("ping -n -c 3 -i 0.2 {arguments}");
        let output = lab.guest.output(30, &command.split(' ').collect::<Vec<_>>());
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8(text).unwrap()
    };
    let with_df = ping(&format!("-W 2 -M do -s 1472 {SERVER_V4}"));
    assert!(with_df.contains("mtu") && with_df.contains("1400"), "{with_df}");
    let without_df = ping(&format!("{WAIT} -M dont -s 1472 {SERVER_V4}"));
    assert!(without_df.contains(" 3 received"), "{without_df}");
}

#[test]
fn echo_of_every_size_passes_over_v4_and_v6() {
    let Some(lab) = Setup::of("echo").tools(&["ping"]).start() else { return };
    for ip in [SERVER_V4, SERVER_V6, GATEWAY_V4, GATEWAY_V6] {
        for size in [0, 16, 56, 1452, 1472, 8000, 60_000] {
            let command = format!("ping -n -c 3 -i 0.05 {WAIT} -s {size} {ip}");
            let output = String::from_utf8(lab.guest.stdout_of(20, &command)).unwrap();
            assert!(output.contains(" 3 received"), "{output}");
        }
    }
}

/// RFC 5508 REQ-1a: two destinations at once, with one identifier.
#[test]
fn rfc_5508_req_1_an_identifier_is_mapped_whatever_the_destination() {
    let Some(lab) = Setup::of("identifier").tools(&["ping"]).start() else { return };
    lab.server.ip("addr add 192.0.2.77/24 dev d1");
    for ip in ["192.0.2.1", "192.0.2.77"] {
        let command = format!("ping -n -e 77 -c 2 -i 0.05 {WAIT} {ip}");
        let output = String::from_utf8(lab.guest.stdout_of(20, &command)).unwrap();
        assert!(output.contains(" 2 received"), "{output}");
    }
}

#[test]
fn forbidden_ping_sockets_are_said_to_be_prohibited() {
    let Some(lab) = Setup::of("no ping sockets").tools(&["ping"]).start() else { return };
    lab.host.sysctl("ipv4/ping_group_range", "1 0");
    for (ip, gateway) in [(SERVER_V4, GATEWAY_V4), (SERVER_V6, GATEWAY_V6)] {
        let ping =
            ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", &ip.to_string()].map(str::to_owned);
        let output = lab.guest.output(20, &ping.each_ref().map(String::as_str));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Packet filtered") || text.contains("prohibited"), "{text}");
        let command = format!("ping -n -c 2 -i 0.05 {WAIT} {gateway}");
        let text = String::from_utf8(lab.guest.stdout_of(20, &command)).unwrap();
        assert!(text.contains(" 2 received"), "{text}");
    }
}

/// A router behind the server's namespace, with a link of 1,400 bytes: the gateway is the first hop, the
/// path and its MTU are found as without it.
#[test]
fn tracepath_finds_the_hops_and_the_small_link_behind_them() {
    let Some(lab) = Setup::of("tracepath").tools(&["tracepath"]).start() else { return };
    let far = Namespace::new().unwrap();
    lab.server.ip(&format!("link add d2 type veth peer name d3 netns {}", far.path()));
    lab.server.sysctl("ipv4/ip_forward", "1");
    lab.server.sysctl("ipv6/conf/all/forwarding", "1");
    lab.server.ip("addr add 198.51.100.1/24 dev d2
         addr add 2001:db9::1/64 dev d2 nodad
         link set d2 mtu 1400
         link set d2 up");
    far.ip("addr add 198.51.100.2/24 dev d3
         addr add 2001:db9::2/64 dev d3 nodad
         link set d3 mtu 1400
         link set d3 up
         route add default via 198.51.100.1
         route add default via 2001:db9::1");
    for (to, router, gateway) in
        [("198.51.100.2", SERVER_V4, GATEWAY_V4), ("2001:db9::2", SERVER_V6, GATEWAY_V6)]
    {
        let output = lab.guest.stdout_of(60, &format!("tracepath -n -m 8 {to}"));
        let output = String::from_utf8(output).unwrap();
        say(format_args!("tracepath to {to}:\n{output}"));
        assert!(output.contains("pmtu 1400"), "{output}");
        assert!(output.contains(&gateway.to_string()), "{output}");
        assert!(output.contains(&router.to_string()), "{output}");
        assert!(output.contains("reached"), "{output}");
    }
}
