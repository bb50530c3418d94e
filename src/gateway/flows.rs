//! The flow table: which segment belongs to which flow, who is to be served, and the limits.
//!
//! A segment costs one hash look-up, however many flows there are: smoltcp is handed a socket set that
//! holds that flow alone. Flows with news stand in a list and deadlines in order, so a turn touches only
//! the flows that have something to do.

use std::collections::{HashMap, VecDeque};

use mio::event::Event;
use smoltcp::iface::Interface;
use smoltcp::socket::tcp::State;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpListenEndpoint};

use super::answer::{answer_failure, answer_unreachable, answer_with_reset};
use super::buffer_end::BufferEnd;
use super::classify::{FlowKey, Segment};
use super::device::{LinkDevice, Outlet};
use super::egress::Egress;
use super::end::End;
use super::flow::{self, Flow, FlowId, Open, Outcome, Phase, Ready};
use super::host::{ConnectError, HostSocket};
use super::icmp::Unreachable;
use super::link::Link;
use super::mss::tell_mss;
use super::policy::Decision;
use super::timers::Timers;
use super::token::Source;
use super::windows::Windows;
use crate::config::Limits;
use crate::handle::{FlowInfo, Protocol};
use crate::metrics::{Counters, DropReason};
use crate::wire::ETHERNET;

/// What a flow's work needs besides the flow.
#[derive(Debug)]
pub(crate) struct Turn<'t, 'q> {
    pub(crate) link: &'t Link,
    pub(crate) outlet: &'t mut Outlet<'q>,
    pub(crate) registry: &'t mio::Registry,
    pub(crate) counters: &'t Counters,
    pub(crate) egress: &'t mut Egress,
    pub(crate) now: Instant,
}

/// All TCP flows of one guest.
pub(crate) struct Flows {
    limits: Limits,
    interface: Interface,
    windows: Windows,
    table: slab::Slab<Flow>,
    by_key: HashMap<FlowKey, FlowId>,
    /// Flows with something to do, in the order in which they will be served.
    active: VecDeque<FlowId>,
    /// Flows that wait for room to the guest.
    starved: VecDeque<FlowId>,
    /// Flows in TIME-WAIT, the oldest first: the first to go when the table is full.
    time_wait: VecDeque<FlowId>,
    timers: Timers,
    half_open: usize,
    generation: u64,
    /// Flows end in buffers of this process instead of sockets.
    #[cfg(any(fuzzing, test))]
    pub(crate) in_process: bool,
}

impl Flows {
    pub(crate) fn new(limits: Limits, interface: Interface) -> Self {
        Self {
            windows: Windows::new(&limits),
            limits,
            interface,
            table: slab::Slab::new(),
            by_key: HashMap::new(),
            active: VecDeque::new(),
            starved: VecDeque::new(),
            time_wait: VecDeque::new(),
            timers: Timers::default(),
            half_open: 0,
            generation: 0,
            #[cfg(any(fuzzing, test))]
            in_process: false,
        }
    }

    /// When a timer expires next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether some flow has work that needs neither an event nor a timer.
    pub(crate) fn has_work(&self) -> bool {
        !self.active.is_empty()
    }

