//! Segments of the guest: to which flow they belong, and what of them smoltcp gets.

use std::io::IoSlice;
use std::ops::Range;

use smoltcp::iface::Interface;

use super::{Flows, Turn};
use crate::gateway::answer::answer_with_reset;
use crate::gateway::classify::Segment;
use crate::gateway::flow::{self, Flow, FlowId, Open, Phase, Rest};
use crate::gateway::mss::tell_mss;
use crate::metrics::DropReason;
use crate::wire::ETHERNET;

impl Flows {
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

    /// A segment of the guest in a frame of the receive buffer. `false`, with nothing done, if the frame may
    /// have to be kept or changed: all but the segments of a flow that is open.
    pub(crate) fn continue_in_place(
        &mut self,
        buffer: &mut [u8],
        frame: &Range<usize>,
        segment: &Segment,
        turn: &mut Turn<'_, '_>,
    ) -> bool {
        let id = self.by_key.get(&segment.key).copied().filter(|_| !segment.syn);
        let boards = id.is_some_and(|id| self.board(id, buffer, frame, segment, turn));
        let Some(flow) = id.and_then(|id| self.table.get_mut(id.index)) else { return false };
        let Phase::Open(open) = &mut flow.phase else { return false };
        flow.last_activity = turn.now;
        let id = flow.id;
        if !boards {
            let was_calling = open.is_calling();
            let Some(frame) = buffer.get_mut(frame.clone()) else { return true };
            let rest = open.rest(frame, segment, 0, &mut self.windows.budget, turn);
            ingress(open, &mut self.interface, rest, turn);
            if was_calling && !segment.rst {
                self.call_again(id);
            }
        }
        self.activate(id);
        true
    }

    fn continue_flow(
        &mut self,
        id: FlowId,
        mut frame: Vec<u8>,
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
                let was_calling = open.is_calling();
                if was_calling && segment.syn {
                    open.set_mss(tell_mss(&mut frame, turn.link));
                }
                let spliced = match open.can_splice(&frame, segment, &flow.ready, 0) {
                    Some(payload) => {
                        let payload = frame.get(payload).unwrap_or_default();
                        open.send(&[IoSlice::new(payload)], &mut flow.ready)
                    }
                    None => 0,
                };
                turn.counters.tcp_bytes_to_host.add(spliced as u64);
                let rest = open.rest(&mut frame, segment, spliced, &mut self.windows.budget, turn);
                ingress(open, &mut self.interface, rest, turn);
                if was_calling && !segment.syn && !segment.rst {
                    self.call_again(id);
                }
            }
        }
        self.activate(id);
        Some(frame)
    }
}

/// Gives smoltcp what is left for it of a segment.
pub(super) fn ingress(
    open: &mut Open,
    interface: &mut Interface,
    rest: Option<Rest<'_>>,
    turn: &mut Turn<'_, '_>,
) {
    let Some(Rest { frame, segment }) = rest else { return };
    if let Some(packet) = frame.get(ETHERNET..segment.end) {
        flow::ingress(open, interface, packet, turn);
    }
    open.heard(frame, &segment, turn.now);
}
