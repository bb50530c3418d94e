//! The subsystems that frames, host events and timers go to.

use std::io;
use std::ops::Range;

use mio::Registry;
use mio::event::Event;
use smoltcp::iface::Interface;
use smoltcp::time::Instant;

use super::device::Outlet;
use super::dhcp::DhcpServer;
use super::dns::Forwarder;
use super::flows::{Flows, Turn};
use super::icmp::{IcmpError, answer_error};
use super::link::Link;
use super::nat::{self, Carried, Nat, NatLimits};
use super::publish::PublishedPorts;
use super::reassembly::Reassembly;
use super::router::Router;
use super::timers::span;
use super::token::Source;
use super::udp::PublishedUdp;
use super::{autoconfiguration, frame};
use crate::config::{Config, Dns};
use crate::control::Command;
use crate::metrics::Counters;
use crate::policy::LiveFlows;
use crate::publish::{BoundPort, Published};

/// Services of flows in one turn; each moves 256 KiB in each direction at the most.
const SERVICES: usize = 64;

/// Services of mappings in one turn; each moves 128 packets at the most.
const MAPPINGS: usize = 64;

/// All that the gateway runs for one guest.
pub(crate) struct Network {
    pub(crate) flows: Flows,
    pub(crate) dns: Forwarder,
    pub(crate) udp: Nat,
    pub(crate) published_udp: PublishedUdp,
    pub(crate) ping: Nat,
    pub(crate) reassembly: Reassembly,
    /// `None` if the guest gets no addresses over DHCP.
    pub(crate) dhcp: Option<DhcpServer>,
    /// `None` if the guest hears of no router.
    pub(crate) router: Option<Router>,
    ports: PublishedPorts,
    /// Datagrams were served before flows in the last turn.
    datagrams_first: bool,
}

impl Network {
    pub(crate) fn new(config: &Config, interface: Interface) -> Self {
        // A guest is told of no resolver where there is none.
        let has_resolver = config.dns != Dns::Off;
        let resolver = has_resolver.then_some(config.gateway_ipv4).into_iter().collect();
        let limits = &config.limits;
        let udp = NatLimits {
            mappings: limits.udp_mappings,
            idle: span(limits.udp_idle),
            dns_idle: span(limits.udp_dns_idle),
        };
        let idle = span(limits.ping_idle);
        let ping = NatLimits { mappings: limits.ping_mappings, idle, dns_idle: idle };
        Self {
            flows: Flows::new(limits.clone(), interface),
            dns: Forwarder::new(config),
            udp: Nat::new(Carried::Udp, config.udp_filtering, udp),
            published_udp: PublishedUdp::new(udp.mappings, udp.idle),
            ping: Nat::new(Carried::Echo, config.udp_filtering, ping),
            reassembly: Reassembly::default(),
            dhcp: config.dhcp.then(|| DhcpServer::new(resolver, config.dhcp_lease)),
            router: config.router_advertisements.then(|| Router::new(false)),
            ports: PublishedPorts::default(),
            datagrams_first: false,
        }
    }

