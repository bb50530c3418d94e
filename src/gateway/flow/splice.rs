//! The short way to the host: bytes of the guest from the frame that they came in to the far end, past
//! smoltcp.
//!
//! # Theory of operation
//!
//! smoltcp copies what it receives into its ring, from which the flow sends it: two passes over memory that
//! no cache holds, for a flow with a window of a megabyte. So a segment that smoltcp would do nothing with
//! but append it to an empty ring is sent from where it lies, and smoltcp never hears of its bytes. Its
//! numbering of the guest's stream falls behind by that many, the *shift*; sequence numbers are moved by it
//! on their way into smoltcp, and acknowledgements on their way out. (TCP splicing: Maltz and Bhagwat, IBM
//! Research Report RC 21139, 1998.)
//!
//! What smoltcp sees is one consistent connection, in which the guest has sent less: every rule of TCP stays
//! its own. It sees the headers of a spliced segment if they say anything new, with what was not spliced:
//! bytes that the far end did not take, and the FIN.
//!
//! Spliced is only the next byte of the stream, in ESTABLISHED, with an empty ring before it and nothing
//! behind it: data that smoltcp keeps beyond a hole have their place by a number that must not move.
//!
//! The acknowledgement of spliced bytes rides on whatever smoltcp sends next. If it has nothing to send it
//! is shown the byte before the next one again, which it acknowledges at once (RFC 9293 section 3.10.7.4).

use std::io::{ErrorKind, IoSlice};
use std::ops::Range;

use smoltcp::socket::tcp::State;

use super::{Open, Ready};
use crate::gateway::classify::Segment;
use crate::gateway::device::Said;
use crate::gateway::flows::Turn;
use crate::gateway::windows::Budget;
use crate::metrics::DropReason;
use crate::wire::{TcpLayout, be16, be32, flag, for_each_option, put32, tcp_layout};

/// Where smoltcp's numbering of the guest's stream stands.
#[derive(Debug, Default)]
pub(super) struct Splice {
    /// Bytes that smoltcp has not heard of.
    shift: u32,
    /// Bytes that have gone through smoltcp's ring and out of it.
    taken: u32,
    /// What smoltcp has said last, and the bytes that had come into its ring by then.
    said: Option<(Said, u32)>,
    /// Where the furthest data end that smoltcp may hold beyond a hole.
    beyond: Option<u32>,
    /// smoltcp had data before it said anything: it may hold some anywhere.
    is_blind: bool,
    /// Acknowledgement and window of the guest as smoltcp knows them.
    heard: Option<(u32, u16)>,
    /// Spliced bytes are to be acknowledged.
    is_owed: bool,
}

/// What a segment of the guest has, in smoltcp's numbering.
#[derive(Clone, Copy)]
struct Numbers {
    sequence: u32,
    acknowledgement: u32,
    window: u16,
    flags: u8,
}

/// A segment, or what is left of one, in smoltcp's numbering.
pub(crate) struct Rest<'f> {
    pub(crate) frame: &'f mut [u8],
    pub(crate) segment: Segment,
}

impl Splice {
    pub(super) fn shift(&self) -> u32 {
        self.shift
    }

    /// Bytes were taken out of smoltcp's ring.
    pub(super) fn taken(&mut self, n: usize) {
        self.taken = self.taken.wrapping_add(n as u32);
    }

    /// Whether smoltcp may hold data beyond a hole, with nothing in its ring.
    pub(super) fn has_beyond(&mut self) -> bool {
        if let Some(next) = self.next(0) {
            self.beyond.take_if(|beyond| next.wrapping_sub(*beyond) < HALF);
        }
        self.is_blind || self.beyond.is_some()
    }

    pub(super) fn is_owed(&self) -> bool {
        self.is_owed
    }

    /// smoltcp has sent something, with `waiting` bytes in its ring.
    pub(super) fn said(&mut self, mut said: Said, waiting: usize) {
        // A retransmission ends before what was sent already.
        if let Some((before, _)) = self.said
            && before.next.wrapping_sub(said.next) < HALF
        {
            said.next = before.next;
        }
        self.said = Some((said, self.taken.wrapping_add(waiting as u32)));
        self.is_owed = false;
    }

