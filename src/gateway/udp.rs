//! UDP: what is its own in the NAT of datagrams, and the ports that the host publishes for the guest.

mod published;

use std::net::SocketAddr;

pub(crate) use self::published::PublishedUdp;

use super::datagram::DatagramHead;
use super::flows::Turn;
use super::icmp::Quote;
use super::nat::Outbound;
use super::packet;

/// A datagram of the guest as the NAT carries it.
pub(crate) fn outbound(head: DatagramHead) -> Outbound {
    Outbound {
        guest: head.source,
        destination: head.destination,
        message: head.payload,
        hop_limit: head.hop_limit,
        dont_fragment: head.dont_fragment,
    }
}

/// Hands a datagram to the guest.
pub(crate) fn deliver(
    from: SocketAddr,
    guest: SocketAddr,
    payload: &[u8],
    turn: &mut Turn<'_, '_>,
) {
    if packet::send_udp(turn.outlet, turn.link, from, guest, payload) {
        turn.counters.udp_datagrams_to_guest.add(1);
        turn.counters.udp_bytes_to_guest.add(payload.len() as u64);
    }
}

/// What an error quotes of a datagram of the guest.
pub(crate) fn quote(guest: SocketAddr, destination: SocketAddr, data: &[u8]) -> Quote<'_> {
    Quote::Udp { source: guest, destination, data }
}
