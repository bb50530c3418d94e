//! The far end of a TCP flow: a socket of the host, or somebody in this process.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use super::buffer_end::BufferEnd;
use super::host::{ConnectError, HostSocket};
use crate::relay::RelayEnd;

/// Where a flow's bytes go and come from. Every operation is non-blocking; when one would block, the flow
/// is told when to try again.
#[derive(Debug)]
pub(crate) enum End {
    /// A socket of the host.
    Host(HostSocket),
    /// A protocol that the poll loop itself speaks.
    Buffer(BufferEnd),
    /// A service of the embedder's, on a thread of its own.
    Relay(Box<RelayEnd>),
}

impl End {
    /// Whether the connection has come about: `Ok(false)` while it has not.
    pub(crate) fn is_connected(&self) -> Result<bool, ConnectError> {
        match self {
            Self::Host(host) => host.is_connected(),
            Self::Buffer(_) | Self::Relay(_) => Ok(true),
        }
    }

    /// Whether there is nobody left who could read or write.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(self, Self::Relay(end) if end.is_abandoned())
    }

    /// Who is at the other end, if that is somebody of the host's network.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Host(host) => host.peer(),
            _ => None,
        }
    }

    /// Takes bytes for the guest: 0 at the end of the stream.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Host(host) => host.receive(buffer),
            Self::Buffer(end) => end.receive(buffer),
            Self::Relay(end) => end.receive(buffer),
        }
    }

    /// Passes bytes of the guest on.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Host(host) => host.send(bytes),
            Self::Buffer(end) => end.send(bytes),
            Self::Relay(end) => end.send(bytes),
        }
    }

    /// As [`send`](Self::send), from several places.
    pub(crate) fn send_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Self::Host(host) = self {
            return host.send_vectored(slices);
        }
        let mut sent = 0;
        for slice in slices {
            match self.send(slice) {
                Ok(n) => {
                    sent += n;
                    if n < slice.len() {
                        break;
                    }
                }
                Err(error) if sent == 0 => return Err(error),
                // It comes again.
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// The guest sends no more.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Host(host) => host.finish(),
            Self::Buffer(end) => end.finish(),
            Self::Relay(end) => end.finish(),
        }
    }

    /// The flow is cut off.
    pub(crate) fn reset(self) {
        match self {
            Self::Host(host) => host.reset(),
            Self::Buffer(_) => {}
            Self::Relay(end) => end.reset(),
        }
    }
}

#[cfg(test)]
mod tests;
