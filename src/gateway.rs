//! The gateway: the poll loop, and what it does with each frame.
//!
//! # A turn
//!
//! 1. take the bell's notes; on shutdown drain what was pushed before it, and leave
//! 2. frames of the guest, up to a budget, from the queue and then from the stream: classify, answer or
//!    hand to their flow
//! 3. flows whose timers expired, and flows with news: move bytes, let smoltcp send
//! 4. send what was pushed; or ring the writer for it, once, if that has the send half
//! 5. wait in one epoll over the bell and the host sockets, until the next deadline; do not wait if a
//!    budget ran out, nor if the bell would not arm
//!
//! # Moderation
//!
//! A guest acknowledges every second segment of a download, and its VMM hands over one frame at a time. A
//! turn for each would cost more than the download. So, as a NIC holds its interrupts back, the poll loop
//! waits for [`PAUSE`] on its bell alone after a turn that left the VMM with [much to receive](Halves::is_ahead):
//! what it could send sooner would only lie in the stream. What the bell rings for is not held back.
//!
//! Budgets bound each step, so a flood of frames delays timers, other flows and shutdown by a turn and
//! no more.

mod answer;
mod autoconfiguration;
mod buffer_end;
#[cfg(framegate_bench)]
pub(crate) mod by_hand;
#[cfg(any(fuzzing, test))]
mod check;
mod classify;
mod datagram;
mod device;
mod dhcp;
mod dns;
mod egress;
mod end;
mod flow;
#[cfg(any(fuzzing, test))]
mod flow_check;
mod flows;
mod frame;
mod halves;
mod host;
mod icmp;
mod intake;
mod link;
mod mss;
mod nat;
mod neighbor;
mod network;
mod packet;
mod ping;
mod policy;
mod publish;
mod reassembly;
mod reset;
mod router;
mod shaper;
#[cfg(test)]
mod surroundings;
#[cfg(test)]
mod testing;
mod timers;
mod token;
mod udp;
mod windows;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};
use smoltcp::iface::{Config as InterfaceConfig, Interface};
use smoltcp::time::Instant;
use smoltcp::wire::HardwareAddress;

use self::device::Outlet;
use self::egress::Egress;
use self::flows::Turn;
use self::intake::{Ended, FRAMES, Intake, from_queue, from_stream};
use self::link::Link;
use self::network::Network;
use self::shaper::Shaper;
use self::token::Source;
use crate::capture::Tap;
use crate::config::{Config, Overflow};
use crate::control::{Command, Control};
use crate::error::StopReason;
use crate::metrics::Counters;
use crate::policy::Compiled;
use crate::publish::BoundPort;
use crate::queues::NetworkFrameQueues;
use crate::relay::{RelayThreads, Stragglers};
use crate::sync::Arc;

#[cfg(any(fuzzing, test))]
pub(crate) use self::check::fuzz_classify;
#[cfg(any(fuzzing, test))]
pub(crate) use self::dns::fuzz_dns;
pub(crate) use self::dns::is_host_name;
#[cfg(any(fuzzing, test))]
pub(crate) use self::flow_check::fuzz_flow;
pub(crate) use self::halves::Halves;
#[cfg(any(fuzzing, test))]
pub(crate) use self::reassembly::fuzz_fragments;

/// Events that one wait returns.
const EVENTS: usize = 256;

/// How long events are held back while the VMM has much to receive.
const PAUSE: time::Duration = time::Duration::from_micros(250);

/// Commands of other threads that one turn carries out.
const COMMANDS: usize = 64;

/// The poll loop of one NIC.
pub(crate) struct Gateway {
    queues: Arc<NetworkFrameQueues>,
    counters: Arc<Counters>,
    link: Link,
    poll: Poll,
    egress: Egress,
    network: Network,
    control: Arc<Control>,
    shaper: Shaper,
    /// What to do with a frame of the guest that is above its rate.
    overflow: Overflow,
    /// Captures the guest's link.
    tap: Option<Tap>,
    /// The ends of the VMM's stream; `None` if the embedder moves the frames.
    halves: Option<Halves>,
    started: time::Instant,
}

