//! The NAT of datagrams (RFC 4787) and of echo requests (RFC 5508).
//!
//! A mapping is one unconnected socket of the host for one endpoint of the guest: an address and port, or
//! for echo an address and identifier. So it does not depend on the destination (RFC 4787 REQ-1, RFC 5508
//! REQ-1a), no two share an external port (REQ-3), and a packet costs one look-up and a share of a system
//! call: what a turn sends from one socket goes out in one.
//!
//! | what comes | what it does |
//! |---|---|
//! | a packet of the guest | asks the policy once for each destination and generation; extends the mapping |
//! | a packet from outside | passes the filter, gets the name that the guest knows; extends the mapping |
//! | an error from outside | becomes ICMP for the guest; neither extends nor ends the mapping (REQ-12) |
//! | silence | ends the mapping |
//! | one mapping too many | ends the mapping that is closest to its end; counted |
//!
//! The guest's DF bit and hop limit hold on the way: the host refuses what is too large for the path with
//! its MTU, and routers on the way tell the socket what they dropped and why.

mod mapping;
mod peers;
mod socket;
mod table;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use mio::event::Event;
use smoltcp::time::{Duration, Instant};
use tracing::warn;

pub(crate) use self::socket::Carried;
pub(crate) use self::table::Table;

use self::mapping::{Mapping, Outgoing, count_to_host};
use self::peers::Peers;
use self::socket::NatSocket;
use super::answer::answer_failed_send;
use super::device::Outlet;
use super::flows::Turn;
use super::host::ConnectError;
use super::icmp::{IcmpError, Unreachable, answer_error};
use super::link::Link;
use super::packet;
use super::policy::Decision;
use super::token::Source;
use crate::config::UdpFiltering;
use crate::handle::{FlowInfo, FlowState};
use crate::metrics::{Counters, DropReason};
use crate::sys::datagram::{BATCH, Inbox};

/// Packets of one mapping that may wait for the host, which is busy.
const WAITING: usize = 256;
/// Bytes of all packets that may wait for the host.
const WAITING_BYTES: usize = 4 << 20;
/// The largest datagram, in bytes behind its IP header.
const LARGEST: usize = 65_535;
/// Packets that a mapping receives before others have their turn.
const RECEIVES: usize = 128;

/// What the mappings of one kind may cost, and how long they live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NatLimits {
    pub(crate) mappings: usize,
    pub(crate) idle: Duration,
    /// For a mapping that has only ever sent to port 53.
    pub(crate) dns_idle: Duration,
}

/// A packet of the guest on its way out.
#[derive(Clone, Debug)]
pub(crate) struct Outbound {
    /// The guest's endpoint; for echo the identifier stands for the port.
    pub(crate) guest: SocketAddr,
    /// For echo the port is zero.
    pub(crate) destination: SocketAddr,
    /// What the host's socket is given, as a place in the frame.
    pub(crate) message: Range<usize>,
    /// As it came: the gateway is a hop.
    pub(crate) hop_limit: u8,
    pub(crate) dont_fragment: bool,
}

/// All mappings of one kind.
#[derive(Debug)]
pub(crate) struct Nat {
    carried: Carried,
    filtering: UdpFiltering,
    limits: NatLimits,
    table: Table<SocketAddr, Mapping>,
    /// Mappings with something to do, in the order in which they will be served.
    active: VecDeque<usize>,
    /// Mappings that wait for room to the guest.
    starved: VecDeque<usize>,
    inbox: Option<Inbox>,
    /// Bytes of the frames that wait in all mappings.
    waiting: usize,
    has_warned: bool,
}

impl Nat {
    pub(crate) fn new(carried: Carried, filtering: UdpFiltering, limits: NatLimits) -> Self {
        Self {
            carried,
            filtering,
            limits,
            table: Table::new(limits.mappings),
            active: VecDeque::new(),
            starved: VecDeque::new(),
            inbox: None,
            waiting: 0,
            has_warned: false,
        }
    }

