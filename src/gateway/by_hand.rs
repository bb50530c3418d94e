//! The gateway, turned by hand in the caller's thread, for the benchmarks.
//!
//! Its clock stands still, so that no timer expires because a measurement takes long: what it does is
//! the same every time.

use std::fmt;
use std::hint::black_box;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::Events;

use super::classify::classify;
use super::link::Link;
use super::{EVENTS, Gateway, Halves};
use crate::bridge::{self, HandOver, Receiver, Sender};
use crate::config::Builder;
use crate::control::Control;
use crate::error::StopReason;
use crate::metrics::Counters;
use crate::queues::NetworkFrameQueues;
use crate::relay::Stragglers;
use crate::sync::Arc;

/// How long a turn waits for something to do. What should come is there already.
const PATIENCE: Duration = Duration::from_secs(1);

/// Parses frames of the guest.
#[derive(Debug)]
pub struct Classify(Link);

impl Default for Classify {
    fn default() -> Self {
        Self(Link::new(&Builder::default().into_config_for_tests(), true))
    }
}

impl Classify {
    /// Whether the gateway takes this frame.
    pub fn accepts(&self, frame: &[u8]) -> bool {
        black_box(classify(frame, &self.0)).is_ok()
    }
}

/// One NIC on the VMM's stream, with a poll loop that makes its turns when it is told to. There are no
/// bridge threads: nobody may send more at once than the poll loop takes, nor leave the stream full.
pub struct Nic {
    gateway: Gateway,
    events: Events,
    /// What the last turn left for the wait.
    timeout: Option<Duration>,
}

impl Nic {
    /// A gateway on its end of the stream.
    ///
    /// # Errors
    /// What the host reports.
    pub fn new(builder: Builder, stream: UnixStream) -> io::Result<Self> {
        let config = builder.into_config_for_tests();
        bridge::prepare(&stream, config.offload)?;
        let stream = Arc::new(stream);
        let (frames, bytes) = (config.limits.queue_frames, config.limits.queue_bytes);
        let queues = NetworkFrameQueues::with_bounds(frames, bytes)?;
        let counters: Arc<Counters> = Arc::default();
        let receiver = Receiver::new(Arc::clone(&stream), config.offload, Arc::clone(&counters));
        let max_frame = config.max_frame_to_guest();
        let sender = Sender::new(stream, Arc::clone(&queues), max_frame, Arc::clone(&counters));
        let halves = Halves::new(receiver, sender, HandOver::new(Arc::clone(&queues)));
        let control = Control::new(queues.relay_wake.clone());
        let stragglers = Stragglers::new();
        let halves = Some(halves);
        let mut gateway =
            Gateway::new(&config, queues, counters, halves, control, stragglers, None)?;
        // Nothing has elapsed since a moment that is to come.
        gateway.started += Duration::from_secs(365 * 24 * 3600);
        let events = Events::with_capacity(EVENTS);
        Ok(Self { gateway, events, timeout: Some(Duration::ZERO) })
    }

    /// One turn of the poll loop: a wait for what there is to do, and the doing.
    ///
    /// # Errors
    /// The reason to stop.
    pub fn turn(&mut self) -> Result<(), StopReason> {
        let timeout = self.timeout.map_or(PATIENCE, |timeout| timeout.min(PATIENCE));
        self.gateway
            .poll
            .poll(&mut self.events, Some(timeout))
            .map_err(|error| StopReason::HostFault("poll", error.kind()))?;
        self.timeout = self.gateway.round(&self.events)?;
        Ok(())
    }
}

impl fmt::Debug for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nic").finish_non_exhaustive()
    }
}
