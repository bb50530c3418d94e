//! What the gateway does with one frame of the guest.

use std::net::Ipv6Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{EthernetFrame, Icmpv6Packet, Icmpv6Repr, Ipv6Packet};

use super::classify::{Verdict, classify};
use super::flows::Turn;
use super::network::Network;
use super::{icmp, neighbor};
use crate::metrics::DropReason;

/// Does what one frame asks for. A buffer that is free again comes back.
pub(crate) fn handle(
    frame: Vec<u8>,
    network: &mut Network,
    turn: &mut Turn<'_, '_>,
) -> Option<Vec<u8>> {
    let verdict = match classify(&frame, turn.link) {
        Ok(verdict) => verdict,
        Err(reason) => {
            turn.counters.dropped(reason);
            return Some(frame);
        }
    };
    let reply = match verdict {
        Verdict::Tcp(segment) => return network.flows.segment(frame, &segment, turn),
        Verdict::Udp(head) if turn.link.serves_dns(head.destination) => {
            network.dns.datagram(&head, &frame, turn);
            return Some(frame);
        }
        Verdict::Udp(_) | Verdict::Dhcp(_) => {
            turn.counters.dropped(DropReason::Protocol);
            return Some(frame);
        }
        Verdict::Arp { mac, address } => {
            turn.counters.neighbor_replies.add(1);
            neighbor::arp_reply(frame, turn.link, mac, address)
        }
        Verdict::Icmpv4 { end } => match icmp::echo_reply_v4(frame, turn.link, end) {
            Some(reply) => {
                turn.counters.echo_replies.add(1);
                reply
            }
            None => {
                turn.counters.dropped(DropReason::Icmp);
                return None;
            }
        },
        Verdict::Icmpv6 { source, destination, hop_limit, end } => {
            match icmpv6(frame, turn, source, destination, hop_limit, end) {
                Ok(reply) => reply,
                Err(reason) => {
                    turn.counters.dropped(reason);
                    return None;
                }
            }
        }
    };
    turn.outlet.reply(reply);
    None
}

/// Neighbour discovery and echo over IPv6.
fn icmpv6(
    frame: Vec<u8>,
    turn: &Turn<'_, '_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    end: usize,
) -> Result<Vec<u8>, DropReason> {
    let ethernet = EthernetFrame::new_checked(&frame[..]).map_err(|_| DropReason::Malformed)?;
    let ip = Ipv6Packet::new_checked(ethernet.payload()).map_err(|_| DropReason::Malformed)?;
    let packet = Icmpv6Packet::new_checked(ip.payload()).map_err(|_| DropReason::Malformed)?;
    let caps = ChecksumCapabilities::default();
    let message = Icmpv6Repr::parse(&source, &destination, &packet, &caps)
        .map_err(|_| DropReason::Malformed)?;
    match message {
        Icmpv6Repr::EchoRequest { .. } => {
            let reply = icmp::echo_reply_v6(frame, turn.link, end, source, destination)
                .ok_or(DropReason::Icmp)?;
            turn.counters.echo_replies.add(1);
            Ok(reply)
        }
        Icmpv6Repr::Ndisc(message) => {
            let buffer = turn.outlet.queues.buffer(0);
            let reply = neighbor::neighbor_advertisement(
                buffer,
                turn.link,
                &message,
                source,
                destination,
                hop_limit,
            )
            .ok_or(DropReason::Ndp)?;
            turn.counters.neighbor_replies.add(1);
            turn.outlet.queues.recycle(frame);
            Ok(reply)
        }
        _ => Err(DropReason::Icmp),
    }
}
