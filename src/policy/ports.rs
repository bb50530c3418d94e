//! The rules of one target, by protocol and port.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::RangeInclusive;

use crate::handle::Protocol;

/// Which of the rules of one target comes first, for every protocol and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// Intervals that begin at the port, up to the next one's: the first rule that covers them.
    tcp: Vec<(u16, Option<u32>)>,
    udp: Vec<(u16, Option<u32>)>,
    /// Echo has no ports.
    icmp: Option<u32>,
}

/// One rule, less its target.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) index: u32,
    pub(crate) protocol: Option<Protocol>,
    pub(crate) ports: Option<RangeInclusive<u16>>,
}

impl Ports {
    /// `parts` are in the order of their indices.
    pub(crate) fn new(parts: &[Part]) -> Self {
        let of = |protocol: Protocol| {
            parts
                .iter()
                .filter(move |part| part.protocol.is_none_or(|wanted| wanted == protocol))
                .map(|part| (part.index, part.ports.clone().unwrap_or(0..=u16::MAX)))
        };
        Self {
            tcp: sweep(of(Protocol::Tcp).collect()),
            udp: sweep(of(Protocol::Udp).collect()),
            icmp: parts
                .iter()
                .find(|part| {
                    part.protocol.is_none_or(|wanted| wanted == Protocol::Icmp)
                        && part.ports.is_none()
                })
                .map(|part| part.index),
        }
    }

    /// The first rule for this protocol and port. Costs the logarithm of the rules.
    pub(crate) fn first(&self, protocol: Protocol, port: u16) -> Option<u32> {
        let intervals = match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Icmp => return self.icmp,
        };
        let after = intervals.partition_point(|(start, _)| *start <= port);
        intervals.get(after.checked_sub(1)?)?.1
    }
}

/// Cuts the ports where a rule begins or ends, and finds the first rule of each piece: at most two
/// pieces for each rule, and one.
fn sweep(mut rules: Vec<(u32, RangeInclusive<u16>)>) -> Vec<(u16, Option<u32>)> {
    let mut cuts: Vec<u32> = vec![0];
    for (_, ports) in &rules {
        cuts.extend([u32::from(*ports.start()), u32::from(*ports.end()) + 1]);
    }
    cuts.sort_unstable();
    cuts.dedup();
    rules.sort_unstable_by_key(|(_, ports)| *ports.start());
    let mut rules = rules.into_iter().peekable();
    let mut open: BinaryHeap<Reverse<(u32, u16)>> = BinaryHeap::new();
    let mut pieces: Vec<(u16, Option<u32>)> = Vec::new();
    for cut in cuts {
        let Ok(cut) = u16::try_from(cut) else { break };
        while let Some((index, ports)) = rules.next_if(|(_, ports)| *ports.start() <= cut) {
            open.push(Reverse((index, *ports.end())));
        }
        while open.peek().is_some_and(|Reverse((_, end))| *end < cut) {
            open.pop();
        }
        let first = open.peek().map(|Reverse((index, _))| *index);
        if pieces.last().is_none_or(|(_, before)| *before != first) {
            pieces.push((cut, first));
        }
    }
    pieces
}
