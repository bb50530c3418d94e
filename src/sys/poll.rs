//! poll(2) over the few descriptors that a bridge thread waits for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
#[cfg(feature = "runtime")]
use std::time::Duration;

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

/// Sleeps until `bell` is readable, but not for longer than `most`; says whether it is.
#[cfg(feature = "runtime")]
pub(crate) fn poll_one_for(bell: BorrowedFd<'_>, most: Duration) -> bool {
    let mut fds = [entry(bell, libc::POLLIN)];
    let most = libc::timespec {
        tv_sec: most.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: most.subsec_nanos().into(),
    };
    // SAFETY: the pointers are those of a slice with the length given and of a value, both of which live
    // through the call; without a signal mask there is none to read.
    let n = unsafe {
        libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, &raw const most, std::ptr::null())
    };
    // EINTR and ENOMEM end the sleep early, as `most` does.
    n > 0
}

/// How much memory of `stream`'s send buffer holds what the peer has not received yet, in bytes; 0 if the
/// kernel does not say (SIOCOUTQ, unix(7)).
#[cfg(feature = "runtime")]
pub(crate) fn unreceived(stream: BorrowedFd<'_>) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: this request writes one int, to an address that is good for one through the call.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
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
