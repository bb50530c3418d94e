//! ICMP and ICMPv6: echo to the gateway, and the errors that tell the guest why a destination could
//! not be had.

use std::net::{Ipv4Addr, Ipv6Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv6DstUnreachable,
    Icmpv6Message, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr,
};

use super::device::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, write_header};
use super::link::Link;
use crate::wire::ETHERNET;

const HOP_LIMIT: u8 = 64;
/// Type, code, checksum and the field that unreachable messages leave unused.
const ICMP_HEADER: usize = 8;
/// An error quotes this much of a packet at the most (RFC 1812 section 4.3.2.3: the message fits in 576
/// bytes; RFC 4443 section 2.4 (c) would allow 1280).
const QUOTE: usize = 548;

/// Turns an echo request for the gateway into its reply, in place. `None` for anything else, and for a
/// request with a bad checksum or that would not fit the guest's MTU on the way back.
pub(crate) fn echo_reply_v4(mut frame: Vec<u8>, link: &Link, end: usize) -> Option<Vec<u8>> {
    frame.truncate(end);
    if frame.len() > usize::from(link.mtu) + ETHERNET {
        return None;
    }
    let mut ethernet = EthernetFrame::new_checked(&mut frame[..]).ok()?;
    let mut ip = Ipv4Packet::new_checked(ethernet.payload_mut()).ok()?;
    let guest = ip.src_addr();
    let mut icmp = Icmpv4Packet::new_checked(ip.payload_mut()).ok()?;
    if icmp.msg_type() != Icmpv4Message::EchoRequest
        || icmp.msg_code() != 0
        || !icmp.verify_checksum()
    {
        return None;
    }
    icmp.set_msg_type(Icmpv4Message::EchoReply);
    icmp.fill_checksum();
    ip.set_src_addr(link.gateway_ipv4);
    ip.set_dst_addr(guest);
    ip.set_hop_limit(HOP_LIMIT);
    ip.fill_checksum();
    let (header, _) = frame.split_at_mut_checked(ETHERNET)?;
    write_header(header, link, ETHERTYPE_IPV4);
    Some(frame)
}

/// As [`echo_reply_v4`], for ICMPv6. A request to a multicast group is not answered.
pub(crate) fn echo_reply_v6(
    mut frame: Vec<u8>,
    link: &Link,
    end: usize,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Option<Vec<u8>> {
    frame.truncate(end);
    if frame.len() > usize::from(link.mtu) + ETHERNET
        || source.is_unspecified()
        || !link.is_gateway_v6(destination)
    {
        return None;
    }
    let mut ethernet = EthernetFrame::new_checked(&mut frame[..]).ok()?;
    let mut ip = Ipv6Packet::new_checked(ethernet.payload_mut()).ok()?;
    let mut icmp = Icmpv6Packet::new_checked(ip.payload_mut()).ok()?;
    if icmp.msg_type() != Icmpv6Message::EchoRequest
        || icmp.msg_code() != 0
        || !icmp.verify_checksum(&source, &destination)
    {
        return None;
    }
    icmp.set_msg_type(Icmpv6Message::EchoReply);
    icmp.fill_checksum(&destination, &source);
    ip.set_src_addr(destination);
    ip.set_dst_addr(source);
    ip.set_hop_limit(HOP_LIMIT);
    let (header, _) = frame.split_at_mut_checked(ETHERNET)?;
    write_header(header, link, ETHERTYPE_IPV6);
    Some(frame)
}

/// Why a destination cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// No route to its network.
    Network,
    /// The host does not answer.
    Host,
    /// Administratively prohibited.
    Prohibited,
}

/// The destination unreachable message for a packet of the guest (RFC 792, RFC 4443 section 3.1), built in
/// `buffer`. The source is the gateway.
pub(crate) fn unreachable(
    buffer: Vec<u8>,
    link: &Link,
    offending: &[u8],
    why: Unreachable,
) -> Option<Vec<u8>> {
    let packet = offending.get(ETHERNET..)?;
    match packet.first()? >> 4 {
        4 => unreachable_v4(buffer, link, packet, why),
        6 => unreachable_v6(buffer, link, packet, why),
        _ => None,
    }
}

fn unreachable_v4(
    mut frame: Vec<u8>,
    link: &Link,
    packet: &[u8],
    why: Unreachable,
) -> Option<Vec<u8>> {
    let code = match why {
        Unreachable::Network => Icmpv4DstUnreachable::NetUnreachable,
        Unreachable::Host => Icmpv4DstUnreachable::HostUnreachable,
        Unreachable::Prohibited => Icmpv4DstUnreachable::CommProhibited,
    };
    let guest: Ipv4Addr = Ipv4Packet::new_checked(packet).ok()?.src_addr();
    let quote = packet.get(..packet.len().min(QUOTE))?;
    let ip = Ipv4Repr {
        src_addr: link.gateway_ipv4,
        dst_addr: guest,
        next_header: IpProtocol::Icmp,
        payload_len: ICMP_HEADER + quote.len(),
        hop_limit: HOP_LIMIT,
    };
    frame.clear();
    frame.resize(ETHERNET + ip.buffer_len() + ip.payload_len, 0);
    let (header, rest) = frame.split_at_mut_checked(ETHERNET)?;
    write_header(header, link, ETHERTYPE_IPV4);
    let mut out = Ipv4Packet::new_unchecked(rest);
    ip.emit(&mut out, &ChecksumCapabilities::default());
    out.payload_mut().get_mut(ICMP_HEADER..)?.copy_from_slice(quote);
    let mut icmp = Icmpv4Packet::new_unchecked(out.payload_mut());
    icmp.set_msg_type(Icmpv4Message::DstUnreachable);
    icmp.set_msg_code(code.into());
    icmp.fill_checksum();
    Some(frame)
}

fn unreachable_v6(
    mut frame: Vec<u8>,
    link: &Link,
    packet: &[u8],
    why: Unreachable,
) -> Option<Vec<u8>> {
    let code = match why {
        Unreachable::Network => Icmpv6DstUnreachable::NoRoute,
        Unreachable::Host => Icmpv6DstUnreachable::AddrUnreachable,
        Unreachable::Prohibited => Icmpv6DstUnreachable::AdminProhibit,
    };
    let guest: Ipv6Addr = Ipv6Packet::new_checked(packet).ok()?.src_addr();
    let quote = packet.get(..packet.len().min(QUOTE))?;
    let ip = Ipv6Repr {
        src_addr: link.gateway_ipv6,
        dst_addr: guest,
        next_header: IpProtocol::Icmpv6,
        payload_len: ICMP_HEADER + quote.len(),
        hop_limit: HOP_LIMIT,
    };
    frame.clear();
    frame.resize(ETHERNET + ip.buffer_len() + ip.payload_len, 0);
    let (header, rest) = frame.split_at_mut_checked(ETHERNET)?;
    write_header(header, link, ETHERTYPE_IPV6);
    let mut out = Ipv6Packet::new_unchecked(rest);
    ip.emit(&mut out);
    out.payload_mut().get_mut(ICMP_HEADER..)?.copy_from_slice(quote);
    let mut icmp = Icmpv6Packet::new_unchecked(out.payload_mut());
    icmp.set_msg_type(Icmpv6Message::DstUnreachable);
    icmp.set_msg_code(code.into());
    icmp.fill_checksum(&ip.src_addr, &ip.dst_addr);
    Some(frame)
}

#[cfg(test)]
mod tests;
