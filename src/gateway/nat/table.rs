//! Mappings by key and by place, and in the order in which they will end.
//!
//! The end of a mapping moves with every datagram, mostly to later; the order is put right only when
//! the earliest entry is looked at, so that a datagram costs one hash look-up. Above the limit the
//! mapping that would end first gives way.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use smoltcp::time::Instant;

/// A bounded set of values that end by themselves.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    entries: slab::Slab<Entry<K, V>>,
    by_key: HashMap<K, usize>,
    order: BTreeSet<(Instant, usize)>,
    most: usize,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    /// When it ends.
    until: Instant,
    /// Its entry in the order, no later than `until`.
    ordered: Instant,
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// A table of `most` values, at least one.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            entries: slab::Slab::new(),
            by_key: HashMap::new(),
            order: BTreeSet::new(),
            most: most.max(1),
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn find(&self, key: &K) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn key(&self, at: usize) -> Option<K> {
        self.entries.get(at).map(|entry| entry.key)
    }

    pub(crate) fn get(&self, at: usize) -> Option<&V> {
        self.entries.get(at).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut V> {
        self.entries.get_mut(at).map(|entry| &mut entry.value)
    }

    /// The place that the next insertion takes, if there is room.
    pub(crate) fn next_place(&self) -> usize {
        self.entries.vacant_key()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() >= self.most
    }

    /// Inserts a value under a key that is not there yet.
    pub(crate) fn insert(&mut self, key: K, value: V, until: Instant) -> usize {
        let at = self.entries.insert(Entry { key, value, until, ordered: until });
        self.by_key.insert(key, at);
        self.order.insert((until, at));
        at
    }

    /// The value is used: it ends at `until` instead.
    pub(crate) fn extend(&mut self, at: usize, until: Instant) {
        let Some(entry) = self.entries.get_mut(at) else { return };
        entry.until = until;
        if until < entry.ordered {
            self.order.remove(&(entry.ordered, at));
            entry.ordered = until;
            self.order.insert((until, at));
        }
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<(K, V)> {
        let entry = self.entries.try_remove(at)?;
        self.by_key.remove(&entry.key);
        self.order.remove(&(entry.ordered, at));
        Some((entry.key, entry.value))
    }

    /// When to look for what has ended: never too late.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// A value whose time is over.
    pub(crate) fn expired(&mut self, now: Instant) -> Option<usize> {
        while self.next_deadline()? <= now {
            let at = self.first()?;
            if self.entries.get(at)?.until <= now {
                return Some(at);
            }
        }
        None
    }

    /// The value that will end first. Puts the order right as far as it must.
    pub(crate) fn first(&mut self) -> Option<usize> {
        loop {
            let (ordered, at) = *self.order.first()?;
            let entry = self.entries.get_mut(at)?;
            if entry.until <= ordered {
                return Some(at);
            }
            self.order.remove(&(ordered, at));
            entry.ordered = entry.until;
            self.order.insert((entry.until, at));
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.entries.iter().map(|(_, entry)| &entry.value)
    }

    /// All values with their keys.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(_, entry)| (&entry.key, &entry.value))
    }

    /// All places in use.
    pub(crate) fn places(&self) -> Vec<usize> {
        self.entries.iter().map(|(at, _)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Instant {
        Instant::from_secs(seconds)
    }

    #[test]
    fn values_end_in_the_order_of_their_last_use() {
        let mut table = Table::new(3);
        let [a, b, c] = [1, 2, 3].map(|key| table.insert(key, (), at(key)));
        assert!(table.is_full());
        table.extend(a, at(10));
        assert_eq!(table.expired(at(1)), None, "it was used since");
        assert_eq!(table.first(), Some(b));
        table.extend(c, at(1));
        assert_eq!(table.expired(at(1)), Some(c), "an end may move to earlier");
        assert_eq!(table.remove(c), Some((3, ())));
        assert_eq!(table.expired(at(9)), Some(b));
        table.remove(b);
        assert_eq!(table.expired(at(9)), None);
        assert_eq!(table.next_deadline(), Some(at(10)));
        assert_eq!(table.remove(a), Some((1, ())));
        assert_eq!((table.len(), table.next_deadline(), table.find(&1)), (0, None, None));
        assert!(table.order.is_empty() && table.by_key.is_empty());
    }
}
