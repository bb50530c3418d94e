//! ICMP and ICMPv6: echo to the gateway, and the errors that tell the guest why a packet did not
//! arrive.

mod error;
mod limit;
mod quote;

use std::net::{IpAddr, Ipv6Addr};

use smoltcp::wire::{
    EthernetFrame, Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, Ipv4Packet, Ipv6Packet,
};

#[cfg(any(fuzzing, test))]
pub(crate) use self::error::error;
pub(crate) use self::error::{IcmpError, Unreachable, answer_error, tell_error};
pub(crate) use self::limit::ErrorLimit;
pub(crate) use self::quote::{Quote, quoted_datagram};

use super::device::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, write_header};
use super::link::Link;
use super::packet::HOP_LIMIT;
use crate::wire::ETHERNET;

/// Whether a message of this family is an error: about something that was sent.
pub(crate) fn is_error(source: IpAddr, message: &[u8]) -> bool {
    let kind = message.first().copied().unwrap_or(u8::MAX);
    if source.is_ipv4() { matches!(kind, 3 | 4 | 11 | 12) } else { kind < 128 }
}

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

#[cfg(test)]
mod tests;
