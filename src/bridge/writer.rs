//! The thread that sends frames to the VMM while the stream is full.
//!
//! # Theory of operation
//!
//! The poll loop lends it the send half ([`hand_over`](crate::hand_over)). It goes round
//! [`HandOver::run_writer`], the loop of [`wake`](crate::wake): take, send all there is, sleep. What breaks
//! the sleep depends on why there is nothing more to do:
//!
//! * The queue is empty: the half goes back to the poll loop, with a ring. The thread arms and sleeps on
//!   its bell, until it is lent the half again.
//! * The stream is full: room in the stream, or its end. More frames are no news then, so this sleep is
//!   not armed, and of the bell only the shutdown breaks it.
//!
//! Shutdown: the notes are taken before the queue is drained, so when they say that it has begun,
//! every frame that was pushed before it is seen by the send that follows. What the stream takes
//! without waiting is sent, and only then is an unfinished frame given up.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use socket2::SockRef;

use super::HandOver;
use super::sender::Sender;
use crate::config::Offload;
use crate::error::StopReason;
use crate::sync::Arc;
use crate::sys::poll_writable;
use crate::wake::WakePipe;

#[cfg(test)]
mod tests;

/// How much may be on its way to the VMM. A Unix stream counts it against the sender; the kernel's
/// default holds 93 ordinary frames. The more there is, the less often a full stream goes to the writer; but
/// frames of 64 KiB come so fast that more has left the cache before the VMM takes it.
const SEND_BUFFER: usize = 4 << 20;
const SEND_BUFFER_OF_LARGE: usize = 1 << 20;

/// Prepares our end of the stream: non-blocking, and with room for a burst.
///
/// # Errors
/// What fcntl(2) reports. The size of the buffer is a wish: the kernel gives what it allows.
pub(crate) fn prepare(stream: &UnixStream, offload: Offload) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let most = match offload {
        Offload::None | Offload::Upload => SEND_BUFFER,
        Offload::Jumbo => SEND_BUFFER_OF_LARGE,
    };
    SockRef::from(stream).set_send_buffer_size(most)
}

/// The writer's thread.
#[derive(Debug)]
pub(crate) struct Writer {
    hand_over: Arc<HandOver>,
}

impl Writer {
    pub(crate) fn new(hand_over: Arc<HandOver>) -> Self {
        Self { hand_over }
    }

    /// Sends whenever it is lent the send half, until the runtime ends; says why.
    pub(crate) fn run(self) -> StopReason {
        self.hand_over.run_writer(StopReason::Requested, Sender::send, wait_for_room)
    }
}

/// Sleeps, without having armed, until the stream has room or the shutdown begins.
fn wait_for_room(bell: &WakePipe, sender: &Sender) -> Result<(), StopReason> {
    match poll_writable(bell.as_fd(), sender.stream().as_fd()) {
        Ok(true) => bell.clear(),
        Ok(false) => {}
        Err(error) => return Err(StopReason::HostFault("wait for the stream", error.kind())),
    }
    Ok(())
}
