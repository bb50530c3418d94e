//! The guest's NIC: a Unix stream in libkrun's framing, as a smoltcp device.
//!
//! Each frame on the stream is a 4-byte big-endian length and the bare Ethernet frame. Frames come in
//! by the hundred with one read, and go out by the hundred with one write.

use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};

const PREFIX: usize = 4;
const ETHERNET_HEADER: usize = 14;
const MTU: usize = 1500;
/// What our buffers hold, as a virtio-net guest's without offload.
const MAX_FRAME: usize = ETHERNET_HEADER + MTU;
/// How much one read can bring.
const INBOX: usize = 256 << 10;
/// How much is gathered for one write, and where smoltcp has to wait until the stream has taken it.
const OUTBOX: usize = 64 << 10;
/// What the stream may hold of ours, as libkrun asks for; the host may grant less.
const SEND_BUFFER: usize = 16 << 20;

/// The guest's end of the link.
pub(super) struct Link {
    stream: UnixStream,
    inbox: Inbox,
    outbox: Outbox,
    received: u64,
    /// What went wrong inside smoltcp's calls, which cannot say so themselves.
    fault: Option<io::Error>,
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
        Ok(Self {
            stream,
            inbox: Inbox { bytes: vec![0; INBOX], filled: 0..0 },
            outbox: Outbox { bytes: Vec::with_capacity(2 * OUTBOX), frames: 0 },
            received: 0,
            fault: None,
        })
    }

    /// Writes what was gathered. What the stream does not take now goes first the next time, so no
    /// frame is ever half sent and then followed by another one's start.
    pub(super) fn send(&mut self) -> io::Result<()> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        self.outbox.write_to(&mut self.stream)
    }

    /// Frames that were sent and received so far.
    pub(super) fn frames(&self) -> u64 {
        self.outbox.frames + self.received
    }

    /// Whether frames wait for room in the stream.
    pub(super) fn is_blocked(&self) -> bool {
        !self.outbox.bytes.is_empty()
    }

    /// Sleeps until there is something to receive, or room for what waits to be sent, or `timeout` has
    /// passed.
    pub(super) fn wait(&self, timeout: Duration) -> io::Result<()> {
        let room = if self.is_blocked() { PollFlags::OUT } else { PollFlags::empty() };
        let mut stream = [PollFd::new(&self.stream, PollFlags::IN | room)];
        let timeout = Timespec::try_from(timeout).ok();
        match rustix::event::poll(&mut stream, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Where in the inbox the next frame lies, after a read if there is none yet.
    fn next_frame(&mut self) -> io::Result<Option<Range<usize>>> {
        loop {
            if let Some(frame) = self.inbox.next_frame()? {
                return Ok(Some(frame));
            }
            match self.inbox.read_from(&mut self.stream) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn note<T: Default>(&mut self, result: io::Result<T>) -> T {
        result.unwrap_or_else(|error| {
            self.fault = Some(error);
            T::default()
        })
    }
}

impl Device for Link {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MAX_FRAME;
        // All checksums are made and verified, as by a guest without offload.
        capabilities
    }

    /// A reply to what was received may always be sent: were it held back for want of room, we might
    /// stop reading because we cannot write, and so might the other end.
    fn receive(
        &mut self,
        _: smoltcp::time::Instant,
    ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let next = self.next_frame();
        let place = self.note(next)?;
        self.received += 1;
        let frame = self.inbox.bytes.get(place)?;
        Some((Received(frame), Sending(&mut self.outbox)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        if self.outbox.is_full() {
            let sent = self.outbox.write_to(&mut self.stream);
            self.note(sent);
        }
        (!self.outbox.is_full()).then_some(Sending(&mut self.outbox))
    }
}

/// A frame of the gateway's, where the read has put it.
pub(super) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, process: F) -> R {
        process(self.0)
    }
}

/// The place of a frame of ours, behind the others that wait.
pub(super) struct Sending<'a>(&'a mut Outbox);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, build: F) -> R {
        build(self.0.append(len))
    }
}

/// What was read and not yet taken.
struct Inbox {
    bytes: Vec<u8>,
    filled: Range<usize>,
}

