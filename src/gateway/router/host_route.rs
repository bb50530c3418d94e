//! Whether the host has a way to the IPv6 Internet.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// An address that only a default route leads to. Nothing is ever sent there.
const FAR_AWAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888);

/// Whether the host has an IPv6 default route and an address for it, by connecting a UDP socket, which
/// looks the route up and sends nothing. `None` if the host is out of descriptors or memory and cannot say.
pub(crate) fn host_has_ipv6_route() -> Option<bool> {
    let connected = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))
        .and_then(|socket| socket.connect(&SocketAddr::from((FAR_AWAY, 53)).into()));
    has_route(&connected)
}

fn has_route(connected: &io::Result<()>) -> Option<bool> {
    let Err(error) = connected else { return Some(true) };
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => None,
        _ => Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_and_no_descriptor_are_told_apart() {
        let failed = |errno| has_route(&Err(io::Error::from_raw_os_error(errno)));
        assert_eq!(has_route(&Ok(())), Some(true));
        for errno in
            [libc::ENETUNREACH, libc::EHOSTUNREACH, libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT]
        {
            assert_eq!(failed(errno), Some(false));
        }
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(failed(errno), None);
        }
    }

    #[test]
    fn the_host_can_be_asked() {
        assert!(host_has_ipv6_route().is_some());
    }
}
