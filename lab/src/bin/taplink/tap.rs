//! The tap device and the stream's socket: the system calls that the standard library lacks.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

/// The virtio-net header, `num_buffers` included.
pub const HEADER: usize = 12;
/// VIRTIO_NET_HDR_F_DATA_VALID: the guest need not verify the checksum.
pub const CHECKSUM_VALID: [u8; HEADER] = [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The tap device `name` of this network namespace, which never blocks.
pub fn open(name: &str, offload: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let tap = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: ifreq is plain data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays 0.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let header = if offload { libc::IFF_VNET_HDR } else { 0 };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | header) as libc::c_short;
    // SAFETY: the descriptor is open, and TUNSETIFF reads and writes an ifreq.
    succeed(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, &raw mut request) })?;
    if offload {
        let size = HEADER as libc::c_int;
        // SAFETY: the descriptor is open, and TUNSETVNETHDRSZ reads an int.
        succeed(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETVNETHDRSZ, &raw const size) })?;
        let features = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
        // SAFETY: the descriptor is open, and TUNSETOFFLOAD takes its argument by value.
        succeed(unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, features) })?;
    }
    Ok(tap)
}

pub fn wait_readable(tap: &File) {
    let mut entry = libc::pollfd { fd: tap.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry is passed, and its descriptor is open. A failure shows at the next read.
    unsafe { libc::poll(&raw mut entry, 1, -1) };
}

/// As large as the host allows, so that the link is not what is measured.
pub fn enlarge_buffers(stream: &UnixStream) {
    for option in [libc::SO_SNDBUF, libc::SO_RCVBUF] {
        set_size(stream.as_raw_fd(), option, 4 << 20);
    }
}

fn set_size(socket: RawFd, option: libc::c_int, size: libc::c_int) {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    let value = (&raw const size).cast();
    // SAFETY: the descriptor is open, and the option takes an int. Without it the link is slower.
    unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, value, length) };
}

fn succeed(outcome: libc::c_int) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
