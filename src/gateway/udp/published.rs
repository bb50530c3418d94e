//! UDP ports that the host publishes for the guest.
//!
//! To the guest each client is a port of the gateway: it answers there, and the answer goes to the client
//! from the published socket. The client keeps its own port number at the gateway where that is free. A
//! client costs a place in a table and no descriptor; it ends by silence, as a mapping does.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use mio::Interest;
use mio::event::Event;
use mio::unix::SourceFd;
use smoltcp::time::{Duration, Instant};

use crate::gateway::answer::answer_failed_send;
use crate::gateway::datagram::DatagramHead;
use crate::gateway::flows::Turn;
use crate::gateway::link::Link;
use crate::gateway::nat::{Table, room_for};
use crate::gateway::token::Source;
use crate::gateway::udp;
use crate::handle::{FlowInfo, FlowState, Protocol};
use crate::metrics::{Counters, DropReason};
use crate::sys::datagram::{self, Inbox};

/// Ports that a client gets whose own is taken (RFC 6335 section 6).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49_152..=65_535;
/// Datagrams that a socket receives before others have their turn.
const RECEIVES: usize = 128;
/// Errors that one look at a socket passes over.
const ERRORS: usize = 64;

/// Who sends to which published socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    socket: usize,
    client: SocketAddr,
}

/// The gateway's end of a client's exchange, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Side {
    guest: SocketAddr,
    gateway: SocketAddr,
}

/// One client's exchange.
#[derive(Debug)]
struct Client {
    side: Side,
    opened: Instant,
    bytes_to_host: u64,
    bytes_to_guest: u64,
}

#[derive(Debug)]
struct Published {
    socket: UdpSocket,
    guest: SocketAddr,
    readable: bool,
    is_queued: bool,
    is_starved: bool,
}

/// All published UDP ports of one guest.
#[derive(Debug)]
pub(crate) struct PublishedUdp {
    idle: Duration,
    sockets: slab::Slab<Published>,
    clients: Table<ClientKey, Client>,
    by_side: HashMap<Side, usize>,
    next_port: u16,
    /// Sockets with something to receive.
    active: VecDeque<usize>,
    /// Sockets that wait for room to the guest.
    starved: VecDeque<usize>,
    inbox: Option<Inbox>,
}

impl PublishedUdp {
    /// `clients` at once, each until it has been silent for `idle`.
    pub(crate) fn new(clients: usize, idle: Duration) -> Self {
        Self {
            idle,
            sockets: slab::Slab::new(),
            clients: Table::new(clients),
            by_side: HashMap::new(),
            next_port: *EPHEMERAL.start(),
            active: VecDeque::new(),
            starved: VecDeque::new(),
            inbox: None,
        }
    }

    /// Publishes a bound socket: what comes there goes to `guest`. The name is for
    /// [`remove`](Self::remove).
    ///
    /// # Errors
    /// The socket can't be made non-blocking, or be watched.
    pub(crate) fn add(
        &mut self,
        socket: UdpSocket,
        guest: SocketAddr,
        registry: &mio::Registry,
    ) -> io::Result<usize> {
        socket.set_nonblocking(true)?;
        let at = self.sockets.vacant_key();
        let token = Source::PublishedUdp(at).into();
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        let (is_queued, is_starved) = (false, false);
        Ok(self.sockets.insert(Published { socket, guest, readable: true, is_queued, is_starved }))
    }

    /// Publishes a socket no longer and forgets its clients. Gives the socket back.
    pub(crate) fn remove(
        &mut self,
        at: usize,
        registry: &mio::Registry,
        counters: &Counters,
    ) -> Option<UdpSocket> {
        let published = self.sockets.try_remove(at)?;
        for client in self.clients.places() {
            if self.clients.key(client).is_some_and(|key| key.socket == at) {
                self.forget(client, counters);
            }
        }
        self.active.retain(|queued| *queued != at);
        self.starved.retain(|starved| *starved != at);
        // It may live on elsewhere.
        let _ = registry.deregister(&mut SourceFd(&published.socket.as_raw_fd()));
        Some(published.socket)
    }

    fn forget(&mut self, client: usize, counters: &Counters) {
        if let Some((_, client)) = self.clients.remove(client) {
            self.by_side.remove(&client.side);
            counters.udp_clients.subtract(1);
        }
    }

    /// Whether the guest has heard of `gateway` as a client of its port `guest`.
    pub(crate) fn knows(&self, guest: SocketAddr, gateway: SocketAddr) -> bool {
        self.by_side.contains_key(&Side { guest, gateway })
    }

