//! The guest and its VMM, at the other end of the stream.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;

use crate::frames::{ACK, FIN, GUEST, SYN, Tcp, stream};

/// MSS of 1460 and of 65,480, and a window scale of 7.
pub(crate) const OPTIONS: [u8; 8] = [2, 4, 0x05, 0xb4, 1, 3, 3, 7];
pub(crate) const LARGE_OPTIONS: [u8; 8] = [2, 4, 0xff, 0xc8, 1, 3, 3, 7];

/// The VMM's end of the stream.
pub(crate) struct Vmm {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Vmm {
    pub(crate) fn new(stream: UnixStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Sends frames of the guest, all of which the stream must have room for.
    pub(crate) fn send(&mut self, frames: &[Vec<u8>]) {
        self.stream.write_all(&stream(frames)).unwrap();
    }

    /// Takes the frames for the guest that the stream has.
    pub(crate) fn receive(&mut self, mut hear: impl FnMut(&[u8])) {
        loop {
            let held = self.received.len();
            self.received.resize(held + (256 << 10), 0);
            let n = match (&self.stream).read(&mut self.received[held..]) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => panic!("receive from the gateway: {error}"),
            };
            self.received.truncate(held + n);
            if n == 0 {
                break;
            }
        }
        let mut bytes = &self.received[..];
        while let Some((prefix, rest)) = bytes.split_first_chunk() {
            let len = u32::from_be_bytes(*prefix) as usize;
            let Some(frame) = rest.get(..len) else { break };
            hear(frame);
            bytes = &rest[len..];
        }
        let left = bytes.len();
        self.received.drain(..self.received.len() - left);
    }
}

/// The guest's end of a TCP flow over IPv4.
pub(crate) struct Flow {
    remote: SocketAddr,
    port: u16,
    /// The next number to send, the next that is expected, and the last that was acknowledged.
    pub(crate) next: u32,
    pub(crate) expects: u32,
    pub(crate) acknowledged: u32,
    /// The bytes that have come, and whether the gateway's SYN and its FIN have.
    pub(crate) bytes: usize,
    pub(crate) is_open: bool,
    pub(crate) is_ended: bool,
}

impl Flow {
    pub(crate) fn new(remote: SocketAddr, port: u16) -> Self {
        Self {
            remote,
            port,
            next: 1000,
            expects: 0,
            acknowledged: 0,
            bytes: 0,
            is_open: false,
            is_ended: false,
        }
    }

    /// A segment from where the guest stands.
    pub(crate) fn segment<'p>(&self, flags: u8, payload: &'p [u8]) -> Tcp<'p> {
        Tcp {
            ends: (GUEST, self.remote.ip()),
            ports: (self.port, self.remote.port()),
            sequence: self.next,
            acknowledges: self.expects,
            flags,
            options: &[],
            payload,
        }
    }

    pub(crate) fn syn(&mut self, options: &[u8]) -> Vec<u8> {
        let frame = Tcp { options, ..self.segment(SYN, &[]) }.frame();
        self.next += 1;
        frame
    }

    /// A segment with the next bytes, or the end.
    pub(crate) fn data(&mut self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let frame = self.segment(ACK | flags, payload).frame();
        let used = payload.len() as u32 + u32::from(flags & FIN != 0);
        self.next = self.next.wrapping_add(used);
        frame
    }

    /// Takes a segment, if the frame is one of this flow's, and the next.
    pub(crate) fn hear(&mut self, frame: &[u8]) {
        let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let port = |at: usize| u16::from_be_bytes(frame[at..at + 2].try_into().unwrap());
        if frame.len() < 54 || port(12) != 0x0800 || frame[23] != 6 || port(36) != self.port {
            return;
        }
        let (sequence, flags) = (number(38), frame[47]);
        let len = usize::from(port(16)) - 20 - usize::from(frame[46] >> 4) * 4;
        self.acknowledged = number(42);
        if flags & SYN != 0 {
            self.is_open = true;
            self.expects = sequence.wrapping_add(1);
            return;
        }
        assert_eq!(sequence, self.expects, "the gateway's segments come in order");
        self.bytes += len;
        self.is_ended |= flags & FIN != 0;
        self.expects = sequence.wrapping_add(len as u32 + u32::from(flags & FIN != 0));
    }

    /// The acknowledgements of what has come since a number, one for every second segment.
    pub(crate) fn acknowledgements(&self, since: u32, mss: usize) -> Vec<Vec<u8>> {
        let len = self.expects.wrapping_sub(since);
        let steps = (1..=len).filter(|n| *n == len || *n % (2 * mss as u32) == 0);
        steps
            .map(|n| Tcp { acknowledges: since.wrapping_add(n), ..self.segment(ACK, &[]) }.frame())
            .collect()
    }
}
