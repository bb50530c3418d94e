//! What the gateway does with one frame of the guest.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{EthernetFrame, Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscRepr};

use super::classify::{Verdict, classify};
use super::flows::Turn;
use super::icmp::{IcmpError, Unreachable};
use super::neighbor::Solicitation;
use super::network::Network;
use super::ping::IcmpHead;
use super::{autoconfiguration, icmp, neighbor, packet, udp};
use crate::metrics::DropReason;
use crate::wire::{ETHERNET, be16};

/// Does what one frame asks for. A buffer that is free again comes back.
pub(crate) fn handle(
    frame: Vec<u8>,
    network: &mut Network,
    turn: &mut Turn<'_, '_>,
) -> Option<Vec<u8>> {
    let verdict = classify(&frame, turn.link);
    handle_classified(frame, verdict, network, turn)
}

/// As [`handle`], for a frame that lies in the receive buffer. The bulk of TCP is dealt with there; what
/// may be kept for a while gets a buffer of its own.
pub(crate) fn handle_in_place(
    buffer: &mut [u8],
    at: &Range<usize>,
    network: &mut Network,
    turn: &mut Turn<'_, '_>,
) {
    let Some(frame) = buffer.get(at.clone()) else { return };
    let verdict = classify(frame, turn.link);
    if let Ok(verdict @ Verdict::Tcp(segment)) = &verdict
        && !expires_here(frame, verdict, turn)
        && network.flows.continue_in_place(buffer, at, segment, turn)
    {
        return;
    }
    network.flows.depart(buffer, turn);
    let Some(frame) = buffer.get(at.clone()) else { return };
    let copy = turn.outlet.queues.copy_of(frame);
    if let Some(buffer) = handle_classified(copy, verdict, network, turn) {
        turn.outlet.queues.recycle(buffer);
    }
}

fn handle_classified(
    frame: Vec<u8>,
    verdict: Result<Verdict, DropReason>,
    network: &mut Network,
    turn: &mut Turn<'_, '_>,
) -> Option<Vec<u8>> {
    let result = match verdict {
        Ok(Verdict::Fragment(fragment)) => {
            let taken = network.reassembly.take(&frame, &fragment, turn.now, turn.counters);
            turn.outlet.queues.recycle(frame);
            match taken {
                Ok(None) => return None,
                Ok(Some(whole)) => {
                    classify(&whole, turn.link).map(|verdict| (whole, may_be_fragmented(verdict)))
                }
                Err(reason) => Err(reason),
            }
        }
        Ok(verdict) => Ok((frame, verdict)),
        Err(reason) => {
            turn.counters.dropped(reason);
            // RFC 1122 section 3.2.2.1: nobody would answer.
            if reason == DropReason::Protocol {
                let why = Unreachable::Protocol;
                icmp::answer_error(turn, &frame, IcmpError::Unreachable(why));
            }
            return Some(frame);
        }
    };
    match result {
        Ok((frame, verdict)) => carry(frame, verdict, network, turn),
        Err(reason) => {
            turn.counters.dropped(reason);
            None
        }
    }
}

/// What came in fragments may leave in fragments, also over IPv6, where the guest has cut it.
fn may_be_fragmented(mut verdict: Verdict) -> Verdict {
    match &mut verdict {
        Verdict::Udp(head) => head.dont_fragment = false,
        Verdict::Icmp(head) => head.dont_fragment = false,
        _ => {}
    }
    verdict
}

/// Does what a whole packet asks for.
fn carry(
    frame: Vec<u8>,
    verdict: Verdict,
    network: &mut Network,
    turn: &mut Turn<'_, '_>,
) -> Option<Vec<u8>> {
    if expires_here(&frame, &verdict, turn) {
        turn.counters.dropped(DropReason::HopLimit);
        icmp::answer_error(turn, &frame, IcmpError::HopLimit);
        return Some(frame);
    }
    let reply = match verdict {
        Verdict::Tcp(segment) => return network.flows.segment(frame, &segment, turn),
        Verdict::Udp(head) if turn.link.serves_dns(head.destination) => {
            network.dns.datagram(&head, &frame, turn);
            return Some(frame);
        }
        Verdict::Udp(head) => {
            if network.published_udp.answer(&frame, &head, turn) {
                return Some(frame);
            }
            return network.udp.send(frame, udp::outbound(head), turn);
        }
        Verdict::Icmp(head) => return icmp_beyond(frame, &head, network, turn),
        // It was whole.
        Verdict::Fragment(_) => Err(DropReason::Fragment),
        Verdict::Dhcp(head) => {
            match autoconfiguration::dhcp(&frame, &head, network.dhcp.as_ref(), turn) {
                Ok(Some(reply)) => {
                    turn.outlet.reply(reply);
                }
                Ok(None) => turn.counters.link_notices.add(1),
                Err(reason) => turn.counters.dropped(reason),
            }
            return Some(frame);
        }
        Verdict::Arp { mac, address } => {
            turn.counters.neighbor_replies.add(1);
            Ok(Some(neighbor::arp_reply(frame, turn.link, mac, address)))
        }
        Verdict::Icmpv4 { end } => {
            let (source, destination) = (turn.link.guest_ipv4, turn.link.gateway_ipv4);
            let message = ETHERNET + 20..end;
            return icmp_here(frame, source.into(), destination.into(), message, network, turn);
        }
        Verdict::Icmpv6 { source, destination, hop_limit, end } => {
            if frame.get(54).is_some_and(|kind| !(133..=137).contains(kind)) {
                let message = ETHERNET + 40..end;
                return icmp_here(frame, source.into(), destination.into(), message, network, turn);
            }
            ndisc(frame, network, turn, source, destination, hop_limit)
        }
    };
    match reply {
        Ok(Some(reply)) => {
            turn.outlet.reply(reply);
        }
        Ok(None) => turn.counters.link_notices.add(1),
        Err(reason) => turn.counters.dropped(reason),
    }
    None
}

