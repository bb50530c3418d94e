//! The rules of prefixes: those that contain an address, found without looking at the others.

use super::ports::{Part, Ports};
use crate::handle::Protocol;

/// Prefixes of one address family, with their rules. Two prefixes are disjoint or one contains the other,
/// so those that contain an address are one prefix and those around it: 33 at the most for IPv4 and 129
/// for IPv6, however many rules there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nets(Vec<Net>);

#[derive(Clone, Debug)]
struct Net {
    start: u128,
    end: u128,
    /// The smallest prefix around this one.
    around: Option<usize>,
    ports: Ports,
}

impl Nets {
    /// Prefixes by their first and last address, each with its rules in order. No prefix comes twice.
    pub(crate) fn new(prefixes: impl IntoIterator<Item = ((u128, u128), Vec<Part>)>) -> Self {
        let mut nets: Vec<Net> = prefixes
            .into_iter()
            .map(|((start, end), parts)| Net {
                start,
                end,
                around: None,
                ports: Ports::new(&parts),
            })
            .collect();
        nets.sort_by_key(|net| (net.start, std::cmp::Reverse(net.end)));
        let mut open: Vec<(usize, u128)> = Vec::new();
        for (index, net) in nets.iter_mut().enumerate() {
            while open.last().is_some_and(|(_, end)| *end < net.start) {
                open.pop();
            }
            net.around = open.last().map(|(index, _)| *index);
            open.push((index, net.end));
        }
        Self(nets)
    }

    /// The first rule for this address, protocol and port.
    pub(crate) fn first(&self, address: u128, protocol: Protocol, port: u16) -> Option<u32> {
        let after = self.0.partition_point(|net| net.start <= address);
        let mut at = after.checked_sub(1);
        let mut first = None;
        while let Some(net) = at.and_then(|index| self.0.get(index)) {
            if net.end >= address {
                first = earlier(first, net.ports.first(protocol, port));
            }
            at = net.around;
        }
        first
    }
}

/// The earlier of two rules that may not be there.
pub(crate) fn earlier(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
