//! The parts of the bridge, without a stream, for the benchmarks.

use super::cut::cut;
use super::framing::Decoder;
use super::merge::Merger;
use crate::queues::NetworkFrameQueues;
use crate::sync::Arc;

/// Finds the frames in a stream.
#[derive(Debug)]
pub struct Framing(Decoder);

impl Default for Framing {
    fn default() -> Self {
        Self(Decoder::new())
    }
}

impl Framing {
    /// Takes bytes of the stream, as a receive would; says how many there was room for.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let space = self.0.space();
        let len = bytes.len().min(space.len());
        for (to, from) in space.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.0.filled(len);
        len
    }

    /// Goes through the whole frames; says how many bytes they have.
    pub fn decode(&mut self) -> usize {
        let mut bytes = 0;
        while let Ok(Some(frame)) = self.0.next_frame() {
            bytes += frame.len();
        }
        bytes
    }
}

/// Makes a batch of frames.
#[derive(Debug)]
pub struct Merge {
    merger: Merger,
    queues: Arc<NetworkFrameQueues>,
}

impl Merge {
    /// With buffers of these queues.
    pub fn new(queues: &Arc<NetworkFrameQueues>) -> Self {
        Self { merger: Merger::default(), queues: Arc::clone(queues) }
    }

    /// Adds frames to the batch.
    pub fn push<'f>(&mut self, frames: impl IntoIterator<Item = &'f [u8]>) {
        for frame in frames {
            self.merger.push(frame, &self.queues);
        }
    }

    /// Ends the batch, gives its buffers back, and says how many frames it had.
    pub fn finish(&mut self) -> usize {
        let frames = self.merger.finish();
        let len = frames.len();
        frames.drain(..).for_each(|frame| self.queues.recycle(frame));
        len
    }
}

/// Cuts super-segments.
#[derive(Debug, Default)]
pub struct Cut {
    heads: Vec<u8>,
}

impl Cut {
    /// Cuts a frame for a guest whose frames have `max_frame` bytes; says into how many.
    pub fn cut(&mut self, frame: &[u8], max_frame: usize) -> usize {
        self.heads.clear();
        let mut segments = 0;
        let emit = |segment| {
            std::hint::black_box(segment);
            segments += 1;
        };
        match cut(frame, max_frame, &mut self.heads, emit) {
            Some(()) => segments,
            None => 0,
        }
    }
}
