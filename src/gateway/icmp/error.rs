//! ICMP and ICMPv6 errors to the guest (RFC 792, RFC 4443).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{
    Icmpv4Packet, Icmpv6Packet, IpProtocol, IpRepr, Ipv4Packet, Ipv6FragmentHeader, Ipv6Packet,
};

use super::Quote;
use crate::gateway::flows::Turn;
use crate::gateway::link::Link;
use crate::gateway::packet;
use crate::metrics::DropReason;
use crate::wire::{ETHERNET, put32};

/// Type, code, checksum and the field that depends on the type.
const ICMP_HEADER: usize = 8;
/// An error over IPv4 fits in this many bytes with its headers (RFC 1812 section 4.3.2.3).
const MESSAGE_V4: usize = 576;
/// As [`MESSAGE_V4`], for IPv6: the smallest MTU (RFC 4443 section 2.4 (c)).
const MESSAGE_V6: usize = 1280;

/// Why a destination cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreachable {
    /// No route to its network.
    Network,
    /// The host does not answer.
    Host,
    /// The host, or the gateway, does not know the protocol.
    Protocol,
    /// Nobody listens on the port.
    Port,
    /// Administratively prohibited (RFC 1812: code 13; RFC 4443: code 1), which is also what a NAT
    /// without room says (RFC 5508 REQ-8).
    Prohibited,
}

/// What went wrong with a packet of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IcmpError {
    Unreachable(Unreachable),
    /// Larger than a link on the way takes: fragmentation needed and DF set (RFC 1191), or packet too
    /// big. `mtu` in bytes.
    TooBig {
        mtu: u32,
    },
    /// The hop limit ran out on the way.
    HopLimit,
    /// Fragments whose packet did not become whole in time.
    Reassembly,
    /// A message of the guest's family that another router or host has sent, passed on with its type
    /// and code (RFC 5508 REQ-4) and the four bytes that go with them.
    Relayed {
        kind: u8,
        code: u8,
        rest: u32,
    },
}

impl IcmpError {
    /// Type, code, and the four bytes behind the checksum.
    fn v4(self) -> (u8, u8, u32) {
        match self {
            Self::Unreachable(Unreachable::Network) => (3, 0, 0),
            Self::Unreachable(Unreachable::Host) => (3, 1, 0),
            Self::Unreachable(Unreachable::Protocol) => (3, 2, 0),
            Self::Unreachable(Unreachable::Port) => (3, 3, 0),
            Self::Unreachable(Unreachable::Prohibited) => (3, 13, 0),
            Self::TooBig { mtu } => (3, 4, mtu.min(0xffff)),
            Self::HopLimit => (11, 0, 0),
            Self::Reassembly => (11, 1, 0),
            Self::Relayed { kind, code, rest } => (kind, code, rest),
        }
    }

    fn v6(self) -> (u8, u8, u32) {
        /// Where the IPv6 header names the protocol.
        const NEXT_HEADER: u32 = 6;
        match self {
            Self::Unreachable(Unreachable::Network) => (1, 0, 0),
            Self::Unreachable(Unreachable::Host) => (1, 3, 0),
            Self::Unreachable(Unreachable::Protocol) => (4, 1, NEXT_HEADER),
            Self::Unreachable(Unreachable::Port) => (1, 4, 0),
            Self::Unreachable(Unreachable::Prohibited) => (1, 1, 0),
            Self::TooBig { mtu } => (2, 0, mtu.max(1280)),
            Self::HopLimit => (3, 0, 0),
            Self::Reassembly => (3, 1, 0),
            Self::Relayed { kind, code, rest } => (kind, code, rest),
        }
    }
}

/// Tells the guest what became of a frame that it sent. The gateway says so itself.
pub(crate) fn answer_error(turn: &mut Turn<'_, '_>, frame: &[u8], what: IcmpError) {
    // A group's frame is answered with no error (RFC 1122 section 3.2.2).
    let is_unicast = frame.first().is_some_and(|first| first & 1 == 0);
    if let (true, Some(packet)) = (is_unicast, frame.get(ETHERNET..)) {
        send(turn, None, packet, what);
    }
}

/// Tells the guest what became of a packet that is gone. `from` is who said so, the gateway if nobody.
pub(crate) fn tell_error(
    turn: &mut Turn<'_, '_>,
    from: Option<IpAddr>,
    quote: Quote<'_>,
    what: IcmpError,
) {
    if let Some(packet) = quote.packet() {
        send(turn, from, &packet, what);
    }
}

fn send(turn: &mut Turn<'_, '_>, from: Option<IpAddr>, packet: &[u8], what: IcmpError) {
    let buffer = turn.outlet.queues.buffer(0);
    let Some(frame) = error(buffer, turn.link, from, packet, what) else { return };
    if !turn.link.icmp_errors.allows(turn.now) {
        turn.counters.dropped(DropReason::IcmpRate);
        turn.outlet.queues.recycle(frame);
    } else if turn.outlet.reply(frame) {
        turn.counters.icmp_errors.add(1);
    }
}