    /// Carries a packet of the guest to the host. The frame comes back when its buffer is free again.
    pub(crate) fn send(
        &mut self,
        frame: Vec<u8>,
        packet: Outbound,
        turn: &mut Turn<'_, '_>,
    ) -> Option<Vec<u8>> {
        let generation = turn.egress.generation();
        let known = self.table.find(&packet.guest);
        let decided = known
            .and_then(|at| self.table.get_mut(at))
            .and_then(|mapping| mapping.peers.find(packet.destination, generation, turn.now));
        let host = match decided {
            Some(host) => host,
            None => match self.decide(known, packet.destination, turn) {
                Ok(host) => host,
                Err(why) => {
                    turn.counters.dropped(DropReason::Policy);
                    answer_error(turn, &frame, IcmpError::Unreachable(why));
                    return Some(frame);
                }
            },
        };
        let at = match known {
            Some(at) => at,
            None => match self.open(packet.guest, turn) {
                Ok(at) => at,
                Err(error) => {
                    self.refuse(&frame, &error, turn);
                    return Some(frame);
                }
            },
        };
        let has_room = self.waiting + frame.capacity() <= WAITING_BYTES;
        let mapping = self.table.get_mut(at)?;
        if decided.is_none() {
            mapping.peers.allow(packet.destination, host, generation, turn.now);
        }
        mapping.only_dns &= packet.destination.port() == 53;
        if !has_room || mapping.outgoing.len() >= WAITING {
            turn.counters.dropped(DropReason::DatagramQueue);
            return Some(frame);
        }
        self.waiting += frame.capacity();
        mapping.outgoing.push_back(Outgoing {
            frame,
            message: packet.message,
            host,
            hop_limit: packet.hop_limit.saturating_sub(1).max(1),
            dont_fragment: packet.dont_fragment,
        });
        let is_batch = mapping.outgoing.len() >= BATCH && mapping.writable;
        self.extend(at, turn.now);
        if is_batch {
            self.flush(at, turn);
        } else {
            self.activate(at);
        }
        None
    }

    /// Asks the policy. A destination that it forbids is forgotten.
    fn decide(
        &mut self,
        mapping: Option<usize>,
        destination: SocketAddr,
        turn: &mut Turn<'_, '_>,
    ) -> Result<SocketAddr, Unreachable> {
        let protocol = self.carried.protocol();
        let is_live = mapping
            .and_then(|at| self.table.get(at))
            .is_some_and(|mapping| mapping.peers.knows(destination));
        let decision = match is_live {
            true => turn.egress.recheck(protocol, destination, turn.link),
            false => turn.egress.decide(protocol, destination, turn.link, turn.now),
        };
        let why = match decision {
            Decision::Connect(host) => return Ok(host),
            // Nothing listens there.
            Decision::Refuse => Unreachable::Port,
            Decision::Deny => Unreachable::Prohibited,
        };
        if let Some(mapping) = mapping.and_then(|at| self.table.get_mut(at)) {
            mapping.peers.forbid(destination);
        }
        Err(why)
    }

    fn open(&mut self, guest: SocketAddr, turn: &mut Turn<'_, '_>) -> io::Result<usize> {
        if self.table.is_full()
            && let Some(first) = self.table.first()
        {
            turn.counters.dropped(DropReason::MappingLimit);
            self.remove(first, turn);
        }
        let at = self.table.next_place();
        let source = match self.carried {
            Carried::Udp => Source::Udp(at),
            Carried::Echo => Source::Ping(at),
        };
        let socket = NatSocket::open(self.carried, guest.is_ipv6(), turn.registry, source.into())?;
        let mapping = Mapping {
            guest,
            socket,
            peers: Peers::default(),
            outgoing: VecDeque::new(),
            readable: false,
            writable: true,
            failed: false,
            is_queued: false,
            is_starved: false,
            only_dns: self.carried == Carried::Udp,
            opened: turn.now,
            bytes_to_host: 0,
            bytes_to_guest: 0,
        };
        match self.carried {
            Carried::Udp => {
                turn.counters.udp_opened.add(1);
                turn.counters.udp_mappings.add(1);
            }
            Carried::Echo => turn.counters.ping_mappings.add(1),
        }
        Ok(self.table.insert(guest, mapping, turn.now + self.limits.idle))
    }

