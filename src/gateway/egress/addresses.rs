//! The host's own addresses, followed as they change (rtnetlink(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
    recv, socket,
};
use smoltcp::time::{Duration, Instant};

/// Messages that one look at the socket takes. Their contents do not matter: any means "read again".
const MESSAGES: usize = 256;
/// After a failure, how long a decision waits with the next attempt.
const RETRY: Duration = Duration::from_millis(100);

/// Every address by which the host reaches itself: those of its interfaces, their broadcast addresses, and
/// the subnet-router anycast addresses, which are the host's while it forwards (RFC 4291 section 2.6.1).
///
/// Addresses that a routing table makes local without an interface having them (`ip route add local …`) are
/// not among them: deny them by a rule.
#[derive(Debug)]
pub(crate) struct HostAddresses {
    /// Joined to the groups that announce addresses.
    socket: OwnedFd,
    /// Sorted.
    all: Vec<IpAddr>,
    /// The last attempt to read failed: when the next may be made.
    retry: Option<Instant>,
}

impl HostAddresses {
    /// Reads the addresses, and watches for changes under `token`.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM, and EACCES or the like where a sandbox has no netlink.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        let groups = libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups.cast_unsigned()))?;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        // Joined first, read then: no change falls between the two.
        Ok(Self { socket, all: read()?, retry: None })
    }

    /// The socket is readable. Returns whether the addresses are others now.
    pub(crate) fn heard(&mut self, now: Instant) -> bool {
        let mut buffer = [0; 64];
        for _ in 0..MESSAGES {
            // What does not fit is cut off. ENOBUFS: messages were lost, and more may follow.
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(_) => return self.read_again(now),
            }
        }
        // The socket is edge-triggered and not empty: the next decision looks again.
        let changed = self.read_again(now);
        self.retry = Some(now);
        changed
    }

    /// Looks again if the last look failed, a while after it. Returns whether the addresses are others now.
    pub(crate) fn catch_up(&mut self, now: Instant) -> bool {
        self.retry.is_some_and(|at| at <= now) && self.heard(now)
    }

    fn read_again(&mut self, now: Instant) -> bool {
        self.take(read(), now)
    }

    fn take(&mut self, read: io::Result<Vec<IpAddr>>, now: Instant) -> bool {
        match read {
            Ok(all) => {
                self.retry = None;
                let changed = all != self.all;
                self.all = all;
                changed
            }
            // Out of descriptors, most likely: what was true last is the best guess.
            Err(_) => {
                self.retry = Some(now + RETRY);
                false
            }
        }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.all.binary_search(&address).is_ok()
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> &[IpAddr] {
        &self.all
    }
}

fn read() -> io::Result<Vec<IpAddr>> {
    let mut all = Vec::new();
    for interface in getifaddrs()? {
        let address = interface.address.as_ref().and_then(ip);
        all.extend(address);
        all.extend(interface.broadcast.as_ref().and_then(ip));
        let mask = interface.netmask.as_ref().and_then(ip);
        match (address, mask) {
            (Some(IpAddr::V6(address)), Some(IpAddr::V6(mask))) => {
                all.push(Ipv6Addr::from_bits(address.to_bits() & mask.to_bits()).into());
            }
            // The routing table has the broadcast address, whether or not the interface names it. A
            // prefix of 31 has none (RFC 3021).
            (Some(IpAddr::V4(address)), Some(IpAddr::V4(mask))) if mask.to_bits() & 2 == 0 => {
                all.push(Ipv4Addr::from_bits(address.to_bits() | !mask.to_bits()).into());
            }
            _ => {}
        }
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

#[cfg(test)]
mod tests;