impl Gateway {
    /// Prepares the loop, which has both ends of the VMM's stream to begin with. Without `halves` the
    /// embedder moves the frames, and every frame fits the guest's MTU; with them the bridge cuts.
    pub(crate) fn new(
        config: &Config,
        queues: Arc<NetworkFrameQueues>,
        counters: Arc<Counters>,
        halves: Option<Halves>,
        control: Arc<Control>,
        stragglers: Stragglers,
        tap: Option<Tap>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        // Edge-triggered: see `wake`, "Level, edge and the token".
        poll.registry().register(
            &mut SourceFd(&queues.guest_wake.as_fd().as_raw_fd()),
            Source::Bell.into(),
            Interest::READABLE,
        )?;
        if let Some(halves) = &halves {
            halves.watch(poll.registry(), Source::Stream.into())?;
        }
        let link = Link::new(config, halves.is_some());
        let mut interface_config = InterfaceConfig::new(HardwareAddress::Ip);
        // Initial sequence numbers come from this: no guest may guess another flow's.
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        interface_config.random_seed = u64::from_ne_bytes(seed);
        let mut interface =
            Interface::new(interface_config, &mut device::Capabilities, Instant::ZERO);
        // Flows end here whatever their destination; classify has decided which may.
        interface.set_any_ip(true);
        let mut network = Network::new(config, interface);
        network.flows.set_relays(RelayThreads::new(
            config.services.iter().cloned().collect(),
            config.limits.relay_threads,
            stragglers,
            Arc::clone(&counters),
            queues.relay_wake.clone(),
        ));
        let policy = Compiled::new(&config.policy).map_err(io::Error::other)?;
        let egress = Egress::new(policy, &control.events, Arc::clone(&counters), poll.registry())?;
        let started = time::Instant::now();
        let shaper = Shaper::new(config);
        let overflow = config.overflow;
        Ok(Self {
            queues,
            counters,
            link,
            poll,
            egress,
            network,
            control,
            shaper,
            overflow,
            tap,
            halves,
            started,
        })
    }

