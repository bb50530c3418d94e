//! Where the guest may go: the policy as the poll loop applies it.

use std::net::{IpAddr, SocketAddr};

use smoltcp::time::Instant;

use super::link::Link;
use super::policy::{self, Decision};
use crate::handle::Protocol;

/// The policy in force, and what it has learned.
#[allow(dead_code)] // until datagrams are carried
#[derive(Debug, Default)]
pub(crate) struct Egress {
    generation: u64,
}

impl Egress {
    /// Decides on a new flow, a mapping's new destination, or an echo's; what is decided holds while
    /// [`generation`](Self::generation) stays.
    pub(crate) fn decide(
        &mut self,
        _protocol: Protocol,
        remote: SocketAddr,
        link: &Link,
        _now: Instant,
    ) -> Decision {
        policy::decide(remote, link)
    }

    /// Whether the guest may learn what this name stands for.
    pub(crate) fn may_resolve(&self, _name: &str) -> bool {
        true
    }

    /// Learns from an answer that the guest is about to get: addresses, each with the name that owns it
    /// and the least TTL, in seconds, on the way there from the question.
    pub(crate) fn learn<'a>(
        &mut self,
        _question: &str,
        _answers: impl IntoIterator<Item = (&'a str, IpAddr, u32)>,
        _now: Instant,
    ) {
    }

    #[allow(dead_code)] // until datagrams are carried
    /// Changes whenever an earlier decision may no longer hold.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }
}
