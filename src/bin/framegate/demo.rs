//! `framegate demo`: a gateway, a guest without a VM, and the host's TCP.
//!
//! The guest is a smoltcp stack on the other end of a socket pair, and sees what a virtual machine
//! would: [`link`] is its NIC, [`guest`] its operating system, [`steps`] its programs. [`servers`] are the
//! host programs that it talks to, through the gateway's address, which stands for the host's loopback.
//!
//! The rates are those of the whole: the guest's own stack and the hashing at both ends cost more than
//! the gateway does.

mod guest;
mod link;
mod servers;
mod steps;

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use framegate::{Runtime, StopReason};

use self::guest::{Addresses, Fault, Guest};
use self::steps::{STEPS, Short, Size};
use crate::args::Demo;

const ADDRESSES: Addresses = Addresses {
    guest_mac: [0x02, 0x53, 0x4d, 0, 0, 2],
    guest_ipv4: Ipv4Addr::new(100, 96, 0, 2),
    ipv4_prefix: 30,
    gateway_ipv4: Ipv4Addr::new(100, 96, 0, 1),
    guest_ipv6: Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 2),
    ipv6_prefix: 64,
    gateway_ipv6: Ipv6Addr::new(0xfd53, 0x4d00, 0, 0, 0, 0, 0, 1),
};

/// Runs all steps and prints a line for each; the status is 0 only if all of them held.
pub(crate) fn run(options: &Demo) -> ExitCode {
    let before = Held::count();
    let (runtime, mut guest) = match start() {
        Ok(started) => started,
        Err(fault) => {
            eprintln!("framegate: the demo cannot start: {fault}");
            return ExitCode::FAILURE;
        }
    };
    say(format_args!(
        "guest {} and {}, gateway {} and {}, no VM, no root",
        ADDRESSES.guest_ipv4, ADDRESSES.guest_ipv6, ADDRESSES.gateway_ipv4, ADDRESSES.gateway_ipv6
    ));
    let mut failed = 0;
    for (name, step) in STEPS {
        failed += report(name, step(&mut guest, Size(options.mib)));
    }
    let stats = runtime.stats();
    failed += report("shutdown", shut_down(runtime, guest, before));
    if failed == 0 {
        say(format_args!("all {} steps held", STEPS.len() + 1));
        return ExitCode::SUCCESS;
    }
    say(format_args!("{failed} of {} steps failed; the gateway counted: {stats}", STEPS.len() + 1));
    ExitCode::FAILURE
}

fn start() -> Result<(Runtime, Guest), Fault> {
    let (ours, guests) = UnixStream::pair()?;
    let runtime = Runtime::builder()
        .guest_mac(ADDRESSES.guest_mac)
        .guest_ipv4(ADDRESSES.guest_ipv4, ADDRESSES.ipv4_prefix)
        .gateway_ipv4(ADDRESSES.gateway_ipv4)
        .guest_ipv6(ADDRESSES.guest_ipv6, ADDRESSES.ipv6_prefix)
        .gateway_ipv6(ADDRESSES.gateway_ipv6)
        .host_loopback(true)
        .start(ours)?;
    Ok((runtime, Guest::new(guests, ADDRESSES)?))
}

/// Ends the gateway while its guest still runs. Nothing is left: no thread, no descriptor.
fn shut_down(runtime: Runtime, guest: Guest, before: Held) -> Result<String, Fault> {
    let began = Instant::now();
    let reason = runtime.shutdown();
    let took = began.elapsed();
    drop(guest);
    let StopReason::Requested = reason else { return Err(reason.to_string().into()) };
    match before.awaited() {
        left if left == before => Ok(format!(
            "{}, threads {} and descriptors {} as before",
            Short(took),
            left.threads,
            left.descriptors
        )),
        left => Err(format!("before it was {before:?}, and now it is {left:?}").into()),
    }
}

/// What this process holds of the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    threads: usize,
    descriptors: usize,
}

impl Held {
    fn count() -> Self {
        let entries = |path| fs::read_dir(path).map_or(0, Iterator::count);
        Self { threads: entries("/proc/self/task"), descriptors: entries("/proc/self/fd") }
    }

    /// Counts until it is what it was: join(3) returns a moment before the kernel takes the thread
    /// off its list, and tells nobody when it does.
    fn awaited(self) -> Self {
        let began = Instant::now();
        loop {
            let now = Self::count();
            if now == self || began.elapsed() > Duration::from_secs(1) {
                return now;
            }
            thread::yield_now();
        }
    }
}

/// Prints a step's line; 1 if it failed.
fn report(name: &str, outcome: Result<String, Fault>) -> usize {
    match outcome {
        Ok(figure) => {
            say(format_args!("  {name:<13} {figure:<58} ok"));
            0
        }
        Err(fault) => {
            say(format_args!("  {name:<13} FAILED: {fault}"));
            1
        }
    }
}

/// Whoever reads our output may have gone away; the steps go on, and the status still tells.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}
