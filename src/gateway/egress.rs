//! Where the guest may go: the policy as the poll loop applies it.
//!
//! Decisions are made for each new TCP flow, for each new pair of a UDP mapping and a destination and for
//! each echo mapping, never for each packet. Who caches an answer keeps `Connect` while
//! [`generation`](Egress::generation) stays, and asks [`recheck`](Egress::recheck) when it does not; a
//! `Deny` is better asked again, since an answer of DNS may have opened the way.

mod addresses;
mod names;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::time::Instant;

use self::addresses::HostAddresses;
use self::names::Names;
use super::link::Link;
use super::policy::{Decision, is_forwardable_v4, is_forwardable_v6};
use super::token::Source;
use crate::handle::Protocol;
use crate::metrics::Counters;
use crate::policy::{
    Action, Attempt, Because, Compiled, EventHub, EventSource, Floor, LiveFlows, Meaning, floor_v4,
    floor_v6, meanings, normal,
};
use crate::sync::Arc;

/// The policy in force, and what it has learned.
#[derive(Debug)]
pub(crate) struct Egress {
    policy: Box<Compiled>,
    names: Names,
    /// `None` where no host is: in tests and fuzzers.
    addresses: Option<HostAddresses>,
    events: EventSource,
    counters: Arc<Counters>,
    generation: u64,
}

impl Egress {
    /// The policy of a gateway that starts.
    ///
    /// # Errors
    /// The host's addresses can't be read or watched.
    pub(crate) fn new(
        policy: Compiled,
        events: &Arc<EventHub>,
        counters: Arc<Counters>,
        registry: &mio::Registry,
    ) -> io::Result<Self> {
        let addresses = HostAddresses::new(registry, Source::Addresses.into())?;
        Ok(Self { addresses: Some(addresses), ..Self::without_host(policy, events, counters) })
    }

    fn without_host(policy: Compiled, events: &Arc<EventHub>, counters: Arc<Counters>) -> Self {
        Self {
            policy: Box::new(policy),
            names: Names::default(),
            addresses: None,
            events: EventSource::new(events),
            counters,
            generation: 0,
        }
    }

    /// Decides on a new flow, a mapping's new destination, or an echo's, which has port 0; what is decided
    /// holds while [`generation`](Self::generation) stays. Counts the decision, and tells who observes.
    pub(crate) fn decide(
        &mut self,
        protocol: Protocol,
        remote: SocketAddr,
        link: &Link,
        now: Instant,
    ) -> Decision {
        if let Some(addresses) = &mut self.addresses
            && addresses.catch_up(now)
        {
            self.generation += 1;
        }
        let (decision, because) = self.judge(protocol, remote, link, Some(now));
        self.count(protocol, remote, decision, because);
        decision
    }

    /// Decides again on something live, by the rules as they are now. Names count also after their TTL,
    /// since what was opened in time stays. A denial is counted and told.
    pub(crate) fn recheck(
        &mut self,
        protocol: Protocol,
        remote: SocketAddr,
        link: &Link,
    ) -> Decision {
        let (decision, because) = self.judge(protocol, remote, link, None);
        if !matches!(decision, Decision::Connect(_)) {
            self.count(protocol, remote, decision, because);
        }
        decision
    }

    /// Whether the guest may send there, as it is; for packets from there, which are no decision of the
    /// guest's: neither counted nor told.
    pub(crate) fn permits(
        &self,
        protocol: Protocol,
        remote: SocketAddr,
        link: &Link,
        now: Instant,
    ) -> bool {
        self.judge(protocol, remote, link, Some(now)).0 == Decision::Connect(remote)
    }

    /// Changes whenever an earlier decision may no longer hold: with a policy that is to be applied to
    /// live flows, and with the host's addresses.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the forwarder may ask its upstream for this name. Not to be asked for the records that the
    /// gateway has itself. Counts the decision, and tells who observes.
    pub(crate) fn may_resolve(&self, name: &str) -> bool {
        let (action, because) = self.policy.may_resolve(name);
        self.tally(action, because);
        if self.events.is_read() {
            self.tell(action, Attempt::Resolve { name: name.into() }, because);
        }
        action == Action::Allow
    }

    /// Learns from an answer that the guest is about to get: addresses, each with the name that owns it
    /// and the least TTL, in seconds, on the way there from the question. A chain of aliases may be given
    /// in full, each of its names with the address.
    pub(crate) fn learn<'a>(
        &mut self,
        question: &str,
        answers: impl IntoIterator<Item = (&'a str, IpAddr, u32)>,
        now: Instant,
    ) {
        if !self.policy.has_names() {
            return;
        }
        let Some(question) = normal(question).map(Arc::<str>::from) else { return };
        let mut evicted = 0;
        for (owner, address, ttl) in answers {
            let address = address.to_canonical();
            let owner = normal(owner).filter(|owner| **owner != *question).map(Arc::<str>::from);
            for name in [Some(&question), owner.as_ref()].into_iter().flatten() {
                evicted += self.names.learn(&self.policy, name, address, ttl, now);
            }
        }
        self.counters.policy_names_evicted.add(evicted);
    }