    /// Leads ports of the host to the guest.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub(crate) fn publish(
        &mut self,
        ports: Vec<BoundPort>,
        link: &Link,
        registry: &Registry,
        counters: &Counters,
    ) -> io::Result<Published> {
        self.ports.add(ports, &mut self.published_udp, link, registry, counters)
    }

    /// Does what one frame of the guest asks for. A buffer that is free again comes back.
    pub(crate) fn handle(&mut self, frame: Vec<u8>, turn: &mut Turn<'_, '_>) -> Option<Vec<u8>> {
        turn.outlet.record(&frame);
        frame::handle(frame, self, turn)
    }

    /// Does what one frame of the guest asks for that lies in the receive buffer. Not all of it is done before
    /// [`depart`](Self::depart).
    pub(crate) fn handle_in_place(
        &mut self,
        buffer: &mut [u8],
        frame: &Range<usize>,
        turn: &mut Turn<'_, '_>,
    ) {
        turn.outlet.record(buffer.get(frame.clone()).unwrap_or_default());
        frame::handle_in_place(buffer, frame, self, turn);
    }

    /// Finishes with the frames of the receive buffer.
    pub(crate) fn depart(&mut self, buffer: &mut [u8], turn: &mut Turn<'_, '_>) {
        self.flows.depart(buffer, turn);
    }

    /// Notes what the kernel has said; the work is done in [`serve`](Self::serve).
    pub(crate) fn host_event(&mut self, source: Source, event: &Event) {
        match source {
            Source::Flow(index) => self.flows.host_event(index, event),
            Source::Listener(index) => self.ports.host_event(index),
            Source::Dns(index) => self.dns.host_event(index),
            Source::Udp(index) => self.udp.host_event(index, event),
            Source::PublishedUdp(index) => self.published_udp.host_event(index, event),
            Source::Ping(index) => self.ping.host_event(index, event),
            _ => {}
        }
    }

    /// There is room to the guest again.
    pub(crate) fn room_to_guest(&mut self) {
        self.flows.room_to_guest();
        self.udp.room_to_guest();
        self.published_udp.room_to_guest();
        self.ping.room_to_guest();
    }

    /// A service of the embedder's has news.
    pub(crate) fn relay_news(&mut self) {
        self.flows.look_at_relays();
    }

    /// Wakes a few of those that wait for room; `true` if more of them wait.
    pub(crate) fn some_room_to_guest(&mut self, outlet: &Outlet<'_>, link: &Link) -> bool {
        let flows = self.flows.some_room_to_guest(SERVICES);
        // A datagram may need more than a segment does. Without it the bell will ring for all that wait.
        if !nat::has_room(outlet, link, true) {
            return flows;
        }
        self.published_udp.room_to_guest();
        let udp = self.udp.some_room_to_guest(MAPPINGS);
        let ping = self.ping.some_room_to_guest(MAPPINGS);
        flows || udp || ping
    }

    /// Does what another thread asks for.
    pub(crate) fn command(&mut self, command: Command, turn: &mut Turn<'_, '_>) {
        match command {
            Command::Flows(answer) => {
                let mut flows = self.flows.list(turn.now);
                flows.extend(self.udp.list(turn.now));
                flows.extend(self.published_udp.list(turn.now));
                flows.extend(self.ping.list(turn.now));
                answer.give(flows);
            }
            Command::SetPolicy(policy, live, answer) => {
                turn.egress.set_policy(policy, live);
                if live == LiveFlows::Recheck {
                    self.flows.recheck(turn);
                }
                answer.give(());
            }
            Command::Publish(ports, answer) => {
                answer.give(self.publish(ports, turn.link, turn.registry, turn.counters));
            }
            Command::Published(answer) => answer.give(self.ports.list()),
            Command::Unpublish { id, reset, answer } => {
                let was_there =
                    self.ports.remove(id, &mut self.published_udp, turn.registry, turn.counters);
                if reset {
                    self.flows.reset_published(id);
                }
                answer.give(was_there);
            }
            // The poll loop has the limiters, and sees to it before.
            Command::RateLimits(..) => {}
        }
    }

    /// Works off what events and timers have left to do, within budgets.
    pub(crate) fn serve(&mut self, turn: &mut Turn<'_, '_>) {
        self.ports.serve(&mut self.flows, turn);
        // Who comes first has the tokens of a rate limit: each in turn.
        self.datagrams_first = turn.outlet.is_limited() && !self.datagrams_first;
        if self.datagrams_first {
            self.serve_datagrams(turn);
        }
        self.flows.serve(SERVICES, turn);
        self.dns.serve(&mut self.flows, turn);
        if !self.datagrams_first {
            self.serve_datagrams(turn);
        }
        while let Some(first) = self.reassembly.expire(turn.now, turn.counters) {
            answer_error(turn, &first, IcmpError::Reassembly);
        }
        autoconfiguration::advertise(&mut self.router, turn);
    }

    fn serve_datagrams(&mut self, turn: &mut Turn<'_, '_>) {
        self.udp.serve(MAPPINGS, turn);
        self.published_udp.serve(turn);
        self.ping.serve(MAPPINGS, turn);
    }

    /// When a timer expires next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [
            self.flows.next_deadline(),
            self.dns.next_deadline(),
            self.udp.next_deadline(),
            self.published_udp.next_deadline(),
            self.ping.next_deadline(),
            self.reassembly.next_deadline(),
            self.router.as_ref().and_then(Router::next_deadline),
            self.ports.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether there is work that needs neither an event nor a timer.
    pub(crate) fn has_work(&self) -> bool {
        self.flows.has_work()
            || self.ports.has_work()
            || self.dns.has_work()
            || self.udp.has_work()
            || self.published_udp.has_work()
            || self.ping.has_work()
    }

    /// Says to the guest that the gateway is going.
    pub(crate) fn farewell(&mut self, turn: &mut Turn<'_, '_>) {
        autoconfiguration::farewell(&mut self.router, turn);
    }

    /// Ends everything.
    pub(crate) fn close_all(&mut self, counters: &Counters) {
        self.flows.close_all(counters);
        self.udp.close_all(counters);
        self.published_udp.close_all(counters);
        self.ping.close_all(counters);
    }
}
