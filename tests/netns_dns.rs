//! The DNS forwarder against the real thing: dig in the guest's namespace, the shipped program, and
//! dnsmasq beyond it. Needs root, /dev/net/tun, dig and dnsmasq; skips visibly without, and fails
//! without on CI.
//!
//! ```text
//! cargo test --release --features cli --test netns_dns -- --test-threads=1
//! ```

#![cfg(all(feature = "cli", target_os = "linux", not(loom)))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use support::daemon::Daemon;
use support::lab::{GATEWAY_V4, GATEWAY_V6, Lab, SERVER_V4, SERVER_V6, Setup};
use support::{names, say};

const TOOLS: &[&str] = &["dig", names::DNSMASQ];

/// Records of every kind that the tests ask for. The large text comes to 4,024
/// bytes with dig's query.
fn records(address: &str) -> Vec<String> {
    let mut records = vec![
        format!("--host-record=www.test,{address},2001:db8::77"),
        "--txt-record=text.test,one,two three".into(),
        "--dns-rr=odd.test,65280,0102fe".into(),
        "--cname=alias.test,www.test".into(),
        "--mx-host=test,www.test,10".into(),
        "--edns-packet-max=4096".into(),
        "--address=/many.test/192.0.2.99".into(),
        "--dnssec-no-timecheck".into(),
    ];
    for letter in ["a", "b", "c", "d"] {
        let strings = vec![letter.repeat(245); 4].join(",");
        records.push(format!("--txt-record=large.test,{strings}"));
    }
    records
}

fn serve_names(lab: &Lab, ip: IpAddr, address: &str) -> Daemon {
    let records = records(address);
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    names::start(&lab.server, lab.directory(), ip, &records)
}

/// What dig prints in the guest.
fn dig(lab: &Lab, words: &str) -> String {
    String::from_utf8(lab.guest.stdout_of(30, &format!("dig {words}"))).unwrap()
}

/// A lab whose gateway asks dnsmasq over IPv4.
fn lab(test: &str) -> Option<(Lab, Daemon)> {
    let setup = Setup::of(test).tools(TOOLS).gateway(&["--once", "--dns", "192.0.2.1"]);
    let lab = setup.start()?;
    let server = serve_names(&lab, SERVER_V4, "192.0.2.77");
    Some((lab, server))
}

#[test]
fn dig_finds_every_kind_of_record_over_v4_and_v6_udp_and_tcp() {
    let Some((lab, _server)) = lab("dig") else { return };
    for gateway in [GATEWAY_V4, GATEWAY_V6] {
        for transport in ["+notcp", "+tcp"] {
            let short = |words: &str| dig(&lab, &format!("@{gateway} {transport} +short {words}"));
            assert_eq!(short("www.test A"), "192.0.2.77\n");
            assert_eq!(short("WwW.tEsT AAAA"), "2001:db8::77\n");
            assert_eq!(short("alias.test A"), "www.test.\n192.0.2.77\n");
            assert_eq!(short("text.test TXT"), "\"one\" \"two three\"\n");
            assert_eq!(short("odd.test TYPE65280"), "\\# 3 0102FE\n");
            assert_eq!(short("test MX"), "10 www.test.\n");
            assert!(short("version.bind CH TXT").contains("dnsmasq"));
            assert!(dig(&lab, &format!("@{gateway} {transport} none.test")).contains("NXDOMAIN"));
        }
    }
}

/// RFC 5625 section 4.4: TC reaches the guest, whose resolver then comes over TCP.
#[test]
fn rfc_5625_4_4_a_large_answer_is_truncated_and_fetched_over_tcp() {
    let Some((lab, _server)) = lab("a text of 4 KB") else { return };
    for gateway in [GATEWAY_V4, GATEWAY_V6] {
        let text = dig(&lab, &format!("@{gateway} +bufsize=1232 large.test TXT"));
        assert!(text.contains("Truncated, retrying in TCP mode"), "{text}");
        for letter in ["a", "b", "c", "d"] {
            assert!(text.contains(&letter.repeat(245)), "{text}");
        }
        let text = dig(&lab, &format!("@{gateway} +bufsize=1232 +ignore large.test TXT"));
        assert!(text.contains("flags: qr aa tc"), "{text}");
    }
}

/// RFC 5625 section 4.4.2: with room for it the answer comes over UDP, in fragments.
#[test]
fn rfc_5625_4_4_2_a_large_answer_comes_over_udp_with_edns() {
    let Some((lab, _server)) = lab("EDNS") else { return };
    // A link of 1,500 bytes cuts what dnsmasq sends as well as what the gateway sends.
    for gateway in [GATEWAY_V4, GATEWAY_V6] {
        let text = dig(&lab, &format!("@{gateway} +bufsize=4096 +notcp text.test TXT"));
        assert!(text.contains("EDNS: version: 0"), "{text}");
        let text = dig(&lab, &format!("@{gateway} +bufsize=4096 +ignore +qr large.test TXT"));
        assert!(!text.contains("tc") && text.contains("ANSWER: 4"), "{text}");
        assert!(text.contains(&"d".repeat(245)), "{text}");
        let mut sizes = text.lines().filter(|line| line.contains("MSG SIZE"));
        say(format_args!("{gateway}: {}", sizes.next_back().unwrap_or_default()));
    }
}

