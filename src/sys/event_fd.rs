//! eventfd(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::poll;

/// A non-blocking, close-on-exec eventfd: the poll-breaker of one waiter. Its counter is never the
/// truth about anything; the state word beside it is.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM as eventfd(2) reports them.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes two integers and no pointer.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes the descriptor readable. A counter at its limit (EAGAIN) is readable already, so that
    /// counts as success; the only other error that write(2) lists for it is EINTR.
    pub(crate) fn signal(&self) {
        let one = 1u64.to_ne_bytes();
        loop {
            // SAFETY: `one` is 8 readable bytes for the length of the call.
            let n = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            if n >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return;
            }
        }
    }

    /// Takes the token, if there is one.
    pub(crate) fn clear(&self) {
        let mut count = [0u8; 8];
        loop {
            // SAFETY: `count` is 8 writable bytes for the length of the call.
            let n =
                unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
            if n >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return;
            }
        }
    }

    /// Sleeps until the descriptor is readable and takes the token.
    pub(crate) fn wait(&self) {
        // An error of poll(2) here could only be ENOMEM; the caller's loop looks at its state and
        // comes back, so a return without a token is as harmless as a late one.
        let _ = poll::poll_one(self.as_fd());
        self.clear();
    }

    /// As [`wait`](Self::wait), but not for longer than `most`; says whether there was a token.
    #[cfg(feature = "runtime")]
    pub(crate) fn wait_for(&self, most: std::time::Duration) -> bool {
        let readable = poll::poll_one_for(self.as_fd(), most);
        if readable {
            self.clear();
        }
        readable
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