impl Inbox {
    /// Takes the next frame, if it is there to its end.
    fn next_frame(&mut self) -> io::Result<Option<Range<usize>>> {
        let filled = self.bytes.get(self.filled.clone()).unwrap_or_default();
        let Some((prefix, rest)) = filled.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if !(ETHERNET_HEADER..=MAX_FRAME).contains(&len) {
            let why = format!("the gateway sent a frame of {len} bytes, and the MTU is {MTU}");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let start = self.filled.start + PREFIX;
        self.filled.start = start + len;
        Ok(Some(start..start + len))
    }

    /// One read, behind the beginning of a frame that is not complete.
    fn read_from(&mut self, stream: &mut UnixStream) -> io::Result<()> {
        let kept = self.filled.len();
        self.bytes.copy_within(self.filled.clone(), 0);
        self.filled = 0..kept;
        let room = self.bytes.get_mut(kept..).unwrap_or_default();
        match stream.read(room) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the gateway closed the link")),
            Ok(n) => {
                self.filled.end += n;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What waits to be sent: a part of a frame at the most at the front, whole frames behind it.
struct Outbox {
    bytes: Vec<u8>,
    /// Those that were ever put here.
    frames: u64,
}

impl Outbox {
    fn is_full(&self) -> bool {
        self.bytes.len() >= OUTBOX
    }

    /// The place for a frame of `len` bytes, whose prefix is written.
    fn append(&mut self, len: usize) -> &mut [u8] {
        // smoltcp keeps to the MTU that it was told, so this is no larger than MAX_FRAME.
        let prefix = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        self.bytes.extend_from_slice(&prefix);
        self.frames += 1;
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        self.bytes.get_mut(start..).unwrap_or_default()
    }

    fn write_to(&mut self, stream: &mut UnixStream) -> io::Result<()> {
        while !self.bytes.is_empty() {
            match stream.write(&self.bytes) {
                Ok(n) => drop(self.bytes.drain(..n)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(link: &mut Link) -> Option<Vec<u8>> {
        let (frame, _) = link.receive(smoltcp::time::Instant::ZERO)?;
        Some(frame.consume(<[u8]>::to_vec))
    }

    fn framed(frame: &[u8]) -> Vec<u8> {
        [&u32::try_from(frame.len()).unwrap().to_be_bytes(), frame].concat()
    }

    #[test]
    fn frames_are_found_wherever_the_stream_is_cut() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let mut link = Link::new(near).unwrap();
        let stream = [framed(&[1; 14]), framed(&[2; 1514]), framed(&[3; 60])].concat();
        for cut in 0..stream.len() {
            let (first, second) = stream.split_at(cut);
            far.write_all(first).unwrap();
            let mut frames: Vec<_> = std::iter::from_fn(|| receive(&mut link)).collect();
            far.write_all(second).unwrap();
            frames.extend(std::iter::from_fn(|| receive(&mut link)));
            assert_eq!(frames, [vec![1; 14], vec![2; 1514], vec![3; 60]], "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_that_no_buffer_holds_ends_the_link() {
        for len in [0u32, 13, 1515, u32::MAX] {
            let (mut far, near) = UnixStream::pair().unwrap();
            let mut link = Link::new(near).unwrap();
            far.write_all(&len.to_be_bytes()).unwrap();
            assert_eq!(receive(&mut link), None);
            assert_eq!(link.send().unwrap_err().kind(), ErrorKind::InvalidData, "{len}");
        }
    }

    #[test]
    fn a_full_stream_loses_nothing() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let mut link = Link::new(near).unwrap();
        let mut frames = 0;
        while let Some(place) = link.transmit(smoltcp::time::Instant::ZERO) {
            place.consume(1514, |frame| frame.fill(7));
            frames += 1;
        }
        assert!(link.is_blocked());
        let mut expected = frames * (PREFIX + 1514);
        let mut buffer = vec![0; 1 << 20];
        while expected > 0 {
            expected -= far.read(&mut buffer).unwrap();
            link.send().unwrap();
        }
        assert!(!link.is_blocked());
    }
}
