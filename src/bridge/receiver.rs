//! The receive half of the stream, without a thread: bytes of the VMM into frames.

use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::unix::net::UnixStream;

use super::framing::Decoder;
use super::merge::{Merged, next_merged};
use crate::config::Offload;
use crate::error::StopReason;
use crate::metrics::Counters;
use crate::sync::Arc;

/// Owns the receive half of the stream.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: Arc<UnixStream>,
    counters: Arc<Counters>,
    decoder: Decoder,
    tally: Tally,
    /// The last receive filled the buffer.
    is_behind: bool,
}

/// What was taken since the counters were brought up to date.
#[derive(Debug, Default)]
struct Tally {
    frames: u64,
    bytes: u64,
    merged: u64,
}

/// What [`Receiver::receive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Bytes,
    /// The stream is empty: what comes next makes it readable anew.
    Nothing,
}

impl Receiver {
    pub(crate) fn new(stream: Arc<UnixStream>, offload: Offload, counters: Arc<Counters>) -> Self {
        let decoder = match offload {
            Offload::None => Decoder::new(),
            Offload::Upload | Offload::Jumbo => Decoder::large(),
        };
        let tally = Tally::default();
        Self { stream, counters, decoder, tally, is_behind: false }
    }

    /// The receive buffer.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        self.decoder.bytes()
    }

    /// Takes the next frame of what was received, with those merged that continue it, and says where it lies
    /// in the receive buffer. It stays there until the next receive. `None` if there is no whole one.
    ///
    /// # Errors
    /// The reason to end the link, once every frame before it was taken: the peer broke the framing.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Range<usize>>, StopReason> {
        match next_merged(&mut self.decoder) {
            Ok(Some(Merged { frame, count, bytes })) => {
                self.tally.frames += count;
                self.tally.bytes += bytes;
                self.tally.merged += count - 1;
                Ok(Some(frame))
            }
            Ok(None) => Ok(None),
            Err(violation) => Err(StopReason::FramingViolation(violation)),
        }
    }

    /// Brings the counters up to date: once for many frames.
    pub(crate) fn count(&mut self) {
        let Tally { frames, bytes, merged } = std::mem::take(&mut self.tally);
        self.counters.frames_from_guest.add(frames);
        self.counters.bytes_from_guest.add(bytes);
        self.counters.frames_merged.add(merged);
    }

    /// Whether [`next_frame`](Self::next_frame) has something to say but `None`.
    pub(crate) fn has_frame(&mut self) -> bool {
        !matches!(self.decoder.peek(), Ok(None))
    }

    /// Receives, once. Never waits. What was received before must be taken.
    ///
    /// # Errors
    /// The reason to end the link: the peer is gone, or the host failed us.
    pub(crate) fn receive(&mut self) -> Result<Received, StopReason> {
        loop {
            let space = self.decoder.space();
            let room = space.len();
            match (&*self.stream).read(space) {
                Ok(0) => return Err(StopReason::PeerClosed),
                Ok(n) => {
                    self.is_behind = n == room;
                    self.decoder.filled(n);
                    return Ok(Received::Bytes);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Ok(Received::Nothing),
                    // A peer that closed with frames of ours unread.
                    ErrorKind::ConnectionReset => return Err(StopReason::PeerClosed),
                    kind => return Err(StopReason::HostFault("receive from the VMM", kind)),
                },
            }
        }
    }

    /// Whether there may have been more than the last receive took.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }
}
