//! A policy in the form in which it is asked.
//!
//! A decision does not look at every rule. It asks for the first rule of each kind of target that has this
//! destination, and takes the earliest:
//!
//! | target | cost |
//! |---|---|
//! | `*` | a binary search among the ports |
//! | prefixes | a binary search, and the prefixes around the address: 33 or 129 at the most, each with a search among its ports |
//! | names | the patterns that the address was learned for: 16 at the most |

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::forms::Meaning;
use super::name::{normal, suffixes};
use super::nets::{Nets, earlier};
use super::parse::canonical;
use super::ports::{Part, Ports};
use super::{Action, Because, Floor, Policy, PolicyError, Rule, Target, is_metadata_name};
use crate::handle::Protocol;

/// A name or a suffix that rules mention: its place among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pattern(u32);

/// A policy, checked and indexed. It never changes.
#[derive(Debug)]
pub(crate) struct Compiled {
    actions: Vec<Action>,
    default: Action,
    any: Ports,
    v4: Nets,
    v6: Nets,
    names: HashMap<Box<str>, Pattern>,
    suffixes: HashMap<Box<str>, Pattern>,
    /// The rules of each pattern.
    patterns: Vec<Ports>,
    /// For each pattern, the first rule that decides whether its name is resolved.
    resolve: Vec<Option<u32>>,
    resolve_any: Option<u32>,
    resolve_all: bool,
    pub(crate) host_addresses: bool,
    pub(crate) metadata: bool,
}

impl Compiled {
    pub(crate) fn new(policy: &Policy) -> Result<Self, PolicyError> {
        policy.check()?;
        let mut any = Group::default();
        let mut nets: HashMap<IpNet, Group> = HashMap::new();
        let mut names = HashMap::new();
        let mut suffixes = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        for (index, rule) in (0..).zip(&policy.rules) {
            let mut pattern = |table: &mut HashMap<Box<str>, Pattern>, name: &str| {
                let next = Pattern(u32::try_from(groups.len()).unwrap_or(u32::MAX));
                let pattern = *table.entry(name.into()).or_insert(next);
                if pattern == next {
                    groups.push(Group::default());
                }
                if let Some(group) = groups.get_mut(pattern.0 as usize) {
                    group.add(index, rule);
                }
            };
            match &rule.to {
                Target::Any => any.add(index, rule),
                Target::Net(net) => nets.entry(canonical(*net)).or_default().add(index, rule),
                Target::Name(name) => pattern(&mut names, name.as_str()),
                Target::Suffix(name) => pattern(&mut suffixes, name.as_str()),
            }
        }
        let (v4, v6): (Vec<_>, Vec<_>) =
            nets.into_iter().partition(|(net, _)| matches!(net, IpNet::V4(_)));
        let prefixes = |nets: Vec<(IpNet, Group)>| {
            Nets::new(nets.into_iter().map(|(net, group)| (bounds(net), group.parts)))
        };
        Ok(Self {
            actions: policy.rules.iter().map(|rule| rule.action).collect(),
            default: policy.default,
            any: Ports::new(&any.parts),
            v4: prefixes(v4),
            v6: prefixes(v6),
            names,
            suffixes,
            patterns: groups.iter().map(|group| Ports::new(&group.parts)).collect(),
            resolve: groups.iter().map(|group| group.resolve).collect(),
            resolve_any: any.resolve,
            resolve_all: policy.resolve_all,
            host_addresses: policy.host_addresses,
            metadata: policy.metadata,
        })
    }

    /// What the rules say of one meaning of a destination. ICMP has no port: zero.
    pub(crate) fn decide(
        &self,
        protocol: Protocol,
        meaning: Meaning,
        port: u16,
        patterns: impl IntoIterator<Item = Pattern>,
    ) -> (Action, Because) {
        let mut first = self.any.first(protocol, port);
        let direct = match meaning.address {
            IpAddr::V4(address) => self.v4.first(bits_v4(address), protocol, port),
            IpAddr::V6(address) => self.v6.first(bits_v6(address), protocol, port),
        };
        first = earlier(first, direct);
        if let Some(address) = meaning.embedded {
            first = earlier(first, self.v4.first(bits_v4(address), protocol, port));
        }
        for Pattern(pattern) in patterns {
            let rules = self.patterns.get(pattern as usize);
            first = earlier(first, rules.and_then(|rules| rules.first(protocol, port)));
        }
        self.verdict(first, self.default)
    }

    /// Whether the forwarder asks for this name.
    pub(crate) fn may_resolve(&self, name: &str) -> (Action, Because) {
        let default = if self.resolve_all { Action::Allow } else { self.default };
        let Some(name) = normal(name) else {
            // No rule can mention it. The root and names with odd octets are names all the same.
            return self.verdict(self.resolve_any.filter(|_| !self.resolve_all), default);
        };
        if !self.metadata && is_metadata_name(&name) {
            return (Action::Deny, Because::Floor(Floor::Metadata));
        }
        let mut first = self.patterns_of(&name).fold(None, |first, Pattern(pattern)| {
            earlier(first, self.resolve.get(pattern as usize).copied().flatten())
        });
        // `deny *` at the end is a default by another name.
        if !self.resolve_all || self.action(self.resolve_any) == Some(Action::Allow) {
            first = earlier(first, self.resolve_any);
        }
        self.verdict(first, default)
    }

    /// The patterns that a name in the form of [`normal`] matches.
    pub(crate) fn patterns_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Pattern> + 'a {
        let covers = suffixes(name).filter_map(|suffix| self.suffixes.get(suffix));
        self.names.get(name).into_iter().chain(covers).copied()
    }

    /// Whether any rule has a name.
    pub(crate) fn has_names(&self) -> bool {
        !self.patterns.is_empty()
    }

    fn action(&self, rule: Option<u32>) -> Option<Action> {
        self.actions.get(rule? as usize).copied()
    }

    fn verdict(&self, first: Option<u32>, default: Action) -> (Action, Because) {
        match (self.action(first), first) {
            (Some(action), Some(index)) => (action, Because::Rule(index as usize)),
            _ => (default, Because::Default),
        }
    }
}

/// The rules of one target.
#[derive(Debug, Default)]
struct Group {
    parts: Vec<Part>,
    /// The first rule that decides on a name: one that allows anything, or denies everything.
    resolve: Option<u32>,
}

impl Group {
    fn add(&mut self, index: u32, rule: &Rule) {
        let is_whole = rule.protocol.is_none() && rule.ports.is_none();
        if self.resolve.is_none() && (rule.action == Action::Allow || is_whole) {
            self.resolve = Some(index);
        }
        self.parts.push(Part { index, protocol: rule.protocol, ports: rule.ports.clone() });
    }
}

fn bits_v4(address: Ipv4Addr) -> u128 {
    u32::from(address).into()
}

fn bits_v6(address: Ipv6Addr) -> u128 {
    address.into()
}

fn bounds(net: IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(net) => (bits_v4(net.network()), bits_v4(net.broadcast())),
        IpNet::V6(net) => (bits_v6(net.network()), bits_v6(net.broadcast())),
    }
}

/// The default policy.
#[cfg(any(fuzzing, test))]
impl Default for Compiled {
    fn default() -> Self {
        Self::new(&Policy::default()).unwrap_or_else(|_| unreachable!("it has no rules"))
    }
}

#[cfg(test)]
mod tests;
