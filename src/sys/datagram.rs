//! Many datagrams in one system call: recvmmsg(2), sendmmsg(2), and the socket option that decides who
//! may fragment.
//!
//! nix has both calls, but its headers hold pointers into the buffers for as long as they live, so every
//! call would allocate anew.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

/// Datagrams that one call moves at the most.
pub(crate) const BATCH: usize = 32;
/// The largest payload there is, and a byte more: the largest ICMPv6 message.
const LARGEST: usize = 65_536;
/// What an inbox receives at once.
const SLOTS: usize = 16;

/// Room for the datagrams of one receive. Its memory is touched only where datagrams were that large.
#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
    received: [Option<(SocketAddr, usize)>; SLOTS],
}

impl Inbox {
    pub(crate) const SLOTS: usize = SLOTS;

    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; SLOTS * LARGEST], received: [None; SLOTS] }
    }

    /// Receives up to `most` datagrams without waiting, and says how many came. It is at least one.
    ///
    /// # Errors
    /// What recvmmsg(2) reports but EINTR, which is retried: EAGAIN if there is none, or the error that
    /// waits on the socket.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
        let most = most.clamp(1, SLOTS);
        let mut addresses: [SockAddrStorage; SLOTS] =
            std::array::from_fn(|_| SockAddrStorage::zeroed());
        let mut parts: [libc::iovec; SLOTS] = [EMPTY; SLOTS];
        // SAFETY: all-zero bytes are an mmsghdr: it holds pointers and integers only.
        let mut headers: [libc::mmsghdr; SLOTS] = unsafe { mem::zeroed() };
        let slots = self.bytes.chunks_exact_mut(LARGEST);
        for (((header, part), address), slot) in
            headers.iter_mut().zip(&mut parts).zip(&mut addresses).zip(slots)
        {
            *part = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = address.size_of();
        }
        let count = loop {
            // SAFETY: the first `most` headers are initialised, and `most` is no larger than the array.
            // Each points to one iovec, which points to a slot of its own, and to one address with its
            // length; all of them live, exclusively borrowed, through the call.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    most as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                )
            };
            if count >= 0 {
                break count as usize;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        };
        self.received = [None; SLOTS];
        let headers = headers.into_iter().take(count);
        for ((received, header), address) in self.received.iter_mut().zip(headers).zip(addresses) {
            let len = header.msg_hdr.msg_namelen.min(address.size_of());
            // SAFETY: the kernel has written `len` bytes of an address there; the rest is zero.
            let address = unsafe { SockAddr::new(address, len) };
            *received = address.as_socket().map(|from| (from, header.msg_len as usize));
        }
        Ok(count)
    }

    /// The datagrams of the last receive, with where they came from.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        self.received.iter().zip(self.bytes.chunks_exact(LARGEST)).filter_map(|(received, slot)| {
            let (from, len) = (*received)?;
            Some((from, slot.get(..len)?))
        })
    }
}

const EMPTY: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

/// Sends up to [`BATCH`] datagrams without waiting, each to its destination, and says how many went. It
/// is at least one.
///
/// # Errors
/// What sendmmsg(2) reports of the first datagram but EINTR, which is retried.
pub(crate) fn send<'d>(
    socket: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = (SocketAddr, &'d [u8])>,
) -> io::Result<usize> {
    let mut addresses: [Option<SockAddr>; BATCH] = [const { None }; BATCH];
    let mut parts: [libc::iovec; BATCH] = [EMPTY; BATCH];
    // SAFETY: all-zero bytes are an mmsghdr: it holds pointers and integers only.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
    let mut count = 0;
    for (((header, part), address), (to, bytes)) in
        headers.iter_mut().zip(&mut parts).zip(&mut addresses).zip(datagrams)
    {
        let address = address.insert(SockAddr::from(to));
        // The kernel only reads what an iovec of a send points to.
        *part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_namelen = address.len();
        count += 1;
    }
    loop {
        // SAFETY: the first `count` headers are initialised. Each points to one iovec over a slice that
        // lives for 'd, and to one address with its length in an array that does not move; the kernel
        // writes only the headers' own lengths.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        if sent >= 0 {
            return Ok(sent as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Decides whether what a socket sends may be fragmented, here and, over IPv4, on the way. Where it may
/// not, a datagram above the path's known MTU fails with EMSGSIZE.
///
/// # Errors
/// What setsockopt(2) reports.
pub(crate) fn set_dont_fragment(
    socket: BorrowedFd<'_>,
    ipv6: bool,
    dont_fragment: bool,
) -> io::Result<()> {
    let (level, option, value) = match (ipv6, dont_fragment) {
        (false, true) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        (false, false) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT),
        (true, true) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
        (true, false) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_WANT),
    };
    // SAFETY: the option's value is an int, and the pointer and length are those of one.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            ptr::from_ref(&value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let socket = || UdpSocket::bind("127.0.0.1:0").unwrap();
        (socket(), socket())
    }

    #[test]
    fn datagrams_of_every_size_go_and_come_in_batches() {
        let (ours, theirs) = pair();
        let to = theirs.local_addr().unwrap();
        let payloads: Vec<Vec<u8>> =
            [0, 1, 1472, 65_507, 0, 9].iter().map(|len| vec![*len as u8; *len]).collect();
        let sent = send(ours.as_fd(), payloads.iter().map(|bytes| (to, &bytes[..]))).unwrap();
        assert_eq!(sent, payloads.len());
        let mut inbox = Inbox::new();
        let mut got = Vec::new();
        while got.len() < payloads.len() {
            let count = inbox.receive(theirs.as_fd(), 4).unwrap();
            assert_eq!(inbox.datagrams().count(), count);
            got.extend(inbox.datagrams().map(|(from, bytes)| (from, bytes.to_vec())));
        }
        let from = ours.local_addr().unwrap();
        assert!(got == payloads.into_iter().map(|bytes| (from, bytes)).collect::<Vec<_>>());
        let error = inbox.receive(theirs.as_fd(), 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_batch_is_bounded() {
        let (ours, theirs) = pair();
        let to = theirs.local_addr().unwrap();
        let many = std::iter::repeat_n((to, &b"x"[..]), 1000);
        assert_eq!(send(ours.as_fd(), many).unwrap(), BATCH);
    }

    #[test]
    fn a_datagram_that_may_not_be_fragmented_is_refused() {
        let (ours, theirs) = pair();
        let to = theirs.local_addr().unwrap();
        let large = vec![0; 65_508];
        set_dont_fragment(ours.as_fd(), false, true).unwrap();
        let error = send(ours.as_fd(), [(to, &large[..])].into_iter()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }
}
