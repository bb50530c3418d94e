//! The far end of a TCP flow: a socket of the host, or somebody in this process.

use std::io;

use super::buffer_end::BufferEnd;
use super::host::{ConnectError, HostSocket};

/// Where a flow's bytes go and come from. Every operation is non-blocking; when one would block, the flow
/// is told when to try again.
#[derive(Debug)]
pub(crate) enum End {
    /// A socket of the host.
    Host(HostSocket),
    /// A protocol that the poll loop itself speaks.
    Buffer(BufferEnd),
}

impl End {
    /// Whether the connection has come about: `Ok(false)` while it has not.
    pub(crate) fn is_connected(&self) -> Result<bool, ConnectError> {
        match self {
            Self::Host(host) => host.is_connected(),
            Self::Buffer(_) => Ok(true),
        }
    }

    /// Takes bytes for the guest: 0 at the end of the stream.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Host(host) => host.receive(buffer),
            Self::Buffer(end) => end.receive(buffer),
        }
    }

    /// Passes bytes of the guest on.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Host(host) => host.send(bytes),
            Self::Buffer(end) => end.send(bytes),
        }
    }

    /// The guest sends no more.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Host(host) => host.finish(),
            Self::Buffer(end) => end.finish(),
        }
    }

    /// The flow is cut off.
    pub(crate) fn reset(self) {
        match self {
            Self::Host(host) => host.reset(),
            Self::Buffer(_) => {}
        }
    }
}
