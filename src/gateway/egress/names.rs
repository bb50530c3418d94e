//! What addresses are called: learned from the DNS answers that the gateway itself gave.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};

use crate::policy::{Compiled, Pattern};
use crate::sync::Arc;

/// Pairs of an address and a pattern of the rules, at the most: about 5 MiB with the longest names.
const PAIRS: usize = 16_384;
/// Patterns of one address, at the most.
const PATTERNS: usize = 16;
/// The least that an answer holds, in seconds. A TTL of zero means "for this transaction" (RFC 1035
/// section 3.2.1), and the transaction is a connection that the guest is yet to open: after it has waited
/// for the answer of the other family (RFC 8305 section 3), and tried one address after the other, with
/// up to two seconds (section 5) for each.
const LEAST: u32 = 30;
/// The most, in seconds: RFC 8767 section 4 advises caches to cap a TTL at days.
const MOST: u32 = 24 * 3600;

/// Addresses and the patterns that they were learned for.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_address: HashMap<IpAddr, Vec<Learned>>,
    /// The pairs by their end, the earliest first.
    ends: BTreeSet<(Instant, IpAddr, Pattern)>,
}

#[derive(Debug)]
struct Learned {
    pattern: Pattern,
    until: Instant,
    name: Arc<str>,
}

impl Names {
    /// Learns that `name` has this address for `ttl` seconds, if a rule mentions the name. Returns how
    /// many pairs that were still valid gave way: those that end first.
    pub(crate) fn learn(
        &mut self,
        policy: &Compiled,
        name: &Arc<str>,
        address: IpAddr,
        ttl: u32,
        now: Instant,
    ) -> u64 {
        let until = now + Duration::from_secs(ttl.clamp(LEAST, MOST).into());
        let mut evicted = 0;
        for pattern in policy.patterns_of(name) {
            let learned = self.by_address.entry(address).or_default();
            match learned.iter_mut().find(|learned| learned.pattern == pattern) {
                Some(known) if known.until >= until => {}
                Some(known) => {
                    self.ends.remove(&(known.until, address, pattern));
                    self.ends.insert((until, address, pattern));
                    known.until = until;
                    known.name = Arc::clone(name);
                }
                None => {
                    if learned.len() >= PATTERNS
                        && let Some(at) =
                            (0..learned.len()).min_by_key(|at| learned.get(*at).map(|it| it.until))
                    {
                        let old = learned.swap_remove(at);
                        self.ends.remove(&(old.until, address, old.pattern));
                        evicted += u64::from(old.until > now);
                    }
                    learned.push(Learned { pattern, until, name: Arc::clone(name) });
                    self.ends.insert((until, address, pattern));
                }
            }
            while self.ends.len() > PAIRS {
                evicted += u64::from(self.forget_earliest(now));
            }
        }
        evicted
    }

    /// Forgets the pair that ends first, and says whether it was still valid.
    fn forget_earliest(&mut self, now: Instant) -> bool {
        let Some((until, address, pattern)) = self.ends.pop_first() else { return false };
        if let Some(learned) = self.by_address.get_mut(&address) {
            learned.retain(|learned| learned.pattern != pattern);
            if learned.is_empty() {
                self.by_address.remove(&address);
            }
        }
        until > now
    }

    /// The patterns that are valid for this address at `now`; without a time, also those that were valid
    /// once and have not given way since.
    pub(crate) fn patterns(
        &self,
        address: IpAddr,
        now: Option<Instant>,
    ) -> impl Iterator<Item = Pattern> + '_ {
        let learned = self.by_address.get(&address).map(Vec::as_slice).unwrap_or_default();
        let valid = move |learned: &&Learned| now.is_none_or(|now| learned.until > now);
        learned.iter().filter(valid).map(|learned| learned.pattern)
    }

    /// A name of this address, for a reader of events: the one that is valid for longest.
    pub(crate) fn name(&self, address: IpAddr) -> Option<Arc<str>> {
        let learned = self.by_address.get(&address)?;
        learned.iter().max_by_key(|learned| learned.until).map(|learned| Arc::clone(&learned.name))
    }

    /// The policy is another: keeps what its rules still mention, under its patterns.
    pub(crate) fn adopt(&mut self, policy: &Compiled) {
        self.ends.clear();
        let before = std::mem::take(&mut self.by_address);
        for (address, learned) in before {
            let mut kept: Vec<Learned> = Vec::new();
            for Learned { until, name, .. } in learned {
                for pattern in policy.patterns_of(&name) {
                    if let Some(known) = kept.iter_mut().find(|known| known.pattern == pattern) {
                        known.until = known.until.max(until);
                    } else if kept.len() < PATTERNS {
                        kept.push(Learned { pattern, until, name: Arc::clone(&name) });
                    }
                }
            }
            self.ends.extend(kept.iter().map(|it| (it.until, address, it.pattern)));
            if !kept.is_empty() {
                self.by_address.insert(address, kept);
            }
        }
        while self.ends.len() > PAIRS {
            self.forget_earliest(Instant::ZERO);
        }
    }

    /// Pairs that are held.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }
}

#[cfg(test)]
mod tests;
