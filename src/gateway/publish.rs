//! Published ports: listeners in the poll set, and the clients that they accept.
//!
//! Nothing ends a listener but its removal. When the host is out of descriptors, the client that waits is
//! accepted with the descriptor that is kept for that, and reset, so that it does not wait in vain; where
//! even that fails, the listener rests for a moment.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpListener;
use mio::{Interest, Registry};
use smoltcp::time::{Duration, Instant};
use socket2::{Domain, Socket, Type};

use super::flows::{Flows, Turn};
use super::host::HostSocket;
use super::link::Link;
use super::token::Source;
use super::udp::PublishedUdp;
use crate::metrics::{Counters, DropReason};
use crate::publish::{BoundPort, BoundSocket, IpFamily, PublishId, Published};

/// Clients that one turn accepts; each costs two system calls and a call of the guest.
const CLIENTS: usize = 64;

/// Clients that are accepted from one listener before the next has its turn.
const IN_A_ROW: usize = 16;

/// How long a listener rests that the host has no resources for. No event says that there are some again.
const REST: Duration = Duration::from_millis(100);

/// The published ports of one guest.
#[derive(Debug, Default)]
pub(crate) struct PublishedPorts {
    published: BTreeMap<PublishId, Entry>,
    next: u64,
    listeners: slab::Slab<Listener>,
    /// Listeners that may have clients waiting.
    ready: VecDeque<usize>,
    /// A descriptor for when there is none left, while there are listeners.
    reserve: Option<Socket>,
    /// Nobody is accepted before this moment.
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    published: Published,
    parts: Vec<Part>,
}

/// One port of a range.
#[derive(Clone, Copy, Debug)]
enum Part {
    Tcp(usize),
    Udp(usize),
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    id: PublishId,
    /// Where it leads, and from which address the guest is called.
    guest: SocketAddr,
    gateway: IpAddr,
    is_ready: bool,
}

