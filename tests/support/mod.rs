//! What the tests against the real thing share: network namespaces, a tap pump that plays the VMM,
//! the gateway's process, and streams of bytes whose every byte is checked.

// Each test program uses its own part of this.
#![allow(dead_code)]

pub(crate) mod beyond;
pub(crate) mod capture;
pub(crate) mod daemon;
pub(crate) mod gateway;
pub(crate) mod guest;
pub(crate) mod http;
pub(crate) mod lab;
pub(crate) mod libkrun;
pub(crate) mod names;
pub(crate) mod namespace;
pub(crate) mod pattern;
pub(crate) mod prerequisites;
pub(crate) mod pump;
pub(crate) mod sys;
pub(crate) mod tcp;
pub(crate) mod udp;

use std::fmt::Display;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

/// Prints a line that the test harness does not swallow.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "    {line}");
}

/// Sleeps, where time itself is what the test is about.
#[expect(clippy::disallowed_methods, reason = "the test is about time; no wake is awaited")]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

/// Asks `look` again and again until it finds something, for what no event tells about: another
/// process's exit, its descriptors, its listening socket. `None` after `limit`.
pub(crate) fn eventually<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if started.elapsed() > limit {
            return None;
        }
        pause(Duration::from_millis(5));
    }
}
