//! The subsystems that frames, host events and timers go to.

use mio::event::Event;
use smoltcp::iface::Interface;
use smoltcp::time::Instant;

use super::dhcp::DhcpServer;
use super::dns::Forwarder;
use super::flows::{Flows, Turn};
use super::router::Router;
use super::token::Source;
use super::{autoconfiguration, frame};
use crate::config::{Config, Dns};
use crate::control::Command;
use crate::metrics::Counters;

/// Services of flows in one turn; each moves 256 KiB in each direction at the most.
const SERVICES: usize = 64;

/// All that the gateway runs for one guest.
pub(crate) struct Network {
    pub(crate) flows: Flows,
    pub(crate) dns: Forwarder,
    /// `None` if the guest gets no addresses over DHCP.
    pub(crate) dhcp: Option<DhcpServer>,
    /// `None` if the guest hears of no router.
    pub(crate) router: Option<Router>,
}

impl Network {
    pub(crate) fn new(config: &Config, interface: Interface) -> Self {
        // A guest is told of no resolver where there is none.
        let has_resolver = config.dns != Dns::Off;
        let resolver = has_resolver.then_some(config.gateway_ipv4).into_iter().collect();
        Self {
            flows: Flows::new(config.limits.clone(), interface),
            dns: Forwarder::new(config),
            dhcp: config.dhcp.then(|| DhcpServer::new(resolver, config.dhcp_lease)),
            router: config.router_advertisements.then(|| Router::new(false)),
        }
    }

    /// Does what one frame of the guest asks for. A buffer that is free again comes back.
    pub(crate) fn handle(&mut self, frame: Vec<u8>, turn: &mut Turn<'_, '_>) -> Option<Vec<u8>> {
        frame::handle(frame, self, turn)
    }

    /// Notes what the kernel has said; the work is done in [`serve`](Self::serve).
    pub(crate) fn host_event(&mut self, source: Source, event: &Event) {
        match source {
            Source::Flow(index) => self.flows.host_event(index, event),
            Source::Dns(index) => self.dns.host_event(index),
            _ => {}
        }
    }

    /// There is room to the guest again.
    pub(crate) fn room_to_guest(&mut self) {
        self.flows.room_to_guest();
    }

    /// Does what another thread asks for.
    pub(crate) fn command(&mut self, command: Command, turn: &mut Turn<'_, '_>) {
        match command {
            Command::Flows(answer) => answer.give(self.flows.list(turn.now)),
        }
    }

    /// Works off what events and timers have left to do, within budgets.
    pub(crate) fn serve(&mut self, turn: &mut Turn<'_, '_>) {
        self.flows.serve(SERVICES, turn);
        self.dns.serve(&mut self.flows, turn);
        autoconfiguration::advertise(&mut self.router, turn);
    }

    /// When a timer expires next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let router = self.router.as_ref().and_then(Router::next_deadline);
        [self.flows.next_deadline(), self.dns.next_deadline(), router].into_iter().flatten().min()
    }

    /// Whether there is work that needs neither an event nor a timer.
    pub(crate) fn has_work(&self) -> bool {
        self.flows.has_work() || self.dns.has_work()
    }

    /// Says to the guest that the gateway is going.
    pub(crate) fn farewell(&mut self, turn: &mut Turn<'_, '_>) {
        autoconfiguration::farewell(&mut self.router, turn);
    }

    /// Ends everything.
    pub(crate) fn close_all(&mut self, counters: &Counters) {
        self.flows.close_all(counters);
    }
}
