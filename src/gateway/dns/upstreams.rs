//! Which upstream to ask: the host's own, or those that were given, and which of them answer.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;

use smoltcp::time::{Duration, Instant};
use tracing::info;

use super::resolver_file::ResolverFile;

/// Upstreams that are used; more are passed over.
pub(crate) const MOST: usize = 8;
/// How long an upstream that did not answer is asked last; it doubles up to [`DEAD_MOST`].
const DEAD: Duration = Duration::from_secs(5);
const DEAD_MOST: Duration = Duration::from_secs(60);

/// The upstreams, in order of preference.
#[derive(Debug)]
pub(crate) struct Upstreams {
    list: Vec<Upstream>,
    /// Where the list comes from, if it may change.
    file: Option<ResolverFile>,
}

#[derive(Clone, Debug)]
struct Upstream {
    address: SocketAddr,
    /// It did not answer, and is asked last until then.
    dead: Option<Dead>,
    heard: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Dead {
    since: Instant,
    until: Instant,
    span: Duration,
}

/// Whom to ask about one query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In this order; the flag is whether the upstream is known to be dead.
    pub(crate) order: VecDeque<(SocketAddr, bool)>,
    /// One that was dead and is to be tried beside the first of `order`.
    pub(crate) probe: Option<SocketAddr>,
}

impl Upstreams {
    /// Those that were given, for good.
    pub(crate) fn given(addresses: &[SocketAddr]) -> Self {
        let mut upstreams = Self { list: Vec::new(), file: None };
        upstreams.replace(addresses);
        upstreams
    }

    /// Those of a resolv.conf(5), as it is at each moment.
    pub(crate) fn from_file(path: PathBuf) -> Self {
        Self { list: Vec::new(), file: Some(ResolverFile::new(path)) }
    }

    /// What is known of an upstream that stays is kept.
    fn replace(&mut self, addresses: &[SocketAddr]) {
        let mut list: Vec<Upstream> = Vec::new();
        for address in addresses {
            if list.len() < MOST && !list.iter().any(|upstream| upstream.address == *address) {
                let known = self.list.iter().find(|upstream| upstream.address == *address);
                list.push(known.cloned().unwrap_or(Upstream {
                    address: *address,
                    dead: None,
                    heard: None,
                }));
            }
        }
        self.list = list;
    }

    /// Whom to ask now: first those that answer, in their order, then those that do not.
    pub(crate) fn plan(&mut self, now: Instant) -> Plan {
        if let Some(addresses) = self.file.as_mut().and_then(|file| file.changed(now)) {
            info!(upstreams = ?addresses, "the host's resolver configuration");
            self.replace(&addresses);
        }
        let mut plan = Plan::default();
        let (dead, live): (Vec<_>, Vec<_>) =
            self.list.iter_mut().partition(|upstream| upstream.dead.is_some());
        plan.order.extend(live.iter().map(|upstream| (upstream.address, false)));
        for upstream in dead {
            let is_first = plan.order.is_empty();
            let due = upstream.dead.as_mut().filter(|dead| now >= dead.until);
            if let (Some(dead), None, false) = (due, plan.probe, is_first) {
                // The queries after this one wait for what becomes of it.
                dead.until = now + dead.span;
                plan.probe = Some(upstream.address);
            } else {
                plan.order.push_back((upstream.address, true));
            }
        }
        plan
    }

    /// It answers.
    pub(crate) fn answered(&mut self, address: SocketAddr, now: Instant) {
        if let Some(upstream) = self.find(address) {
            upstream.dead = None;
            upstream.heard = Some(now);
        }
    }

    /// It has not answered what was sent at `sent`, or said that nobody is there. An answer to
    /// something else since then counts for it.
    pub(crate) fn failed(&mut self, address: SocketAddr, sent: Instant, now: Instant) {
        let Some(upstream) = self.find(address) else { return };
        if upstream.heard.is_some_and(|heard| heard >= sent) {
            return;
        }
        let span = match upstream.dead {
            // Asked before this was known.
            Some(dead) if sent < dead.since => return,
            Some(dead) => DEAD_MOST.min(dead.span + dead.span),
            None => DEAD,
        };
        upstream.dead = Some(Dead { since: now, until: now + span, span });
    }

    fn find(&mut self, address: SocketAddr) -> Option<&mut Upstream> {
        self.list.iter_mut().find(|upstream| upstream.address == address)
    }
}

#[cfg(test)]
mod tests;
