//! The parts of the bridge, without a stream, for the benchmarks.

use super::cut::cut;
use super::framing::Decoder;
use super::merge::next_merged;

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

    /// Goes through the whole frames with those merged that continue each other; says how many there are.
    pub fn merge(&mut self) -> usize {
        let mut frames = 0;
        while let Ok(Some(merged)) = next_merged(&mut self.0) {
            std::hint::black_box(merged.frame);
            frames += 1;
        }
        frames
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
