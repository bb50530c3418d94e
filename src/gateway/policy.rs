//! Where the guest may go.
//!
//! Three answers: nowhere, because no router forwards to such an address (dropped in silence); denied,
//! because the destination trusts whoever reaches it (answered, so that the guest need not wait); or
//! the host address to connect to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::link::Link;

/// Whether a router forwards to this address at all (RFC 1812 section 5.3.7, RFC 6890): not
/// unspecified, loopback, broadcast, multicast or reserved; and of the guest's own subnet nothing but the
/// gateway, so neither the sender itself (LAND) nor the subnet's broadcast.
pub(crate) fn is_forwardable_v4(address: Ipv4Addr, link: &Link) -> bool {
    let [first, ..] = address.octets();
    address == link.gateway_ipv4
        || (first != 0 && !address.is_loopback() && first < 224 && !link.in_subnet(address))
}

/// As [`is_forwardable_v4`], for IPv6 (RFC 4291, RFC 6890). Link-local and on-link addresses other
/// than the gateway's are no business of a router's either.
pub(crate) fn is_forwardable_v6(address: Ipv6Addr, link: &Link) -> bool {
    link.is_gateway_v6(address)
        || !(address.is_unspecified()
            || address.is_loopback()
            || address.is_multicast()
            || address.is_unicast_link_local()
            || link.in_prefix(address))
}

/// What becomes of a connection to `remote`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Connect to this address.
    Connect(SocketAddr),
    /// Nothing listens there: the gateway's own address without host loopback.
    Refuse,
    /// Administratively prohibited.
    Deny,
}

/// Decides on a destination that is forwardable.
pub(crate) fn decide(remote: SocketAddr, link: &Link) -> Decision {
    let is_gateway = match remote.ip() {
        IpAddr::V4(address) => address == link.gateway_ipv4,
        IpAddr::V6(address) => link.is_gateway_v6(address),
    };
    if is_gateway {
        return match (link.host_loopback, remote.ip()) {
            (false, _) => Decision::Refuse,
            (true, IpAddr::V4(_)) => {
                Decision::Connect(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), remote.port()))
            }
            (true, IpAddr::V6(_)) => {
                Decision::Connect(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), remote.port()))
            }
        };
    }
    let denied = match remote.ip() {
        IpAddr::V4(address) => is_denied_v4(address, link),
        IpAddr::V6(address) => is_denied_v6(address, link),
    };
    if denied { Decision::Deny } else { Decision::Connect(remote) }
}

/// Cloud metadata services: whoever reaches one of them is handed the host's credentials. All of
/// 169.254.0.0/16 (AWS, Azure, Google, Oracle and others), Alibaba's 100.100.100.200 and Azure's
/// 168.63.129.16.
fn is_denied_v4(address: Ipv4Addr, link: &Link) -> bool {
    address.is_link_local()
        || address == Ipv4Addr::new(100, 100, 100, 200)
        || address == Ipv4Addr::new(168, 63, 129, 16)
        || !is_forwardable_v4(address, link)
        || address == link.gateway_ipv4
}

/// AWS's and Google's IPv6 metadata addresses, and every form in which an IPv6 address carries an
/// IPv4 address that is denied. Mapped and compatible addresses are denied whole: a socket would take
/// them for IPv4, and no router forwards them.
fn is_denied_v6(address: Ipv6Addr, link: &Link) -> bool {
    const METADATA: [Ipv6Addr; 2] = [
        Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
        Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    ];
    if METADATA.contains(&address) || is_v4_in_v6(address) {
        return true;
    }
    embedded_v4(address).into_iter().flatten().any(|address| is_denied_v4(address, link))
}

fn is_v4_in_v6(address: Ipv6Addr) -> bool {
    let upper = u128::from(address) >> 32;
    upper == 0xffff || upper == 0
}

/// The IPv4 addresses that this address may stand for: NAT64 with the well-known prefix (RFC 6052) or,
/// in each of the places that the length of a prefix can give, the local one (RFC 8215); 6to4
/// (RFC 3056); IPv4-translated (RFC 2765).
fn embedded_v4(address: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    // The ninth octet, between `h` and `j`, is zero in every form of RFC 6052.
    let [.., g, h, _, j, k, l, m, n, o, p] = address.octets();
    let last = Some(Ipv4Addr::new(m, n, o, p));
    match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [last, None, None, None],
        [0x64, 0xff9b, 1, ..] => [
            last,
            Some(Ipv4Addr::new(g, h, j, k)),
            Some(Ipv4Addr::new(h, j, k, l)),
            Some(Ipv4Addr::new(j, k, l, m)),
        ],
        [0x2002, high, low, ..] => {
            let bits = u32::from(high) << 16 | u32::from(low);
            [Some(Ipv4Addr::from(bits)), None, None, None]
        }
        _ => [None; 4],
    }
}

#[cfg(test)]
mod tests;
