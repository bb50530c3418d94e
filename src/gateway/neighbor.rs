//! ARP (RFC 826) and neighbour discovery (RFC 4861): the answers for the gateway's own addresses.

use std::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
};

use super::device::{ETHERTYPE_IPV6, write_header};
use super::flows::Turn;
use super::link::Link;
use crate::metrics::DropReason;
use crate::wire::ETHERNET;

const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A parsed NDP message, and what its IP header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Solicitation<'a> {
    pub(crate) message: NdiscRepr<'a>,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
    pub(crate) hop_limit: u8,
}

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

/// As [`neighbor_advertisement`], in a turn.
pub(crate) fn solicited(
    solicitation: &Solicitation<'_>,
    turn: &Turn<'_, '_>,
) -> Result<Option<Vec<u8>>, DropReason> {
    let buffer = turn.outlet.queues.buffer(0);
    let reply = neighbor_advertisement(buffer, turn.link, solicitation)?;
    turn.counters.neighbor_replies.add(u64::from(reply.is_some()));
    Ok(reply)
}

/// The advertisement that answers a solicitation for one of the gateway's addresses. `Ok(None)` for the
/// guest's duplicate address detection: its addresses are its own, and nobody contradicts.
///
/// # Errors
/// [`DropReason::Ndp`] if the message asks for another address, or breaks a rule of RFC 4861 section 7.1.1:
/// hop limit 255, code 0, a unicast target; from the unspecified address no source link-layer address,
/// and to a solicited-node group alone.
fn neighbor_advertisement(
    mut frame: Vec<u8>,
    link: &Link,
    solicitation: &Solicitation<'_>,
) -> Result<Option<Vec<u8>>, DropReason> {
    let Solicitation { message, source, destination, hop_limit } = *solicitation;
    let NdiscRepr::NeighborSolicit { target_addr, lladdr } = message else {
        return Err(DropReason::Ndp);
    };
    let probe = source.is_unspecified();
    let sound = hop_limit == 255
        && (!probe || (lladdr.is_none() && destination == solicited_node(target_addr)));
    if sound && probe && link.is_guest_v6(target_addr) {
        return Ok(None);
    }
    if !sound || !link.is_gateway_v6(target_addr) {
        return Err(DropReason::Ndp);
    }
    let advertisement = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: if probe {
            NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::OVERRIDE
        } else {
            NdiscNeighborFlags::ROUTER
                | NdiscNeighborFlags::SOLICITED
                | NdiscNeighborFlags::OVERRIDE
        },
        target_addr,
        lladdr: Some(link.gateway_mac.into()),
    });
    let ip = Ipv6Repr {
        src_addr: target_addr,
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
    Ok(Some(frame))
}

/// The solicited-node group of an address (RFC 4291 section 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

#[cfg(test)]
mod tests;
