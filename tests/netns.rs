//! The gateway against the real thing: the shipped program, a real Linux TCP/IP stack as the guest,
//! and ordinary servers, in network namespaces. Needs root and /dev/net/tun; skips visibly without,
//! and fails without on CI.
//!
//! ```text
//! cargo test --release --features cli --test netns -- --test-threads=1
//! ```

#![cfg(all(feature = "cli", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use support::http::HttpServer;
use support::lab::{Direction, GATEWAY_V4, GATEWAY_V6, Lab, SERVER_V4, SERVER_V6, Setup};
use support::pattern::{self, MIB, Pattern};
use support::pump::Mode;
use support::{eventually, pause, say, tcp};

/// A gibibyte; less where the test itself would be what is slow.
const BULK: u64 = if cfg!(debug_assertions) { 64 * MIB } else { 1024 * MIB };

/// An error comes quickly if it comes within this: long before any time-out of TCP.
const QUICK: Duration = Duration::from_secs(10);

// --- Reaching things ---------------------------------------------------------------------------

#[test]
fn ping_reaches_the_gateway_over_v4_and_v6() {
    let Some(lab) = Setup::of("ping").tools(&["ping"]).start() else { return };
    for (gateway, size) in
        [(GATEWAY_V4, 56), (GATEWAY_V6, 56), (GATEWAY_V4, 1400), (GATEWAY_V6, 1400)]
    {
        // One at a time: ping waits for the last of several no longer than for those before.
        for _ in 0..5 {
            let command = format!("ping -n -c 1 -W 10 -s {size} {gateway}");
            let output = String::from_utf8(lab.guest.stdout_of(20, &command)).unwrap();
            assert!(output.contains(" 1 received"), "{output}");
            say(format_args!("{size} bytes to {gateway}: {}", output.lines().last().unwrap()));
        }
    }
}

#[test]
fn curl_fetches_and_posts_over_v4_and_v6() {
    let Some(lab) = Setup::of("curl").tools(&["curl"]).start() else { return };
    let body = lab.directory().join("body");
    std::fs::write(&body, Pattern::new(7, 3 * MIB).bytes()).unwrap();
    for ip in [SERVER_V4, SERVER_V6] {
        let http = HttpServer::start(&lab.server, (ip, 0));
        // Twice over one connection.
        let (url, curl) = (http.url(MIB), "curl -sS --fail --globoff");
        let fetched = lab.guest.stdout_of(30, &format!("{curl} {url} {url}"));
        let expected = Pattern::new(MIB, MIB).bytes();
        assert!(fetched == [&expected[..], &expected].concat(), "{} bytes differ", fetched.len());
        let post = format!("{curl} --data-binary @{} {url}", body.display());
        let answer = String::from_utf8(lab.guest.stdout_of(30, &post)).unwrap();
        assert_eq!(answer, pattern::sum(7, 3 * MIB).sha256);
        say(format_args!("curl {url}: twice {MIB} bytes down, {} bytes up", 3 * MIB));
    }
}

#[test]
fn iperf3_runs_both_ways() {
    let Some(lab) = Setup::of("iperf3").tools(&["iperf3"]).start() else { return };
    for (way, flag) in
        [("upload", ""), ("download", "-R"), ("4 uploads", "-P4"), ("4 downloads", "-P4 -R")]
    {
        let mut server = Command::new("timeout");
        server.args(["60", "iperf3", "--server", "--one-off", "--forceflush"]);
        let mut server = lab.server.run(|| server.stdout(Stdio::piped()).spawn()).unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.contains("listening")), "iperf3 listens");
        let client = format!("iperf3 --client {SERVER_V4} --time 2 --json {flag}");
        let report = String::from_utf8(lab.guest.stdout_of(60, &client)).unwrap();
        // Drain it, so that it does not block on its output.
        let _ = lines.count();
        assert!(server.wait().unwrap().success());
        let (_, received) = report.split_once("\"sum_received\"").expect("a sum in the report");
        let (bytes, rate) = (number(received, "bytes"), number(received, "bits_per_second"));
        assert!(bytes > 1e6 && !report.contains("\"error\""), "{report}");
        say(format_args!("iperf3 {way}: {bytes} bytes, {:.2} Gb/s", rate * 1e-9));
    }
}

