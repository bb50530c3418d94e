//! Router advertisements: the guest's prefix, MTU and resolver, and whether there is a way to the world
//! (RFC 4861 section 6.2, RFC 4862, RFC 8106).
//!
//! # When
//!
//! A solicitation is answered at once: the random delay of section 6.2.6, 0 to 500 ms, keeps the routers of
//! a link apart, and this link has one. The answer goes to the solicitor alone; one to all nodes, for a
//! solicitor without an address, waits until 3 s have passed since the last.
//!
//! Nothing is sent to a guest that has never solicited, so a guest with static addresses hears nothing and
//! costs no wake. Once it has, an advertisement goes to all nodes every 30 minutes. The first few are not
//! sent faster, as section 6.2.4 recommends for links that lose them: this one loses none, and the guest
//! has its answer.
//!
//! # How long
//!
//! | what | lifetime | why |
//! |---|---|---|
//! | default route | 2 h 30 min | the longest of section 6.2.1: a guest that was paused keeps its route |
//! | resolver | 2 h 30 min | not less than three intervals (RFC 8106 section 5.1) |
//! | prefix | valid 30 days, preferred 7 | the defaults of section 6.2.1 |
//!
//! A default route is offered only while the host has one, so that a guest of a host without IPv6 tries
//! IPv4 first and waits for nothing. When that changes, the guest is told at once. The prefix and the
//! resolver are there in any case: the gateway itself is reached over IPv6 without the world.
//!
//! At the end all is withdrawn that only the gateway can give: route and resolver (section 6.2.5).

mod advertisement;
mod host_route;

use std::net::Ipv6Addr;

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::NdiscRepr;

use self::advertisement::{Lifetimes, advertisement};
use super::link::Link;
use super::neighbor::Solicitation;
use crate::metrics::DropReason;

pub(crate) use self::host_route::host_has_ipv6_route;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// `MaxRtrAdvInterval` at its largest.
const INTERVAL: Duration = Duration::from_secs(1800);
/// `MIN_DELAY_BETWEEN_RAS`.
const MIN_DELAY: Duration = Duration::from_secs(3);

/// The gateway as the guest's IPv6 router.
#[derive(Clone, Debug)]
pub(crate) struct Router {
    default_route: bool,
    /// When the next advertisement to all nodes is due; `None` until the guest has solicited.
    next: Option<Instant>,
    /// When the last one to all nodes was sent.
    last: Option<Instant>,
    /// When the host was asked last whether it has a route.
    looked: Option<Instant>,
}

impl Router {
    /// A router that has not been solicited. `default_route`: whether the host has an IPv6 route, as far
    /// as is known before the first [`look`](Self::look).
    pub(crate) fn new(default_route: bool) -> Self {
        Self { default_route, next: None, last: None, looked: None }
    }

    /// Answers a router solicitation with a frame in `buffer`; `Ok(None)` if the answer has to wait for
    /// the next advertisement to all nodes. The caller has parsed the message, and with it checked its
    /// checksum, its code and the lengths of its options.
    ///
    /// # Errors
    /// [`DropReason::Ndp`] if the message is no router solicitation, is not for us, or breaks a rule of RFC
    /// 4861 section 6.1.1: a hop limit of 255, and no link-layer address from a solicitor without an
    /// address.
    pub(crate) fn solicited(
        &mut self,
        buffer: Vec<u8>,
        link: &Link,
        solicitation: &Solicitation<'_>,
        now: Instant,
    ) -> Result<Option<Vec<u8>>, DropReason> {
        let Solicitation { message, source, destination, hop_limit } = *solicitation;
        let NdiscRepr::RouterSolicit { lladdr } = message else { return Err(DropReason::Ndp) };
        let addressless = source.is_unspecified();
        if hop_limit != 255
            || (destination != ALL_ROUTERS && !link.is_gateway_v6(destination))
            || (addressless && lladdr.is_some())
        {
            return Err(DropReason::Ndp);
        }
        let next = *self.next.get_or_insert(now + INTERVAL);
        if !addressless {
            return Ok(Some(advertisement(buffer, link, source, &self.lifetimes())));
        }
        let earliest = self.earliest(now);
        if earliest > now {
            self.next = Some(next.min(earliest));
            return Ok(None);
        }
        Ok(Some(self.advertise_to_all(buffer, link, now)))
    }

    /// Asks the host for its route again; no oftener than an advertisement could tell, since a guest may
    /// solicit all the time. An answer of `None` changes nothing.
    pub(crate) fn look(&mut self, now: Instant, host: impl FnOnce() -> Option<bool>) {
        if self.looked.is_some_and(|looked| now < looked + MIN_DELAY) {
            return;
        }
        self.looked = Some(now);
        if let Some(available) = host() {
            self.set_default_route(available, now);
        }
    }

    /// Whether [`expired`](Self::expired) has something to send.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// When the next advertisement is due, if the guest listens for any.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    /// The advertisement that is due, as a frame in `buffer`.
    pub(crate) fn expired(
        &mut self,
        buffer: Vec<u8>,
        link: &Link,
        now: Instant,
    ) -> Option<Vec<u8>> {
        self.is_due(now).then(|| self.advertise_to_all(buffer, link, now))
    }

    /// Notes whether the host has an IPv6 route. If that is news, a guest that has solicited hears it as
    /// soon as an advertisement to all nodes may be sent.
    pub(crate) fn set_default_route(&mut self, available: bool, now: Instant) {
        if self.default_route == available {
            return;
        }
        self.default_route = available;
        let earliest = self.earliest(now);
        self.next = self.next.map(|next| next.min(earliest));
    }

    /// The last advertisement: the gateway is a router and a resolver no longer. `None` for a guest that
    /// never solicited.
    pub(crate) fn farewell(&mut self, buffer: Vec<u8>, link: &Link) -> Option<Vec<u8>> {
        self.next.take()?;
        Some(advertisement(buffer, link, ALL_NODES, &Lifetimes::NONE))
    }

    fn advertise_to_all(&mut self, buffer: Vec<u8>, link: &Link, now: Instant) -> Vec<u8> {
        self.last = Some(now);
        self.next = Some(now + INTERVAL);
        advertisement(buffer, link, ALL_NODES, &self.lifetimes())
    }

    fn earliest(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| now.max(last + MIN_DELAY))
    }

    fn lifetimes(&self) -> Lifetimes {
        if self.default_route { Lifetimes::ROUTED } else { Lifetimes::UNROUTED }
    }
}

#[cfg(test)]
mod tests;