#[test]
fn rfc_5625_4_1_flags_cookies_and_options_of_dig_are_no_obstacle() {
    let Some((lab, _server)) = lab("flags and options") else { return };
    for options in [
        "+cookie",
        "+cd +adflag +zflag",
        "+bufsize=4096 +nsid +cookie +subnet=192.0.2.0/24 +ednsopt=65001:abcd",
        "+dnssec +noedns",
        "+ednsflags=0x4000",
        "+noedns +norecurse",
    ] {
        let text = dig(&lab, &format!("@{GATEWAY_V4} {options} www.test A"));
        assert!(text.contains("status: NOERROR") && text.contains("192.0.2.77"), "{text}");
        assert!(!text.contains("Warning") && !text.contains("malformed"), "{text}");
    }
}

#[test]
fn dig_pipelines_over_one_connection() {
    let Some((lab, _server)) = lab("keep the connection open") else { return };
    let names = "a.many.test b.many.test c.many.test d.many.test";
    let text = dig(&lab, &format!("@{GATEWAY_V4} +tcp +keepopen +short {names}"));
    assert_eq!(text, "192.0.2.99\n".repeat(4));
}

/// Two thousand questions are under way at once; what dnsmasq's socket cannot hold is asked again.
#[test]
fn two_thousand_queries_in_parallel_are_answered() {
    const QUERIES: u16 = 2000;
    let Some((lab, _server)) = lab("2,000 queries") else { return };
    // Before its first answer the gateway may still be opening what it needs.
    let ready = dig(&lab, &format!("@{GATEWAY_V4} +short ready.many.test A"));
    assert_eq!(ready, "192.0.2.99\n");
    let before = lab.gateway.descriptors();
    let started = Instant::now();
    let answered = lab.guest.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // All the answers may come before the last question is out.
        support::sys::force_receive_buffer(&socket, 8 << 20).unwrap();
        socket.connect((GATEWAY_V4, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut seen = vec![false; usize::from(QUERIES)];
        let mut buffer = [0; 1500];
        // All at once, and then, as a resolver does, those again that were lost: in the sockets of dnsmasq
        // or of this guest, on a machine that is busy.
        for _ in 0..6 {
            for id in (0..QUERIES).filter(|id| !seen[usize::from(*id)]) {
                let label = format!("n{id:04}");
                let mut message = id.to_be_bytes().to_vec();
                message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 5]);
                message.extend_from_slice(label.as_bytes());
                message.extend_from_slice(b"\x04many\x04test\0\0\x01\0\x01");
                socket.send(&message).unwrap();
            }
            while seen.iter().any(|seen| !seen) {
                let n = match socket.recv(&mut buffer) {
                    Ok(n) => n,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                };
                let id = u16::from_be_bytes([buffer[0], buffer[1]]);
                assert_eq!(buffer[13..18], *format!("n{id:04}").as_bytes());
                // SERVFAIL: dnsmasq has not had the time.
                if buffer[3] & 15 != 2 {
                    assert_eq!(buffer[3] & 15, 0, "query {id}");
                    assert_eq!(buffer[n - 4..n], [192, 0, 2, 99]);
                    seen[usize::from(id)] = true;
                }
            }
        }
        seen.iter().filter(|seen| **seen).count()
    });
    say(format_args!("{answered} answers in {:?}", started.elapsed()));
    assert_eq!(answered, usize::from(QUERIES));
    let after = support::eventually(Duration::from_secs(30), || {
        let now = lab.gateway.descriptors();
        (now <= before).then_some(now)
    });
    assert!(after.is_some(), "{before} descriptors, then {}", lab.gateway.descriptors());
}

#[test]
fn a_dead_first_upstream_is_passed_over_and_remembered() {
    // Nobody has the first address, and at the second nobody listens.
    let upstreams =
        ["--once", "--dns", "192.0.2.200", "--dns", "192.0.2.1:5353", "--dns", "192.0.2.1"];
    let Some(lab) = Setup::of("a dead upstream").tools(TOOLS).gateway(&upstreams).start() else {
        return;
    };
    let _server = serve_names(&lab, SERVER_V4, "192.0.2.77");
    for transport in ["+notcp", "+tcp"] {
        let first = dig(&lab, &format!("@{GATEWAY_V4} {transport} +tries=1 +timeout=5 www.test"));
        assert!(first.contains("192.0.2.77"), "{first}");
        for _ in 0..3 {
            // Less than one upstream's second.
            let next =
                dig(&lab, &format!("@{GATEWAY_V4} {transport} +tries=1 +timeout=1 www.test"));
            assert!(next.contains("192.0.2.77"), "{next}");
        }
    }
}

