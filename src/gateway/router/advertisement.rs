//! The router advertisement on the wire.

use std::net::Ipv6Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscOption, NdiscOptionRepr,
    NdiscPrefixInfoFlags, NdiscPrefixInformation, NdiscRepr, NdiscRouterFlags,
};

use crate::gateway::device::{ETHERTYPE_IPV6, write_header};
use crate::gateway::dns;
use crate::gateway::link::Link;
use crate::wire::ETHERNET;

/// The hop limit that the guest is to use.
const HOP_LIMIT: u8 = 64;
/// The longest router lifetime (RFC 4861 section 6.2.1), five intervals.
const LIFETIME: Duration = Duration::from_secs(9000);
const PREFIX_VALID: Duration = Duration::from_secs(30 * 24 * 3600);
const PREFIX_PREFERRED: Duration = Duration::from_secs(7 * 24 * 3600);

/// RFC 8106 section 5.1, with one address: 3 units of 8 bytes.
const RDNSS: u8 = 25;
const RDNSS_LENGTH: u8 = 3;

/// How long the gateway may be relied on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetimes {
    router: Duration,
    resolver: Duration,
}

impl Lifetimes {
    pub(super) const ROUTED: Self = Self { router: LIFETIME, resolver: LIFETIME };
    pub(super) const UNROUTED: Self = Self { router: Duration::ZERO, resolver: LIFETIME };
    pub(super) const NONE: Self = Self { router: Duration::ZERO, resolver: Duration::ZERO };
}

/// An advertisement from the gateway's link-local address, as a frame.
pub(super) fn advertisement(
    mut frame: Vec<u8>,
    link: &Link,
    destination: Ipv6Addr,
    lifetimes: &Lifetimes,
) -> Vec<u8> {
    let (prefix, prefix_len) = link.prefix_v6();
    // Addresses are made from prefixes of 64 bits alone (RFC 4862 section 5.5.3 (d), RFC 4291 section
    // 2.5.1); within a longer one the guest's address is configured otherwise.
    let flags = match prefix_len {
        64 => NdiscPrefixInfoFlags::ON_LINK | NdiscPrefixInfoFlags::ADDRCONF,
        _ => NdiscPrefixInfoFlags::ON_LINK,
    };
    let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: HOP_LIMIT,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: lifetimes.router,
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(link.gateway_mac.into()),
        mtu: Some(link.mtu.into()),
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len,
            flags,
            valid_lifetime: PREFIX_VALID,
            preferred_lifetime: PREFIX_PREFERRED,
            prefix,
        }),
    });
    let seconds = u32::try_from(lifetimes.resolver.secs()).unwrap_or(u32::MAX).to_be_bytes();
    // Two reserved bytes, the lifetime, the address.
    let resolver = [&[0; 2][..], &seconds, &link.gateway_ipv6.octets()].concat();
    let rdnss = NdiscOptionRepr::Unknown { type_: RDNSS, length: RDNSS_LENGTH, data: &resolver };
    // A guest is told of no resolver where there is none.
    let rdnss = Some(rdnss).filter(|_| link.serves_dns((link.gateway_ipv6, dns::PORT).into()));
    let ip = Ipv6Repr {
        src_addr: link.gateway_link_local,
        dst_addr: destination,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len() + rdnss.map_or(0, |rdnss| rdnss.buffer_len()),
        hop_limit: 255,
    };
    frame.clear();
    frame.resize(ETHERNET + ip.buffer_len() + ip.payload_len, 0);
    let (header, packet) = frame.split_at_mut(ETHERNET);
    write_header(header, link, ETHERTYPE_IPV6);
    let mut packet = Ipv6Packet::new_unchecked(packet);
    ip.emit(&mut packet);
    message.emit(
        &ip.src_addr,
        &ip.dst_addr,
        &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
        &ChecksumCapabilities::ignored(),
    );
    if let (Some(rdnss), Some(last)) = (rdnss, packet.payload_mut().get_mut(message.buffer_len()..))
    {
        rdnss.emit(&mut NdiscOption::new_unchecked(last));
    }
    Icmpv6Packet::new_unchecked(packet.payload_mut()).fill_checksum(&ip.src_addr, &ip.dst_addr);
    frame
}
