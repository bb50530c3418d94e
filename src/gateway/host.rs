//! A TCP socket of the host: non-blocking, owned by the poll loop.

use std::io::{self, IoSlice, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::icmp::Unreachable;
use crate::metrics::DropReason;

/// A connection to the destination that the guest asked for, or the attempt at one.
///
/// Unless the guest's end of stream was passed on, dropping it resets the connection, however that comes
/// about: a stream that is cut off must not look complete.
#[derive(Debug)]
pub(crate) struct HostSocket {
    socket: Socket,
    finished: bool,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectError {
    Refused,
    Unreachable(Unreachable),
    TimedOut,
    /// Out of descriptors, ports, memory: the host's trouble, not the destination's.
    Resource,
}

impl ConnectError {
    pub(crate) fn from_io(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ECONNREFUSED | libc::ECONNRESET) => Self::Refused,
            Some(libc::EHOSTUNREACH | libc::EHOSTDOWN) => Self::Unreachable(Unreachable::Host),
            Some(libc::ENETUNREACH | libc::ENETDOWN) => Self::Unreachable(Unreachable::Network),
            Some(libc::EACCES | libc::EPERM | libc::EINVAL) => {
                Self::Unreachable(Unreachable::Prohibited)
            }
            // The host has no address of this family or scope to send from.
            Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) => {
                Self::Unreachable(Unreachable::Network)
            }
            Some(libc::ETIMEDOUT) => Self::TimedOut,
            _ => Self::Resource,
        }
    }

    pub(crate) fn drop_reason(self) -> DropReason {
        match self {
            Self::Refused => DropReason::HostRefused,
            Self::Unreachable(_) => DropReason::HostUnreachable,
            Self::TimedOut => DropReason::HostTimedOut,
            Self::Resource => DropReason::HostResource,
        }
    }
}

/// Urgent data matter too: a receive ends at their mark, whatever follows.
const EVENTS: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);

impl HostSocket {
    /// Begins a connection; the poll loop hears of its end under `token`.
    pub(crate) fn connect(
        remote: SocketAddr,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, ConnectError> {
        let attempt = || -> io::Result<Socket> {
            let socket = Socket::new(
                Domain::for_address(remote),
                Type::STREAM.nonblocking().cloexec(),
                Some(Protocol::TCP),
            )?;
            socket.set_tcp_nodelay(true)?;
            // Or the byte at the urgent mark would be missing in the guest's stream (RFC 6093 section 6).
            socket.set_out_of_band_inline(true)?;
            match socket.connect(&remote.into()) {
                Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
                _ => {}
            }
            // Edge-triggered: each direction is tried until it would block.
            registry.register(&mut SourceFd(&socket.as_raw_fd()), token, EVENTS)?;
            Ok(socket)
        };
        match attempt() {
            Ok(socket) => Ok(Self { socket, finished: false }),
            Err(error) => Err(ConnectError::from_io(&error)),
        }
    }

    /// A client of a published port, not blocking. Its events are asked for with [`watch`](Self::watch).
    pub(crate) fn accepted(client: TcpStream) -> Self {
        Self { socket: client.into(), finished: false }
    }

    /// Has the poll loop hear of it under `token`.
    ///
    /// # Errors
    /// ENOMEM or ENOSPC from epoll_ctl(2).
    pub(crate) fn watch(&self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut SourceFd(&self.socket.as_raw_fd()), token, EVENTS)
    }

    /// Whether the connection has come about: `Ok(false)` while it has not.
    pub(crate) fn is_connected(&self) -> Result<bool, ConnectError> {
        if self.socket.peer_addr().is_ok() {
            return Ok(true);
        }
        // Without a peer and without an error it is still under way: the event was another's.
        match self.socket.take_error() {
            Ok(Some(error)) | Err(error) => Err(ConnectError::from_io(&error)),
            Ok(None) => Ok(false),
        }
    }

    /// The other end, while it is connected.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()?.as_socket()
    }

    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| (&self.socket).read(buffer))
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        retry(|| self.socket.send_with_flags(bytes, libc::MSG_NOSIGNAL))
    }

    pub(crate) fn send_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        retry(|| self.socket.send_vectored_with_flags(slices, libc::MSG_NOSIGNAL))
    }

    /// The guest sends no more: FIN after what was sent.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
        // ENOTCONN: the peer has reset the connection, which the next receive reports.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Closes with RST, also after the guest's end of stream.
    pub(crate) fn reset(mut self) {
        self.finished = false;
    }
}

impl Drop for HostSocket {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.socket.set_linger(Some(Duration::ZERO));
        }
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
