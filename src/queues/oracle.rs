//! What a bounded queue does when one thread does everything, said plainly: an oracle for the state machines of
//! the frame queues and of the pipe, which is made of one.

use std::collections::VecDeque;

/// A queue, its bounds, and whether its producer waits for room.
#[derive(Debug)]
pub(crate) struct QueueOracle {
    frames: VecDeque<Vec<u8>>,
    capacity: usize,
    max_bytes: usize,
    is_refused: bool,
}

impl QueueOracle {
    pub(crate) fn new(capacity: usize, max_bytes: usize) -> Self {
        Self { frames: VecDeque::new(), capacity, max_bytes, is_refused: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.frames.iter().map(Vec::capacity).sum()
    }

    /// One frame always fits if there are no bytes, however large it is.
    fn fits(&self, len: usize) -> bool {
        let bytes = self.bytes();
        self.frames.len() < self.capacity && (bytes == 0 || bytes + len <= self.max_bytes)
    }

    /// Whether a frame with a buffer of `len` bytes has room. A producer that asks in vain waits for room.
    pub(crate) fn has_room(&mut self, len: usize) -> bool {
        let fits = self.fits(len);
        self.is_refused |= !fits;
        fits
    }

    /// Whether the frame was accepted. A producer that is refused waits for room.
    pub(crate) fn push(&mut self, frame: &Vec<u8>) -> bool {
        self.try_push(frame) || {
            self.is_refused = true;
            false
        }
    }

    /// As `push`, for a producer that does not wait.
    pub(crate) fn try_push(&mut self, frame: &Vec<u8>) -> bool {
        let fits = self.fits(frame.capacity());
        if fits {
            let mut same = Vec::with_capacity(frame.capacity());
            same.extend_from_slice(frame);
            self.frames.push_back(same);
        }
        fits
    }

    pub(crate) fn pop(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    /// Room was made: whether somebody is to be rung for it.
    pub(crate) fn made_room(&mut self) -> bool {
        std::mem::take(&mut self.is_refused)
    }

    /// How many bytes the next frame may have.
    #[cfg(feature = "runtime")]
    pub(crate) fn bytes_left(&self) -> usize {
        let is_full = self.frames.len() == self.capacity;
        if is_full { 0 } else { self.max_bytes.saturating_sub(self.bytes()) }
    }

    /// For how many frames of `len` bytes there is room.
    #[cfg(feature = "runtime")]
    pub(crate) fn room_for(&self, len: usize) -> usize {
        let bytes = self.bytes();
        let by_bytes = self.max_bytes.saturating_sub(bytes) / len.max(1);
        let by_frames = self.capacity - self.frames.len();
        by_frames.min(if bytes == 0 { by_bytes.max(1) } else { by_bytes })
    }

    /// Nobody waits for room beside an empty queue, and the bounds are kept.
    pub(crate) fn check(&self) {
        assert!(!self.is_refused || !self.frames.is_empty(), "waits beside an empty queue");
        let largest = self.frames.iter().map(Vec::capacity).max().unwrap_or(0);
        assert!(self.frames.len() <= self.capacity);
        assert!(self.bytes() <= self.max_bytes.max(largest));
    }
}