/// Whether a packet for somebody beyond the gateway has come to the end of its hops (RFC 1812 section
/// 5.3.1, RFC 8200 section 3).
fn expires_here(frame: &[u8], verdict: &Verdict, turn: &Turn<'_, '_>) -> bool {
    let destination = match verdict {
        Verdict::Tcp(segment) => segment.key.remote.ip(),
        Verdict::Udp(head) => head.destination.ip(),
        Verdict::Icmp(head) => head.destination,
        _ => return false,
    };
    let (hop_limit, is_here) = match destination {
        IpAddr::V4(address) => (frame.get(ETHERNET + 8), address == turn.link.gateway_ipv4),
        IpAddr::V6(address) => (frame.get(ETHERNET + 7), turn.link.is_gateway_v6(address)),
    };
    !is_here && hop_limit.is_some_and(|hop_limit| *hop_limit <= 1)
}

/// An ICMP message for the gateway itself.
fn icmp_here(
    frame: Vec<u8>,
    source: IpAddr,
    destination: IpAddr,
    message: Range<usize>,
    network: &mut Network,
    turn: &mut Turn<'_, '_>,
) -> Option<Vec<u8>> {
    let end = message.end;
    let head = IcmpHead { source, destination, message, hop_limit: 1, dont_fragment: true };
    let request = match head.message(&frame) {
        Ok(message) if icmp::is_error(source, message) => {
            guest_error(message, network, turn);
            return Some(frame);
        }
        Ok(message) => head.echo_request(message),
        Err(reason) => {
            turn.counters.dropped(reason);
            return Some(frame);
        }
    };
    let is_for_one = match (source, destination) {
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            !source.is_unspecified() && turn.link.is_gateway_v6(destination)
        }
        _ => true,
    };
    let Some(request) = request.filter(|_| is_for_one) else {
        turn.counters.dropped(DropReason::Icmp);
        return Some(frame);
    };
    turn.counters.echo_replies.add(1);
    if end <= usize::from(turn.link.mtu) + ETHERNET {
        // Turned round where it lies.
        let reply = match (source, destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                icmp::echo_reply_v6(frame, turn.link, end, source, destination)
            }
            _ => icmp::echo_reply_v4(frame, turn.link, end),
        };
        if let Some(reply) = reply {
            turn.outlet.reply(reply);
        }
        return None;
    }
    let sequence = be16(&frame, request.message.start + 6).unwrap_or_default();
    let data = frame.get(request.message.start + 8..end).unwrap_or_default();
    let (link, outlet, identifier) = (turn.link, &mut *turn.outlet, request.guest.port());
    packet::answer_echo(outlet, link, destination, source, identifier, sequence, data);
    Some(frame)
}

/// An ICMP message for somebody beyond the gateway.
fn icmp_beyond(
    frame: Vec<u8>,
    head: &IcmpHead,
    network: &mut Network,
    turn: &mut Turn<'_, '_>,
) -> Option<Vec<u8>> {
    let reason = match head.message(&frame) {
        Ok(message) if icmp::is_error(head.source, message) => {
            guest_error(message, network, turn);
            return Some(frame);
        }
        Ok(message) => match head.echo_request(message) {
            // Behind IP options, to the gateway: nobody pings like that.
            Some(request) if head.destination != IpAddr::V4(turn.link.gateway_ipv4) => {
                return network.ping.send(frame, request, turn);
            }
            _ => DropReason::Icmp,
        },
        Err(reason) => reason,
    };
    turn.counters.dropped(reason);
    Some(frame)
}

/// An ICMP error of the guest (RFC 5508 REQ-5). The host's sockets can pass none on, and none ends a
/// mapping (REQ-6): it is counted as matched or as not.
fn guest_error(message: &[u8], network: &Network, turn: &Turn<'_, '_>) {
    let is_known = icmp::quoted_datagram(message).is_some_and(|(remote, guest)| {
        network.published_udp.knows(guest, remote) || network.udp.knows(guest, remote)
    });
    if is_known {
        turn.counters.icmp_errors_from_guest.add(1);
    } else {
        turn.counters.dropped(DropReason::IcmpUnmatched);
    }
}

/// Neighbour and router discovery. `Ok(None)` if there is nothing to say.
fn ndisc(
    frame: Vec<u8>,
    network: &mut Network,
    turn: &Turn<'_, '_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
) -> Result<Option<Vec<u8>>, DropReason> {
    let ethernet = EthernetFrame::new_checked(&frame[..]).map_err(|_| DropReason::Malformed)?;
    let ip = Ipv6Packet::new_checked(ethernet.payload()).map_err(|_| DropReason::Malformed)?;
    let packet = Icmpv6Packet::new_checked(ip.payload()).map_err(|_| DropReason::Malformed)?;
    let caps = ChecksumCapabilities::default();
    let message = Icmpv6Repr::parse(&source, &destination, &packet, &caps)
        .map_err(|_| DropReason::Malformed)?;
    let Icmpv6Repr::Ndisc(message) = message else { return Err(DropReason::Icmp) };
    let solicitation = Solicitation { message, source, destination, hop_limit };
    let reply = match message {
        NdiscRepr::RouterSolicit { .. } => {
            autoconfiguration::solicited(&solicitation, &mut network.router, turn)
        }
        _ => neighbor::solicited(&solicitation, turn),
    };
    turn.outlet.queues.recycle(frame);
    reply
}
