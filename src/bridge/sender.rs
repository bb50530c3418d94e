//! The send half of the stream, without a thread: takes frames from the queue and sends many of them
//! in one call.
//!
//! # Theory of operation
//!
//! Frames are taken in small loads, so that nearly everything that waits, waits in the queue, whose
//! bound then means something. A load becomes a list of wire frames, each a *head* (length prefix,
//! and fresh headers if it was cut) in one scratch buffer and a *body* within a frame of the load. A
//! vectored send takes heads and bodies where they lie.
//!
//! The stream may take a part of them: the place where it stopped is kept, and the next call goes on
//! from exactly there. Only a load that is wholly sent is followed by the next. That is the one
//! invariant: **whatever happens between two calls, the next byte on the wire is the next byte of
//! the list.** A peer in the middle of a frame blocks until we are done with it.
//!
//! All state is in [`Sender`], none in its thread: who holds the value holds the send half.
//!
//! A peer that is gone takes everything: from then on what is queued is dropped. So the poll loop and the
//! reader go on to the last byte that the peer has sent, and it is the receive half that finds the end of
//! the link, after what came before it.

use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use socket2::SockRef;

use super::cut::{Segment, cut};
use super::framing::{self, MAX_FRAME, MIN_FRAME};
use crate::error::StopReason;
use crate::hand_over::Progress;
use crate::metrics::{Counters, DropReason};
use crate::queues::NetworkFrameQueues;
use crate::sync::Arc;
use crate::sys::unreceived;

#[cfg(test)]
mod tests;

/// A load ends at this many frames of the queue, or at this many bytes.
const LOAD_FRAMES: usize = 64;
const LOAD_BYTES: usize = 512 * 1024;

/// The wire frames of one call: two slices each, and the kernel takes 1,024 (IOV_MAX).
const FRAMES_PER_CALL: usize = 512;

/// Owns the send half of the stream.
#[derive(Debug)]
pub(crate) struct Sender {
    stream: Arc<UnixStream>,
    queues: Arc<NetworkFrameQueues>,
    counters: Arc<Counters>,
    load: Load,
    /// No more bytes than this lie in the stream, as far as is known without asking the kernel.
    in_stream: usize,
    /// The peer has closed its end.
    is_gone: bool,
    /// The memory of the slices of a call, empty between calls.
    slices: Vec<IoSlice<'static>>,
}

impl Sender {
    /// For a guest whose buffers hold frames of `max_frame` bytes.
    pub(crate) fn new(
        stream: Arc<UnixStream>,
        queues: Arc<NetworkFrameQueues>,
        max_frame: usize,
        counters: Arc<Counters>,
    ) -> Self {
        let load = Load::new(max_frame.min(MAX_FRAME));
        Self { stream, queues, counters, load, in_stream: 0, is_gone: false, slices: Vec::new() }
    }

    /// Sends what is left of the last call, then all that the queue has, until the stream is full.
    /// Never waits.
    ///
    /// # Errors
    /// The reason to end the link: a send failed for no reason it may have.
    pub(crate) fn send(&mut self) -> Result<Progress, StopReason> {
        loop {
            if self.is_gone {
                self.discard();
                return Ok(Progress::Idle);
            }
            if self.load.is_sent() && !self.next_load() {
                return Ok(Progress::Idle);
            }
            match self.send_once() {
                Ok(n) => {
                    self.in_stream = self.in_stream.saturating_add(n);
                    self.load.advance(n, &self.counters);
                }
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock => return Ok(Progress::Blocked),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.is_gone = true,
                    // The kernel had no memory for the socket buffer: to be tried again, and nothing
                    // but a stream that is writable can say when.
                    _ if error.raw_os_error() == Some(libc::ENOBUFS) => {
                        return Ok(Progress::Blocked);
                    }
                    kind => return Err(StopReason::HostFault("send to the VMM", kind)),
                },
            }
        }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether the peer has `bytes` or more to receive yet. The kernel is asked when that can be, so a small
    /// request costs no system call more.
    pub(crate) fn is_ahead_by(&mut self, bytes: usize) -> bool {
        if self.in_stream >= bytes {
            self.in_stream = unreceived(self.stream.as_fd());
        }
        self.in_stream >= bytes
    }

    fn discard(&mut self) {
        self.load.clear(&self.queues);
        let mut drain = self.queues.drain_to_guest();
        while let Some(frame) = drain.pop() {
            self.queues.recycle(frame);
        }
    }

