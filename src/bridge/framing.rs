//! The stream's framing: a 4-byte big-endian length, then that many bytes of Ethernet frame.
//!
//! The decoder owns the one receive buffer, and says where in it the frames lie; a length that the stream
//! claims never decides what is allocated.

use std::ops::Range;

use crate::error::FramingViolation;

#[cfg(test)]
mod state_machine;

/// An Ethernet header and nothing else.
pub(crate) const MIN_FRAME: usize = 14;

/// What libkrun's buffer holds beside its virtio-net header.
pub(crate) const MAX_FRAME: usize = 65_550;

pub(super) const PREFIX: usize = 4;

/// Room for what one receive may find: 340 ordinary frames, or 16 of the largest. The more come at once, the
/// fewer sends and wakes they cost at the far end; and ordinary ones, which take longer, are to stay in a
/// core's cache.
const BUFFER: usize = 512 * 1024;
const LARGE_BUFFER: usize = 1024 * 1024;

/// The length prefix of a frame.
pub(crate) fn prefix(len: usize) -> [u8; PREFIX] {
    (len as u32).to_be_bytes()
}

/// Finds the frames in the bytes of a stream, however these are split.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: Box<[u8]>,
    /// The bytes that were received and not handed out yet.
    held: Range<usize>,
    violation: Option<FramingViolation>,
}

impl Decoder {
    /// For a guest that sends frames of its MTU.
    pub(crate) fn new() -> Self {
        Self::with_buffer(BUFFER)
    }

    /// For a guest that sends frames of up to 64 KiB.
    pub(crate) fn large() -> Self {
        Self::with_buffer(LARGE_BUFFER)
    }

    /// Memory that was never received into is not touched, and costs nothing.
    fn with_buffer(len: usize) -> Self {
        Self { buffer: vec![0; len].into_boxed_slice(), held: 0..0, violation: None }
    }

    /// Where the next bytes of the stream go. Never empty if frames were taken until there were no more:
    /// what is left then is less than one frame.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.held.is_empty() {
            self.held = 0..0;
        } else if self.buffer.len() - self.held.end < PREFIX + MAX_FRAME {
            self.buffer.copy_within(self.held.clone(), 0);
            self.held = 0..self.held.len();
        }
        self.buffer.get_mut(self.held.end..).unwrap_or_default()
    }

    /// Says that the first `n` bytes of [`space`](Self::space) were filled.
    pub(crate) fn filled(&mut self, n: usize) {
        self.held.end = self.held.end.saturating_add(n).min(self.buffer.len());
    }

    /// Where in [`bytes`](Self::bytes) the next whole frame lies, or `None` if more bytes are needed for
    /// one. It stays the next until it is [taken](Self::take).
    ///
    /// # Errors
    /// The first length that no frame can have, and the same for ever after.
    pub(crate) fn peek(&mut self) -> Result<Option<Range<usize>>, FramingViolation> {
        if let Some(violation) = self.violation {
            return Err(violation);
        }
        let held = self.buffer.get(self.held.clone()).unwrap_or_default();
        let Some((prefix, rest)) = held.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let claimed = u32::from_be_bytes(*prefix);
        let len = match check(claimed) {
            Ok(len) => len,
            Err(violation) => {
                self.violation = Some(violation);
                return Err(violation);
            }
        };
        let start = self.held.start + PREFIX;
        Ok((len <= rest.len()).then(|| start..start + len))
    }

    /// Takes the frame that [`peek`](Self::peek) found. Its bytes stay where they are until the next call
    /// of [`space`](Self::space).
    pub(crate) fn take(&mut self, frame: &Range<usize>) {
        self.held.start = frame.end.min(self.held.end);
    }

    /// The receive buffer. Frames that were taken may be changed there.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Takes the next whole frame, if there is one.
    ///
    /// # Errors
    /// As [`peek`](Self::peek).
    #[cfg(any(fuzzing, framegate_bench, test))]
    pub(crate) fn next_frame(&mut self) -> Result<Option<&[u8]>, FramingViolation> {
        let Some(frame) = self.peek()? else { return Ok(None) };
        self.take(&frame);
        Ok(self.buffer.get(frame))
    }
}

