//! Published ports against the real thing: a Linux guest that serves, and ordinary clients of the host,
//! in network namespaces. Needs root and /dev/net/tun; skips visibly without, and fails without on CI.
//!
//! ```text
//! cargo test --release --features cli --test netns_publish -- --test-threads=1
//! ```

#![cfg(all(feature = "cli", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use framegate::{Publish, Published, Runtime};
use support::http::HttpServer;
use support::lab::{GATEWAY_V4, Lab, SERVER_V4, Setup, configure, set_up};
use support::pattern::{self, MIB, Pattern};
use support::pump::{Mode, Pump, Tap};
use support::{say, tcp};

/// Bytes of a bulk transfer; less where the test itself would be what is slow.
const BULK: u64 = if cfg!(debug_assertions) { 64 * MIB } else { 512 * MIB };

/// The host, as the server beyond the veth pair sees it.
const HOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));
const ANY_V4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_V6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A lab whose gateway is a [`Runtime`] of this process, in the host's namespace.
struct Embedded {
    // Dropped in this order: the guest's link first, the namespaces last.
    _pump: Pump,
    runtime: Runtime,
    _tap: Tap,
    lab: Lab,
}

impl Embedded {
    fn start(test: &str) -> Option<Self> {
        let lab = Setup::of(test).without_guest().start()?;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let runtime = lab.host.run(|| Runtime::builder().start(ours)).unwrap();
        let tap = Tap::open(&lab.guest, Mode::Plain).unwrap();
        set_up(&lab.guest, 1500);
        configure(&lab.guest);
        let pump = Pump::start(&tap, theirs).unwrap();
        Some(Self { _pump: pump, runtime, _tap: tap, lab })
    }

    fn publish(&self, host: IpAddr, guest_port: u16) -> Published {
        let ports = Publish::tcp(SocketAddr::new(host, 0), guest_port);
        self.lab.host.run(|| self.runtime.handle().publish(&ports)).unwrap()
    }