    /// There is no socket for a new mapping (RFC 5508 REQ-8: prohibited, which is not for good).
    fn refuse(&mut self, frame: &[u8], error: &io::Error, turn: &mut Turn<'_, '_>) {
        let is_forbidden = self.carried == Carried::Echo
            && matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM));
        let (reason, why) = match ConnectError::from_io(error) {
            _ if is_forbidden => (DropReason::PingForbidden, Unreachable::Prohibited),
            ConnectError::Unreachable(why) => (DropReason::HostUnreachable, why),
            _ => (DropReason::HostResource, Unreachable::Prohibited),
        };
        if is_forbidden && !std::mem::replace(&mut self.has_warned, true) {
            warn!(
                "the host forbids ping sockets: pings of the guest beyond the gateway stay unanswered; \
                 net.ipv4.ping_group_range must include a group of this process"
            );
        }
        turn.counters.dropped(reason);
        answer_error(turn, frame, IcmpError::Unreachable(why));
    }

    /// The mapping was used (RFC 4787 REQ-5 and 6).
    fn extend(&mut self, at: usize, now: Instant) {
        let Some(mapping) = self.table.get(at) else { return };
        let idle = if mapping.only_dns { self.limits.dns_idle } else { self.limits.idle };
        self.table.extend(at, now + idle);
    }

    fn activate(&mut self, at: usize) {
        let Some(mapping) = self.table.get_mut(at) else { return };
        if !std::mem::replace(&mut mapping.is_queued, true) {
            self.active.push_back(at);
        }
    }

    /// The kernel has news of a mapping's socket.
    pub(crate) fn host_event(&mut self, at: usize, event: &Event) {
        let Some(mapping) = self.table.get_mut(at) else { return };
        mapping.failed |= event.is_error();
        mapping.readable |= event.is_readable() || event.is_error();
        mapping.writable |= event.is_writable() || event.is_error();
        self.activate(at);
    }

    /// There is room to the guest again.
    pub(crate) fn room_to_guest(&mut self) {
        self.some_room_to_guest(usize::MAX);
    }

    /// There is a little room to the guest again: wakes `most` of the mappings that wait for it, those that
    /// have waited longest. `true` if more of them wait.
    pub(crate) fn some_room_to_guest(&mut self, most: usize) -> bool {
        for _ in 0..most.min(self.starved.len()) {
            let Some(at) = self.starved.pop_front() else { break };
            if let Some(mapping) = self.table.get_mut(at) {
                mapping.is_starved = false;
                self.activate(at);
            }
        }
        !self.starved.is_empty()
    }

    /// Whether some mapping has work that needs neither an event nor a timer.
    pub(crate) fn has_work(&self) -> bool {
        !self.active.is_empty()
    }

    /// When a mapping ends next, or may.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.table.next_deadline()
    }

    /// Ends what is over, and serves the mappings with news, up to `budget` of them.
    pub(crate) fn serve(&mut self, budget: usize, turn: &mut Turn<'_, '_>) {
        while let Some(at) = self.table.expired(turn.now) {
            self.remove(at, turn);
        }
        for _ in 0..self.active.len().min(budget) {
            let Some(at) = self.active.pop_front() else { break };
            let Some(mapping) = self.table.get_mut(at) else { continue };
            mapping.is_queued = false;
            if std::mem::take(&mut mapping.failed) {
                mapping.tell_errors(self.carried, turn);
            }
            self.flush(at, turn);
            self.receive(at, turn);
        }
    }

    /// The mappings as the embedder sees them.
    pub(crate) fn list(&self, now: Instant) -> impl Iterator<Item = FlowInfo> {
        let protocol = self.carried.protocol();
        self.table.values().map(move |mapping| FlowInfo {
            protocol,
            guest: mapping.guest,
            remote: None,
            client: None,
            state: FlowState::Open,
            bytes_to_host: mapping.bytes_to_host,
            bytes_to_guest: mapping.bytes_to_guest,
            age: (now - mapping.opened).into(),
        })
    }

    /// Ends every mapping.
    pub(crate) fn close_all(&mut self, counters: &Counters) {
        for at in self.table.places() {
            self.table.remove(at);
            self.uncount(counters);
        }
        self.active.clear();
        self.starved.clear();
        self.waiting = 0;
    }

    /// Whether the guest has sent from `guest` to `destination`: an ICMP error of the guest about what
    /// came back belongs to a mapping.
    pub(crate) fn knows(&self, guest: SocketAddr, destination: SocketAddr) -> bool {
        let mapping = self.table.find(&guest).and_then(|at| self.table.get(at));
        mapping.is_some_and(|mapping| mapping.peers.has_named(destination.ip()))
    }

    fn uncount(&self, counters: &Counters) {
        match self.carried {
            Carried::Udp => counters.udp_mappings.subtract(1),
            Carried::Echo => counters.ping_mappings.subtract(1),
        }
    }

    /// Ends a mapping: what it still has to send is sent, if the host takes it.
    fn remove(&mut self, at: usize, turn: &mut Turn<'_, '_>) {
        self.flush(at, turn);
        let Some((_, mapping)) = self.table.remove(at) else { return };
        drop(mapping.socket);
        if mapping.is_queued {
            self.active.retain(|queued| *queued != at);
        }
        if mapping.is_starved {
            self.starved.retain(|starved| *starved != at);
        }
        for outgoing in mapping.outgoing {
            self.waiting -= outgoing.frame.capacity();
            turn.counters.dropped(DropReason::DatagramQueue);
            turn.outlet.queues.recycle(outgoing.frame);
        }
        self.uncount(turn.counters);
    }

    /// Sends what waits, until the host is busy.
    fn flush(&mut self, at: usize, turn: &mut Turn<'_, '_>) {
        let Some(mapping) = self.table.get_mut(at) else { return };
        let mut was_tried = false;
        while mapping.writable
            && let Some(Outgoing { hop_limit, dont_fragment, .. }) = mapping.outgoing.front()
        {
            let (hop_limit, dont_fragment) = (*hop_limit, *dont_fragment);
            let alike = mapping
                .outgoing
                .iter()
                .take_while(|next| {
                    (next.hop_limit, next.dont_fragment) == (hop_limit, dont_fragment)
                })
                .map(|next| (next.host, next.message()));
            let error = match mapping.socket.send(hop_limit, dont_fragment, alike) {
                Ok(sent) => {
                    was_tried = false;
                    for sent in mapping.outgoing.drain(..sent.min(mapping.outgoing.len())) {
                        let len = sent.message().len() as u64;
                        mapping.bytes_to_host += len;
                        count_to_host(self.carried, len, turn);
                        self.waiting -= sent.frame.capacity();
                        turn.outlet.queues.recycle(sent.frame);
                    }
                    continue;
                }
                Err(error) => error,
            };
            if error.kind() == io::ErrorKind::WouldBlock {
                mapping.writable = false;
                break;
            }
            // The error of an earlier packet comes out here as well; then this one goes the second time.
            let mtu = mapping.tell_errors(self.carried, turn);
            let is_size = error.raw_os_error() == Some(libc::EMSGSIZE);
            if !is_size && !std::mem::replace(&mut was_tried, true) {
                continue;
            }
            was_tried = false;
            let Some(failed) = mapping.outgoing.pop_front() else { break };
            self.waiting -= failed.frame.capacity();
            answer_failed_send(&failed.frame, &error, mtu, turn);
            turn.outlet.queues.recycle(failed.frame);
        }
        if mapping.socket.wait_for_room(!mapping.writable, turn.registry).is_err() {
            mapping.writable = true; // Nobody will say so: the next packet tries.
        }
    }

    /// Receives until there is no more, or until others must have their turn or the guest has no room.
    fn receive(&mut self, at: usize, turn: &mut Turn<'_, '_>) {
        let inbox = self.inbox.get_or_insert_with(Inbox::new);
        let Some(mapping) = self.table.get_mut(at) else { return };
        let mut received = 0;
        let mut errors = 0;
        // What the filter drops keeps no mapping: anybody could send it (RFC 4787 REQ-6).
        let mut is_used = false;
        while mapping.readable && received < RECEIVES && errors < mapping::ERRORS {
            let most = room_for(turn, mapping.guest.is_ipv6());
            if most == 0 {
                if !std::mem::replace(&mut mapping.is_starved, true) {
                    self.starved.push_back(at);
                }
                break;
            }
            match inbox.receive(mapping.socket.fd(), most) {
                Ok(count) => {
                    received += count;
                    // An error that cut it short has an event of its own.
                    mapping.readable = count == most;
                    for (from, bytes) in inbox.datagrams() {
                        is_used |= mapping.deliver(self.carried, self.filtering, from, bytes, turn);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => mapping.readable = false,
                Err(_) => {
                    errors += 1;
                    mapping.tell_errors(self.carried, turn);
                }
            }
        }
        let is_unfinished = mapping.readable && !mapping.is_starved;
        if is_used {
            self.extend(at, turn.now);
        }
        if is_unfinished {
            self.activate(at);
        }
    }
}

/// How many datagrams of the largest size have room on their way to the guest, and may be sent by the rate
/// limit. An empty queue has room for one, which is dropped if it is too large for the whole queue.
pub(crate) fn room_for(turn: &Turn<'_, '_>, ipv6: bool) -> usize {
    if !turn.outlet.admits() {
        return 0;
    }
    let most = if turn.outlet.is_limited() { 1 } else { Inbox::SLOTS };
    let room = packet::room_for(turn.outlet, turn.link, ipv6, LARGEST).min(most);
    if room > 0 { room } else { usize::from(has_room(turn.outlet, turn.link, ipv6)) }
}

/// Whether one such datagram has room. After `false` the queue's bell rings when there is more.
pub(crate) fn has_room(outlet: &Outlet<'_>, link: &Link, ipv6: bool) -> bool {
    packet::has_room_for(outlet, link, ipv6, LARGEST) || outlet.queues.host_to_guest.is_empty()
}

#[cfg(test)]
mod tests;