fn check(claimed: u32) -> Result<usize, FramingViolation> {
    let len = claimed as usize;
    if len < MIN_FRAME {
        Err(FramingViolation::TooShort { len: claimed })
    } else if len > MAX_FRAME {
        Err(FramingViolation::TooLong { len: claimed })
    } else {
        Ok(len)
    }
}

/// Decodes arbitrary bytes in arbitrary pieces, both taken from `data`; checks that the frames are those of
/// the whole stream, and that merging and cutting these frames keeps every byte in its order.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz_framing(data: &[u8]) {
    super::check::fuzz(data);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::check::decode;
    use super::super::testing::{opaque, stream};
    use super::*;

    #[test]
    fn every_split_point_gives_the_same_frames() {
        let frames = [opaque(14, 1), opaque(60, 2), opaque(15, 3)];
        let bytes = stream(&frames);
        for split in 1..bytes.len() {
            assert_eq!(decode(&bytes, &[split, 0]), (frames.to_vec(), None));
        }
        assert_eq!(decode(&bytes, &[1]), (frames.to_vec(), None));
    }

    #[test]
    fn every_length_is_a_frame_or_a_violation() {
        let lengths = (0..=1600).chain([65_534, 65_549, 65_550, 65_551, 65_554, 1 << 31, u32::MAX]);
        for len in lengths {
            let first = opaque(20, 1);
            let mut bytes = stream(std::slice::from_ref(&first));
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.resize(bytes.len() + (len as usize).min(70_000), 0xab);
            let (frames, violation) = decode(&bytes, &[0]);
            assert_eq!(frames[0], first);
            let expected = match len {
                ..14 => Some(FramingViolation::TooShort { len }),
                14..=65_550 => None,
                _ => Some(FramingViolation::TooLong { len }),
            };
            assert_eq!(violation, expected);
            if expected.is_none() {
                assert_eq!(frames[1], vec![0xab; len as usize]);
                assert_eq!(frames.len(), 2);
            }
        }
    }

    #[test]
    fn the_largest_frames_pass_in_any_pieces() {
        let frames: Vec<_> = (0..12).map(|i| opaque(MAX_FRAME - usize::from(i), i)).collect();
        let bytes = stream(&frames);
        for size in [0, 1, 4_096, 65_553, 65_554, 65_555, 100_003] {
            assert_eq!(decode(&bytes, &[size]), (frames.clone(), None));
        }
    }

    #[test]
    fn a_stream_that_ends_within_a_frame_gives_none_of_it() {
        let bytes = stream(&[opaque(14, 1), opaque(40, 2)]);
        for end in 0..bytes.len() {
            let (frames, violation) = decode(&bytes[..end], &[]);
            assert_eq!((frames.len(), violation), (usize::from(end >= 18), None));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_no_harm(data in prop::collection::vec(any::<u8>(), 0..2000)) {
            fuzz_framing(&data);
        }

        #[test]
        fn arbitrary_frames_do_no_harm(
            control: [u8; 3],
            sizes in prop::collection::vec(any::<u8>(), 15),
            lengths in prop::collection::vec((14usize..4000, any::<[u8; 4]>()), 0..80),
        ) {
            let frames: Vec<_> = lengths
                .into_iter()
                .map(|(len, start)| {
                    let mut frame: Vec<u8> = (0..len).map(|i| i as u8).collect();
                    frame[..4].copy_from_slice(&start);
                    frame
                })
                .collect();
            let mut data = control.to_vec();
            data[1] |= 15;
            data.extend_from_slice(&sizes);
            data.extend_from_slice(&stream(&frames));
            fuzz_framing(&data);
        }
    }
}
