//! The part of the floor that is the same for every host and link: see [`Policy`](super::Policy).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Floor;

/// The prefixes of metadata services outside 169.254.0.0/16; [`metadata`](super::Policy::metadata) says
/// whose they are.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(100, 96, 0, 96),
    Ipv4Addr::new(100, 80, 80, 80),
    Ipv4Addr::new(100, 88, 222, 5),
];
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200),
];

/// What denies an IPv4 address, of a packet or within an IPv6 address.
pub(crate) fn floor_v4(address: Ipv4Addr, metadata: bool) -> Option<Floor> {
    let [first, ..] = address.octets();
    if address.is_link_local() || METADATA_V4.contains(&address) {
        return (!metadata).then_some(Floor::Metadata);
    }
    // This network, loopback, multicast and reserved (RFC 6890).
    (first == 0 || address.is_loopback() || first >= 224).then_some(Floor::NotForwarded)
}

/// What denies an IPv6 address, the IPv4 addresses within it aside.
pub(crate) fn floor_v6(address: Ipv6Addr, metadata: bool) -> Option<Floor> {
    if matches!(address.segments(), [0xfd00, 0xec2, ..]) || METADATA_V6.contains(&address) {
        return (!metadata).then_some(Floor::Metadata);
    }
    // Mapped and compatible addresses, with the unspecified and the loopback address, which a socket would
    // take for IPv4 (RFC 4291 section 2.5.5); multicast; link-local.
    (super::is_v4_in_v6(address) || address.is_multicast() || address.is_unicast_link_local())
        .then_some(Floor::NotForwarded)
}

/// Whether this is the name of a metadata service, in the form that names are compared in.
pub(crate) fn is_metadata_name(name: &str) -> bool {
    ["metadata.google.internal", "metadata.goog"].contains(&name)
}
