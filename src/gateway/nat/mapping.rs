//! One mapping: what comes in through it, and under which name.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;

use smoltcp::time::Instant;

use super::Carried;
use super::peers::Peers;
use super::socket::NatSocket;
use crate::config::UdpFiltering;
use crate::gateway::flows::Turn;
use crate::gateway::icmp::{IcmpError, tell_error};
use crate::gateway::policy::Decision;
use crate::gateway::{ping, udp};
use crate::metrics::DropReason;

/// Errors that one look at a socket's queue takes.
pub(super) const ERRORS: usize = 64;

/// An endpoint of the guest and its socket.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) guest: SocketAddr,
    pub(super) socket: NatSocket,
    pub(super) peers: Peers,
    pub(super) outgoing: VecDeque<Outgoing>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    pub(super) failed: bool,
    pub(super) is_queued: bool,
    pub(super) is_starved: bool,
    pub(super) only_dns: bool,
    pub(super) opened: Instant,
    pub(super) bytes_to_host: u64,
    pub(super) bytes_to_guest: u64,
}

/// A packet in the queue of its mapping.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frame: Vec<u8>,
    pub(super) message: Range<usize>,
    pub(super) host: SocketAddr,
    pub(super) hop_limit: u8,
    pub(super) dont_fragment: bool,
}

impl Outgoing {
    pub(super) fn message(&self) -> &[u8] {
        self.frame.get(self.message.clone()).unwrap_or_default()
    }
}

impl Mapping {
    /// Hands a packet from outside to the guest, if the filter lets it pass (RFC 4787 REQ-8), and says
    /// whether it does.
    pub(super) fn deliver(
        &mut self,
        carried: Carried,
        filtering: UdpFiltering,
        from: SocketAddr,
        bytes: &[u8],
        turn: &mut Turn<'_, '_>,
    ) -> bool {
        let name = match self.name_of(carried, filtering, from, turn) {
            Ok(name) => name,
            Err(reason) => {
                turn.counters.dropped(reason);
                return false;
            }
        };
        self.bytes_to_guest += bytes.len() as u64;
        match carried {
            Carried::Udp => udp::deliver(name, self.guest, bytes, turn),
            Carried::Echo => ping::deliver(name, self.guest, bytes, turn),
        }
        true
    }

    /// What the guest calls whoever has sent this.
    pub(super) fn name_of(
        &mut self,
        carried: Carried,
        filtering: UdpFiltering,
        from: SocketAddr,
        turn: &mut Turn<'_, '_>,
    ) -> Result<SocketAddr, DropReason> {
        let protocol = carried.protocol();
        // A scope of the host's means nothing to the guest.
        let from = SocketAddr::new(from.ip(), from.port());
        let generation = turn.egress.generation();
        if let Some((name, destination)) = self.peers.name_of(from, true) {
            if self.peers.find(destination, generation, turn.now).is_some() {
                return Ok(name);
            }
            return match turn.egress.recheck(protocol, destination, turn.link) {
                Decision::Connect(host) => {
                    self.peers.allow(destination, host, generation, turn.now);
                    Ok(name)
                }
                Decision::Refuse | Decision::Deny => {
                    self.peers.forbid(destination);
                    Err(DropReason::Policy)
                }
            };
        }
        // Whom the guest may not send to may not send to the guest.
        let is_open = filtering == UdpFiltering::EndpointIndependent
            && carried == Carried::Udp
            && turn.egress.permits(protocol, from, turn.link, turn.now);
        if is_open { Ok(from) } else { Err(DropReason::Filtered) }
    }

    /// Tells the guest of the errors that came back (RFC 5508 REQ-4), and says what MTU the host has
    /// named for a packet that it did not take.
    pub(super) fn tell_errors(&mut self, carried: Carried, turn: &mut Turn<'_, '_>) -> Option<u32> {
        let mut mtu = None;
        for _ in 0..ERRORS {
            let Some(reported) = self.socket.take_error() else { break };
            let Some(what) = reported.what else { continue };
            if let (None, IcmpError::TooBig { mtu: known }) = (reported.from, what) {
                mtu = Some(known);
                continue;
            }
            let any_port = carried == Carried::Echo;
            let Some((name, _)) = self.peers.name_of(reported.destination, any_port) else {
                turn.counters.dropped(DropReason::IcmpUnmatched);
                continue;
            };
            let quote = match carried {
                Carried::Udp => Some(udp::quote(self.guest, name, &reported.data)),
                Carried::Echo => ping::quote(self.guest, name, &reported.data),
            };
            match quote {
                Some(quote) => tell_error(turn, reported.from, quote, what),
                None => turn.counters.dropped(DropReason::IcmpUnmatched),
            }
        }
        mtu
    }
}

/// Counts a packet of the guest that the host has taken.
pub(super) fn count_to_host(carried: Carried, len: u64, turn: &Turn<'_, '_>) {
    match carried {
        Carried::Udp => {
            turn.counters.udp_datagrams_to_host.add(1);
            turn.counters.udp_bytes_to_host.add(len);
        }
        Carried::Echo => turn.counters.pings_to_host.add(1),
    }
}
