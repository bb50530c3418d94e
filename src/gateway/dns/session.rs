//! DNS over TCP with the guest (RFC 7766): messages with their length before them, many queries at once,
//! answers in the order in which they come.
//!
//! A connection whose queries outrun their answers is not read any further, so its window closes. One
//! that asks nothing for [`IDLE`] is closed, and one that does not finish its message, or does not take
//! its answers, is reset: the time does not begin again with each byte.

use std::collections::{BTreeSet, HashMap, VecDeque};

use smoltcp::time::{Duration, Instant};

use crate::gateway::flow::FlowId;
use crate::gateway::flows::Flows;

/// Queries of one connection under way at once.
const PIPELINED: usize = 16;
/// Answers that the guest has not taken, in bytes, above which no further query is read.
const UNREAD: usize = 64 << 10;
/// How long a connection may do nothing (RFC 7766 section 6.2.3).
const IDLE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Session {
    /// Queries without answer.
    under_way: usize,
    until: Instant,
    /// Nothing follows what was written.
    is_ended: bool,
    is_queued: bool,
}

/// What a connection has next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Query(Vec<u8>),
    /// There is a query, and no room for it.
    Waits,
    Nothing,
}

/// The connections of the guest.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    table: HashMap<FlowId, Session>,
    timers: BTreeSet<(Instant, FlowId)>,
    /// Those to look at.
    queue: VecDeque<FlowId>,
    /// Those that have a query for which there was no room.
    stalled: Vec<FlowId>,
}

impl Sessions {
    /// Notes the connections with news.
    pub(crate) fn look(&mut self, flows: &mut Flows, now: Instant) {
        while let Some(id) = flows.buffer_news() {
            if !self.table.contains_key(&id) {
                let until = now + IDLE;
                self.timers.insert((until, id));
                let session = Session { under_way: 0, until, is_ended: false, is_queued: false };
                self.table.insert(id, session);
            }
            self.enqueue(id);
        }
    }

    /// Has the connection looked at.
    pub(crate) fn enqueue(&mut self, id: FlowId) {
        let Some(session) = self.table.get_mut(&id) else { return };
        if !std::mem::replace(&mut session.is_queued, true) {
            self.queue.push_back(id);
        }
    }

    /// The next connection to look at.
    pub(crate) fn pop(&mut self) -> Option<FlowId> {
        let id = self.queue.pop_front()?;
        if let Some(session) = self.table.get_mut(&id) {
            session.is_queued = false;
        }
        Some(id)
    }

    /// Has the connection looked at when there is room.
    pub(crate) fn stall(&mut self, id: FlowId) {
        self.stalled.push(id);
    }

    /// There is room.
    pub(crate) fn resume(&mut self) {
        for id in std::mem::take(&mut self.stalled) {
            self.enqueue(id);
        }
    }

    /// Whether there is a connection to look at.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The next query of a connection, if it may have one more; `is_full`: nobody may.
    pub(crate) fn next(
        &mut self,
        id: FlowId,
        flows: &mut Flows,
        is_full: bool,
        now: Instant,
    ) -> Next {
        let Some(session) = self.table.get_mut(&id) else { return Next::Nothing };
        let Some(buffer) = flows.buffer(id) else { return Next::Nothing };
        if session.is_ended || session.under_way >= PIPELINED || buffer.waiting() > UNREAD {
            return Next::Nothing;
        }
        let inbound = buffer.inbound();
        let length = match (inbound.front(), inbound.get(1)) {
            (Some(high), Some(low)) => Some(usize::from(u16::from_be_bytes([*high, *low]))),
            _ => None,
        };
        match length.filter(|length| inbound.len() >= 2 + length) {
            Some(_) if is_full => Next::Waits,
            Some(length) => {
                let message = inbound.drain(..2 + length).skip(2).collect();
                session.under_way += 1;
                flows.buffer_changed(id);
                self.postpone(id, now);
                Next::Query(message)
            }
            None => {
                if buffer.guest_has_ended() && session.under_way == 0 {
                    session.is_ended = true;
                    buffer.end();
                    flows.buffer_changed(id);
                }
                Next::Nothing
            }
        }
    }

    /// Writes one answer.
    pub(crate) fn answer(&mut self, id: FlowId, answer: &[u8], flows: &mut Flows, now: Instant) {
        let Some(session) = self.table.get_mut(&id) else { return };
        session.under_way = session.under_way.saturating_sub(1);
        if let (Some(buffer), Ok(length)) = (flows.buffer(id), u16::try_from(answer.len())) {
            buffer.write(&length.to_be_bytes());
            buffer.write(answer);
            flows.buffer_changed(id);
        }
        self.postpone(id, now);
        self.enqueue(id);
    }

    /// When a connection has been idle for too long.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Ends the connections that have been idle for too long.
    pub(crate) fn expire(&mut self, flows: &mut Flows, now: Instant) {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            let session = self.table.get_mut(&id);
            let (Some(session), Some(buffer)) = (session, flows.buffer(id)) else {
                self.timers.remove(&(at, id));
                self.table.remove(&id);
                continue;
            };
            if session.under_way == 0 {
                let is_idle = buffer.waiting() == 0 && buffer.inbound().is_empty();
                if session.is_ended || !is_idle {
                    flows.abort_buffer(id);
                } else {
                    session.is_ended = true;
                    buffer.end();
                    flows.buffer_changed(id);
                }
            }
            self.postpone(id, now);
        }
    }

    /// The connection is gone.
    pub(crate) fn forget(&mut self, id: FlowId) {
        if let Some(session) = self.table.remove(&id) {
            self.timers.remove(&(session.until, id));
        }
    }

    fn postpone(&mut self, id: FlowId, now: Instant) {
        let Some(session) = self.table.get_mut(&id) else { return };
        self.timers.remove(&(session.until, id));
        session.until = now + IDLE;
        self.timers.insert((session.until, id));
    }
}