    /// The number of the next byte that smoltcp expects (RCV.NXT).
    pub(super) fn next(&self, waiting: usize) -> Option<u32> {
        let (said, then) = self.said?;
        let since = self.taken.wrapping_add(waiting as u32).wrapping_sub(then);
        Some(said.acknowledgement.wrapping_add(since))
    }

    /// Whether smoltcp would append this segment to an empty ring, and do nothing else with its bytes, once
    /// it has had `aboard` more.
    fn is_next(&mut self, numbers: &Numbers, aboard: usize) -> bool {
        let (Some(next), Some((said, _))) = (self.next(0), self.said) else { return false };
        // An acknowledgement of what was not sent yet spoils the segment (RFC 9293 section 3.10.7.4).
        let is_sent = said.next.wrapping_sub(numbers.acknowledgement) < HALF;
        !self.has_beyond() && numbers.sequence == next.wrapping_add(aboard as u32) && is_sent
    }

    /// How far a segment goes beyond what smoltcp has; 0 if it does not.
    fn passes(&self, segment: &Segment, waiting: usize) -> u32 {
        let end = segment.sequence.wrapping_add(segment.payload as u32);
        let beyond = self.next(waiting).map_or(0, |next| end.wrapping_sub(next));
        if segment.payload > 0 && beyond < HALF { beyond } else { 0 }
    }

    /// smoltcp gets these bytes. It keeps no FIN beyond a hole.
    fn note(&mut self, numbers: &Numbers, len: u32, waiting: usize) {
        self.heard = Some((numbers.acknowledgement, numbers.window));
        let Some(next) = self.next(waiting) else {
            self.is_blind |= numbers.flags & flag::SYN == 0 && len > 0;
            return;
        };
        let ahead = |number: u32| number.wrapping_sub(next);
        if len > 0 && (1..FAR).contains(&ahead(numbers.sequence)) {
            let end = numbers.sequence.wrapping_add(len);
            let beyond = self.beyond.filter(|beyond| (ahead(end)..HALF).contains(&ahead(*beyond)));
            self.beyond = Some(beyond.unwrap_or(end));
        }
    }
}

/// smoltcp keeps no data so far ahead: no window reaches there.
const FAR: u32 = 1 << 30;

/// Numbers that are less than this apart are in this order (RFC 9293 section 3.4).
const HALF: u32 = 1 << 31;

impl Open {
    /// smoltcp may have said something.
    pub(super) fn note(&mut self, said: Option<Said>) {
        if let Some(said) = said {
            let waiting = self.socket.socket(|socket| socket.recv_queue());
            self.splice.said(said, waiting);
        }
    }

    /// Where the payload of a segment is, if it can be sent past smoltcp after `aboard` bytes that will be.
    pub(crate) fn can_splice(
        &mut self,
        frame: &[u8],
        segment: &Segment,
        ready: &Ready,
        aboard: usize,
    ) -> Option<Range<usize>> {
        const PLAIN: u8 = flag::ACK | flag::PSH | flag::FIN;
        if segment.payload == 0
            || !ready.writable
            || self.guest_ended
            || self.send_failed
            || self.host.is_none()
        {
            return None;
        }
        let layout = tcp_layout(frame)?;
        let numbers = Numbers::of(frame, &layout, self.splice.shift)?;
        let is_plain = numbers.flags & flag::ACK != 0 && numbers.flags & !PLAIN == 0;
        let is_empty = self
            .socket
            .socket(|socket| socket.state() == State::Established && socket.recv_queue() == 0);
        (is_plain && is_empty && self.splice.is_next(&numbers, aboard))
            .then_some(layout.payload..layout.end)
    }

