//! The system calls that neither std nor socket2 has in a safe form: network namespaces, the tap
//! device, poll(2), and receiving with flags.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// The length of the virtio-net header that a tap with [`attach_tap`]'s `vnet` puts before a frame.
pub(crate) const VNET_HEADER: usize = 12;

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Moves the calling thread, and no other, into a new network namespace.
pub(crate) fn new_network() -> io::Result<()> {
    // SAFETY: unshare takes one integer; CLONE_NEWNET shares no memory and no descriptors anew.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Moves the calling thread, and no other, into the network namespace that `namespace` is open on.
pub(crate) fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: setns takes two integers, and the descriptor is open for the length of the call.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Makes `tun`, freshly opened on /dev/net/tun, the tap device `name`. With `vnet` the kernel hands
/// over TSO super-frames with partial checksums, each behind a virtio-net header.
pub(crate) fn attach_tap(tun: &File, name: &str, vnet: bool) -> io::Result<()> {
    let fd = tun.as_raw_fd();
    // SAFETY: an ifreq is plain data, and all zeroes is one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    assert!(name.len() < request.ifr_name.len(), "the name leaves room for its NUL");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let vnet_flag = if vnet { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | vnet_flag) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives through the call.
    check(unsafe { libc::ioctl(fd, libc::TUNSETIFF, &raw mut request) })?;
    if vnet {
        let length = VNET_HEADER as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int, which lives through the call.
        check(unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ, &raw const length) })?;
        let offload = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6);
        // SAFETY: TUNSETOFFLOAD takes its flags by value.
        check(unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, offload) })?;
    }
    Ok(())
}

/// Sleeps until one of the descriptors has one of the events it is listed with, or hangs up; returns
/// what each has.
pub(crate) fn poll<const N: usize>(
    wanted: [(BorrowedFd<'_>, libc::c_short); N],
) -> io::Result<[libc::c_short; N]> {
    let mut fds =
        wanted.map(|(fd, events)| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
    loop {
        // SAFETY: the pointer and the length are those of an array that lives through the call.
        let result = check(unsafe { libc::poll(fds.as_mut_ptr(), N as libc::nfds_t, -1) });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(fds.map(|fd| fd.revents)),
        }
    }
}

/// Sets a socket option whose value is an int.
pub(crate) fn set_option(
    socket: &impl AsRawFd,
    (level, name): (libc::c_int, libc::c_int),
    value: libc::c_int,
) -> io::Result<()> {
    let (value, length) = ((&raw const value).cast(), size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: setsockopt reads `length` bytes at `value`, one int, which lives through the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, length) })
}

/// Sets how much a socket may hold that nobody has read yet, without the limit that holds for users
/// other than root.
pub(crate) fn force_receive_buffer(socket: &impl AsRawFd, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap();
    set_option(socket, (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE), bytes)
}

/// recv(2) with flags.
pub(crate) fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
    flags: libc::c_int,
) -> io::Result<usize> {
    let (start, length) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: the pointer and the length are those of a slice that lives through the call.
    let n = unsafe { libc::recv(stream.as_raw_fd(), start, length, flags) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Lets this process, and those that it starts, open as many descriptors as the hard limit allows.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit, which lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit reads one rlimit, which lives through the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })
}
