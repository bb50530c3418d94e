//! The frames of the guest that one turn takes: from the queue, and from the stream while the poll loop has
//! its receive half; up to a budget, and as far as the rate allows.

use std::ops::Range;

use super::flows::Turn;
use super::halves::Halves;
use super::network::Network;
use super::shaper::Limiter;
use crate::bridge::Received;
use crate::error::StopReason;
use crate::metrics::DropReason;
use crate::queues::NetworkFrameQueues;

/// Frames that one turn takes from the queue.
pub(super) const FRAMES: usize = 256;
/// Frames that one turn takes from the stream, give or take a batch: a flood is of small ones.
const STREAM_FRAMES: usize = 1024;
/// Bytes that one turn takes from the stream, give or take a batch.
const BYTES: usize = 2 << 20;
/// How a turn ended.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// What the guest has sent is handled, or the reader has it.
    Drained,
    /// A budget ran out.
    OverBudget,
    /// The guest has used up its rate; there may be more to handle once it has some again.
    Held,
    /// The link has come to its end, and what came before it is handled.
    Link(StopReason),
}

/// The guest's rate, and what to do at its end.
#[derive(Debug)]
pub(super) struct Intake<'t> {
    pub(super) limiter: &'t mut Limiter,
    /// Drop what is above the rate, rather than to leave it where it is.
    pub(super) drops: bool,
    /// The guest sends no more, so what is left is taken at once.
    pub(super) is_free: bool,
}

impl Intake<'_> {
    /// Whether the next frame must stay where it is.
    fn holds(&self) -> bool {
        !self.is_free && !self.drops && !self.limiter.admits()
    }

    /// Handles a frame, or drops it if it is above the rate.
    fn take(&mut self, frame: Vec<u8>, network: &mut Network, turn: &mut Turn<'_, '_>) {
        let unused = if self.drops && !self.limiter.has_tokens() {
            turn.counters.dropped(DropReason::RateLimit);
            Some(frame)
        } else {
            self.limiter.charge(&frame);
            network.handle(frame, turn)
        };
        if let Some(buffer) = unused {
            turn.outlet.queues.recycle(buffer);
        }
    }

    /// As [`take`](Self::take), for a frame that lies in the receive buffer.
    fn take_in_place(
        &mut self,
        buffer: &mut [u8],
        frame: &Range<usize>,
        network: &mut Network,
        turn: &mut Turn<'_, '_>,
    ) {
        if self.drops && !self.limiter.has_tokens() {
            turn.counters.dropped(DropReason::RateLimit);
        } else {
            self.limiter.charge(buffer.get(frame.clone()).unwrap_or_default());
            network.handle_in_place(buffer, frame, turn);
        }
    }
}

/// Handles the frames that the reader, or the embedder, has pushed.
pub(super) fn from_queue(
    queues: &NetworkFrameQueues,
    frames: usize,
    network: &mut Network,
    intake: &mut Intake<'_>,
    turn: &mut Turn<'_, '_>,
) -> Ended {
    let mut source = queues.drain_from_guest();
    for _ in 0..frames {
        if queues.guest_to_host.is_empty() {
            return Ended::Drained;
        }
        if intake.holds() {
            return Ended::Held;
        }
        let Some(frame) = source.pop() else { return Ended::Drained };
        intake.take(frame, network, turn);
    }
    Ended::OverBudget
}

/// Handles what was received, until a budget is used up. `None` if there may be more in the stream.
fn from_buffer(
    halves: &mut Halves,
    frames: &mut usize,
    bytes: &mut usize,
    network: &mut Network,
    intake: &mut Intake<'_>,
    turn: &mut Turn<'_, '_>,
) -> Option<Ended> {
    while *frames < STREAM_FRAMES && *bytes < BYTES {
        if (halves.has_frame() || halves.may_receive()) && intake.holds() {
            return Some(Ended::Held);
        }
        match halves.next_frame() {
            Ok(Some(frame)) => {
                *frames += 1;
                *bytes += frame.len();
                intake.take_in_place(halves.bytes(), &frame, network, turn);
            }
            Ok(None) => return None,
            Err(reason) => return Some(Ended::Link(reason)),
        }
    }
    Some(Ended::OverBudget)
}

/// Handles what the stream has, while the poll loop has the receive half.
pub(super) fn from_stream(
    halves: &mut Halves,
    network: &mut Network,
    intake: &mut Intake<'_>,
    turn: &mut Turn<'_, '_>,
) -> Ended {
    let mut frames = 0;
    let mut bytes = 0;
    while frames < STREAM_FRAMES && bytes < BYTES {
        let ended = from_buffer(halves, &mut frames, &mut bytes, network, intake, turn);
        network.depart(halves.bytes(), turn);
        match ended {
            None => {}
            Some(Ended::OverBudget) => break,
            Some(ended) => return ended,
        }
        match halves.receive() {
            Ok(Received::Bytes) => {}
            Ok(Received::Nothing) => return Ended::Drained,
            Err(reason) => return Ended::Link(reason),
        }
    }
    // With a limit the reader would only fill the queue, and out there nobody sees the VMM hang up. And it
    // would copy the bulk of TCP, which is sent from the receive buffer here: it helps with many frames.
    if intake.limiter.is_limited() || frames < STREAM_FRAMES {
        return Ended::OverBudget;
    }
    match halves.lend_receiver(turn.registry) {
        Ok(()) => Ended::Drained,
        Err(error) => Ended::Link(StopReason::HostFault("watch the stream", error.kind())),
    }
}