impl PublishedPorts {
    /// Begins to accept on every port, or on none.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub(crate) fn add(
        &mut self,
        ports: Vec<BoundPort>,
        udp: &mut PublishedUdp,
        link: &Link,
        registry: &Registry,
        counters: &Counters,
    ) -> io::Result<Published> {
        let id = PublishId(self.next);
        self.next += 1;
        let addresses = ports.iter().map(|port| port.host).collect();
        let mut parts = Vec::with_capacity(ports.len());
        for port in ports {
            let (guest, gateway) = match port.family {
                IpFamily::V4 => (IpAddr::V4(link.guest_ipv4), IpAddr::V4(link.gateway_ipv4)),
                IpFamily::V6 => (IpAddr::V6(link.guest_ipv6), IpAddr::V6(link.gateway_ipv6)),
            };
            let guest = SocketAddr::new(guest, port.guest_port);
            let part = match port.socket {
                BoundSocket::Tcp(socket) => {
                    let is_ready = false;
                    let socket = TcpListener::from_std(socket);
                    let listener = Listener { socket, id, guest, gateway, is_ready };
                    self.listen(listener, registry).map(Part::Tcp)
                }
                BoundSocket::Udp(socket) => udp.add(socket, guest, registry).map(Part::Udp),
            };
            match part {
                Ok(part) => parts.push(part),
                Err(error) => {
                    self.remove_parts(&parts, udp, registry, counters);
                    return Err(error);
                }
            }
        }
        let published = Published { id, addresses };
        self.published.insert(id, Entry { published: published.clone(), parts });
        Ok(published)
    }

    fn listen(&mut self, mut listener: Listener, registry: &Registry) -> io::Result<usize> {
        let index = self.listeners.vacant_key();
        // Edge-triggered: clients are accepted until none is left.
        registry.register(
            &mut listener.socket,
            Source::Listener(index).into(),
            Interest::READABLE,
        )?;
        self.listeners.insert(listener);
        if self.reserve.is_none() {
            self.reserve = reserve();
        }
        Ok(index)
    }

    /// Stops to accept; the sockets are closed when this returns. Whether there was such a thing.
    pub(crate) fn remove(
        &mut self,
        id: PublishId,
        udp: &mut PublishedUdp,
        registry: &Registry,
        counters: &Counters,
    ) -> bool {
        let Some(entry) = self.published.remove(&id) else { return false };
        self.remove_parts(&entry.parts, udp, registry, counters);
        true
    }

    fn remove_parts(
        &mut self,
        parts: &[Part],
        udp: &mut PublishedUdp,
        registry: &Registry,
        counters: &Counters,
    ) {
        for part in parts {
            match *part {
                Part::Udp(index) => drop(udp.remove(index, registry, counters)),
                Part::Tcp(index) => {
                    self.ready.retain(|ready| *ready != index);
                    if let Some(mut listener) = self.listeners.try_remove(index) {
                        // Closing it would do.
                        let _ = registry.deregister(&mut listener.socket);
                    }
                }
            }
        }
        if self.listeners.is_empty() {
            self.reserve = None;
            self.rests_until = None;
        }
    }

    /// What is published.
    pub(crate) fn list(&self) -> Vec<Published> {
        self.published.values().map(|entry| entry.published.clone()).collect()
    }

    /// Clients wait at a listener.
    pub(crate) fn host_event(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index)
            && !std::mem::replace(&mut listener.is_ready, true)
        {
            self.ready.push_back(index);
        }
    }

    /// Whether there are clients to accept now.
    pub(crate) fn has_work(&self) -> bool {
        !self.ready.is_empty() && self.rests_until.is_none()
    }

    /// When the listeners have rested.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.rests_until
    }

    /// Accepts the clients that wait, up to a budget, and calls the guest for each.
    pub(crate) fn serve(&mut self, flows: &mut Flows, turn: &mut Turn<'_, '_>) {
        if self.rests_until.is_some_and(|until| turn.now < until) {
            return;
        }
        self.rests_until = None;
        for _ in 0..CLIENTS / IN_A_ROW {
            let Some(index) = self.ready.pop_front() else { return };
            let state = match self.listeners.get_mut(index) {
                Some(listener) => accept(listener, &mut self.reserve, flows, turn),
                None => State::Drained,
            };
            let rests = match state {
                State::Drained => {
                    if let Some(listener) = self.listeners.get_mut(index) {
                        listener.is_ready = false;
                    }
                    continue;
                }
                State::More => false,
                State::Exhausted => true,
            };
            self.ready.push_back(index);
            if rests {
                self.rests_until = Some(turn.now + REST);
                return;
            }
        }
    }
}

enum State {
    /// Nobody waits; the next client brings an edge.
    Drained,
    /// Others have their turn first.
    More,
    /// The host has no resources, and there is no reserve.
    Exhausted,
}

fn accept(
    listener: &Listener,
    kept: &mut Option<Socket>,
    flows: &mut Flows,
    turn: &mut Turn<'_, '_>,
) -> State {
    for _ in 0..IN_A_ROW {
        if kept.is_none() {
            *kept = reserve();
        }
        let error = match listener.socket.accept() {
            Ok((client, _)) => {
                flows.open_inbound(
                    client.into(),
                    (listener.guest, listener.gateway),
                    listener.id,
                    turn,
                );
                continue;
            }
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EAGAIN) => return State::Drained,
            // The client has gone again, or accept(2) passes on what happened to it on the way.
            Some(
                libc::ECONNABORTED
                | libc::EINTR
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH,
            ) => {}
            Some(libc::EMFILE | libc::ENFILE) if kept.is_some() => {
                turn.counters.dropped(DropReason::HostResource);
                *kept = None;
                match listener.socket.accept() {
                    // Resets it.
                    Ok((client, _)) => drop(HostSocket::accepted(client.into())),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return State::Drained;
                    }
                    // Another thread was faster to take the descriptor.
                    Err(_) => return State::Exhausted,
                }
            }
            _ => {
                turn.counters.dropped(DropReason::HostResource);
                return State::Exhausted;
            }
        }
    }
    State::More
}

/// The cheapest descriptor there is.
fn reserve() -> Option<Socket> {
    Socket::new(Domain::UNIX, Type::DGRAM.cloexec(), None).ok()
}
