//! Echo: what is its own in the NAT of echo requests (RFC 5508 section 3).
//!
//! The host sends them from ping sockets, which need no privilege where net.ipv4.ping_group_range allows
//! them. The kernel gives each socket an identifier of its own; the guest's comes back in the replies.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet};

use super::flows::Turn;
use super::icmp::Quote;
use super::nat::Outbound;
use super::packet;
use crate::metrics::DropReason;
use crate::wire::be16;

/// Type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;

/// An ICMP or ICMPv6 message of the guest for somebody beyond the gateway, or an error for the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IcmpHead {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// The message's place in the frame.
    pub(crate) message: Range<usize>,
    pub(crate) hop_limit: u8,
    /// Nobody may fragment it. Always so for IPv6.
    pub(crate) dont_fragment: bool,
}

impl IcmpHead {
    /// The message, if its checksum is right (RFC 5508 REQ-3 a): no offload leaves that one open.
    pub(crate) fn message<'f>(&self, frame: &'f [u8]) -> Result<&'f [u8], DropReason> {
        let message = frame.get(self.message.clone()).ok_or(DropReason::Malformed)?;
        let is_right = match (self.source, self.destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => Icmpv6Packet::new_checked(message)
                .is_ok_and(|packet| packet.verify_checksum(&source, &destination)),
            _ => Icmpv4Packet::new_checked(message).is_ok_and(|packet| packet.verify_checksum()),
        };
        if is_right { Ok(message) } else { Err(DropReason::Malformed) }
    }

    /// The echo request as the NAT carries it; `None` if the message is none.
    pub(crate) fn echo_request(&self, message: &[u8]) -> Option<Outbound> {
        let request = if self.source.is_ipv4() { 8 } else { 128 };
        let [kind, code, ..] = message else { return None };
        if message.len() < HEADER || *kind != request || *code != 0 {
            return None;
        }
        Some(Outbound {
            guest: SocketAddr::new(self.source, be16(message, 4)?),
            destination: SocketAddr::new(self.destination, 0),
            message: self.message.clone(),
            hop_limit: self.hop_limit,
            dont_fragment: self.dont_fragment,
        })
    }
}

/// Hands an echo reply to the guest.
pub(crate) fn deliver(
    from: SocketAddr,
    guest: SocketAddr,
    message: &[u8],
    turn: &mut Turn<'_, '_>,
) {
    let reply = if guest.is_ipv4() { 0 } else { 129 };
    let (Some(kind), Some(sequence), Some(data)) =
        (message.first(), be16(message, 6), message.get(HEADER..))
    else {
        return turn.counters.dropped(DropReason::Filtered);
    };
    if *kind != reply {
        return turn.counters.dropped(DropReason::Filtered);
    }
    let (link, outlet) = (turn.link, &mut *turn.outlet);
    let identifier = guest.port();
    if packet::send_echo_reply(outlet, link, from.ip(), guest.ip(), identifier, sequence, data) {
        turn.counters.pings_to_guest.add(1);
    }
}

/// What an error quotes of an echo request of the guest; `None` if not even its header came back.
pub(crate) fn quote(
    guest: SocketAddr,
    destination: SocketAddr,
    message: &[u8],
) -> Option<Quote<'_>> {
    Some(Quote::Echo {
        source: guest.ip(),
        destination: destination.ip(),
        identifier: guest.port(),
        sequence: be16(message, 6)?,
        data: message.get(HEADER..)?,
    })
}