/// The number of the first field `name` in some JSON.
fn number(json: &str, name: &str) -> f64 {
    let (_, value) = json.split_once(&format!("\"{name}\":")).unwrap();
    value.split([',', '}', '\n']).next().unwrap().trim().parse().unwrap()
}

// --- Every byte --------------------------------------------------------------------------------

#[test]
fn a_gigabyte_goes_up_byte_exact() {
    let Some(lab) = Setup::of("1 GiB up").start() else { return };
    lab.transfer(SERVER_V4, Direction::Upload, 1, BULK);
}

#[test]
fn a_gigabyte_comes_down_byte_exact() {
    let Some(lab) = Setup::of("1 GiB down").start() else { return };
    lab.transfer(SERVER_V4, Direction::Download, 2, BULK);
}

#[test]
fn both_ways_over_v6_byte_exact() {
    let Some(lab) = Setup::of("64 MiB each way over v6").start() else { return };
    lab.transfer(SERVER_V6, Direction::Upload, 3, 64 * MIB);
    lab.transfer(SERVER_V6, Direction::Download, 4, 64 * MIB);
}

#[test]
fn both_ways_at_once_byte_exact() {
    let Some(lab) = Setup::of("128 MiB each way at once").start() else { return };
    thread::scope(|scope| {
        scope.spawn(|| lab.transfer(SERVER_V4, Direction::Upload, 5, 128 * MIB));
        lab.transfer(SERVER_V4, Direction::Download, 6, 128 * MIB);
    });
}

/// Ends the guest and says how long the frames were: from it, and to it.
fn longest_frames(mut lab: Lab) -> (usize, usize) {
    let longest = lab.pump.take().unwrap().unplug();
    say(format_args!("{longest:?}"));
    (longest.from_guest, longest.to_guest)
}

#[test]
fn super_frames_with_partial_checksums_go_up() {
    let setup = Setup::of("offload upload").link(Mode::Vnet);
    let Some(lab) = setup.gateway(&["--once", "--offload", "upload"]).start() else { return };
    for ip in [SERVER_V4, SERVER_V6] {
        lab.transfer(ip, Direction::Upload, 11, 64 * MIB);
        lab.transfer(ip, Direction::Download, 12, 64 * MIB);
    }
    let (from_guest, to_guest) = longest_frames(lab);
    assert!(from_guest > 32_768, "the guest never sent a super-frame");
    assert_eq!(to_guest, 1514, "the guest's buffers hold no more");
}

#[test]
fn jumbo_frames_go_both_ways() {
    for mode in [Mode::Plain, Mode::Vnet] {
        let setup = Setup::of("offload jumbo").mtu(65_520).link(mode);
        let Some(lab) = setup.gateway(&["--once", "--offload", "jumbo"]).start() else { return };
        for ip in [SERVER_V4, SERVER_V6] {
            lab.transfer(ip, Direction::Upload, 13, 64 * MIB);
            lab.transfer(ip, Direction::Download, 14, 64 * MIB);
        }
        let (from_guest, to_guest) = longest_frames(lab);
        assert!(from_guest > 32_768 && to_guest > 32_768, "no jumbo frames");
        assert!(to_guest <= 65_534, "the guest's buffers hold no more");
    }
}

#[test]
fn libkruns_system_calls_carry_both_ways() {
    let Some(lab) = Setup::of("libkrun's worker").link(Mode::Libkrun).start() else { return };
    lab.transfer(SERVER_V4, Direction::Upload, 15, 64 * MIB);
    lab.transfer(SERVER_V4, Direction::Download, 16, 64 * MIB);
    thread::scope(|scope| {
        scope.spawn(|| lab.transfer(SERVER_V4, Direction::Upload, 17, 64 * MIB));
        lab.transfer(SERVER_V6, Direction::Download, 18, 64 * MIB);
    });
    assert_eq!(longest_frames(lab), (1514, 1514));
}