    /// A client on the host and the guest's end.
    fn connection(&self, ip: IpAddr) -> (TcpStream, TcpStream) {
        let listener = self.lab.guest.listen((ip, 0));
        let loopback = match ip {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let published = self.publish(loopback, listener.local_addr().unwrap().port());
        let client = self.lab.host.connect(published.addresses[0]).unwrap();
        (client, tcp::accept(&listener).unwrap())
    }
}

/// Returns when the program has taken its guest, before which it has bound its ports: its gateway refuses.
fn await_ports(lab: &Lab) {
    let refused = lab.guest.connect((GATEWAY_V4, 9).into()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn curl_fetches_and_posts_through_published_ports() {
    let setup = Setup::of("curl through published ports").tools(&["curl"]);
    let ports = [
        "--once",
        "--publish",
        "192.0.2.2:8080:80",
        "--publish",
        "tcp:[2001:db8::2]:8080:80",
        "--publish",
        "8081-8082:80-81",
    ];
    let Some(lab) = setup.gateway(&ports).start() else { return };
    await_ports(&lab);
    let _http = [ANY_V4, ANY_V6].map(|ip| HttpServer::start(&lab.guest, (ip, 80)));
    let body = lab.directory().join("body");
    std::fs::write(&body, Pattern::new(7, 3 * MIB).bytes()).unwrap();
    let curl = "curl -sS --fail --globoff";
    for (from, address) in [
        (&lab.server, SocketAddr::new(HOST_V4, 8080)),
        (&lab.server, SocketAddr::new(HOST_V6, 8080)),
        (&lab.host, (Ipv4Addr::LOCALHOST, 8081).into()),
    ] {
        // Twice over one connection.
        let url = format!("http://{address}/{MIB}");
        let fetched = from.stdout_of(30, &format!("{curl} {url} {url}"));
        let expected = Pattern::new(MIB, MIB).bytes();
        assert!(fetched == [&expected[..], &expected].concat(), "{} bytes differ", fetched.len());
        let post = format!("{curl} --data-binary @{} {url}", body.display());
        let answer = String::from_utf8(from.stdout_of(30, &post)).unwrap();
        assert_eq!(answer, pattern::sum(7, 3 * MIB).sha256);
        say(format_args!("curl {url}: twice {MIB} bytes, and {} bytes posted", 3 * MIB));
    }
    // What is published on the loopback is nobody else's.
    let refused = lab.server.connect(SocketAddr::new(HOST_V4, 8081)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // Nobody serves the guest's port 81.
    let output = lab.host.output(10, &["curl", "-sS", "http://127.0.0.1:8082/1"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    // curl says that it could not connect, or not send or receive: whatever it was at when the reset came.
    assert!(matches!(output.status.code(), Some(7 | 55 | 56)), "{}: {errors}", output.status);
}

#[test]
fn the_ports_close_with_the_guest_s_link() {
    let ports = ["--once", "--publish", "127.0.0.1:8080:80"];
    let Some(mut lab) = Setup::of("ports close").gateway(&ports).start() else { return };
    await_ports(&lab);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let listener = lab.guest.listen((ANY_V4, 80));
    let mut client = lab.host.connect(address).unwrap();
    let _guest = tcp::accept(&listener).unwrap();
    lab.pump.take().unwrap().unplug();
    let end = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    assert!(lab.gateway.exit_within(tcp::LIMIT).unwrap().success());
    let refused = lab.host.connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn bulk_through_a_published_port_is_byte_exact() {
    let Some(embedded) = Embedded::start("bulk through a published port") else { return };
    for ip in [ANY_V4, ANY_V6] {
        let (client, guest) = embedded.connection(ip);
        let (_, time) = tcp::transfer(client, guest, 1, BULK);
        say(format_args!("{ip} to the guest: {}", pattern::rate(BULK, time)));
        let (client, guest) = embedded.connection(ip);
        let (_, time) = tcp::transfer(guest, client, 2, BULK);
        say(format_args!("{ip} from the guest: {}", pattern::rate(BULK, time)));
    }
}

#[test]
fn either_end_may_close_first_and_then_read_everything() {
    let Some(embedded) = Embedded::start("half-close through a published port") else { return };
    for client_first in [true, false] {
        let (client, guest) = embedded.connection(ANY_V4);
        let (mut first, mut second) = if client_first { (client, guest) } else { (guest, client) };
        first.write_all(b"that is all").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        second.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"that is all");
        tcp::transfer(second, first, 3, 8 * MIB);
    }
}

#[test]
fn unpublish_closes_the_port_and_lets_connections_live() {
    let Some(embedded) = Embedded::start("unpublish") else { return };
    let listener = embedded.lab.guest.listen((ANY_V4, 80));
    let published = embedded.publish(HOST_V4, 80);
    let client = embedded.lab.server.connect(published.addresses[0]).unwrap();
    let guest = tcp::accept(&listener).unwrap();
    // What the guest sees is the gateway, and no address of the client's network.
    assert_eq!(guest.peer_addr().unwrap().ip(), GATEWAY_V4);
    assert_ne!(client.local_addr().unwrap().ip(), GATEWAY_V4);
    assert_eq!(client.local_addr().unwrap().ip(), SERVER_V4);
    embedded.runtime.handle().unpublish(published.id).unwrap();
    let refused = embedded.lab.server.connect(published.addresses[0]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    tcp::transfer(client, guest, 4, 8 * MIB);
}

#[test]
fn connections_that_the_guest_closed_are_no_obstacle_to_the_next() {
    // The guest closes first, so its end stays in TIME-WAIT; a port that came back too soon would meet it.
    const CONNECTIONS: usize = if cfg!(debug_assertions) { 3_000 } else { 70_000 };
    let Some(embedded) = Embedded::start("short connections") else { return };
    let listener = embedded.lab.guest.listen((ANY_V4, 80));
    let published = embedded.publish(Ipv4Addr::LOCALHOST.into(), 80);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..CONNECTIONS {
                let mut guest = tcp::accept(&listener).unwrap();
                guest.write_all(b"x").unwrap();
                guest.shutdown(Shutdown::Write).unwrap();
                assert_eq!(guest.read(&mut [0; 1]).unwrap(), 0);
            }
        });
        embedded.lab.host.run(|| {
            for _ in 0..CONNECTIONS {
                let mut client = tcp::connect(published.addresses[0]).unwrap();
                let mut got = Vec::new();
                client.read_to_end(&mut got).unwrap();
                assert_eq!(got, b"x");
            }
        });
    });
    let stats = embedded.runtime.stats();
    assert_eq!((stats.tcp_established, stats.tcp_reset), (CONNECTIONS as u64, 0), "{stats}");
    say(format_args!("{stats}"));
}
