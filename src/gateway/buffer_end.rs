//! The end of a TCP flow whose protocol the poll loop speaks itself: bytes in two bounded buffers.

use std::collections::VecDeque;
use std::io::{self, Read};

/// Bytes of the guest that wait to be understood, at the most; a message of DNS over TCP fits.
const INBOUND: usize = 128 * 1024;

/// The two directions of a flow that ends in the poll loop.
#[derive(Debug, Default)]
pub(crate) struct BufferEnd {
    from_guest: VecDeque<u8>,
    to_guest: VecDeque<u8>,
    guest_ended: bool,
    ended: bool,
}

impl BufferEnd {
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.to_guest.read(buffer)? {
            0 if !self.ended => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(INBOUND - self.from_guest.len());
        if n == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.from_guest.extend(bytes.iter().take(n));
        Ok(n)
    }

    pub(crate) fn finish(&mut self) {
        self.guest_ended = true;
    }

    /// What the guest has sent and nobody has taken yet. Who takes some of it makes room: the flow must
    /// be served again.
    pub(crate) fn inbound(&mut self) -> &mut VecDeque<u8> {
        &mut self.from_guest
    }

    /// Whether the guest sends no more than what is in [`inbound`](Self::inbound).
    pub(crate) fn guest_has_ended(&self) -> bool {
        self.guest_ended
    }

    /// Bytes for the guest that it has not been given yet.
    pub(crate) fn waiting(&self) -> usize {
        self.to_guest.len()
    }

    /// Appends bytes for the guest.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.to_guest.extend(bytes);
    }

    /// Whether nothing follows what was written.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Nothing follows what was written.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }
}
