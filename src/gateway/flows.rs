//! The flow table: which segment belongs to which flow, who is to be served, and the limits.
//!
//! A segment costs one hash look-up, however many flows there are: smoltcp is handed a socket set that
//! holds that flow alone. Flows with news stand in a list and deadlines in order, so a turn touches only
//! the flows that have something to do.

mod inbound;
mod outbound;
mod recheck;
mod relays;
mod segments;
mod silence;
mod train;

use std::collections::{HashMap, VecDeque};

use mio::event::Event;
use smoltcp::iface::Interface;
use smoltcp::time::Instant;

use self::inbound::Ports;
use self::relays::shake_hands;
use self::silence::may_idle_until;
use self::train::Train;
use super::buffer_end::BufferEnd;
use super::classify::FlowKey;
use super::device::Outlet;
use super::egress::Egress;
use super::end::End;
use super::flow::{self, Flow, FlowId, Open, Outcome, Phase, Ready};
use super::link::Link;
use super::timers::Timers;
use super::windows::Windows;
use crate::config::Limits;
use crate::handle::FlowInfo;
use crate::metrics::{Counters, DropReason};
use crate::relay::RelayThreads;

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
    /// Where the guest is called from, and how many calls it has not answered.
    ports: Ports,
    calls: usize,
    /// The embedder's services.
    relays: Option<RelayThreads>,
    /// Flows to services that may have news.
    relaying: Vec<FlowId>,
    train: Train,
    /// Flows end in buffers of this process instead of sockets.
    #[cfg(any(fuzzing, test))]
    pub(crate) in_process: bool,
    /// Flows at this moment that end in the poll loop.
    buffers: usize,
    /// Those of them that were served since somebody last looked.
    buffer_news: VecDeque<FlowId>,
    /// Those that are gone.
    gone_buffers: VecDeque<FlowId>,
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
            ports: Ports::default(),
            calls: 0,
            relays: None,
            relaying: Vec::new(),
            train: Train::default(),
            #[cfg(any(fuzzing, test))]
            in_process: false,
            buffers: 0,
            buffer_news: VecDeque::new(),
            gone_buffers: VecDeque::new(),
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

    /// The place of the next flow.
    fn next_id(&mut self) -> FlowId {
        self.generation += 1;
        FlowId { index: self.table.vacant_key(), generation: self.generation }
    }

    /// Puts a half-open flow into the table, at the place that [`next_id`](Self::next_id) gave.
    fn insert(&mut self, id: FlowId, key: FlowKey, phase: Phase, turn: &Turn<'_, '_>) {
        let is_buffer = matches!(phase, Phase::Connecting { host: Some(End::Buffer(_)), .. });
        self.table.insert(Flow {
            id,
            key,
            phase,
            ready: Ready::default(),
            is_queued: false,
            is_starved: false,
            is_half_open: true,
            is_buffer,
            is_in_time_wait: false,
            deadline: None,
            published: None,
            opened: turn.now,
            last_activity: turn.now,
        });
        self.by_key.insert(key, id);
        self.half_open += 1;
        turn.counters.tcp_opened.add(1);
        turn.counters.tcp_flows.add(1);
        turn.counters.tcp_half_open.add(1);
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

    /// The kernel has news of a flow's host socket.
    pub(crate) fn host_event(&mut self, index: usize, event: &Event) {
        let Some(flow) = self.table.get_mut(index) else { return };
        let ready = &mut flow.ready;
        ready.failed |= event.is_error();
        ready.readable |= event.is_readable() || event.is_read_closed() || ready.failed;
        ready.writable |= event.is_writable() || event.is_write_closed() || ready.failed;
        ready.ended |= event.is_read_closed() || ready.failed;
        ready.urgent |= event.is_priority();
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
        let in_process = self.is_in_process();
        let Some(flow) = self.table.get_mut(id.index) else { return };
        let is_connecting = matches!(flow.phase, Phase::Connecting { .. });
        if is_connecting && !self.try_establish(id, turn) {
            return;
        }
        let Some(flow) = self.table.get_mut(id.index) else { return };
        let Phase::Open(open) = &mut flow.phase else { return };
        if matches!(open.host, Some(End::Buffer(_))) && !in_process {
            // Taken up again in the same turn.
            self.buffer_news.push_back(id);
        }
        let idle_until = may_idle_until(&self.limits, open, flow.opened, flow.last_activity);
        if turn.now >= idle_until && !open.is_in_time_wait() {
            if open.is_calling() {
                turn.counters.dropped(DropReason::GuestTimedOut);
            }
            open.abort();
        }
        if flow.is_half_open && !open.is_opening() {
            flow.is_half_open = false;
            self.half_open -= 1;
            turn.counters.tcp_half_open.subtract(1);
            let is_inbound = flow.published.is_some();
            self.calls -= usize::from(is_inbound);
            shake_hands(open, is_inbound, self.relays.as_mut(), turn.counters);
        }
        let before = (open.to_host, open.to_guest);
        let outcome =
            flow::serve(open, &mut flow.ready, &mut self.interface, &mut self.windows.budget, turn);
        turn.counters.tcp_bytes_to_host.add(open.to_host - before.0);
        turn.counters.tcp_bytes_to_guest.add(open.to_guest - before.1);
        if before != (open.to_host, open.to_guest) {
            flow.last_activity = turn.now;
        }
        let idle_until = may_idle_until(&self.limits, open, flow.opened, flow.last_activity);
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
        if flow.is_buffer {
            self.buffers -= 1;
            self.gone_buffers.push_back(id);
        }
        self.by_key.remove(&flow.key);
        self.timers.cancel(id, &mut flow.deadline);
        if flow.is_half_open {
            self.half_open -= 1;
            self.calls -= usize::from(flow.published.is_some());
            counters.tcp_half_open.subtract(1);
        }
        match flow.phase {
            Phase::Connecting { host, .. } => drop(host),
            Phase::Open(open) => {
                // The host's socket goes first, by itself: with FIN or with RST.
                let Open { socket, host, share, .. } = *open;
                drop(host);
                self.windows.give(socket, &share);
            }
        }
        // Who reads that a flow is closed finds its descriptor closed.
        counters.tcp_flows.subtract(1);
        counters.tcp_closed.add(1);
    }

    /// A flow that ends in the poll loop and has been served since its last news: the guest may have
    /// sent, or may have taken what there was for it.
    pub(crate) fn buffer_news(&mut self) -> Option<FlowId> {
        self.buffer_news.pop_front()
    }

    /// A flow that ended in the poll loop and is gone.
    pub(crate) fn gone_buffer(&mut self) -> Option<FlowId> {
        self.gone_buffers.pop_front()
    }

    /// The poll loop's end of a flow.
    pub(crate) fn buffer(&mut self, id: FlowId) -> Option<&mut BufferEnd> {
        match &mut self.flow_mut(id)?.phase {
            Phase::Open(open) => open.buffer(),
            Phase::Connecting { .. } => None,
        }
    }

    /// There is something new in the poll loop's end of a flow: bytes for the guest, or room.
    pub(crate) fn buffer_changed(&mut self, id: FlowId) {
        if let Some(flow) = self.flow_mut(id) {
            flow.ready.readable = true;
            flow.ready.writable = true;
            // Bytes and the end may have come at once, and no edge comes for the end.
            flow.ready.ended = true;
            self.activate(id);
        }
    }

    /// Resets a flow that ends in the poll loop.
    pub(crate) fn abort_buffer(&mut self, id: FlowId) {
        if let Some(Flow { phase: Phase::Open(open), .. }) = self.flow_mut(id) {
            open.abort();
            self.activate(id);
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

#[cfg(any(fuzzing, test))]
mod in_process;
#[cfg(test)]
mod tests;
