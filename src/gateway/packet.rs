//! IP packets of the gateway's own making: headers, full checksums, and fragments where the guest's MTU
//! asks for them.

mod upper;

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, IpRepr, Ipv4Packet, Ipv4Repr, Ipv6FragmentHeader, Ipv6FragmentRepr, Ipv6Repr,
};

pub(crate) use self::upper::{Echo, Upper};

use super::device::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Outlet, write_header};
use super::link::Link;
use crate::metrics::DropReason;
use crate::pool;
use crate::wire::ETHERNET;

/// The hop limit of what the gateway sends (RFC 1700).
pub(crate) const HOP_LIMIT: u8 = 64;
const FRAGMENT_HEADER: usize = 8;
/// Offsets of fragments count these (RFC 791 section 3.2, RFC 8200 section 4.5).
const FRAGMENT_UNIT: usize = 8;

/// The identification of the next packet that the guest may have to put together from fragments: a
/// counter, so that none comes twice within the lifetime of a packet (RFC 6864 section 4.1, RFC 8200
/// section 4.5). Nobody but the gateway sends on this link, so it need not be hard to guess.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identification(Cell<u32>);

impl Identification {
    fn next(&self) -> u32 {
        let next = self.0.get().wrapping_add(1);
        self.0.set(next);
        next
    }
}

/// The IP header of a packet to the guest. `None` if the two addresses are not of one family.
pub(crate) fn header(
    source: IpAddr,
    destination: IpAddr,
    next_header: IpProtocol,
    payload_len: usize,
) -> Option<IpRepr> {
    let hop_limit = HOP_LIMIT;
    match (source, destination) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            Some(IpRepr::Ipv4(Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }))
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            Some(IpRepr::Ipv6(Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit }))
        }
        _ => None,
    }
}

/// The largest payload of an IP packet with this header: IPv4 counts the header in its length field,
/// IPv6 does not.
pub(crate) fn max_payload(ip: &IpRepr) -> usize {
    match ip {
        IpRepr::Ipv4(ip) => usize::from(u16::MAX) - ip.buffer_len(),
        IpRepr::Ipv6(_) => usize::from(u16::MAX),
    }
}

/// A frame to the guest, built in `frame`: the Ethernet header, the header that `ip` describes and the
/// payload, all of which `fill` must write. `None` if no IP packet holds such a payload.
pub(crate) fn build(
    mut frame: Vec<u8>,
    link: &Link,
    ip: &IpRepr,
    fill: impl FnOnce(&mut [u8]),
) -> Option<Vec<u8>> {
    if ip.payload_len() > max_payload(ip) {
        return None;
    }
    frame.resize(ETHERNET + ip.buffer_len(), 0);
    let (ethernet, packet) = frame.split_at_mut_checked(ETHERNET)?;
    let ethertype = match ip {
        IpRepr::Ipv4(_) => ETHERTYPE_IPV4,
        IpRepr::Ipv6(_) => ETHERTYPE_IPV6,
    };
    write_header(ethernet, link, ethertype);
    ip.emit(&mut *packet, &ChecksumCapabilities::default());
    fill(packet.get_mut(ip.header_len()..)?);
    Some(frame)
}

/// Sends one UDP datagram to the guest, in fragments if its MTU asks for them, and says whether it went.
/// Without room for all of them none goes; that is counted, as is a payload that no datagram holds.
pub(crate) fn send_udp(
    outlet: &mut Outlet<'_>,
    link: &Link,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) -> bool {
    udp(outlet, link, source, destination, payload, |outlet| outlet.admits_datagram())
}

/// As [`send_udp`], for an answer of the gateway's own, which the rate limit gives credit.
pub(crate) fn answer_udp(
    outlet: &mut Outlet<'_>,
    link: &Link,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) -> bool {
    udp(outlet, link, source, destination, payload, |outlet| outlet.admits_reply())
}

fn udp(
    outlet: &mut Outlet<'_>,
    link: &Link,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
    admits: Admits,
) -> bool {
    let Some(upper) = Upper::udp(source, destination, payload) else {
        outlet.counters.dropped(DropReason::BadLength);
        return false;
    };
    send(outlet, link, source.ip(), destination.ip(), &upper, admits)
}

/// As [`send_udp`], for an ICMP or ICMPv6 echo reply that is relayed.
pub(crate) fn send_echo_reply(
    outlet: &mut Outlet<'_>,
    link: &Link,
    source: IpAddr,
    destination: IpAddr,
    identifier: u16,
    sequence: u16,
    data: &[u8],
) -> bool {
    let upper = Upper::echo(Echo::Reply, source, destination, identifier, sequence, data);
    send(outlet, link, source, destination, &upper, |outlet| outlet.admits_datagram())
}

/// As [`send_echo_reply`], for the gateway's own.
pub(crate) fn answer_echo(
    outlet: &mut Outlet<'_>,
    link: &Link,
    source: IpAddr,
    destination: IpAddr,
    identifier: u16,
    sequence: u16,
    data: &[u8],
) -> bool {
    let upper = Upper::echo(Echo::Reply, source, destination, identifier, sequence, data);
    send(outlet, link, source, destination, &upper, |outlet| outlet.admits_reply())
}

/// Whether a packet with `payload` bytes behind its IP header has room on its way to the guest, in
/// fragments if need be. After `false` the queue's space bell rings when there is room.
pub(crate) fn has_room_for(outlet: &Outlet<'_>, link: &Link, ipv6: bool, payload: usize) -> bool {
    outlet.batch.has_room_for(count(link, ipv6, payload), buffer_size(link))
}

