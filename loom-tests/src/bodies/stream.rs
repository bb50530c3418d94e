//! The VMM's stream, as the halves of our end see it, in numbers: frames that the VMM has sent, and writes
//! that it has made room for.
//!
//! The stream orders nothing between those who run one end after another: what they see of it is relaxed, and
//! what a half knows travels with the half.

use framegate::NetworkFrameQueues;
use framegate::hand_over::Progress;

use super::Ledger;
use crate::jitter::pause;
use crate::threads::{Alone, Arc, Counter, Locked};

/// Both directions of the stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// Frames that the VMM has sent.
    sent: Counter,
    /// Writes of ours that it has made room for.
    room: Counter,
    receiving: Alone,
    sending: Alone,
    /// What is on the wire, once nobody has the send half any more.
    wire: Locked<Vec<Wire>>,
}

/// A write of ours: a frame is two of them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wire {
    /// The first.
    Head(Vec<u8>),
    /// The second.
    Body(Vec<u8>),
}

impl Stream {
    /// A stream with room for this many writes.
    pub fn new(room: usize) -> Arc<Self> {
        let stream = Self::default();
        stream.room.add(room);
        Arc::new(stream)
    }

    /// The VMM sends a frame.
    pub fn send(&self) {
        pause();
        self.sent.add(1);
    }

    /// The VMM makes room for this many writes.
    pub fn make_room(&self, writes: usize) {
        pause();
        self.room.add(writes);
    }

    /// How many frames are on the wire: each whole, in order, and none within another; the last one may be
    /// half sent. Nobody has the send half any more.
    ///
    /// # Panics
    /// If that is not so.
    pub fn on_the_wire(&self) -> usize {
        let wire = self.wire.take();
        let mut frames = Ledger::new(1);
        for pair in wire.chunks(2) {
            match pair {
                [Wire::Head(head), Wire::Body(body)] => {
                    assert_eq!(head, body, "frames are interleaved");
                    frames.enter(body);
                }
                [Wire::Head(_)] => {}
                other => panic!("{other:?} on the wire"),
            }
        }
        frames.len()
    }
}

/// The receive half: as `Receiver`.
#[derive(Debug)]
pub struct ReceiveHalf {
    stream: Arc<Stream>,
    /// Frames that were received, and of these the ones that were taken.
    received: usize,
    taken: usize,
    /// There may have been more than the last receive took.
    pub is_behind: bool,
}

impl ReceiveHalf {
    /// Of this stream.
    pub fn new(stream: &Arc<Stream>) -> Self {
        Self { stream: Arc::clone(stream), received: 0, taken: 0, is_behind: false }
    }

    /// The next frame of what was received.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        (self.taken < self.received).then(|| {
            self.taken += 1;
            super::frame(0, self.taken - 1)
        })
    }

    /// Receives a frame; `false` if the stream is empty.
    pub fn receive(&mut self) -> bool {
        self.stream.receiving.act();
        let waiting = self.stream.sent.get() - self.received;
        self.is_behind = waiting > 1;
        self.received += waiting.min(1);
        waiting > 0
    }
}

/// The send half: as `Sender`, with loads of one frame.
#[derive(Debug)]
pub struct SendHalf {
    stream: Arc<Stream>,
    queues: Arc<NetworkFrameQueues>,
    written: usize,
    wire: Vec<Wire>,
    /// The frame that is on its way out.
    load: Option<Vec<u8>>,
    /// Its head is out.
    is_half_sent: bool,
}

impl SendHalf {
    /// Of this stream, for what these queues have.
    pub fn new(stream: &Arc<Stream>, queues: &Arc<NetworkFrameQueues>) -> Self {
        Self {
            stream: Arc::clone(stream),
            queues: Arc::clone(queues),
            written: 0,
            wire: Vec::new(),
            load: None,
            is_half_sent: false,
        }
    }

    /// Sends what is left, then all that the queue has, until the stream is full.
    pub fn send(&mut self) -> Progress {
        loop {
            self.load = self.load.take().or_else(|| self.queues.drain_to_guest().pop());
            let Some(frame) = self.load.clone() else { return Progress::Idle };
            self.stream.sending.act();
            if self.stream.room.get() == self.written {
                return Progress::Blocked;
            }
            self.written += 1;
            self.wire.push(if self.is_half_sent { Wire::Body(frame) } else { Wire::Head(frame) });
            if self.is_half_sent {
                self.load = None;
            }
            self.is_half_sent = !self.is_half_sent;
        }
    }

    /// Whether it has nothing to send but what is in the queue.
    pub fn is_idle(&self) -> bool {
        self.load.is_none()
    }

    /// Frames that are wholly sent.
    pub fn frames(&self) -> usize {
        self.wire.len() / 2
    }
}

/// There is one send half, so nobody's part of the wire is overwritten.
impl Drop for SendHalf {
    fn drop(&mut self) {
        self.stream.wire.put(std::mem::take(&mut self.wire));
    }
}
