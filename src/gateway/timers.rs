//! Deadlines of flows, in order.
//!
//! A flow's deadline moves with every packet, mostly to later. Only a move to earlier touches the
//! order; an entry that fires too early is looked at and put back. So a flow has one entry at the most,
//! and a busy one costs no operation here for each packet.

use std::collections::BTreeSet;
use std::time;

use smoltcp::time::{Duration, Instant};

use super::flow::FlowId;

/// When to look at which flow.
#[derive(Debug, Default)]
pub(crate) struct Timers(BTreeSet<(Instant, FlowId)>);

impl Timers {
    /// Sees to it that the flow is looked at no later than `at`. `entry` is the flow's own note of its
    /// entry here.
    pub(crate) fn no_later_than(&mut self, at: Instant, flow: FlowId, entry: &mut Option<Instant>) {
        if entry.is_some_and(|earlier| earlier <= at) {
            return;
        }
        self.cancel(flow, entry);
        self.0.insert((at, flow));
        *entry = Some(at);
    }

    /// Removes the flow's entry.
    pub(crate) fn cancel(&mut self, flow: FlowId, entry: &mut Option<Instant>) {
        if let Some(at) = entry.take() {
            self.0.remove(&(at, flow));
        }
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Removes one deadline that has passed. The caller clears the flow's note of it.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<FlowId> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, flow)| flow)
    }
}

/// A limit as smoltcp counts time: no longer than a century, so that no sum overflows.
pub(crate) fn span(limit: time::Duration) -> Duration {
    const CENTURY: u64 = 100 * 365 * 24 * 3600;
    Duration::from_secs(limit.as_secs().min(CENTURY))
        + Duration::from_micros(u64::from(limit.subsec_micros()))
}

#[cfg(test)]
mod tests;