/// How many such packets have room.
pub(crate) fn room_for(outlet: &Outlet<'_>, link: &Link, ipv6: bool, payload: usize) -> usize {
    outlet.batch.room_for(buffer_size(link)) / count(link, ipv6, payload)
}

/// How many frames such a packet takes.
fn count(link: &Link, ipv6: bool, payload: usize) -> usize {
    let whole = usize::from(link.mtu) - if ipv6 { 40 } else { 20 };
    if payload <= whole { 1 } else { payload.div_ceil(piece(link, ipv6)) }
}

/// The payload of every fragment but the last.
fn piece(link: &Link, ipv6: bool) -> usize {
    let headers = if ipv6 { 40 + FRAGMENT_HEADER } else { 20 };
    (usize::from(link.mtu) - headers) / FRAGMENT_UNIT * FRAGMENT_UNIT
}

/// What a full frame takes of the queue's bytes.
fn buffer_size(link: &Link) -> usize {
    let frame = usize::from(link.mtu) + ETHERNET;
    if frame <= pool::SMALL { pool::SMALL } else { pool::LARGE }
}

/// Asks the rate limit, and counts what it refuses.
type Admits = fn(&Outlet<'_>) -> bool;

fn send(
    outlet: &mut Outlet<'_>,
    link: &Link,
    source: IpAddr,
    destination: IpAddr,
    upper: &Upper<'_>,
    admits: Admits,
) -> bool {
    let len = upper.len();
    let Some(ip) = header(source, destination, upper.protocol, len) else { return false };
    if len > max_payload(&ip) {
        outlet.counters.dropped(DropReason::BadLength);
        return false;
    }
    if !admits(outlet) {
        return false;
    }
    let identification = link.identification.next();
    if ip.buffer_len() <= usize::from(link.mtu) {
        let frame = outlet.queues.sized_buffer(ETHERNET + ip.buffer_len());
        let Some(mut frame) = build(frame, link, &ip, |payload| upper.copy(0, payload)) else {
            return false;
        };
        mark_ipv4(&mut frame, identification, 0, false);
        return outlet.send(frame);
    }
    let ipv6 = source.is_ipv6();
    if !has_room_for(outlet, link, ipv6, len) {
        outlet.counters.dropped(DropReason::ReplyNoRoom);
        return false;
    }
    let piece = piece(link, ipv6);
    (0..len).step_by(piece).all(|offset| {
        let part = piece.min(len - offset);
        let fragment = Fragment { offset, part, more: offset + part < len, identification };
        let frame = if ipv6 {
            fragment_v6(outlet, link, source, destination, upper, fragment)
        } else {
            fragment_v4(outlet, link, source, destination, upper, fragment)
        };
        frame.is_some_and(|frame| outlet.send(frame))
    })
}

/// The part of a packet's payload that one fragment carries.
#[derive(Clone, Copy, Debug)]
struct Fragment {
    offset: usize,
    part: usize,
    more: bool,
    identification: u32,
}

fn fragment_v4(
    outlet: &Outlet<'_>,
    link: &Link,
    source: IpAddr,
    destination: IpAddr,
    upper: &Upper<'_>,
    fragment: Fragment,
) -> Option<Vec<u8>> {
    let ip = header(source, destination, upper.protocol, fragment.part)?;
    let frame = outlet.queues.sized_buffer(ETHERNET + ip.buffer_len());
    let mut frame = build(frame, link, &ip, |payload| upper.copy(fragment.offset, payload))?;
    mark_ipv4(&mut frame, fragment.identification, fragment.offset, fragment.more);
    Some(frame)
}

/// The fields for fragments of an IPv4 header. The guest may forward to a link with a smaller MTU, and
/// no one told us that the sender forbids fragments: DF stays clear.
fn mark_ipv4(frame: &mut [u8], identification: u32, offset: usize, more: bool) {
    let Some(packet) = frame.get_mut(ETHERNET..) else { return };
    if packet.first().is_none_or(|first| first >> 4 != 4) {
        return;
    }
    let mut ip = Ipv4Packet::new_unchecked(packet);
    ip.set_ident(identification as u16);
    ip.set_dont_frag(false);
    ip.set_more_frags(more);
    ip.set_frag_offset(offset as u16);
    ip.fill_checksum();
}

fn fragment_v6(
    outlet: &Outlet<'_>,
    link: &Link,
    source: IpAddr,
    destination: IpAddr,
    upper: &Upper<'_>,
    fragment: Fragment,
) -> Option<Vec<u8>> {
    let len = FRAGMENT_HEADER + fragment.part;
    let ip = header(source, destination, IpProtocol::Ipv6Frag, len)?;
    let fields = Ipv6FragmentRepr {
        frag_offset: (fragment.offset / FRAGMENT_UNIT) as u16,
        more_frags: fragment.more,
        ident: fragment.identification,
    };
    let frame = outlet.queues.sized_buffer(ETHERNET + ip.buffer_len());
    build(frame, link, &ip, |payload| {
        let Some((head, part)) = payload.split_first_chunk_mut::<FRAGMENT_HEADER>() else { return };
        // smoltcp counts the fields from behind the next header and the reserved byte.
        let [next_header, reserved, rest @ ..] = head;
        *next_header = upper.protocol.into();
        *reserved = 0;
        // What the buffer held before: emit() leaves the two reserved bits as they are.
        *rest = [0; 6];
        fields.emit(&mut Ipv6FragmentHeader::new_unchecked(&mut rest[..]));
        upper.copy(fragment.offset, part);
    })
}

#[cfg(test)]
mod tests;