    /// A segment of the guest. The frame comes back when its buffer is free again.
    pub(crate) fn segment(
        &mut self,
        frame: Vec<u8>,
        segment: &Segment,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Vec<u8>> {
        let known = self.by_key.get(&segment.key).copied();
        let known = known.filter(|id| !(segment.opens && self.makes_way(*id, turn)));
        match known {
            Some(id) => self.continue_flow(id, frame, segment, turn),
            None if segment.opens => self.open_flow(frame, segment, turn),
            None => {
                turn.counters.dropped(DropReason::NoFlow);
                answer_with_reset(turn, &frame, segment);
                Some(frame)
            }
        }
    }

    /// A new SYN ends a flow in TIME-WAIT (RFC 9293 section 3.6.1, RFC 6191), and finishes one that the
    /// guest has reset in this very turn.
    fn makes_way(&mut self, id: FlowId, turn: &Turn<'_, '_>) -> bool {
        let Some(Flow { phase: Phase::Open(open), .. }) = self.table.get_mut(id.index) else {
            return false;
        };
        let is_over = open.is_reset_by_guest() || open.is_in_time_wait();
        if is_over {
            self.remove(id, turn.counters);
        }
        is_over
    }

    fn open_flow(
        &mut self,
        frame: Vec<u8>,
        segment: &Segment,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Vec<u8>> {
        let remote = segment.key.remote;
        let remote = match turn.egress.decide(Protocol::Tcp, remote, turn.link, turn.now) {
            Decision::Connect(remote) => remote,
            Decision::Refuse => {
                turn.counters.dropped(DropReason::Policy);
                answer_with_reset(turn, &frame, segment);
                return Some(frame);
            }
            Decision::Deny => {
                turn.counters.dropped(DropReason::Policy);
                answer_unreachable(turn, &frame, Unreachable::Prohibited);
                return Some(frame);
            }
        };
        if let Err(reason) = self.make_room(turn.counters) {
            turn.counters.dropped(reason);
            answer_with_reset(turn, &frame, segment);
            return Some(frame);
        }
        #[cfg(any(fuzzing, test))]
        let in_process = self.in_process;
        #[cfg(not(any(fuzzing, test)))]
        let in_process = false;
        let entry = self.table.vacant_entry();
        self.generation += 1;
        let id = FlowId { index: entry.key(), generation: self.generation };
        let token = Source::Flow(id.index).into();
        let host = if in_process {
            Ok(End::Buffer(BufferEnd::default()))
        } else {
            HostSocket::connect(remote, turn.registry, token).map(End::Host)
        };
        let host = match host {
            Ok(host) => host,
            Err(error) => {
                answer_failure(turn, &frame, segment, error);
                return Some(frame);
            }
        };
        let until = turn.now + span(self.limits.tcp_connect);
        entry.insert(Flow {
            id,
            key: segment.key,
            phase: Phase::Connecting { host: Some(host), syn: frame, segment: *segment, until },
            ready: Ready::default(),
            is_due: false,
            is_queued: false,
            is_starved: false,
            is_half_open: true,
            is_in_time_wait: false,
            deadline: None,
            opened: turn.now,
            last_activity: turn.now,
        });
        self.by_key.insert(segment.key, id);
        self.half_open += 1;
        turn.counters.tcp_opened.add(1);
        turn.counters.tcp_flows.add(1);
        turn.counters.tcp_half_open.add(1);
        self.schedule(id, until);
        None
    }

    /// Room for one more flow: a flow in TIME-WAIT gives way, every other is kept and the new one
    /// refused.
    fn make_room(&mut self, counters: &Counters) -> Result<(), DropReason> {
        if self.half_open >= self.limits.tcp_half_open {
            return Err(DropReason::HalfOpenLimit);
        }
        while self.table.len() >= self.limits.tcp_flows {
            let Some(oldest) = self.time_wait.pop_front() else {
                return Err(DropReason::FlowLimit);
            };
            if self.flow(oldest).is_some() {
                self.remove(oldest, counters);
            }
        }
        Ok(())
    }

    fn continue_flow(
        &mut self,
        id: FlowId,
        frame: Vec<u8>,
        segment: &Segment,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Vec<u8>> {
        let flow = self.table.get_mut(id.index)?;
        flow.last_activity = turn.now;
        match &mut flow.phase {
            // The guest repeats its SYN while the host connects; a new one replaces it.
            Phase::Connecting { syn, segment: first, .. } => {
                if segment.opens && segment.sequence != first.sequence {
                    *first = *segment;
                    return Some(std::mem::replace(syn, frame));
                }
                if segment.rst {
                    self.remove(id, turn.counters);
                }
                return Some(frame);
            }
            Phase::Open(open) => {
                if let Some(packet) = frame.get(ETHERNET..segment.end) {
                    let mut device = LinkDevice::for_ingress(turn.link, turn.outlet, packet);
                    let interface = &mut self.interface;
                    open.socket
                        .with(|set, _| interface.poll_ingress_single(turn.now, &mut device, set));
                }
                open.heard(segment, turn.now);
            }
        }
        self.activate(id);
        Some(frame)
    }

    /// The kernel has news of a flow's host socket.
    pub(crate) fn host_event(&mut self, index: usize, event: &Event) {
        let Some(flow) = self.table.get_mut(index) else { return };
        let ready = &mut flow.ready;
        ready.failed |= event.is_error();
        ready.readable |= event.is_readable() || event.is_read_closed() || ready.failed;
        ready.writable |= event.is_writable() || event.is_write_closed() || ready.failed;
        ready.ended |= event.is_read_closed() || ready.failed;
        let id = flow.id;
        self.activate(id);
    }

    /// There is room to the guest again.
    pub(crate) fn room_to_guest(&mut self) {
        self.some_room_to_guest(usize::MAX);
    }

    /// There is a little room to the guest again: wakes `most` of the flows that wait for it, those that
    /// have waited longest. `true` if more of them wait.
    pub(crate) fn some_room_to_guest(&mut self, most: usize) -> bool {
        let mut woken = 0;
        while woken < most {
            let Some(id) = self.starved.pop_front() else { return false };
            if let Some(flow) = self.flow_mut(id) {
                flow.is_starved = false;
                woken += 1;
                self.activate(id);
            }
        }
        !self.starved.is_empty()
    }

    /// Serves the flows with news, and those whose timers have expired, once each and up to `budget` of
    /// them.
    pub(crate) fn serve(&mut self, budget: usize, turn: &mut Turn<'_, '_>) {
        while let Some(id) = self.timers.expired(turn.now) {
            if let Some(flow) = self.flow_mut(id) {
                flow.deadline = None;
                flow.is_due = true;
                self.activate(id);
            }
        }
        let mut served = 0;
        for _ in 0..self.active.len() {
            if served == budget {
                break;
            }
            let Some(id) = self.active.pop_front() else { break };
            if let Some(flow) = self.flow_mut(id) {
                flow.is_queued = false;
                served += 1;
                self.serve_one(id, turn);
            }
        }
    }

    fn serve_one(&mut self, id: FlowId, turn: &mut Turn<'_, '_>) {
        let Some(flow) = self.table.get_mut(id.index) else { return };
        let is_connecting = matches!(flow.phase, Phase::Connecting { .. });
        if is_connecting && !self.try_establish(id, turn) {
            return;
        }
        let Some(flow) = self.table.get_mut(id.index) else { return };
        let Phase::Open(open) = &mut flow.phase else { return };
        let idle =
            if open.is_established() { self.limits.tcp_idle } else { self.limits.tcp_transitory };
        let idle_until = flow.last_activity + span(idle);
        if turn.now >= idle_until && !open.is_in_time_wait() {
            open.abort();
        }
        let before = (open.to_host, open.to_guest);
        let outcome = flow::serve(
            open,
            &mut flow.ready,
            std::mem::take(&mut flow.is_due),
            &mut self.interface,
            turn.link,
            turn.outlet,
            turn.now,
        );
        turn.counters.tcp_bytes_to_host.add(open.to_host - before.0);
        turn.counters.tcp_bytes_to_guest.add(open.to_guest - before.1);
        if before != (open.to_host, open.to_guest) {
            flow.last_activity = turn.now;
        }
        if flow.is_half_open && open.state() != State::SynReceived {
            flow.is_half_open = false;
            self.half_open -= 1;
            turn.counters.tcp_half_open.subtract(1);
        }
        match outcome {
            Outcome::Wait(at) => {
                let at = at.map_or(idle_until, |at| at.min(idle_until));
                self.schedule(id, at);
            }
            Outcome::TimeWait(at) => {
                if !std::mem::replace(&mut flow.is_in_time_wait, true) {
                    enlist(&mut self.time_wait, id, &self.table);
                }
                self.schedule(id, at.unwrap_or(turn.now));
            }
            Outcome::Again => self.activate(id),
            Outcome::Starved => {
                if !std::mem::replace(&mut flow.is_starved, true) {
                    enlist(&mut self.starved, id, &self.table);
                }
            }
            Outcome::Closed => self.remove(id, turn.counters),
            Outcome::Reset => {
                turn.counters.tcp_reset.add(1);
                self.remove(id, turn.counters);
            }
        }
    }

    /// Looks whether the host's connection has come about. Then smoltcp gets the guest's SYN, and not
    /// before: the guest sees a connection when there is one, and until then a half-open flow costs a
    /// socket and a frame. Returns whether the flow is open now.
    fn try_establish(&mut self, id: FlowId, turn: &mut Turn<'_, '_>) -> bool {
        let Some(flow) = self.table.get_mut(id.index) else { return false };
        let Phase::Connecting { host, syn, segment, until } = &mut flow.phase else { return true };
        let connected = match host {
            Some(host) => host.is_connected(),
            None => Err(ConnectError::Resource),
        };
        let failure = match connected {
            Ok(true) => None,
            Ok(false) if turn.now < *until => {
                let until = *until;
                self.schedule(id, until);
                return false;
            }
            Ok(false) => Some(ConnectError::TimedOut),
            Err(error) => Some(error),
        };
        if let Some(error) = failure {
            answer_failure(turn, syn, segment, error);
            self.remove(id, turn.counters);
            return false;
        }
        let Ok(mut socket) = self.windows.take() else {
            answer_failure(turn, syn, segment, ConnectError::Resource);
            self.remove(id, turn.counters);
            return false;
        };
        let key = flow.key;
        let mss = tell_mss(syn, turn.link);
        socket.socket(|socket| {
            socket.set_nagle_enabled(false);
            // When to acknowledge is the flow's own decision.
            socket.set_ack_delay(None);
            let local = IpListenEndpoint {
                addr: Some(IpAddress::from(key.remote.ip())),
                port: key.remote.port(),
            };
            // A fresh socket and a port that is not zero: it listens.
            let _ = socket.listen(local);
        });
        if let Some(packet) = syn.get(ETHERNET..segment.end) {
            let mut device = LinkDevice::for_ingress(turn.link, turn.outlet, packet);
            let interface = &mut self.interface;
            socket.with(|set, _| interface.poll_ingress_single(turn.now, &mut device, set));
        }
        let host = host.take();
        turn.outlet.queues.recycle(std::mem::take(syn));
        flow.phase = Phase::Open(Box::new(Open::new(socket, host, mss)));
        flow.ready.writable = true;
        turn.counters.tcp_established.add(1);
        true
    }

    fn flow(&self, id: FlowId) -> Option<&Flow> {
        self.table.get(id.index).filter(|flow| flow.id == id)
    }

    fn flow_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.table.get_mut(id.index).filter(|flow| flow.id == id)
    }

    fn activate(&mut self, id: FlowId) {
        let Some(flow) = self.table.get_mut(id.index) else { return };
        if !std::mem::replace(&mut flow.is_queued, true) {
            enlist(&mut self.active, id, &self.table);
        }
    }

    fn schedule(&mut self, id: FlowId, at: Instant) {
        if let Some(flow) = self.table.get_mut(id.index) {
            self.timers.no_later_than(at, id, &mut flow.deadline);
        }
    }

    /// Forgets a flow.
    fn remove(&mut self, id: FlowId, counters: &Counters) {
        let Some(mut flow) = self.table.try_remove(id.index) else { return };
        self.by_key.remove(&flow.key);
        self.timers.cancel(id, &mut flow.deadline);
        if flow.is_half_open {
            self.half_open -= 1;
            counters.tcp_half_open.subtract(1);
        }
        counters.tcp_flows.subtract(1);
        counters.tcp_closed.add(1);
        if let Phase::Open(open) = flow.phase {
            // The host's socket goes first, by itself: with FIN or with RST.
            let Open { socket, heard, to_guest, .. } = *open;
            self.windows.give(socket, heard, to_guest);
        }
    }

    /// Every flow as it is now.
    pub(crate) fn list(&mut self, now: Instant) -> Vec<FlowInfo> {
        self.table.iter_mut().map(|(_, flow)| flow.info(now)).collect()
    }

    /// Ends every flow.
    pub(crate) fn close_all(&mut self, counters: &Counters) {
        let all: Vec<FlowId> = self.table.iter().map(|(_, flow)| flow.id).collect();
        for id in all {
            self.remove(id, counters);
        }
    }
}

/// Appends a flow to a list. A flow that ends stays in its lists until they are worked off; a guest that
/// opens and resets flows could make a list grow for ever, so one that is mostly dead is swept.
fn enlist(list: &mut VecDeque<FlowId>, id: FlowId, table: &slab::Slab<Flow>) {
    if list.len() > 2 * table.len() + 64 {
        list.retain(|id| table.get(id.index).is_some_and(|flow| flow.id == *id));
    }
    list.push_back(id);
}

/// A limit as smoltcp counts time: no longer than a century, so that no sum overflows.
fn span(limit: std::time::Duration) -> Duration {
    const CENTURY: u64 = 100 * 365 * 24 * 3600;
    Duration::from_secs(limit.as_secs().min(CENTURY))
        + Duration::from_micros(u64::from(limit.subsec_micros()))
}

#[cfg(any(fuzzing, test))]
mod in_process;
#[cfg(test)]
mod tests;
