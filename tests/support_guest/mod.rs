//! A small raw guest for tests: frames over a stream or over the queues, segments made by hand, and a
//! guest on smoltcp. Every frame that the gateway sends is checked, whoever looks at it afterwards.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub(crate) mod check;
pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod listening;
pub(crate) mod raw;
pub(crate) mod udp;
pub(crate) mod wire;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

pub(crate) const GUEST_MAC: [u8; 6] = [0x02, 0x53, 0x4d, 0, 0, 2];
pub(crate) const GATEWAY_MAC: [u8; 6] = [0x02, 0x53, 0x4d, 0, 0, 1];
pub(crate) const GUEST_V4: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 2);
pub(crate) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 1);
pub(crate) const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 2);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 1);

/// Nothing in these tests takes this long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The gateway's address with this port: the host's loopback, where that is allowed.
pub(crate) fn gateway(port: u16) -> SocketAddr {
    SocketAddr::new(GATEWAY_V4.into(), port)
}

/// The guest's address of the family of `other`.
pub(crate) fn guest_address(other: IpAddr) -> IpAddr {
    if other.is_ipv4() { GUEST_V4.into() } else { GUEST_V6.into() }
}

/// Prints a line that the harness does not swallow.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "    {line}");
}

/// Bytes that a position determines, so that a lost, doubled or moved byte shows.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// Compares without printing megabytes.
#[track_caller]
pub(crate) fn assert_same(got: &[u8], wanted: &[u8]) {
    let at = got.iter().zip(wanted).position(|(a, b)| a != b);
    assert_eq!(at, None, "the streams differ from there on");
    assert_eq!(got.len(), wanted.len(), "the streams have different lengths");
}

/// `true` in a process that runs the test `name` alone; elsewhere it starts such a process, waits for
/// it and passes its verdict on. What counts descriptors and threads of the process must be alone.
pub(crate) fn alone(name: &str) -> bool {
    alone_after(name, "")
}

/// As [`alone`], in a shell that runs `prelude` first, in the same process.
pub(crate) fn alone_after(name: &str, prelude: &str) -> bool {
    const MARK: &str = "FRAMEGATE_TEST_ALONE";
    if std::env::var(MARK).is_ok_and(|marked| marked == name) {
        return true;
    }
    let this = std::env::current_exe().unwrap();
    let script = format!("{prelude}\nexec \"$0\" --exact {name} --nocapture --test-threads=1");
    let output =
        Command::new("sh").args(["-c", &script]).arg(this).env(MARK, name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    for line in text.lines().filter(|line| line.starts_with("    ")) {
        say(line.trim());
    }
    assert!(
        output.status.success(),
        "{name} failed in its own process:\n{}\n{text}",
        String::from_utf8_lossy(&output.stdout)
    );
    false
}
