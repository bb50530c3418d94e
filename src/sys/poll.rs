//! poll(2) over the few descriptors that a bridge thread waits for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

fn poll(fds: &mut [libc::pollfd]) -> io::Result<()> {
    loop {
        // SAFETY: the pointer and the length are those of a slice that lives through the call.
        let n = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        if n >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn entry(fd: BorrowedFd<'_>, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 }
}

/// Sleeps until `bell` is readable.
pub(crate) fn poll_one(bell: BorrowedFd<'_>) -> io::Result<()> {
    poll(&mut [entry(bell, libc::POLLIN)])
}

/// Sleeps until `bell` is readable, or `stream` has room or has lost its peer; says whether `bell` is.
/// There is no time-out.
///
/// # Errors
/// What poll(2) reports but EINTR, which is retried: in practice ENOMEM.
#[cfg(feature = "runtime")]
pub(crate) fn poll_writable(bell: BorrowedFd<'_>, stream: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [entry(bell, libc::POLLIN), entry(stream, libc::POLLOUT)];
    poll(&mut fds)?;
    let [bell, _] = fds;
    Ok(bell.revents != 0)
}
