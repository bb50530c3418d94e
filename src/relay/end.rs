//! The poll loop's end of a relay: what a flow has in place of a socket of the host.

use std::io;
use std::net::SocketAddr;

use super::threads::{Permit, RelayThreads, Service};
use super::{CHUNK, Pipes, RelayStream, Unread};
use crate::pipe::PipeRead;
use crate::sync::{Arc, Lock};
use crate::wake::WakePipe;

/// The smallest chunk that is worth a try when the pipe is nearly full.
const LEAST: usize = 4096;

/// The poll loop's end of a relay. Unless the guest's end of stream was passed on, dropping it resets the
/// service's direction of reading; its direction of writing always, unless its end was seen.
#[derive(Debug)]
pub(crate) struct RelayEnd {
    pipes: Arc<Pipes>,
    unread: Unread,
    /// The guest's end of stream was passed on.
    finished: bool,
    /// The service's end of stream was seen.
    ended: bool,
    /// The thread that is not started before the guest's handshake is over.
    waiting: Option<(Service, RelayStream)>,
}

impl RelayEnd {
    /// # Errors
    /// No descriptors for the bells.
    pub(crate) fn new(
        service: Service,
        addresses: (SocketAddr, SocketAddr),
        permit: Permit,
        poll_loop: &WakePipe,
    ) -> io::Result<Self> {
        let pipes = Arc::new(Pipes::new(poll_loop)?);
        let (guest, local) = addresses;
        let stream = RelayStream {
            pipes: Arc::clone(&pipes),
            unread: Lock::default(),
            write: Lock::default(),
            guest,
            service: local,
            permit: Arc::new(permit),
        };
        let waiting = Some((service, stream));
        Ok(Self { pipes, unread: Unread::default(), finished: false, ended: false, waiting })
    }

    /// Hands the stream to the service, on a thread of its own.
    ///
    /// # Errors
    /// The host is out of threads.
    pub(crate) fn start(&mut self, threads: &mut RelayThreads) -> io::Result<()> {
        let Some((service, stream)) = self.waiting.take() else { return Ok(()) };
        threads.spawn(service, stream)
    }

    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            let left = buffer.get_mut(filled..).unwrap_or_default();
            filled += self.unread.take(left);
            if filled == buffer.len() {
                return Ok(filled);
            }
            match self.pipes.to_guest.read() {
                PipeRead::Chunk(chunk) => self.unread.replace(chunk),
                PipeRead::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
                _ if filled > 0 => return Ok(filled),
                PipeRead::Empty => return Err(io::ErrorKind::WouldBlock.into()),
                PipeRead::End => {
                    self.ended = true;
                    return Ok(0);
                }
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let pipe = &self.pipes.to_service;
        if pipe.is_reset() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let n = bytes.len().min(CHUNK).min(pipe.room().max(LEAST));
        match pipe.write(bytes.get(..n).unwrap_or_default().to_vec()) {
            Ok(()) => Ok(n),
            Err(_refused) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
        self.pipes.to_service.finish();
    }

    pub(crate) fn reset(self) {
        self.pipes.reset();
    }

    /// Whether there is anything to receive, be it an end.
    pub(crate) fn is_readable(&self) -> bool {
        !self.ended && !self.pipes.to_guest.is_quiet()
    }

    /// Whether sending must be tried: with any room at all, since it has rung and will not ring again
    /// before the next refusal.
    pub(crate) fn is_writable(&self) -> bool {
        self.pipes.to_service.is_reset() || self.pipes.to_service.room() > 0
    }

    /// The service has dropped its stream, and there will be no news from it.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.ended && self.pipes.to_service.is_reset()
    }
}

impl Drop for RelayEnd {
    fn drop(&mut self) {
        if !self.finished {
            self.pipes.to_service.reset();
        }
        if !self.ended {
            self.pipes.to_guest.reset();
        }
    }
}