    /// Carries the guest's answer to the client that it is for; `false` if it is for none.
    pub(crate) fn answer(
        &mut self,
        frame: &[u8],
        head: &DatagramHead,
        turn: &mut Turn<'_, '_>,
    ) -> bool {
        let side = Side { guest: head.source, gateway: head.destination };
        let Some(at) = self.by_side.get(&side).copied() else { return false };
        let Some(key) = self.clients.key(at) else { return false };
        let Some(published) = self.sockets.get(key.socket) else { return false };
        self.clients.extend(at, turn.now + self.idle);
        let payload = frame.get(head.payload.clone()).unwrap_or_default();
        let send = || {
            let datagram = std::iter::once((key.client, payload));
            datagram::send(published.socket.as_fd(), datagram)
        };
        // The error of an earlier datagram comes out here; then this one goes the second time.
        match send().or_else(|_| send()) {
            Ok(_) => {
                turn.counters.udp_datagrams_to_host.add(1);
                turn.counters.udp_bytes_to_host.add(payload.len() as u64);
                if let Some(client) = self.clients.get_mut(at) {
                    client.bytes_to_host += payload.len() as u64;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                turn.counters.dropped(DropReason::DatagramQueue);
            }
            Err(error) => answer_failed_send(frame, &error, None, turn),
        }
        true
    }

    /// The kernel has news of a published socket.
    pub(crate) fn host_event(&mut self, at: usize, event: &Event) {
        let Some(published) = self.sockets.get_mut(at) else { return };
        published.readable |= event.is_readable() || event.is_error();
        self.activate(at);
    }

    fn activate(&mut self, at: usize) {
        let Some(published) = self.sockets.get_mut(at) else { return };
        if !std::mem::replace(&mut published.is_queued, true) {
            self.active.push_back(at);
        }
    }

    /// There is room to the guest again.
    pub(crate) fn room_to_guest(&mut self) {
        while let Some(at) = self.starved.pop_front() {
            if let Some(published) = self.sockets.get_mut(at) {
                published.is_starved = false;
            }
            self.activate(at);
        }
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.active.is_empty()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.clients.next_deadline()
    }

    /// Forgets clients that are over, and serves the sockets with news.
    pub(crate) fn serve(&mut self, turn: &mut Turn<'_, '_>) {
        while let Some(client) = self.clients.expired(turn.now) {
            self.forget(client, turn.counters);
        }
        for _ in 0..self.active.len() {
            let Some(at) = self.active.pop_front() else { break };
            if let Some(published) = self.sockets.get_mut(at) {
                published.is_queued = false;
            }
            self.receive(at, turn);
        }
    }

    fn receive(&mut self, at: usize, turn: &mut Turn<'_, '_>) {
        // Out of the way: clients are looked up while its datagrams are read.
        let mut inbox = self.inbox.take().unwrap_or_else(Inbox::new);
        let (mut received, mut errors) = (0, 0);
        while let Some(published) = self.sockets.get_mut(at).filter(|known| known.readable) {
            if received >= RECEIVES || errors >= ERRORS {
                self.activate(at);
                break;
            }
            let guest = published.guest;
            let most = room_for(turn, guest.is_ipv6());
            if most == 0 {
                if !std::mem::replace(&mut published.is_starved, true) {
                    self.starved.push_back(at);
                }
                break;
            }
            match inbox.receive(published.socket.as_fd(), most) {
                Ok(count) => {
                    received += count;
                    // The next edge comes with the next datagram or error.
                    published.readable = count == most;
                    for (client, payload) in inbox.datagrams() {
                        if let Some(client) = self.client_of(at, guest, client, turn) {
                            client.bytes_to_guest += payload.len() as u64;
                            udp::deliver(client.side.gateway, guest, payload, turn);
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    published.readable = false;
                }
                Err(_) => errors += 1,
            }
        }
        self.inbox = Some(inbox);
    }

    /// The client by its address; a new one gets a port of the gateway's.
    fn client_of(
        &mut self,
        socket: usize,
        guest: SocketAddr,
        client: SocketAddr,
        turn: &Turn<'_, '_>,
    ) -> Option<&mut Client> {
        let key = ClientKey { socket, client };
        let until = turn.now + self.idle;
        if let Some(at) = self.clients.find(&key) {
            self.clients.extend(at, until);
            return self.clients.get_mut(at);
        }
        if client.port() == 0 {
            turn.counters.dropped(DropReason::UdpPort);
            return None;
        }
        if self.clients.is_full()
            && let Some(first) = self.clients.first()
        {
            turn.counters.dropped(DropReason::MappingLimit);
            self.forget(first, turn.counters);
        }
        let Some(side) = self.free_side(guest, client.port(), turn.link) else {
            turn.counters.dropped(DropReason::MappingLimit);
            return None;
        };
        let opened = turn.now;
        let client = Client { side, opened, bytes_to_host: 0, bytes_to_guest: 0 };
        let at = self.clients.insert(key, client, until);
        self.by_side.insert(side, at);
        turn.counters.udp_clients.add(1);
        self.clients.get_mut(at)
    }

    /// A port of the gateway that no other client of this guest's port has: the client's own, or the next
    /// free one.
    fn free_side(&mut self, guest: SocketAddr, own: u16, link: &Link) -> Option<Side> {
        let address = match guest.ip() {
            IpAddr::V4(_) => IpAddr::V4(link.gateway_ipv4),
            IpAddr::V6(guest) if guest.is_unicast_link_local() => link.gateway_link_local.into(),
            IpAddr::V6(_) => IpAddr::V6(link.gateway_ipv6),
        };
        let side = |port| Side { guest, gateway: SocketAddr::new(address, port) };
        // A well-known port of the gateway's has its own meaning: DNS, DHCP.
        if own >= 1024 && !self.by_side.contains_key(&side(own)) {
            return Some(side(own));
        }
        for _ in EPHEMERAL {
            let port = self.next_port;
            self.next_port = if port == *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 };
            if !self.by_side.contains_key(&side(port)) {
                return Some(side(port));
            }
        }
        None
    }

    /// The clients as the embedder sees them.
    pub(crate) fn list(&self, now: Instant) -> impl Iterator<Item = FlowInfo> {
        self.clients.entries().map(move |(key, client)| FlowInfo {
            protocol: Protocol::Udp,
            guest: client.side.guest,
            remote: Some(client.side.gateway),
            client: Some(key.client),
            state: FlowState::Open,
            bytes_to_host: client.bytes_to_host,
            bytes_to_guest: client.bytes_to_guest,
            age: (now - client.opened).into(),
        })
    }

    /// Forgets every socket and client.
    pub(crate) fn close_all(&mut self, counters: &Counters) {
        for client in self.clients.places() {
            self.forget(client, counters);
        }
        self.sockets.clear();
        self.active.clear();
        self.starved.clear();
    }
}

#[cfg(test)]
mod tests;
