//! Whom a mapping has sent to: what the policy said of each, and whose answers may come in.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Instant;

/// Destinations that one mapping remembers. The one that was used longest ago gives way.
const PEERS: usize = 256;

/// The destinations of one mapping, as the guest names them.
#[derive(Debug, Default)]
pub(crate) struct Peers(HashMap<SocketAddr, Peer>);

#[derive(Clone, Copy, Debug)]
struct Peer {
    /// Where the host sends what the guest sends there.
    host: SocketAddr,
    /// The policy's generation in which that was decided.
    generation: u64,
    used: Instant,
}

impl Peers {
    /// Where the host sends what the guest sends to `destination`, if the policy has allowed it in this
    /// generation.
    pub(crate) fn find(
        &mut self,
        destination: SocketAddr,
        generation: u64,
        now: Instant,
    ) -> Option<SocketAddr> {
        let peer = self.0.get_mut(&destination)?;
        peer.used = now;
        (peer.generation == generation).then_some(peer.host)
    }

    /// The policy has allowed a destination.
    pub(crate) fn allow(
        &mut self,
        destination: SocketAddr,
        host: SocketAddr,
        generation: u64,
        now: Instant,
    ) {
        if self.0.len() >= PEERS && !self.0.contains_key(&destination) {
            let oldest = self.0.iter().min_by_key(|(_, peer)| peer.used).map(|(at, _)| *at);
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        self.0.insert(destination, Peer { host, generation, used: now });
    }

    /// Whether the policy has allowed a destination, in any generation.
    pub(crate) fn knows(&self, destination: SocketAddr) -> bool {
        self.0.contains_key(&destination)
    }

    /// The policy forbids a destination now.
    pub(crate) fn forbid(&mut self, destination: SocketAddr) {
        self.0.remove(&destination);
    }

    /// What the guest calls a host address that it has sent to, with any port if `any_port`. The port is
    /// that of `host`. The second value is the destination that was sent to.
    pub(crate) fn name_of(
        &self,
        host: SocketAddr,
        any_port: bool,
    ) -> Option<(SocketAddr, SocketAddr)> {
        // The host's address is the one that the guest has named, but for the gateway's own.
        if self.0.get(&host).is_some_and(|peer| peer.host == host) {
            return Some((host, host));
        }
        let exact = self.0.iter().find(|(_, peer)| peer.host == host);
        let same = |peer: &Peer| any_port && peer.host.ip() == host.ip();
        let known = exact.or_else(|| self.0.iter().find(|(_, peer)| same(peer)));
        let (name, _) = known?;
        Some((SocketAddr::new(name.ip(), host.port()), *name))
    }

    /// Whether the guest has sent to this address, by the name that it uses.
    pub(crate) fn has_named(&self, address: IpAddr) -> bool {
        self.0.keys().any(|name| name.ip() == address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_decision_holds_for_its_generation() {
        let mut peers = Peers::default();
        let (name, now) = (address("192.0.2.1:53"), Instant::ZERO);
        assert_eq!(peers.find(name, 1, now), None);
        peers.allow(name, name, 1, now);
        assert_eq!(peers.find(name, 1, now), Some(name));
        assert_eq!(peers.find(name, 2, now), None);
        peers.forbid(name);
        assert_eq!(peers.name_of(name, true), None);
    }

    #[test]
    fn names_are_the_guests_own() {
        let mut peers = Peers::default();
        let (gateway, loopback) = (address("100.96.0.1:7"), address("127.0.0.1:7"));
        peers.allow(gateway, loopback, 0, Instant::ZERO);
        assert_eq!(peers.name_of(loopback, false), Some((gateway, gateway)));
        let other = address("127.0.0.1:8");
        assert_eq!(peers.name_of(other, false), None);
        assert_eq!(peers.name_of(other, true), Some((address("100.96.0.1:8"), gateway)));
        assert_eq!(peers.name_of(gateway, true), None, "nobody outside has the gateway's address");
        assert!(peers.has_named(gateway.ip()) && !peers.has_named(loopback.ip()));
    }

    #[test]
    fn the_destinations_are_bounded_and_the_oldest_gives_way() {
        let mut peers = Peers::default();
        for port in 1..=10_000 {
            let to = address(&format!("192.0.2.1:{port}"));
            peers.allow(to, to, 0, Instant::from_millis(i64::from(port)));
            assert!(peers.0.len() <= PEERS);
        }
        assert!(peers.find(address("192.0.2.1:10000"), 0, Instant::ZERO).is_some());
        assert!(peers.find(address("192.0.2.1:1"), 0, Instant::ZERO).is_none());
    }
}
