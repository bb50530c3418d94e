//! The receive half of the stream, without a thread: bytes of the VMM into batches of frames.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

use super::framing::Decoder;
use super::merge::Merger;
use crate::error::{FramingViolation, StopReason};
use crate::metrics::Counters;
use crate::queues::NetworkFrameQueues;
use crate::sync::Arc;

/// Owns the receive half of the stream.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: Arc<UnixStream>,
    queues: Arc<NetworkFrameQueues>,
    counters: Arc<Counters>,
    decoder: Decoder,
    merger: Merger,
    /// The last receive filled the buffer, or the last batch was full.
    is_behind: bool,
}

/// What [`Receiver::receive`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// A batch of frames, to be taken from [`Receiver::frames`].
    Frames,
    /// The stream is empty: what comes next makes it readable anew.
    Nothing,
}

impl Receiver {
    pub(crate) fn new(
        stream: Arc<UnixStream>,
        queues: Arc<NetworkFrameQueues>,
        counters: Arc<Counters>,
    ) -> Self {
        let (decoder, merger) = (Decoder::new(), Merger::default());
        Self { stream, queues, counters, decoder, merger, is_behind: false }
    }

    /// Makes the next batch, of what was received before if there is a whole frame left, or else of
    /// one receive after the other until there is. Never waits.
    ///
    /// # Errors
    /// The reason to end the link, once every frame before it was in a batch: the peer is gone, it broke
    /// the framing, or the host failed us.
    pub(crate) fn receive(&mut self) -> Result<Received, StopReason> {
        loop {
            if self.decode().map_err(StopReason::FramingViolation)? {
                return Ok(Received::Frames);
            }
            let space = self.decoder.space();
            let room = space.len();
            match (&*self.stream).read(space) {
                Ok(0) => return Err(StopReason::PeerClosed),
                Ok(n) => {
                    self.is_behind = n == room;
                    self.decoder.filled(n);
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

    /// The frames of the batch that are not taken yet, in order.
    pub(crate) fn frames(&mut self) -> &mut VecDeque<Vec<u8>> {
        self.merger.finish()
    }

    /// Whether more than this batch was there. If not, the next receive would find nothing, or a frame or
    /// two that came meanwhile: better to deal with this batch first.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Makes a batch of the frames that were received; `false` if there is no whole one.
    ///
    /// # Errors
    /// The violation, once every frame before it is in a batch.
    fn decode(&mut self) -> Result<bool, FramingViolation> {
        let mut frames = 0;
        let mut bytes = 0;
        let end = loop {
            if self.merger.is_full() {
                self.is_behind = true;
                break Ok(());
            }
            match self.decoder.next_frame() {
                Ok(Some(frame)) => {
                    frames += 1;
                    bytes += frame.len() as u64;
                    self.merger.push(frame, &self.queues);
                }
                Ok(None) => break Ok(()),
                Err(violation) => break Err(violation),
            }
        };
        if frames == 0 {
            return end.map(|()| false);
        }
        self.counters.frames_from_guest.add(frames);
        self.counters.bytes_from_guest.add(bytes);
        self.counters.frames_merged.add(self.merger.take_merged());
        Ok(true)
    }
}