    /// Sends payloads to the far end, and says how much of them.
    pub(crate) fn send(&mut self, payloads: &[IoSlice<'_>], ready: &mut Ready) -> usize {
        let Some(host) = &mut self.host else { return 0 };
        match host.send_vectored(payloads) {
            Ok(n) => n,
            // Any other is for the next service to find.
            Err(error) => {
                ready.writable &= error.kind() != ErrorKind::WouldBlock;
                0
            }
        }
    }

    /// What is left for smoltcp of a segment, of which `sent` bytes were sent past it.
    pub(crate) fn rest<'f>(
        &mut self,
        frame: &'f mut [u8],
        segment: &Segment,
        sent: usize,
        budget: &mut Budget,
        turn: &Turn<'_, '_>,
    ) -> Option<Rest<'f>> {
        let mut layout = tcp_layout(frame)?;
        let numbers = Numbers::of(frame, &layout, self.splice.shift)?;
        let mut segment = *segment;
        if sent > 0 {
            self.splice.shift = self.splice.shift.wrapping_add(sent as u32);
            self.splice.is_owed = true;
            self.to_host += sent as u64;
            self.owe(sent, turn.now);
            let has_news = self.splice.heard != Some((numbers.acknowledgement, numbers.window));
            if sent == segment.payload && !segment.fin && !has_news {
                return None;
            }
            // The headers move up to what is left.
            frame.copy_within(..layout.payload, sent);
            segment.payload -= sent;
            segment.end -= sent;
            let end = layout.end - sent;
            layout.set_end(frame.get_mut(sent..)?, end);
        }
        let frame = frame.get_mut(sent..)?;
        put32(frame, layout.tcp + 4, numbers.sequence);
        segment.sequence = numbers.sequence;
        let (state, waiting) = self.socket.socket(|socket| (socket.state(), socket.recv_queue()));
        let beyond = self.splice.passes(&segment, waiting) as usize;
        if beyond > 0 && has_ended(state) {
            // RFC 9293 section 3.10.7.4: what follows a FIN is no part of the stream. smoltcp would take it.
            shorten(frame, &mut layout, &mut segment, usize::MAX);
        } else if beyond > 0 {
            let fits = self.share.may_receive(waiting + beyond, budget).saturating_sub(waiting);
            if fits < beyond {
                turn.counters.dropped(DropReason::WindowMemory);
                // As far as there is memory: it may fill a hole, without which nothing would go on.
                shorten(frame, &mut layout, &mut segment, beyond - fits);
                // The guest hears at once of what is missing, as after any loss (RFC 5681 section 4.2).
                self.splice.is_owed = true;
                self.owe(0, turn.now);
                self.ack.now = true;
            }
        }
        self.splice.note(&numbers, segment.payload as u32, waiting);
        Some(Rest { frame, segment })
    }

    /// A segment at which smoltcp acknowledges all that it has: the byte before the next, once more.
    pub(super) fn repetition(&mut self) -> Option<Vec<u8>> {
        let waiting = self.socket.socket(|socket| socket.recv_queue());
        let sequence = self.splice.next(waiting)?.wrapping_sub(1);
        self.probe.repetition(sequence)
    }
}

impl Numbers {
    fn of(frame: &[u8], layout: &TcpLayout, shift: u32) -> Option<Self> {
        Some(Self {
            sequence: be32(frame, layout.tcp + 4)?.wrapping_sub(shift),
            acknowledgement: be32(frame, layout.tcp + 8)?,
            window: be16(frame, layout.tcp + 14)?,
            flags: *frame.get(layout.tcp + 13)?,
        })
    }
}

/// Whether smoltcp has seen the guest's FIN.
fn has_ended(state: State) -> bool {
    matches!(state, State::CloseWait | State::Closing | State::LastAck | State::TimeWait)
}

/// Takes the last `n` bytes of a segment away, or all that it has, and the FIN behind them.
fn shorten(frame: &mut [u8], layout: &mut TcpLayout, segment: &mut Segment, n: usize) {
    segment.payload = segment.payload.saturating_sub(n);
    segment.end = layout.payload + segment.payload;
    segment.fin = false;
    layout.set_end(frame, segment.end);
    if let Some(flags) = frame.get_mut(layout.tcp + 13) {
        *flags &= !(flag::FIN | flag::PSH);
    }
}

/// Moves the numbers by which a segment of smoltcp's acknowledges: its acknowledgement, and the edges of the
/// blocks in the option of RFC 2018.
pub(crate) fn renumber(segment: &mut [u8], shift: u32) {
    if shift == 0 || segment.get(13).is_none_or(|flags| flags & flag::ACK == 0) {
        return;
    }
    add(segment, 8, shift);
    for_each_option(segment, |kind, value| {
        if kind == SACK {
            (0..value.len()).step_by(4).for_each(|edge| add(value, edge, shift));
        }
    });
}

/// The option of RFC 2018 section 3.
const SACK: u8 = 5;

fn add(segment: &mut [u8], at: usize, shift: u32) {
    if let Some(number) = be32(segment, at) {
        put32(segment, at, number.wrapping_add(shift));
    }
}

#[cfg(test)]
mod tests;
