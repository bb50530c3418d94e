//! What the gateway does with one frame of the guest.

use std::net::Ipv6Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{EthernetFrame, Icmpv6Packet, Icmpv6Repr, Ipv6Packet, NdiscRepr};

use super::classify::{Verdict, classify};
use super::flows::Turn;
use super::neighbor::Solicitation;
use super::network::Network;
use super::{autoconfiguration, icmp, neighbor};
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
        Verdict::Udp(_) => {
            turn.counters.dropped(DropReason::Protocol);
            return Some(frame);
        }
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
            match icmpv6(frame, network, turn, source, destination, hop_limit, end) {
                Ok(Some(reply)) => reply,
                Ok(None) => {
                    turn.counters.link_notices.add(1);
                    return None;
                }
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

/// Neighbour and router discovery and echo over IPv6. `Ok(None)` if there is nothing to say.
fn icmpv6(
    frame: Vec<u8>,
    network: &mut Network,
    turn: &Turn<'_, '_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    end: usize,
) -> Result<Option<Vec<u8>>, DropReason> {
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
            Ok(Some(reply))
        }
        Icmpv6Repr::Ndisc(message) => {
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
        _ => Err(DropReason::Icmp),
    }
}