#[test]
fn the_resolver_file_is_followed_while_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    let write = |text: &str| {
        let new = directory.path().join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &file).unwrap();
    };
    write("search test\nnameserver 192.0.2.1\n");
    let path = file.to_str().unwrap();
    let arguments = ["--once", "--dns", "host", "--resolver-file", path];
    let Some(lab) = Setup::of("resolv.conf").tools(TOOLS).gateway(&arguments).start() else {
        return;
    };
    let _first = serve_names(&lab, SERVER_V4, "192.0.2.77");
    let _second = serve_names(&lab, SERVER_V6, "192.0.2.78");
    let answer = || dig(&lab, &format!("@{GATEWAY_V4} +short +tries=1 www.test"));
    assert_eq!(answer(), "192.0.2.77\n");
    write("nameserver 2001:db8::1\n");
    assert_eq!(answer(), "192.0.2.78\n", "renamed over");
    fs::write(&file, "nameserver 192.0.2.1\n").unwrap();
    assert_eq!(answer(), "192.0.2.77\n", "rewritten in place");
    fs::remove_file(&file).unwrap();
    let text = dig(&lab, &format!("@{GATEWAY_V4} +tries=1 www.test"));
    assert!(text.contains("SERVFAIL"), "{text}");
    write("nameserver 2001:db8::1\n");
    assert_eq!(answer(), "192.0.2.78\n", "there again");
    answers_at_a_link_local_address(&lab, &write);
}

/// Names the server's link-local address, with the host's interface, and answers there.
fn answers_at_a_link_local_address(lab: &Lab, write: &impl Fn(&str)) {
    let socket = lab.server.run(|| {
        let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let line = addresses.lines().find(|line| line.starts_with("fe80")).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let address = Ipv6Addr::from(u128::from_str_radix(words[0], 16).unwrap());
        let scope = u32::from_str_radix(words[1], 16).unwrap();
        UdpSocket::bind(SocketAddrV6::new(address, 53, 0, scope)).unwrap()
    });
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let IpAddr::V6(address) = socket.local_addr().unwrap().ip() else { unreachable!() };
    write(&format!("nameserver {address}%d0\n"));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 1500];
            let (n, from) = socket.recv_from(&mut buffer).unwrap();
            buffer[2] |= 0x80;
            socket.send_to(&buffer[..n], from).unwrap();
        });
        let text = dig(lab, &format!("@{GATEWAY_V4} +tries=1 +nocookie www.test"));
        assert!(text.contains("status: NOERROR") && text.contains("ANSWER: 0"), "{text}");
        say(format_args!("{address}%d0 was asked"));
    });
}

/// RFC 5625 section 6.2: nobody outside reaches the forwarder.
#[test]
fn rfc_5625_6_2_the_forwarder_is_not_reachable_from_outside() {
    let Some((lab, _server)) = lab("from outside") else { return };
    assert_eq!(dig(&lab, &format!("@{GATEWAY_V4} +short www.test")), "192.0.2.77\n");
    for host in ["192.0.2.2", "2001:db8::2"] {
        for transport in ["+notcp", "+tcp"] {
            let words =
                ["dig", &format!("@{host}"), transport, "+tries=1", "+timeout=1", "www.test"];
            let output = lab.server.output(20, &words);
            assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}

/// RFC 5625 section 5: the guest may ask any server itself; with interception it gets the forwarder.
#[test]
fn rfc_5625_5_the_guest_may_ask_another_server_unless_that_is_intercepted() {
    let arguments =
        ["--once", "--dns", "192.0.2.1", "--dns-intercept", "--dns-record", "own.test=192.0.2.55"];
    let Some(lab) = Setup::of("interception").tools(TOOLS).gateway(&arguments).start() else {
        return;
    };
    let _server = serve_names(&lab, SERVER_V4, "192.0.2.77");
    for transport in ["+notcp", "+tcp"] {
        // Nobody is there; dig would not take an answer from another address.
        for server in ["198.18.0.1", "2001:db8:77::1", "100.96.0.1"] {
            let text = dig(&lab, &format!("@{server} {transport} +short www.test own.test"));
            assert_eq!(text, "192.0.2.77\n192.0.2.55\n", "{server}");
        }
    }
    let Some((lab, _server)) = self::lab("no interception") else { return };
    let text = dig(&lab, "@192.0.2.1 +tcp +short www.test");
    assert_eq!(text, "192.0.2.77\n");
}