    /// Takes frames from the queue until there are some to send; `false` if it has none.
    fn next_load(&mut self) -> bool {
        loop {
            self.load.clear(&self.queues);
            // Rings for the room when it goes: once for each load, and before the send.
            let mut drain = self.queues.drain_to_guest();
            let mut bytes = 0;
            let mut frames = 0;
            while frames < LOAD_FRAMES && bytes < LOAD_BYTES {
                let Some(frame) = drain.pop() else { break };
                frames += 1;
                bytes += frame.len();
                if let Err(frame) = self.load.push(frame) {
                    self.counters.dropped_many(DropReason::BadLength, 1);
                    self.queues.recycle(frame);
                }
            }
            if frames == 0 {
                return false;
            }
            if !self.load.is_sent() {
                return true;
            }
        }
    }

    fn send_once(&mut self) -> io::Result<usize> {
        let mut slices: Vec<IoSlice<'_>> = std::mem::take(&mut self.slices);
        self.load.gather(&mut slices);
        let sent = SockRef::from(&*self.stream)
            .send_vectored_with_flags(&slices, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
        // An empty vector may change the lifetime of its elements: this collects in place.
        slices.clear();
        self.slices = slices.into_iter().map(|_| IoSlice::new(&[])).collect();
        sent
    }
}

/// Frames on their way out, and how far they have got.
#[derive(Debug)]
struct Load {
    max_frame: usize,
    frames: Vec<Vec<u8>>,
    heads: Vec<u8>,
    wire: Vec<WireFrame>,
    /// The first wire frame that is not wholly sent, and how many of its bytes are.
    next: usize,
    sent: usize,
}

/// One frame on the wire, length prefix included.
#[derive(Debug)]
struct WireFrame {
    /// Of `heads`.
    head: Range<usize>,
    /// Of the frame with this index.
    body: Range<usize>,
    frame: usize,
}

impl WireFrame {
    fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl Load {
    fn new(max_frame: usize) -> Self {
        let (frames, heads, wire) = (Vec::new(), Vec::new(), Vec::new());
        Self { max_frame, frames, heads, wire, next: 0, sent: 0 }
    }

    fn is_sent(&self) -> bool {
        self.next == self.wire.len()
    }

    fn clear(&mut self, queues: &NetworkFrameQueues) {
        self.frames.drain(..).for_each(|frame| queues.recycle(frame));
        self.heads.clear();
        self.wire.clear();
        self.next = 0;
        self.sent = 0;
    }

    /// Adds a frame, cut if it is too long for the guest. Gives it back if it can't be sent: one
    /// that the guest's buffers do not hold wedges the guest's link for good.
    fn push(&mut self, frame: Vec<u8>) -> Result<(), Vec<u8>> {
        let index = self.frames.len();
        let wire = &mut self.wire;
        if frame.len() > self.max_frame {
            let emit = |Segment { head, payload }| {
                wire.push(WireFrame { head, body: payload, frame: index });
            };
            if cut(&frame, self.max_frame, &mut self.heads, emit).is_none() {
                return Err(frame);
            }
        } else if frame.len() < MIN_FRAME {
            return Err(frame);
        } else {
            let start = self.heads.len();
            self.heads.extend_from_slice(&framing::prefix(frame.len()));
            let head = start..self.heads.len();
            wire.push(WireFrame { head, body: 0..frame.len(), frame: index });
        }
        self.frames.push(frame);
        Ok(())
    }

    /// The slices of the next call.
    fn gather<'b>(&'b self, slices: &mut Vec<IoSlice<'b>>) {
        let mut skip = self.sent;
        for wire in self.wire.iter().skip(self.next).take(FRAMES_PER_CALL) {
            let frame = self.frames.get(wire.frame).map_or(&[][..], Vec::as_slice);
            let parts = [self.heads.get(wire.head.clone()), frame.get(wire.body.clone())];
            for part in parts.into_iter().flatten() {
                let (_, rest) = part.split_at(skip.min(part.len()));
                skip -= part.len() - rest.len();
                if !rest.is_empty() {
                    slices.push(IoSlice::new(rest));
                }
            }
        }
    }

    /// The stream took the next `n` bytes.
    fn advance(&mut self, n: usize, counters: &Counters) {
        let mut frames = 0;
        let mut bytes = 0;
        self.sent += n;
        while let Some(wire) = self.wire.get(self.next).filter(|wire| wire.len() <= self.sent) {
            frames += 1;
            bytes += wire.len() - framing::PREFIX;
            self.sent -= wire.len();
            self.next += 1;
        }
        counters.frames_to_guest.add(frames);
        counters.bytes_to_guest.add(bytes as u64);
    }
}
