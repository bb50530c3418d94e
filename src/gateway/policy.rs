//! Where the guest may go.
//!
//! Three answers: nowhere, because no router forwards to such an address (dropped in silence); denied,
//! because the destination trusts whoever reaches it (answered, so that the guest need not wait); or
//! the host address to connect to. [`Egress`](super::egress::Egress) decides between the latter two.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

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
