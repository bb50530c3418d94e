//! Services that the embedder runs in-process for the guest: a metadata service, a proxy, a store of
//! credentials. The guest opens a TCP connection to the service's address, and the embedder's handler has
//! it as a [`RelayStream`], on a thread of its own.
//!
//! Bytes cross two [`BytePipe`]s between the poll loop and the thread. The thread waits on bells of its
//! own, one for each direction, so that one thread may read while another writes; the poll loop hears of
//! the thread's doings by [`relay_wake`](crate::NetworkFrameQueues::relay_wake). That says that some relay
//! has news and not which: the poll loop asks each, which is two loads for a relay that has none, and
//! there are no more relays than [`Limits::relay_threads`](crate::Limits::relay_threads).

mod end;
mod threads;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;

pub(crate) use self::end::RelayEnd;
pub(crate) use self::threads::{RelayThreads, Service, Stragglers};

use self::threads::Permit;
use crate::pipe::{BytePipe, PipeRead};
use crate::sync::{Arc, Lock};
use crate::wake::WakePipe;

/// Bytes that lie in one direction's pipe at the most.
const PIPE: usize = 256 * 1024;

/// Chunks that lie there at the most: writes of a few bytes fill a pipe sooner.
const CHUNKS: usize = 64;

/// Bytes of one chunk at the most.
const CHUNK: usize = 64 * 1024;

/// Both directions of one relay.
#[derive(Debug)]
struct Pipes {
    to_service: BytePipe,
    to_guest: BytePipe,
    /// Rings for whoever reads from `to_service`.
    readable: WakePipe,
    /// Rings for whoever writes to `to_guest`.
    writable: WakePipe,
}

impl Pipes {
    fn new(poll_loop: &WakePipe) -> io::Result<Self> {
        let (readable, writable) = (WakePipe::try_new()?, WakePipe::try_new()?);
        Ok(Self {
            to_service: BytePipe::new(CHUNKS, PIPE, readable.clone(), poll_loop.clone()),
            to_guest: BytePipe::new(CHUNKS, PIPE, poll_loop.clone(), writable.clone()),
            readable,
            writable,
        })
    }

    fn reset(&self) {
        self.to_service.reset();
        self.to_guest.reset();
    }
}

/// A connection of the guest to a service of the embedder's.
///
/// It blocks, and has the manners of [`TcpStream`](std::net::TcpStream): a read gives 0 after the guest's
/// last byte, each direction ends by itself, and a reset by the guest, or the shutdown of the network,
/// makes every read and write fail with [`ConnectionReset`](io::ErrorKind::ConnectionReset), also those
/// that wait. It may be read by one thread and written by another. What is written is on its way at once;
/// there is nothing to flush. 256 KiB wait in each direction at the most.
///
/// Dropping it ends the stream to the guest after the last byte that was written, as
/// [`shutdown_write`](Self::shutdown_write) does, and lets go of what the guest has sent and nobody has
/// read; if the guest sends more, it gets a reset. Dropped by a panic it resets the connection, so that
/// the guest does not take half an answer for a whole one.
pub struct RelayStream {
    pipes: Arc<Pipes>,
    unread: Lock<Unread>,
    write: Lock<Writing>,
    guest: SocketAddr,
    service: SocketAddr,
    permit: Arc<Permit>,
}

/// A chunk, as far as it was read.
#[derive(Debug, Default)]
struct Unread {
    chunk: Vec<u8>,
    at: usize,
}

impl Unread {
    /// Copies what fits; 0 if nothing is left.
    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n;
        n
    }

    fn replace(&mut self, chunk: Vec<u8>) {
        *self = Self { chunk, at: 0 };
    }
}

/// The writing side's state.
#[derive(Debug, Default)]
struct Writing {
    ended: bool,
}

impl RelayStream {
    /// The guest's address and port.
    pub fn peer_addr(&self) -> SocketAddr {
        self.guest
    }

    /// The service's address and port, as the guest sees it.
    pub fn local_addr(&self) -> SocketAddr {
        self.service
    }

    /// Ends the stream to the guest after what was written. The guest may still send.
    pub fn shutdown_write(&self) {
        self.write.with(|write| {
            write.ended = true;
            self.pipes.to_guest.finish();
        });
    }

    /// As [`TcpStream::shutdown`](std::net::TcpStream::shutdown). Reading is shut down by dropping the
    /// stream only, so [`Shutdown::Read`] does nothing.
    pub fn shutdown(&self, how: Shutdown) {
        if how != Shutdown::Read {
            self.shutdown_write();
        }
    }

    /// Resets the connection.
    pub fn reset(self) {
        self.pipes.reset();
    }
}

impl Read for &RelayStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let pipes = &*self.pipes;
        self.unread.with(|unread| {
            loop {
                if pipes.to_service.is_reset() {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                match unread.take(buffer) {
                    0 => {}
                    n => return Ok(n),
                }
                pipes.readable.take();
                match pipes.to_service.read() {
                    PipeRead::Chunk(chunk) => unread.replace(chunk),
                    PipeRead::End => return Ok(0),
                    PipeRead::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
                    PipeRead::Empty => {
                        if pipes.readable.arm() {
                            pipes.readable.wait();
                        }
                    }
                }
            }
        })
    }
}

impl Write for &RelayStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let pipes = &*self.pipes;
        self.write.with(|write| {
            if write.ended {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let mut chunk = bytes.get(..CHUNK).unwrap_or(bytes).to_vec();
            let n = chunk.len();
            loop {
                pipes.writable.take();
                if pipes.to_guest.is_reset() {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                if n == 0 {
                    return Ok(0);
                }
                match pipes.to_guest.write(chunk) {
                    Ok(()) => return Ok(n),
                    Err(refused) => chunk = refused,
                }
                if pipes.writable.arm() {
                    pipes.writable.wait();
                }
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for RelayStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for RelayStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for RelayStream {
    fn drop(&mut self) {
        if thread::panicking() {
            self.pipes.to_guest.reset();
        } else {
            self.pipes.to_guest.finish();
        }
        self.pipes.to_service.reset();
    }
}

impl fmt::Debug for RelayStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayStream")
            .field("peer_addr", &self.guest)
            .field("local_addr", &self.service)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
