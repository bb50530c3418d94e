//! A bounded pipe of bytes between the poll loop and a relay thread, in one direction.
//!
//! # Theory of operation
//!
//! Bytes travel in chunks through a queue with the room and the wakes of the frame queues, so what is
//! said there of lost wakes holds here. Beside it stands one word that says how the stream ends. Its
//! bits are set and never cleared, and each is published before its ring:
//!
//! * **End of stream comes after the last byte.** The writer sets the bit after its last push; the reader
//!   loads the word *before* it pops. A reader that saw the bit has acquired every push before it, so a
//!   queue that is empty then is empty for good. The race that looks possible, the bit and a last chunk
//!   arriving between "empty" and "ended?", is the one that the other order of the two looks would have.
//! * **A reset overtakes what is queued**, and frees both ends: a writer that waits for room hears of
//!   it as well.

use crate::queues::{Batch, Drain, Room};
use crate::sync::{ArrayQueue, AtomicU32, Ordering};
use crate::wake::WakePipe;

#[cfg(all(test, not(loom)))]
mod state_machine;

const ENDED: u32 = 1;
const RESET: u32 = 1 << 1;

/// One direction of a relay. It has one writer and one reader, each with a bell.
#[derive(Debug)]
pub struct BytePipe {
    chunks: ArrayQueue<Vec<u8>>,
    room: Room,
    state: AtomicU32,
    data: WakePipe,
    space: WakePipe,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PipeRead {
    /// The next bytes of the stream.
    Chunk(Vec<u8>),
    /// Nothing yet; the reader's bell rings when there is.
    Empty,
    /// The stream is over, and every byte of it was read.
    End,
    /// The stream was cut off.
    Reset,
}

impl BytePipe {
    /// A pipe of up to `chunks` chunks and `max_bytes` bytes of their capacity; one chunk always fits.
    /// `data` is the reader's bell and `space` the writer's:
    /// [`relay_wake`](crate::NetworkFrameQueues::relay_wake) on the side of the poll loop.
    ///
    /// # Panics
    /// If `chunks` is zero.
    pub fn new(chunks: usize, max_bytes: usize, data: WakePipe, space: WakePipe) -> Self {
        Self {
            chunks: ArrayQueue::new(chunks),
            room: Room::new(max_bytes),
            state: AtomicU32::new(0),
            data,
            space,
        }
    }

    /// Appends a chunk. After a refusal the writer's bell rings when there is room.
    ///
    /// # Errors
    /// Gives the chunk back when the pipe is full.
    pub fn write(&self, chunk: Vec<u8>) -> Result<(), Vec<u8>> {
        Batch::new(&self.chunks, &self.room, &self.data).push(chunk)
    }

    /// The writer has written its last byte.
    pub fn finish(&self) {
        self.state.fetch_or(ENDED, Ordering::AcqRel);
        self.data.wake();
    }

    /// Cuts the stream off, from either end.
    pub fn reset(&self) {
        self.state.fetch_or(RESET, Ordering::AcqRel);
        self.data.wake();
        self.space.wake();
    }

    /// Whether either end has cut the stream off: a writer that was refused asks this before it waits.
    pub fn is_reset(&self) -> bool {
        self.state.load(Ordering::Acquire) & RESET != 0
    }

    /// Bytes that the writer could write now, as far as it can know.
    #[cfg(feature = "runtime")]
    pub(crate) fn room(&self) -> usize {
        if self.chunks.is_full() { 0 } else { self.room.left() }
    }

    /// Whether a read would find nothing, not even an end.
    #[cfg(feature = "runtime")]
    pub(crate) fn is_quiet(&self) -> bool {
        self.state.load(Ordering::Acquire) == 0 && self.chunks.is_empty()
    }

    /// Removes the next chunk, or says why there is none.
    pub fn read(&self) -> PipeRead {
        let state = self.state.load(Ordering::Acquire);
        if state & RESET != 0 {
            return PipeRead::Reset;
        }
        match Drain::new(&self.chunks, &self.room, &self.space).pop() {
            Some(chunk) => PipeRead::Chunk(chunk),
            None if state & ENDED != 0 => PipeRead::End,
            None => PipeRead::Empty,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[allow(clippy::unwrap_used)]
    fn pipe(chunks: usize) -> (BytePipe, WakePipe, WakePipe) {
        let (data, space) = (WakePipe::try_new().unwrap(), WakePipe::try_new().unwrap());
        (BytePipe::new(chunks, 1000, data.clone(), space.clone()), data, space)
    }

    #[test]
    fn the_end_comes_after_the_last_byte() {
        let (pipe, data, _) = pipe(4);
        assert_eq!(pipe.read(), PipeRead::Empty);
        pipe.write(vec![1, 2]).unwrap();
        pipe.finish();
        assert!(data.take().relay());
        assert_eq!(pipe.read(), PipeRead::Chunk(vec![1, 2]));
        assert_eq!(pipe.read(), PipeRead::End);
        assert_eq!(pipe.read(), PipeRead::End);
    }

    #[test]
    fn a_refused_writer_hears_of_room_and_of_a_reset() {
        let (pipe, _, space) = pipe(1);
        pipe.write(vec![1]).unwrap();
        assert_eq!(pipe.write(vec![2]), Err(vec![2]));
        assert!(!space.take().any());
        assert_eq!(pipe.read(), PipeRead::Chunk(vec![1]));
        assert!(space.take().any());
        pipe.write(vec![2]).unwrap();
        pipe.reset();
        assert!(space.take().any() && pipe.is_reset());
        assert_eq!(pipe.read(), PipeRead::Reset);
    }

    #[cfg(feature = "runtime")]
    #[test]
    fn a_pipe_says_how_much_it_would_take_and_whether_it_has_news() {
        let (pipe, _, _) = pipe(2);
        assert_eq!((pipe.room(), pipe.is_quiet()), (1000, true));
        pipe.write(vec![0; 300]).unwrap();
        assert_eq!((pipe.room(), pipe.is_quiet()), (700, false));
        pipe.write(vec![0; 300]).unwrap();
        assert_eq!(pipe.room(), 0, "no chunk more, however many bytes");
        while let PipeRead::Chunk(_) = pipe.read() {}
        assert_eq!((pipe.room(), pipe.is_quiet()), (1000, true));
        pipe.finish();
        assert!(!pipe.is_quiet(), "the end is news");
    }
}