#[test]
fn a_thousand_connections_at_once_each_exchange_their_own_bytes() {
    const CONNECTIONS: u64 = 1000;
    let Some(lab) = Setup::of("1,000 connections at once").start() else { return };
    let (listener, address) = lab.listen(SERVER_V4);
    let (all_open, started) = (Barrier::new(CONNECTIONS as usize), Instant::now());
    let exchange = |seed: u64| {
        let mut stream = tcp::connect(address).unwrap();
        all_open.wait();
        let bytes = Pattern::new(seed, 32_768).bytes();
        stream.write_all(&bytes).unwrap();
        let mut echo = vec![0; bytes.len()];
        stream.read_exact(&mut echo).unwrap();
        assert!(echo == bytes, "connection {seed} got other bytes than it sent");
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut echo).unwrap(), 0, "and then the end");
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..CONNECTIONS {
                let stream = tcp::accept(&listener).unwrap();
                scope.spawn(move || io::copy(&mut &stream, &mut &stream).unwrap());
            }
        });
        lab.guest.run(|| {
            thread::scope(|clients| {
                for seed in 1..=CONNECTIONS {
                    clients.spawn(move || exchange(seed));
                }
            });
        });
    });
    say(format_args!("{CONNECTIONS} × 32,768 bytes and back in {:?}", started.elapsed()));
}

// --- Ends and resets ---------------------------------------------------------------------------

#[test]
fn the_guest_may_close_first_and_then_read_everything() {
    let Some(lab) = Setup::of("half-close by the guest").start() else { return };
    for ip in [SERVER_V4, SERVER_V6] {
        let (client, server) = lab.connection(ip);
        half_close(&client, &server, "guest");
    }
}

#[test]
fn the_server_may_close_first_and_then_read_everything() {
    let Some(lab) = Setup::of("half-close by the server").start() else { return };
    for ip in [SERVER_V4, SERVER_V6] {
        let (client, server) = lab.connection(ip);
        half_close(&server, &client, "server");
    }
}

/// `first` sends and closes its sending side; only when `second` has read to that end does it answer.
fn half_close(first: &TcpStream, second: &TcpStream, who: &str) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let sent = pattern::send(first, 21, 8 * MIB).unwrap();
            let answer = pattern::receive(first).unwrap();
            assert_eq!(answer, pattern::sum(22, 9 * MIB), "the answer after the half-close");
            say(format_args!("the {who} sent {sent}, closed, then got {answer}"));
        });
        assert_eq!(pattern::receive(second).unwrap(), pattern::sum(21, 8 * MIB));
        pattern::send(second, 22, 9 * MIB).unwrap();
    });
}

#[test]
fn a_reset_by_either_end_reaches_the_other() {
    let Some(lab) = Setup::of("resets").start() else { return };
    for ip in [SERVER_V4, SERVER_V6] {
        for by_server in [true, false] {
            let (mut client, mut server) = lab.connection(ip);
            client.write_all(b"hello").unwrap();
            server.read_exact(&mut [0; 5]).unwrap();
            let (closing, mut other) = if by_server { (server, client) } else { (client, server) };
            let started = Instant::now();
            tcp::reset(closing);
            let error = other.read(&mut [0]).expect_err("a reset is not an end");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            assert!(started.elapsed() < QUICK);
            let who = if by_server { "server" } else { "guest" };
            say(format_args!("{ip}: reset by the {who} seen in {:?}", started.elapsed()));
        }
    }
}