    /// Puts another policy in force.
    pub(crate) fn set_policy(&mut self, policy: Box<Compiled>, live: LiveFlows) {
        self.names.adopt(&policy);
        self.policy = policy;
        if live == LiveFlows::Recheck {
            self.generation += 1;
        }
    }

    /// The kernel has announced changes of the host's addresses.
    pub(crate) fn addresses_changed(&mut self, now: Instant) {
        if let Some(addresses) = &mut self.addresses
            && addresses.heard(now)
        {
            self.generation += 1;
        }
    }

    fn judge(
        &self,
        protocol: Protocol,
        remote: SocketAddr,
        link: &Link,
        now: Option<Instant>,
    ) -> (Decision, Because) {
        let (address, port) = (remote.ip(), remote.port());
        let to = match address {
            IpAddr::V4(address) if address == link.gateway_ipv4 => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(address) if link.is_gateway_v6(address) => Ipv6Addr::LOCALHOST.into(),
            address => address,
        };
        let is_gateway = to != address;
        if is_gateway && !link.host_loopback {
            return (Decision::Refuse, Because::Floor(Floor::HostLoopback));
        }
        let mut allowed = Because::Default;
        for meaning in meanings(address) {
            if let Some(floor) = self.floor(meaning, link)
                && !is_gateway
            {
                return (Decision::Deny, Because::Floor(floor));
            }
            let embedded = meaning.embedded.map(|it| self.names.patterns(it.into(), now));
            let patterns = self.names.patterns(meaning.address, now);
            let patterns = patterns.chain(embedded.into_iter().flatten());
            match self.policy.decide(protocol, meaning, port, patterns) {
                (Action::Deny, because) => return (Decision::Deny, because),
                (Action::Allow, because) => allowed = because,
            }
        }
        (Decision::Connect(SocketAddr::new(to, port)), allowed)
    }

    /// What denies this meaning of an address, whatever the rules say.
    fn floor(&self, meaning: Meaning, link: &Link) -> Option<Floor> {
        let metadata = self.policy.metadata;
        let of_v4 = |address: Ipv4Addr| {
            let is_forwarded = is_forwardable_v4(address, link) && address != link.gateway_ipv4;
            floor_v4(address, metadata).or((!is_forwarded).then_some(Floor::NotForwarded))
        };
        let floor = match meaning.address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => floor_v6(address, metadata)
                .or((!is_forwardable_v6(address, link)).then_some(Floor::NotForwarded)),
        };
        floor.or_else(|| meaning.embedded.and_then(of_v4)).or_else(|| {
            let embedded = meaning.embedded.map(IpAddr::V4);
            let is_host_s =
                |address| self.addresses.as_ref().is_some_and(|it| it.contains(address));
            let denied = !self.policy.host_addresses
                && (is_host_s(meaning.address) || embedded.is_some_and(is_host_s));
            denied.then_some(Floor::HostAddress)
        })
    }

    fn count(&self, protocol: Protocol, remote: SocketAddr, decision: Decision, because: Because) {
        let verdict = match decision {
            Decision::Connect(_) => Action::Allow,
            Decision::Refuse | Decision::Deny => Action::Deny,
        };
        self.tally(verdict, because);
        if self.events.is_read() {
            let name = self.names.name(remote.ip());
            self.tell(verdict, Attempt::Reach { protocol, destination: remote, name }, because);
        }
    }

    fn tally(&self, verdict: Action, because: Because) {
        match verdict {
            Action::Allow => self.counters.policy_allowed.add(1),
            Action::Deny => self.counters.policy_denied.add(1),
        }
        match because {
            Because::Floor(Floor::HostLoopback) => self.counters.denied_host_loopback.add(1),
            Because::Floor(Floor::HostAddress) => self.counters.denied_host_address.add(1),
            Because::Floor(Floor::Metadata) => self.counters.denied_metadata.add(1),
            _ => {}
        }
    }

    fn tell(&self, verdict: Action, attempt: Attempt, because: Because) {
        if !self.events.push(verdict, attempt, because) {
            self.counters.policy_events_lost.add(1);
        }
    }
}

/// The default policy, of a host that has no addresses.
#[cfg(any(fuzzing, test))]
impl Default for Egress {
    fn default() -> Self {
        Self::without_host(Compiled::default(), &EventHub::new(), Arc::default())
    }
}

#[cfg(test)]
mod tests;
