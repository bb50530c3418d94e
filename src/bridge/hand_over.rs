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

use super::receiver::Receiver;
use super::sender::Sender;
use crate::queues::NetworkFrameQueues;
use crate::sync::{Arc, ArrayQueue};

/// The places where the halves of one stream change hands.
#[derive(Debug)]
pub(crate) struct HandOver {
    queues: Arc<NetworkFrameQueues>,
    to_reader: ArrayQueue<Receiver>,
    from_reader: ArrayQueue<Receiver>,
    to_writer: ArrayQueue<Sender>,
    from_writer: ArrayQueue<Sender>,
}

impl HandOver {
    pub(crate) fn new(queues: Arc<NetworkFrameQueues>) -> Arc<Self> {
        Arc::new(Self {
            queues,
            to_reader: ArrayQueue::new(1),
            from_reader: ArrayQueue::new(1),
            to_writer: ArrayQueue::new(1),
            from_writer: ArrayQueue::new(1),
        })
    }

    /// The poll loop lends the receive half to the reader.
    pub(crate) fn lend_receiver(&self, half: Receiver) {
        put(&self.to_reader, half);
        self.queues.guest_space().wake();
    }

    pub(crate) fn borrow_receiver(&self) -> Option<Receiver> {
        self.to_reader.pop()
    }

    pub(crate) fn give_back_receiver(&self, half: Receiver) {
        put(&self.from_reader, half);
        self.queues.guest_wake.wake();
    }

    pub(crate) fn reclaim_receiver(&self) -> Option<Receiver> {
        self.from_reader.pop()
    }

    /// The poll loop lends the send half to the writer.
    pub(crate) fn lend_sender(&self, half: Sender) {
        put(&self.to_writer, half);
        self.queues.host_wake.wake();
    }

    pub(crate) fn borrow_sender(&self) -> Option<Sender> {
        self.to_writer.pop()
    }

    pub(crate) fn give_back_sender(&self, half: Sender) {
        put(&self.from_writer, half);
        self.queues.guest_wake.wake();
    }

    pub(crate) fn reclaim_sender(&self) -> Option<Sender> {
        self.from_writer.pop()
    }
}

/// There is one half of each kind, so its place is free when somebody has it to give.
fn put<T>(place: &ArrayQueue<T>, half: T) {
    let result = place.push(half);
    debug_assert!(result.is_ok(), "a second half of the same stream");
}