#[test]
fn a_host_reset_after_data_never_looks_like_a_clean_end() {
    let Some(lab) = Setup::of("reset after data").start() else { return };
    let mut arrived = Vec::new();
    for (round, bytes) in [1, 1000, 65_536, MIB, 4 * MIB].into_iter().cycle().take(40).enumerate() {
        let (mut client, server) = lab.connection(SERVER_V4);
        let result = thread::scope(|scope| {
            let slow = round % 2 == 0;
            let reader = scope.spawn(move || {
                if slow {
                    // Let the reset overtake the data if it can.
                    pause(Duration::from_millis(20));
                }
                let mut all = Vec::new();
                (client.read_to_end(&mut all), all)
            });
            pattern::write(&server, 31, bytes).unwrap();
            tcp::reset(server);
            reader.join().unwrap()
        });
        let (end, got) = result;
        let error = end.expect_err("a truncated stream looked complete");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        assert!(Pattern::new(31, bytes).bytes().starts_with(&got), "and what came is a prefix");
        arrived.push(got.len());
    }
    say(format_args!("{} streams cut by RST, none looked complete: {arrived:?}", arrived.len()));
}

// --- Refusals ----------------------------------------------------------------------------------

/// Connects from the guest, expects an error, and soon.
fn refused(lab: &Lab, to: SocketAddr) -> ErrorKind {
    let started = Instant::now();
    let error = lab.guest.connect(to).expect_err("a connection that must not be");
    say(format_args!("{to}: {error} after {:?}", started.elapsed()));
    assert!(started.elapsed() < QUICK, "{to}: {error} took {:?}", started.elapsed());
    error.kind()
}

