//! Who runs which end of the stream.
//!
//! # Theory of operation
//!
//! A thread that is woken only to pass a frame on costs a small request more than the frame itself.
//! So the poll loop runs both ends of the stream itself, and lends them out only while that pays:
//!
//! * the receive half to the reader, when a turn's budget ran out with more in the stream: the guest
//!   sends faster than the poll loop takes. The reader gives it back when the stream is empty.
//! * the send half to the writer, when the stream is full. The writer waits for room, sends while
//!   there is something to send, and gives it back when the queue is empty.
//!
//! Who may touch an end is who *owns* it: the halves are values, and they travel through queues of one
//! place with the bells that frames travel with. To give is to publish and then ring; whoever is rung
//! takes before it sleeps. So there are never two holders, and that no half is left lying is the same
//! claim, with the same models, as that no frame is.
//!
//! The loops of the two threads are here, without what they do with their half, so that the models run
//! them as they ship.
//!
//! No frame is stranded or overtaken:
//!
//! * The reader pushes all it has decoded before it gives the receive half back. The poll loop empties
//!   the queue before it receives for itself.
//! * The poll loop pushes to the queue whoever has the send half, and looks for the half after that. If
//!   it is there, it sends. If not, the writer has it, and the ring for the frames finds it; or it is on
//!   the way back, and the ring for the half brings the poll loop round again, to send.
//!
//! At the shutdown each thread leaves once it has seen it, and either may be first. So each looks, in its
//! last turn, for a send half that the other has left behind: the writer for one that was given back, the
//! poll loop for one that was lent.

use crate::queues::NetworkFrameQueues;
use crate::sync::{Arc, ArrayQueue};
use crate::wake::WakePipe;

/// The places where the halves of one stream change hands: `R` receives, `S` sends.
#[derive(Debug)]
pub struct HandOver<R, S> {
    queues: Arc<NetworkFrameQueues>,
    to_reader: ArrayQueue<R>,
    from_reader: ArrayQueue<R>,
    to_writer: ArrayQueue<S>,
    from_writer: ArrayQueue<S>,
}

/// What a turn of the reader ended for want of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// The stream is empty, and everything from it is in the queue.
    Bytes,
    /// The queue is full.
    Room,
}

/// Why a send came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The queue is empty and everything was sent.
    Idle,
    /// The stream is full; there is something left to send when it is writable.
    Blocked,
}

impl<R, S> HandOver<R, S> {
    /// No half is anywhere yet: the poll loop has both.
    pub fn new(queues: Arc<NetworkFrameQueues>) -> Arc<Self> {
        Arc::new(Self {
            queues,
            to_reader: ArrayQueue::new(1),
            from_reader: ArrayQueue::new(1),
            to_writer: ArrayQueue::new(1),
            from_writer: ArrayQueue::new(1),
        })
    }

    /// The poll loop lends the receive half to the reader.
    pub fn lend_receiver(&self, half: R) {
        put(&self.to_reader, half);
        self.queues.guest_space().wake();
    }

    fn borrow_receiver(&self) -> Option<R> {
        self.to_reader.pop()
    }

    fn give_back_receiver(&self, half: R) {
        put(&self.from_reader, half);
        self.queues.guest_wake.wake();
    }

    /// The poll loop takes the receive half back, if the reader has given it.
    pub fn reclaim_receiver(&self) -> Option<R> {
        self.from_reader.pop()
    }

    /// The poll loop lends the send half to the writer.
    pub fn lend_sender(&self, half: S) {
        put(&self.to_writer, half);
        self.queues.host_wake.wake();
    }

    fn borrow_sender(&self) -> Option<S> {
        self.to_writer.pop()
    }

    /// The poll loop, in its last turn, takes back a send half that was lent and that nobody has borrowed.
    pub fn take_back_sender(&self) -> Option<S> {
        self.to_writer.pop()
    }

    /// The writer gives the send half back.
    pub fn give_back_sender(&self, half: S) {
        put(&self.from_writer, half);
        self.queues.guest_wake.wake();
    }

    /// The poll loop takes the send half back, if the writer has given it.
    pub fn reclaim_sender(&self) -> Option<S> {
        self.from_writer.pop()
    }

    /// The reader's loop: takes a `turn` whenever it is lent the receive half or hears of room, until the
    /// shutdown, when it returns `stopped`, or until a turn ends the link; says why.
    pub fn run_reader<E>(&self, stopped: E, mut turn: impl FnMut(&mut R) -> Result<Want, E>) -> E {
        let bell = self.queues.guest_space();
        let mut half: Option<R> = None;
        loop {
            if bell.take().is_down() {
                return stopped;
            }
            half = half.or_else(|| self.borrow_receiver());
            if let Some(mut receiver) = half.take() {
                match turn(&mut receiver) {
                    Ok(Want::Bytes) => self.give_back_receiver(receiver),
                    Ok(Want::Room) => half = Some(receiver),
                    Err(reason) => return reason,
                }
            }
            if bell.arm() {
                bell.wait();
            }
        }
    }

    /// The writer's loop: sends whenever it is lent the send half, and waits for room in the stream, or for
    /// the shutdown on the bell, while it is full. Until the shutdown, when it returns `stopped`, or until
    /// one of the two ends the link; says why.
    pub fn run_writer<E>(
        &self,
        stopped: E,
        mut send: impl FnMut(&mut S) -> Result<Progress, E>,
        mut wait_for_room: impl FnMut(&WakePipe, &S) -> Result<(), E>,
    ) -> E {
        let bell = &self.queues.host_wake;
        let mut half: Option<S> = None;
        loop {
            let wakes = bell.take();
            half = half.or_else(|| self.borrow_sender());
            if wakes.is_down() {
                // The poll loop may have left before the half came back to it.
                half = half.or_else(|| self.reclaim_sender());
            }
            let progress = match &mut half {
                Some(sender) => send(sender),
                None => Ok(Progress::Idle),
            };
            match (progress, half.take()) {
                (Err(reason), _) => return reason,
                _ if wakes.is_down() => return stopped,
                (Ok(Progress::Blocked), Some(sender)) => {
                    if let Err(reason) = wait_for_room(bell, &sender) {
                        return reason;
                    }
                    half = Some(sender);
                }
                (Ok(_), sender) => {
                    if let Some(sender) = sender {
                        self.give_back_sender(sender);
                    }
                    if bell.arm() {
                        bell.wait();
                    }
                }
            }
        }
    }
}

/// There is one half of each kind, so its place is free when somebody has it to give.
fn put<T>(place: &ArrayQueue<T>, half: T) {
    let result = place.push(half);
    debug_assert!(result.is_ok(), "a second half of the same stream");
}
