//! The thread that takes the guest's frames from the VMM while the poll loop has no time to.
//!
//! # Theory of operation
//!
//! The poll loop lends it the receive half ([`hand_over`](crate::hand_over)). A turn goes through two
//! steps, each only when the one before it has nothing left, so that frames stay in order and no more is
//! held than one buffer: *deliver* what was received, *receive*. It ends when the stream is empty or the
//! queue is full. Around it is [`HandOver::run_reader`], the loop of [`wake`](crate::wake): take, turn, arm,
//! sleep.
//!
//! * **The stream is empty.** The half goes back to the poll loop, with a ring, after all its frames.
//! * **The queue is full** ([`Overflow::Backpressure`]). The thread sleeps on the bell, which the
//!   consumer rings when it has made room. The stream fills up, the VMM waits, the guest waits.
//!
//! # The peer's end
//!
//! A receive of zero bytes is the end, and not a hang-up that poll reports: what the peer sent
//! before it went lies in the stream still, and is delivered first. So a reader that waits for room
//! does not look at the stream. Could it wait for ever for a peer that is gone? The poll loop makes
//! no room only while it can't push to the guest, that is while the writer is stuck on this very
//! stream; there the hang-up ends the writer's wait at once, and a sender whose peer is gone takes
//! everything. So the poll loop makes room, and the reader gets to the end of the stream. To watch for
//! the hang-up here could only lose frames, or spin, since poll reports it for as long as it lasts.

use super::HandOver;
use super::receiver::{Received, Receiver};
use crate::config::{Config, Overflow};
use crate::error::StopReason;
use crate::hand_over::Want;
use crate::metrics::{Counters, DropReason};
use crate::queues::NetworkFrameQueues;
use crate::sync::Arc;

#[cfg(test)]
mod tests;

/// The reader's thread.
#[derive(Debug)]
pub(crate) struct Reader {
    queues: Arc<NetworkFrameQueues>,
    counters: Arc<Counters>,
    hand_over: Arc<HandOver>,
    overflow: Overflow,
}

impl Reader {
    pub(crate) fn new(
        queues: Arc<NetworkFrameQueues>,
        config: &Config,
        counters: Arc<Counters>,
        hand_over: Arc<HandOver>,
    ) -> Self {
        Self { queues, counters, hand_over, overflow: config.overflow }
    }

    /// Receives whenever it is lent the receive half, until the link or the runtime ends; says why.
    pub(crate) fn run(self) -> StopReason {
        let mut refused = None;
        let turn = |receiver: &mut Receiver| self.turn(receiver, &mut refused);
        self.hand_over.run_reader(StopReason::Requested, turn)
    }

    /// `refused`: the frame that the queue had no room for.
    fn turn(
        &self,
        receiver: &mut Receiver,
        refused: &mut Option<Vec<u8>>,
    ) -> Result<Want, StopReason> {
        loop {
            if !self.deliver(receiver, refused)? {
                return Ok(Want::Room);
            }
            // A guest that sends without a pause must not keep the thread from its end.
            if self.queues.is_shutting_down() {
                return Err(StopReason::Requested);
            }
            if receiver.receive()? == Received::Nothing {
                return Ok(Want::Bytes);
            }
        }
    }

    /// Pushes what was received and rings once for it; `false` if the queue is full and the rest must wait.
    fn deliver(
        &self,
        receiver: &mut Receiver,
        refused: &mut Option<Vec<u8>>,
    ) -> Result<bool, StopReason> {
        let mut batch = self.queues.push_from_guest();
        loop {
            let frame = match refused.take() {
                Some(frame) => frame,
                None => match receiver.next_frame()? {
                    Some(frame) => {
                        let frame = receiver.bytes().get(frame).unwrap_or_default();
                        self.queues.copy_of(frame)
                    }
                    None => return Ok(true),
                },
            };
            receiver.count();
            let Err(frame) = batch.push(frame) else { continue };
            match self.overflow {
                Overflow::Backpressure => {
                    *refused = Some(frame);
                    return Ok(false);
                }
                Overflow::Drop => {
                    self.counters.dropped(DropReason::QueueFull);
                    self.queues.recycle(frame);
                }
            }
        }
    }
}
