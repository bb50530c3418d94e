//! ARP (RFC 826) and neighbour discovery (RFC 4861): the answers for the gateway's own addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};

use super::device::{ETHERTYPE_IPV6, write_header};
use super::link::Link;
use crate::wire::ETHERNET;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The reply to the guest's question for the gateway's IPv4 address.
pub(crate) fn arp_reply(
    mut frame: Vec<u8>,
    link: &Link,
    mac: EthernetAddress,
    address: Ipv4Addr,
) -> Vec<u8> {
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: link.gateway_mac,
        source_protocol_addr: link.gateway_ipv4,
        target_hardware_addr: mac,
        target_protocol_addr: address,
    };
    frame.clear();
    frame.resize(ETHERNET + reply.buffer_len(), 0);
    let (header, packet) = frame.split_at_mut(ETHERNET);
    write_header(header, link, ETHERTYPE_ARP);
    reply.emit(&mut ArpPacket::new_unchecked(packet));
    frame
}

/// The advertisement that answers a solicitation for one of the gateway's addresses, or `None` if the
/// message asks for another, or breaks a rule of RFC 4861 section 7.1.1: hop limit 255, code 0, a
/// unicast target; from the unspecified address no source link-layer address, and to a solicited-node
/// group alone.
pub(crate) fn neighbor_advertisement(
    mut frame: Vec<u8>,
    link: &Link,
    solicitation: &NdiscRepr<'_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
) -> Option<Vec<u8>> {
    let NdiscRepr::NeighborSolicit { target_addr, lladdr } = solicitation else { return None };
    let probe = source.is_unspecified();
    let sound = hop_limit == 255
        && (!probe || (lladdr.is_none() && destination == solicited_node(*target_addr)));
    if !sound || !link.is_gateway_v6(*target_addr) {
        return None;
    }
    let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: if probe {
            NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE
        } else {
            NdiscNeighborFlags::ROUTER
                | NdiscNeighborFlags::SOLICITED
                | NdiscNeighborFlags::OVERRIDE
        },
        target_addr: *target_addr,
        lladdr: Some(link.gateway_mac.into()),
    });
    let ip = Ipv6Repr {
        src_addr: *target_addr,
        dst_addr: if probe { ALL_NODES } else { source },
        next_header: IpProtocol::Icmpv6,
        payload_len: advertisement.buffer_len(),
        hop_limit: 255,
    };
    frame.clear();
    frame.resize(ETHERNET + ip.buffer_len() + advertisement.buffer_len(), 0);
    let (header, packet) = frame.split_at_mut(ETHERNET);
    write_header(header, link, ETHERTYPE_IPV6);
    let mut packet = Ipv6Packet::new_unchecked(packet);
    ip.emit(&mut packet);
    advertisement.emit(
        &ip.src_addr,
        &ip.dst_addr,
        &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
        &ChecksumCapabilities::default(),
    );
    Some(frame)
}

#[cfg(test)]
mod tests;

/// The solicited-node group of an address (RFC 4291 section 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}