    /// Leads ports of the host to the guest.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub(crate) fn publish(&mut self, ports: Vec<BoundPort>) -> io::Result<()> {
        self.network.publish(ports, &self.link, self.poll.registry(), &self.counters).map(drop)
    }

    /// Runs until shutdown, or until the link ends or the host fails us.
    pub(crate) fn run(mut self) -> StopReason {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = match self.round(&events) {
                Ok(timeout) => timeout,
                Err(reason) => return reason,
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return StopReason::HostFault("poll", error.kind());
                }
                _ => {}
            }
        }
    }

    /// Steps 1 to 4, and how long the fifth may wait.
    fn round(&mut self, events: &Events) -> Result<Option<time::Duration>, StopReason> {
        let wakes = self.queues.guest_wake.take();
        if wakes.space() {
            self.network.room_to_guest();
        }
        if wakes.relay() {
            self.network.relay_news();
        }
        if let Err(error) = self.dispatch(events) {
            return Err(StopReason::HostFault("watch the stream", error.kind()));
        }
        if let (true, Some(halves)) = (wakes.is_down(), &mut self.halves) {
            halves.take_back();
        }
        let ended = self.turn(wakes.is_down());
        let reason = match &ended {
            Ended::Link(reason) => Some(reason.clone()),
            _ => wakes.is_down().then_some(StopReason::Requested),
        };
        if let Some(reason) = reason {
            self.network.close_all(&self.counters);
            return Err(reason);
        }
        let has_frames = match ended {
            Ended::OverBudget => true,
            Ended::Held => false,
            _ => self.halves.as_ref().is_some_and(Halves::may_receive),
        };
        let has_work = has_frames || self.network.has_work() || !self.control.is_empty();
        if has_work || !self.queues.guest_wake.arm() || self.pause() {
            return Ok(Some(time::Duration::ZERO));
        }
        Ok(self.until_next_deadline())
    }

    /// Holds events back for a moment if that delays nothing; `true` if the armed bell has rung.
    fn pause(&mut self) -> bool {
        if !self.halves.as_mut().is_some_and(Halves::is_ahead) {
            return false;
        }
        let most = self.until_next_deadline().map_or(PAUSE, |next| next.min(PAUSE));
        self.queues.guest_wake.wait_for(most)
    }

    /// Notes what the kernel has said, and takes back the ends of the stream that are free.
    fn dispatch(&mut self, events: &Events) -> io::Result<()> {
        for event in events {
            match (Source::of(event.token()), &mut self.halves) {
                (Some(Source::Bell) | None, _) => {}
                (Some(Source::Stream), Some(halves)) => halves.readable(event),
                (Some(Source::Addresses), _) => {
                    let now = now(self.started);
                    self.egress.addresses_changed(now);
                    // Where the host's addresses change, its way to the world may have, too.
                    autoconfiguration::look_again(&mut self.network.router, now);
                }
                (Some(source), _) => self.network.host_event(source, event),
            }
        }
        match &mut self.halves {
            Some(halves) => halves.reclaim(self.poll.registry(), Source::Stream.into()),
            None => Ok(()),
        }
    }

    /// Steps 2 to 4.
    fn turn(&mut self, is_down: bool) -> Ended {
        let Self { queues, counters, link, poll, egress, network, control, halves, .. } = self;
        counters.turns.add(1);
        let now = now(self.started);
        self.shaper.refill(now);
        let Shaper { from_guest, to_guest } = &mut self.shaper;
        from_guest.take_refused();
        link.super_segment = to_guest.segment();
        let mut outlet = Outlet {
            limiter: Some(to_guest),
            recorder: self.tap.as_mut().map(Tap::recorder),
            ..Outlet::new(queues, counters)
        };
        room_by_rate(network, &outlet, link);
        let mut intake = Intake {
            limiter: from_guest,
            drops: self.overflow == Overflow::Drop,
            is_free: is_down || halves.as_ref().is_some_and(Halves::is_hung_up),
        };
        let mut turn =
            Turn { link, outlet: &mut outlet, registry: poll.registry(), counters, egress, now };
        // What was pushed before the shutdown, and no more: the other side may never stop.
        let frames = if is_down { queues.guest_to_host.len() } else { FRAMES };
        let mut ended = from_queue(queues, frames, network, &mut intake, &mut turn);
        if let (Ended::Drained, Some(halves), false) = (&ended, &mut *halves, is_down) {
            ended = from_stream(halves, network, &mut intake, &mut turn);
            halves.count();
        }
        for command in std::iter::from_fn(|| control.next()).take(COMMANDS) {
            match command {
                Command::RateLimits(from_guest, to_guest, answer) => {
                    intake.limiter.set(from_guest, now);
                    if let Some(limiter) = &mut turn.outlet.limiter {
                        limiter.set(to_guest, now);
                    }
                    answer.give(());
                }
                command => network.command(command, &mut turn),
            }
        }
        network.serve(&mut turn);
        if is_down {
            network.farewell(&mut turn);
        }
        let Some(halves) = halves else { return ended };
        if halves.has_sender() {
            // Nobody need be woken: the queue is drained here.
            outlet.batch.end_unheard();
        }
        drop(outlet);
        match halves.send() {
            Ok(()) => ended,
            Err(reason) => Ended::Link(reason),
        }
    }

    fn until_next_deadline(&self) -> Option<time::Duration> {
        let now = now(self.started);
        let deadlines = [self.network.next_deadline(), self.shaper.next_deadline(now)];
        let at = deadlines.into_iter().flatten().min()?;
        Some(if at > now { (at - now).into() } else { time::Duration::ZERO })
    }
}

/// However the poll loop leaves, nobody waits for its answer.
impl Drop for Gateway {
    fn drop(&mut self) {
        self.control.close();
    }
}

/// Whether a service can be at this address: whether the guest's packets for it get that far.
pub(crate) fn can_serve(config: &Config, address: IpAddr) -> bool {
    let link = Link::new(config, false);
    match address {
        IpAddr::V4(address) => policy::is_forwardable_v4(address, &link),
        IpAddr::V6(address) => policy::is_forwardable_v6(address, &link),
    }
}

fn now(started: time::Instant) -> Instant {
    // 292,000 years fit.
    Instant::from_micros(i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX))
}

/// Wakes those that the rate limit has held back, as far as there are tokens again. A few of them: they
/// will be at its end soon, and a thousand flows that ask in vain cost more than what they wait for.
fn room_by_rate(network: &mut Network, outlet: &Outlet<'_>, link: &Link) {
    let Some(limiter) = &outlet.limiter else { return };
    // Without room in the queue its bell will ring, for all that wait.
    if limiter.take_refused() && outlet.has_room() && network.some_room_to_guest(outlet, link) {
        limiter.refuse();
    }
}
