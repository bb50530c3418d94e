//! `framegate demo`: a gateway, a guest without a VM, and programs of the host.
//!
//! The guest is a smoltcp stack on the other end of a socket pair, and sees what a virtual machine
//! would: [`link`] is its NIC, [`guest`] its operating system, [`steps`] its programs. [`servers`] are the
//! host programs that it talks to, through the gateway's address, which stands for the host's loopback;
//! [`upstream`] is the DNS server that the gateway asks. Nothing leaves the host.
//!
//! The rates are those of the whole: the guest's own stack and the hashing at both ends cost more than
//! the gateway does.

mod guest;
mod link;
mod servers;
mod steps;
mod upstream;

use std::fs;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use framegate::{Dns, MacAddress, Runtime, StopReason};

use self::guest::{Fault, Guest};
use self::steps::{BOOT, Lab, STEPS, Short, Size};
use self::upstream::Upstream;
use crate::args::Demo;

/// All that the guest knows before it asks.
const MAC: MacAddress = [0x02, 0x53, 0x4d, 0, 0, 2];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 1);

/// Runs all steps and prints a line for each; the status is 0 only if all of them held.
pub(crate) fn run(options: &Demo) -> ExitCode {
    let before = Held::count();
    let (runtime, upstream, mut lab) = match start(Size(options.mib)) {
        Ok(started) => started,
        Err(fault) => {
            eprintln!("framegate: the demo cannot start: {fault}");
            return ExitCode::FAILURE;
        }
    };
    say(format_args!("a gateway and a guest that knows its MAC address: no VM, no root"));
    let mut failed = 0;
    for (name, step) in BOOT {
        failed += report(name, step(&mut lab));
    }
    let steps = if failed == 0 { STEPS } else { &[] };
    for (name, step) in steps {
        failed += report(name, step(&mut lab));
    }
    let stats = runtime.stats();
    failed += report("shutdown", shut_down(runtime, upstream, lab, before));
    let all = BOOT.len() + STEPS.len() + 1;
    if failed == 0 {
        say(format_args!("all {all} steps held"));
        return ExitCode::SUCCESS;
    }
    say(format_args!("{failed} of {all} steps failed; the gateway counted: {stats}"));
    ExitCode::FAILURE
}

fn start(size: Size) -> Result<(Runtime, Upstream, Lab), Fault> {
    let upstream = Upstream::start(GATEWAY)?;
    let (ours, guests) = UnixStream::pair()?;
    let runtime = Runtime::builder()
        .guest_mac(MAC)
        .gateway_ipv4(GATEWAY)
        .host_loopback(true)
        .dns(Dns::Servers(vec![upstream.address()]))
        .service(steps::SERVICE, steps::serve)
        .start(ours)?;
    let lab = Lab { guest: Guest::new(guests, MAC)?, handle: runtime.handle(), size };
    Ok((runtime, upstream, lab))
}

/// Ends the gateway while its guest still runs. Nothing is left: no thread, no descriptor.
fn shut_down(
    runtime: Runtime,
    upstream: Upstream,
    lab: Lab,
    before: Held,
) -> Result<String, Fault> {
    let began = Instant::now();
    let reason = runtime.shutdown();
    let took = began.elapsed();
    drop((lab, upstream));
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