/// The error about an IP packet of the guest, built in `buffer`. `None` if there must be none: about an
/// ICMP error, a fragment but the first, or a packet from or to anything but one host (RFC 1122 section
/// 3.2.2, RFC 4443 section 2.4 (e)).
pub(crate) fn error(
    buffer: Vec<u8>,
    link: &Link,
    from: Option<IpAddr>,
    packet: &[u8],
    what: IcmpError,
) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => error_v4(buffer, link, from, packet, what),
        6 => error_v6(buffer, link, from, packet, what),
        _ => None,
    }
}

fn error_v4(
    frame: Vec<u8>,
    link: &Link,
    from: Option<IpAddr>,
    packet: &[u8],
    what: IcmpError,
) -> Option<Vec<u8>> {
    let offending = Ipv4Packet::new_checked(packet).ok()?;
    let to_one = |address: Ipv4Addr| {
        let [first, ..] = address.octets();
        first != 0 && first < 224 && !address.is_loopback()
    };
    let (guest, destination) = (offending.src_addr(), offending.dst_addr());
    if !to_one(guest) || !to_one(destination) || offending.frag_offset() != 0 {
        return None;
    }
    if offending.next_header() == IpProtocol::Icmp && !is_query_v4(offending.payload()) {
        return None;
    }
    let source = match from {
        Some(IpAddr::V4(from)) if to_one(from) => from,
        _ => link.gateway_ipv4,
    };
    // Padding is no part of the packet.
    let whole = packet.get(..usize::from(offending.total_len()))?;
    let quote = whole.get(..MESSAGE_V4 - 20 - ICMP_HEADER).unwrap_or(whole);
    let length = ICMP_HEADER + quote.len();
    let ip = packet::header(source.into(), guest.into(), IpProtocol::Icmp, length)?;
    let (kind, code, rest) = what.v4();
    message(frame, link, &ip, quote, [kind, code], rest, |message| {
        Icmpv4Packet::new_unchecked(message).fill_checksum();
    })
}

/// Whether an ICMP message asks something: about an error there is no error. Without a type nobody
/// knows.
fn is_query_v4(message: &[u8]) -> bool {
    message.first().is_some_and(|kind| matches!(kind, 0 | 8..=10 | 13..=18))
}

fn error_v6(
    frame: Vec<u8>,
    link: &Link,
    from: Option<IpAddr>,
    packet: &[u8],
    what: IcmpError,
) -> Option<Vec<u8>> {
    let offending = Ipv6Packet::new_checked(packet).ok()?;
    let to_one = |address: Ipv6Addr| {
        !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
    };
    let (guest, destination) = (offending.src_addr(), offending.dst_addr());
    if !to_one(guest) || !to_one(destination) || is_about_error_v6(&offending) {
        return None;
    }
    let source = match from {
        Some(IpAddr::V6(from)) if to_one(from) => from,
        _ if destination == link.gateway_link_local => destination,
        _ => link.gateway_ipv6,
    };
    let whole = packet.get(..offending.total_len())?;
    let quote = whole.get(..MESSAGE_V6 - 40 - ICMP_HEADER).unwrap_or(whole);
    let length = ICMP_HEADER + quote.len();
    let ip = packet::header(source.into(), guest.into(), IpProtocol::Icmpv6, length)?;
    let (kind, code, rest) = what.v6();
    message(frame, link, &ip, quote, [kind, code], rest, |message| {
        Icmpv6Packet::new_unchecked(message).fill_checksum(&source, &guest);
    })
}

/// Whether a packet is an ICMPv6 error or a redirect, or no first fragment.
fn is_about_error_v6(packet: &Ipv6Packet<&[u8]>) -> bool {
    let is_error = |message: &[u8]| message.first().is_none_or(|kind| *kind < 128 || *kind == 137);
    match packet.next_header() {
        IpProtocol::Icmpv6 => is_error(packet.payload()),
        IpProtocol::Ipv6Frag => {
            let Some((extension, rest)) = packet.payload().split_first_chunk::<8>() else {
                return true;
            };
            let [next_header, _, fields @ ..] = extension;
            let fragment = Ipv6FragmentHeader::new_unchecked(&fields[..]);
            let is_icmp = IpProtocol::from(*next_header) == IpProtocol::Icmpv6;
            fragment.frag_offset() != 0 || (is_icmp && is_error(rest))
        }
        _ => false,
    }
}

fn message(
    frame: Vec<u8>,
    link: &Link,
    ip: &IpRepr,
    quote: &[u8],
    kind_and_code: [u8; 2],
    rest: u32,
    fill_checksum: impl FnOnce(&mut [u8]),
) -> Option<Vec<u8>> {
    packet::build(frame, link, ip, |message| {
        let Some((header, body)) = message.split_first_chunk_mut::<ICMP_HEADER>() else { return };
        let [kind, code] = kind_and_code;
        *header = [kind, code, 0, 0, 0, 0, 0, 0];
        put32(header, 4, rest);
        body.copy_from_slice(quote);
        fill_checksum(message);
    })
}

#[cfg(test)]
mod tests;
