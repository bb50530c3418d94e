//! framegate gives a microVM guest its network from an ordinary host process: no root, no tap device
//! and no kernel module. It is the host side of one virtio-net NIC. The VMM hands over Ethernet
//! frames; framegate is the guest's gateway, ends its TCP in smoltcp and relays it to host sockets.
//!
//! # The way of a frame
//!
//! ```text
//!  guest ── VMM ── unix stream ── Receiver ─────────────────────────────> gateway ──> host sockets
//!                                   └> framegate-rx ── guest_to_host ──────^  │
//!                                        guest_wake ->    <- guest_space      │ one epoll
//!                                                                             v
//!  guest <── VMM <─ unix stream ── Sender <───────── host_to_guest <──── gateway <── host sockets
//!                                   └> framegate-tx <- host_wake
//! ```
//!
//! While the poll loop keeps up it runs both ends of the stream itself: a small request wakes one thread.
//! It lends the receive half to `framegate-rx` when the guest sends more frames than it can take one by one,
//! and the send half to `framegate-tx` when the stream is full.
//!
//! Read in this order to follow a frame from the guest to the host:
//!
//! | module | what it holds |
//! |---|---|
//! | [`wake`] | the bell: state word, eventfd, and why no wake is lost |
//! | [`queues`] | [`NetworkFrameQueues`]: two bounded queues, their wakes, shutdown |
//! | [`pipe`] | [`BytePipe`]: bytes between the poll loop and a relay thread |
//! | `hand_over` | who runs which end of the VMM's stream: the poll loop, the reader, the writer |
//! | `bridge` | libkrun's and QEMU's stream framing; merge and cut; the two threads |
//! | `policy` | [`Policy`]: where the guest may go; rules, floor, names, events |
//! | `gateway` | the poll loop: classify, ARP and NDP, echo, TCP flows, policy |
//! | `publish` | [`Publish`]: ports of the host that lead to the guest |
//! | `relay` | [`RelayStream`]: services that the embedder runs for the guest |
//! | [`Runtime`] | starts the threads, stops them, says why they stopped |
//!
//! # Threads
//!
//! | thread | owns | blocks in |
//! |---|---|---|
//! | `framegate-poll` | all smoltcp state, all host sockets, all flows, all timers; the ends of the stream that it has not lent | one epoll over its bell, the host sockets and the stream |
//! | `framegate-rx` | the receive half, while the guest's frames outrun the poll loop | its bell |
//! | `framegate-relay` | one connection of the guest to a service of the embedder's | whatever the service does; its ends of two byte pipes |
//! | `framegate-tx` | the send half, while the stream is full | its bell; or poll for room in the stream |
//! | `framegate-pcap` | the destination of a [`Capture`], if there is one | its bell; or the write |
//!
//! # Features
//!
//! `runtime` (default) is everything; without it the crate is the core that the models check:
//! [`NetworkFrameQueues`] and [`WakePipe`], on crossbeam-queue and libc alone.
#![cfg_attr(
    feature = "runtime",
    doc = r#"
# Example

```no_run
use std::os::unix::net::UnixStream;

// One end goes to the VMM (`krun_add_net_unixstream(ctx, NULL, fd, mac, 0, 0)`), the other to us.
let (ours, for_the_vmm) = UnixStream::pair()?;
let runtime = framegate::Runtime::builder().start(ours)?;
# drop(for_the_vmm);
// … run the VM …
println!("{}", runtime.stats());
let why = runtime.shutdown();
println!("the network stopped: {why}");
# Ok::<(), Box<dyn std::error::Error>>(())
```
"#
)]

#[doc(hidden)] // Not API: for the models.
pub mod hand_over;
pub mod pipe;
pub mod queues;
pub mod wake;

mod pool;
mod sync;
#[cfg(not(loom))]
mod sys;

#[cfg(feature = "runtime")]
mod bridge;
#[cfg(feature = "runtime")]
mod capture;
#[cfg(feature = "runtime")]
mod config;
#[cfg(feature = "runtime")]
mod control;
#[cfg(feature = "runtime")]
mod error;
#[cfg(feature = "runtime")]
mod gateway;
#[cfg(feature = "runtime")]
mod handle;
#[cfg(feature = "runtime")]
mod metrics;
#[cfg(feature = "runtime")]
mod policy;
#[cfg(feature = "runtime")]
mod publish;
#[cfg(feature = "runtime")]
mod rate;
#[cfg(feature = "runtime")]
mod relay;
#[cfg(feature = "runtime")]
mod runtime;
#[cfg(feature = "runtime")]
mod wire;

pub use pipe::{BytePipe, PipeRead};
pub use queues::NetworkFrameQueues;
pub use sync::{Arc, ArrayQueue};
pub use wake::{WakePipe, Wakes};

#[cfg(feature = "runtime")]
pub use capture::Capture;
#[cfg(feature = "runtime")]
pub use config::{Builder, Dns, Limits, MacAddress, Offload, Overflow, UdpFiltering};
#[cfg(feature = "runtime")]
pub use control::ControlError;
#[cfg(feature = "runtime")]
pub use error::{ConfigError, FramingViolation, StartError, StopReason};
#[cfg(feature = "runtime")]
pub use handle::{FlowInfo, FlowState, Protocol, RuntimeHandle};
#[cfg(feature = "runtime")]
pub use metrics::{DropReason, Stats, StatsReader};
#[cfg(feature = "runtime")]
pub use policy::{
    Action, Attempt, Because, Floor, HostName, IpNet, LiveFlows, MAX_RULES, ParseRuleError, Policy,
    PolicyError, PolicyEvent, PolicyEvents, Rule, Target,
};
#[cfg(feature = "runtime")]
pub use publish::{IpFamily, Publish, PublishError, PublishId, Published};
#[cfg(feature = "runtime")]
pub use rate::RateLimit;
#[cfg(feature = "runtime")]
pub use relay::RelayStream;
#[cfg(feature = "runtime")]
pub use runtime::Runtime;

/// Entry points for the fuzzers, which see the parsers without sockets or threads. Not API.
#[cfg(all(feature = "runtime", any(fuzzing, test)))]
#[doc(hidden)]
pub mod fuzz;

/// The parts of the per-packet path, one by one, for the benchmarks. Not API.
#[cfg(all(feature = "runtime", framegate_bench))]
#[doc(hidden)]
pub mod bench;

/// The examples of the README compile.
#[cfg(all(doctest, feature = "runtime"))]
#[doc = include_str!("../README.md")]
mod readme {}
