//! A gateway's surroundings for unit tests that drive one subsystem by hand, in virtual time.

use smoltcp::time::{Duration, Instant};

use super::device::Outlet;
use super::egress::Egress;
use super::flows::Turn;
use super::link::Link;
use super::token::Source;
use crate::metrics::{Counters, Stats};
use crate::queues::NetworkFrameQueues;
use crate::sync::Arc;

pub(crate) struct Surroundings {
    queues: Arc<NetworkFrameQueues>,
    counters: Counters,
    poll: mio::Poll,
    egress: Egress,
    pub(crate) link: Link,
    pub(crate) now: Instant,
}

impl Surroundings {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            queues: NetworkFrameQueues::try_shared(256).unwrap(),
            counters: Counters::default(),
            poll: mio::Poll::new().unwrap(),
            egress: Egress::default(),
            link,
            now: Instant::ZERO,
        }
    }

    /// Does something in a turn of its own.
    pub(crate) fn turn<R>(&mut self, work: impl FnOnce(&mut Turn<'_, '_>) -> R) -> R {
        let (queues, counters) = (&self.queues, &self.counters);
        let mut outlet = Outlet::new(queues, counters);
        work(&mut Turn {
            link: &self.link,
            outlet: &mut outlet,
            registry: self.poll.registry(),
            counters,
            egress: &mut self.egress,
            now: self.now,
        })
    }

    /// Waits until the kernel has news, and hands them on.
    pub(crate) fn events(&mut self, mut hand_on: impl FnMut(Source, &mio::event::Event)) {
        let mut events = mio::Events::with_capacity(64);
        self.poll.poll(&mut events, Some(std::time::Duration::from_secs(30))).unwrap();
        assert!(!events.is_empty(), "the kernel has nothing to say");
        for event in &events {
            hand_on(Source::of(event.token()).unwrap(), event);
        }
    }

    /// Whether the kernel has nothing to say.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut events = mio::Events::with_capacity(64);
        self.poll.poll(&mut events, Some(std::time::Duration::ZERO)).unwrap();
        events.is_empty()
    }

    /// What was sent to the guest.
    pub(crate) fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut drain = self.queues.drain_to_guest();
        std::iter::from_fn(|| drain.pop()).collect()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}