#[test]
fn a_closed_port_refuses_quickly() {
    let Some(lab) = Setup::of("refused").start() else { return };
    for ip in [SERVER_V4, SERVER_V6] {
        assert_eq!(refused(&lab, (ip, 9).into()), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn an_unreachable_destination_says_so_quickly() {
    let Some(lab) = Setup::of("unreachable").start() else { return };
    lab.host.ip("route add unreachable 203.0.113.0/24\nroute add unreachable 2001:db8:dead::/48");
    for to in ["203.0.113.1:80", "[2001:db8:dead::1]:80"] {
        let kind = refused(&lab, to.parse().unwrap());
        let unreachable = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable];
        assert!(unreachable.contains(&kind), "{to}: {kind:?}");
    }
}

/// Listeners on the host's own loopback, and where a guest would look for them.
fn loopback_services(lab: &Lab) -> [(TcpListener, SocketAddr); 2] {
    [("127.0.0.1:0", GATEWAY_V4), ("[::1]:0", GATEWAY_V6)].map(|(address, gateway)| {
        let listener = lab.host.listen(address.parse::<SocketAddr>().unwrap());
        let port = listener.local_addr().unwrap().port();
        (listener, (gateway, port).into())
    })
}

#[test]
fn the_hosts_loopback_is_closed_by_default() {
    let Some(lab) = Setup::of("host loopback closed").start() else { return };
    for (listener, through_gateway) in loopback_services(&lab) {
        assert_eq!(refused(&lab, through_gateway), ErrorKind::ConnectionRefused);
        assert_untouched(&listener);
    }
}

#[test]
fn the_hosts_loopback_opens_on_request() {
    let setup = Setup::of("host loopback open");
    let Some(lab) = setup.gateway(&["--once", "--host-loopback"]).start() else { return };
    for (listener, through_gateway) in loopback_services(&lab) {
        let client = lab.guest.connect(through_gateway).expect("--host-loopback lets it through");
        let server = tcp::accept(&listener).unwrap();
        let (moved, _) = tcp::transfer(client, server, 41, MIB);
        say(format_args!("{through_gateway} to {:?}: {moved}", listener.local_addr().unwrap()));
    }
}

/// Nobody has connected, by the time that the guest has its answer.
fn assert_untouched(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let error = listener.accept().expect_err("a connection that must not be");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

/// Services on every address of the host, which has `addresses` too.
fn services_at(lab: &Lab, addresses: &[IpAddr]) -> [TcpListener; 2] {
    for address in addresses {
        lab.host.ip(&format!("addr add {address} dev lo"));
    }
    ["0.0.0.0:80", "[::]:80"].map(|all| lab.host.listen(all.parse::<SocketAddr>().unwrap()))
}

#[test]
fn metadata_addresses_never_reach_the_host() {
    // With the host's own addresses closed too, nothing would show that these are closed by themselves.
    let options = ["--once", "--host-addresses"];
    let Some(lab) = Setup::of("denied destinations").gateway(&options).start() else { return };
    let denied = [
        "169.254.169.254",    // most clouds' metadata
        "100.100.100.200",    // Alibaba's
        "168.63.129.16",      // Azure's
        "fd00:ec2::254",      // AWS's, over v6
        "64:ff9b::a9fe:a9fe", // 169.254.169.254 by NAT64
        "64:ff9b::7f00:1",    // 127.0.0.1 by NAT64
        "2002:a9fe:a9fe::1",  // 169.254.169.254 by 6to4
        "2002:7f00:1::1",     // 127.0.0.1 by 6to4
        "::ffff:0:a9fe:a9fe", // 169.254.169.254 translated
        "::a9fe:a9fe",        // 169.254.169.254 compatible
    ]
    .map(|address| address.parse::<IpAddr>().unwrap());
    let services = services_at(&lab, &denied);
    for address in denied {
        refused(&lab, (address, 80).into());
    }
    services.iter().for_each(assert_untouched);
    // The services are there: an address that is not denied reaches them.
    lab.guest.connect("192.0.2.2:80".parse().unwrap()).expect("the host's own address");
}

/// A guest can send to 127.0.0.1 over the wire. No router forwards that; silence is an answer.
#[test]
fn loopback_on_the_wire_never_reaches_the_host() {
    let Some(lab) = Setup::of("loopback on the wire").start() else { return };
    let services = services_at(&lab, &[]);
    lab.guest.sysctl("ipv4/conf/tap0/route_localnet", "1");
    lab.guest.ip("route del table local local 127.0.0.0/8 dev lo
         route del table local local 127.0.0.1 dev lo
         route add 127.0.0.1 via 100.96.0.1 dev tap0 src 100.96.0.2");
    let (to, limit) = ("127.0.0.1:80".parse().unwrap(), Duration::from_millis(1500));
    let connected = lab.guest.run(|| TcpStream::connect_timeout(&to, limit));
    say(format_args!("127.0.0.1: {}", connected.expect_err("a connection that must not be")));
    services.iter().for_each(assert_untouched);
}

// --- Waiting -----------------------------------------------------------------------------------

/// Sends 64 MiB to a reader that stops for three seconds after the first MiB: the sender stands still
/// meanwhile, which means that the window was shut, and then all of it arrives.
fn slow_reader(mut writer: &TcpStream, mut reader: &TcpStream) {
    const BYTES: u64 = 64 * MIB;
    thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let (mut pattern, mut block) = (Pattern::new(51, BYTES), vec![0; 65_536]);
            let (mut sent, mut longest) = (0, (Duration::ZERO, 0));
            while let part @ [_, ..] = pattern.next(&mut block) {
                let started = Instant::now();
                writer.write_all(part).unwrap();
                longest = longest.max((started.elapsed(), sent));
                sent += part.len() as u64;
            }
            writer.shutdown(Shutdown::Write).unwrap();
            longest
        });
        let mut all = vec![0; MIB as usize];
        reader.read_exact(&mut all).unwrap();
        pause(Duration::from_secs(3));
        reader.read_to_end(&mut all).unwrap();
        assert!(all == Pattern::new(51, BYTES).bytes(), "{} bytes, not those sent", all.len());
        let (stood_still, after) = sender.join().unwrap();
        assert!(stood_still > Duration::from_secs(1), "the sender never had to wait");
        say(format_args!(
            "the sender stood still for {stood_still:?} after {after} bytes; then all came"
        ));
    });
}

#[test]
fn a_guest_that_stops_reading_gets_everything_later() {
    let Some(lab) = Setup::of("slow guest").start() else { return };
    let (client, server) = lab.connection(SERVER_V4);
    slow_reader(&server, &client);
}

