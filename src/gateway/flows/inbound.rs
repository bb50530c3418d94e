//! Flows that a client of a published port has asked for: the client is connected, and the guest is
//! called.

use std::net::{IpAddr, SocketAddr, TcpStream};

use smoltcp::iface::Interface;
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

use super::{Flows, Turn};
use crate::gateway::classify::FlowKey;
use crate::gateway::end::End;
use crate::gateway::flow::{FlowId, Open, Phase};
use crate::gateway::host::HostSocket;
use crate::gateway::token::Source;
use crate::metrics::DropReason;
use crate::publish::PublishId;
use crate::sys::pages::WindowedSocket;

/// The gateway's ports that the guest is called from (RFC 6056 section 3.2).
const FIRST: u16 = 1024;

/// Ports that one call tries.
const TRIES: usize = 2048;

/// The guest's MSS until it has named one (RFC 9293 section 3.7.1).
const MSS: usize = 536;

/// The port that the guest is called from next. All are used in turn, so that none comes back while the
/// guest has its last connection in TIME-WAIT; the first is random, for the gateway before this one.
#[derive(Debug)]
pub(super) struct Ports(u16);

impl Default for Ports {
    fn default() -> Self {
        let mut seed = [0; 2];
        // Without randomness the first port is the first.
        let _ = getrandom::fill(&mut seed);
        Self(u16::from_ne_bytes(seed).max(FIRST))
    }
}

impl Ports {
    fn next(&mut self) -> u16 {
        let port = self.0;
        self.0 = port.checked_add(1).unwrap_or(FIRST);
        port
    }
}

impl Flows {
    /// Calls the guest for a client that was accepted. The client is read from when the guest has
    /// answered, and reset if it does not.
    pub(crate) fn open_inbound(
        &mut self,
        client: TcpStream,
        (guest, gateway): (SocketAddr, IpAddr),
        published: PublishId,
        turn: &mut Turn<'_, '_>,
    ) {
        // Dropping it resets it.
        let client = HostSocket::accepted(client);
        let room = match self.calls < self.limits.tcp_half_open.div_ceil(2) {
            true => self.make_room(turn.counters),
            false => Err(DropReason::HalfOpenLimit),
        };
        if let Err(reason) = room {
            turn.counters.dropped(reason);
            return;
        }
        let Some(key) = self.free_key(guest, gateway) else {
            turn.counters.dropped(DropReason::FlowLimit);
            return;
        };
        let id = self.next_id();
        if client.watch(turn.registry, Source::Flow(id.index).into()).is_err() {
            turn.counters.dropped(DropReason::HostResource);
            return;
        }
        let Ok(mut socket) = self.windows.take() else {
            turn.counters.dropped(DropReason::HostResource);
            return;
        };
        call(&mut self.interface, &mut socket, key);
        let open = Open::new(socket, Some(End::Host(client)), MSS);
        self.insert(id, key, Phase::Open(Box::new(open)), turn);
        if let Some(flow) = self.flow_mut(id) {
            flow.published = Some(published);
            flow.ready.writable = true;
        }
        self.calls += 1;
        turn.counters.tcp_inbound.add(1);
        self.activate(id);
    }

    /// Calls the guest from another port: it has taken the SYN for part of an old connection, in
    /// TIME-WAIT perhaps, and has had a reset for that.
    pub(super) fn call_again(&mut self, id: FlowId) {
        let Some(old) = self.flow(id).map(|flow| flow.key) else { return };
        let Some(key) = self.free_key(old.guest, old.remote.ip()) else { return };
        let Some(flow) = self.table.get_mut(id.index) else { return };
        let Phase::Open(open) = &mut flow.phase else { return };
        flow.key = key;
        open.socket.socket(|socket| socket.abort());
        call(&mut self.interface, &mut open.socket, key);
        self.by_key.remove(&old);
        self.by_key.insert(key, id);
    }

    /// A key of no flow.
    fn free_key(&mut self, guest: SocketAddr, gateway: IpAddr) -> Option<FlowKey> {
        (0..TRIES)
            .map(|_| FlowKey { guest, remote: SocketAddr::new(gateway, self.ports.next()) })
            .find(|key| !self.by_key.contains_key(key))
    }

    /// Resets the flows that came through a published port.
    pub(crate) fn reset_published(&mut self, published: PublishId) {
        let ids: Vec<FlowId> = self
            .table
            .iter()
            .filter(|(_, flow)| flow.published == Some(published))
            .map(|(_, flow)| flow.id)
            .collect();
        for id in ids {
            if let Some(Phase::Open(open)) = self.flow_mut(id).map(|flow| &mut flow.phase) {
                open.abort();
            }
            self.activate(id);
        }
    }
}

/// Has the socket send a SYN to the guest.
fn call(interface: &mut Interface, socket: &mut WindowedSocket, key: FlowKey) {
    let local = IpListenEndpoint { addr: Some(key.remote.ip().into()), port: key.remote.port() };
    // A closed socket, addresses of one family and ports that are not zero: it is in SYN-SENT.
    let _ = socket
        .socket(|socket| socket.connect(interface.context(), IpEndpoint::from(key.guest), local));
}