#[test]
fn a_server_that_stops_reading_gets_everything_later() {
    let Some(lab) = Setup::of("slow server").start() else { return };
    let (client, server) = lab.connection(SERVER_V4);
    slow_reader(&client, &server);
}

#[test]
fn short_connections_leave_no_descriptors_behind() {
    const CONNECTIONS: u32 = 2000;
    let Some(lab) = Setup::of("2,000 short connections").start() else { return };
    let (listener, address) = lab.listen(SERVER_V4);
    lab.transfer(SERVER_V4, Direction::Upload, 61, MIB);
    let (before, started) = (settled_descriptors(&lab), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..CONNECTIONS {
                let mut stream = tcp::accept(&listener).unwrap();
                stream.read_exact(&mut [0]).unwrap();
                stream.write_all(b"!").unwrap();
                if round % 2 == 0 {
                    // The guest closes first in these, and the server in the others.
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
                }
            }
        });
        lab.guest.run(|| {
            for _ in 0..CONNECTIONS {
                let mut stream = tcp::connect(address).unwrap();
                stream.write_all(b"?").unwrap();
                stream.read_exact(&mut [0]).unwrap();
            }
        });
    });
    let (took, limit) = (started.elapsed(), Duration::from_secs(20));
    let now = || Some(lab.gateway.descriptors());
    let after = eventually(limit, || now().filter(|now| *now <= before));
    let after = after.unwrap_or_else(|| panic!("{before} descriptors before, now {:?}", now()));
    say(format_args!(
        "{CONNECTIONS} connections in {took:?}; descriptors: {before} before, {after} after {:?}",
        started.elapsed() - took
    ));
}

/// The gateway's descriptors once it has closed those of the connections that have ended.
fn settled_descriptors(lab: &Lab) -> usize {
    let mut fewest = lab.gateway.descriptors();
    for _ in 0..10 {
        pause(Duration::from_millis(100));
        fewest = fewest.min(lab.gateway.descriptors());
    }
    fewest
}

#[test]
fn an_idle_gateway_sleeps() {
    let Some(lab) = Setup::of("idle").start() else { return };
    lab.transfer(SERVER_V4, Direction::Upload, 71, 16 * MIB);
    lab.transfer(SERVER_V4, Direction::Download, 72, 16 * MIB);
    let open = lab.connection(SERVER_V4);
    // The guest itself still asks for neighbours, routers and multicast reports in the first seconds.
    let three_seconds = || {
        let before = lab.gateway.context_switches();
        pause(Duration::from_secs(3));
        lab.gateway.context_switches() - before
    };
    let mut windows = Vec::new();
    while windows.len() < 6 && windows.last().is_none_or(|last| *last > 3) {
        windows.push(three_seconds());
    }
    say(format_args!("context switches of all threads in each 3 s: {windows:?}"));
    assert!(windows.last().is_some_and(|last| *last <= 3), "it never sleeps: {windows:?}");
    drop(open);
}

// --- The life of the link ----------------------------------------------------------------------

#[test]
fn serve_once_ends_with_its_guest() {
    let Some(mut lab) = Setup::of("serve --once").start() else { return };
    lab.transfer(SERVER_V4, Direction::Upload, 81, MIB);
    let (_client, mut server) = lab.connection(SERVER_V4);
    let started = Instant::now();
    lab.pump = None;
    let status = lab.gateway.exit_within(tcp::LIMIT).expect("it ends");
    say(format_args!("the gateway ended {:?} after its guest: {status}", started.elapsed()));
    assert!(status.success(), "{status}");
    // And the server has not been left with a connection that looks alive.
    assert!(matches!(server.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn serve_takes_one_guest_after_another() {
    let Some(mut lab) = Setup::of("serve").gateway(&[]).start() else { return };
    for seed in 91..94 {
        lab.transfer(SERVER_V4, Direction::Download, seed, MIB);
        lab.pump = None;
        lab.plug_in();
    }
    assert!(lab.gateway.exit_within(Duration::ZERO).is_none(), "it still serves");
}
