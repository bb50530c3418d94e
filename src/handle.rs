//! A running network in the hands of other threads: what can be asked of it, and changed, while it runs.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::control::{Command, Control, ControlError};
use crate::metrics::{Counters, Stats};
use crate::policy::{Compiled, LiveFlows, Policy, PolicyEvents};
use crate::publish::{Publish, PublishError, PublishId, Published};
use crate::rate::RateLimit;
use crate::sync::Arc;

/// Asks and changes a running network, from any thread, also while one is in
/// [`Runtime::wait`](crate::Runtime::wait). Clones speak to the same network.
#[derive(Clone)]
pub struct RuntimeHandle {
    pub(crate) control: Arc<Control>,
    pub(crate) counters: Arc<Counters>,
}

/// What a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 echo.
    Icmp,
}

/// Where a flow stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FlowState {
    /// The connection is not there yet on both sides.
    Opening,
    /// Bytes can pass in at least one direction. What has no connection is always open.
    Open,
    /// Both directions have ended.
    Closing,
}

/// One flow of the guest at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FlowInfo {
    /// What it carries.
    pub protocol: Protocol,
    /// The guest's address and port; for ICMP the port is the echo identifier.
    pub guest: SocketAddr,
    /// The other side's address, as the guest sees it. A UDP or ICMP mapping has none: it serves every
    /// destination.
    pub remote: Option<SocketAddr>,
    /// For what came through a published port: who outside it is, while the host's end is open.
    pub client: Option<SocketAddr>,
    /// Where it stands.
    pub state: FlowState,
    /// Payload bytes from the guest to the host.
    pub bytes_to_host: u64,
    /// Payload bytes from the host to the guest.
    pub bytes_to_guest: u64,
    /// The time since its first packet.
    pub age: Duration,
}

impl RuntimeHandle {
    /// The counters at this moment.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Puts another policy in force, within a turn of the poll loop. On return it decides. Names that the
    /// policy before it did not mention are known from the guest's next query on.
    ///
    /// # Errors
    /// The policy cannot be enforced, the network has stopped, or the host is out of descriptors.
    pub fn set_policy(&self, policy: &Policy, live: LiveFlows) -> Result<(), ControlError> {
        // Indexed here: the poll loop only takes it over.
        let policy = Box::new(Compiled::new(policy).map_err(ControlError::Policy)?);
        self.control.call(|answer| Command::SetPolicy(policy, live, answer))
    }

    /// The decisions of the policy from now on, for one reader at a time: `None` while there is another.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn policy_events(&self) -> io::Result<Option<PolicyEvents>> {
        self.control.events.reader()
    }

    /// The flows at this moment, in no order. Costs the poll loop about 100 ns for each.
    ///
    /// # Errors
    /// The network has stopped, or the host is out of descriptors.
    pub fn flows(&self) -> Result<Vec<FlowInfo>, ControlError> {
        self.control.call(Command::Flows)
    }

    /// Leads ports of the host to the guest. What is wrong with the ports is found by the caller's
    /// thread, and either all of a range is published or nothing.
    ///
    /// A client is accepted by the host's kernel before the guest is called; it is reset at once if the
    /// guest refuses, and after [`Limits::tcp_connect`](crate::Limits::tcp_connect) if it does not
    /// answer. Nothing is read from it before the guest has answered.
    ///
    /// # Errors
    /// [`PublishError::Bind`] if an address cannot be had; [`PublishError::Control`] if the network has
    /// stopped.
    pub fn publish(&self, ports: &Publish) -> Result<Published, PublishError> {
        let bound = ports.bind()?;
        self.control.call(|answer| Command::Publish(bound, answer))?.map_err(PublishError::Watch)
    }

    /// What is published now, by [`publish`](Self::publish) and by
    /// [`Builder::publish`](crate::Builder::publish).
    ///
    /// # Errors
    /// The network has stopped, or the host is out of descriptors.
    pub fn published(&self) -> Result<Vec<Published>, ControlError> {
        self.control.call(Command::Published)
    }

    /// Closes published ports: nobody else is accepted there when this returns, and whoever waits to be
    /// is reset. The connections that came through them go on.
    ///
    /// # Errors
    /// [`PublishError::Unknown`] if they were closed before; [`PublishError::Control`] if the network has
    /// stopped.
    pub fn unpublish(&self, id: PublishId) -> Result<(), PublishError> {
        self.close_published(id, false)
    }

    /// As [`unpublish`](Self::unpublish), and resets the connections that came through them.
    ///
    /// # Errors
    /// As [`unpublish`](Self::unpublish).
    pub fn unpublish_and_reset(&self, id: PublishId) -> Result<(), PublishError> {
        self.close_published(id, true)
    }

    fn close_published(&self, id: PublishId, reset: bool) -> Result<(), PublishError> {
        match self.control.call(|answer| Command::Unpublish { id, reset, answer })? {
            true => Ok(()),
            false => Err(PublishError::Unknown(id)),
        }
    }

    /// Changes how fast the guest may send, and how fast it is sent to. Both hold when this returns;
    /// what waits for tokens now waits by the new rates.
    ///
    /// # Errors
    /// The network has stopped, or the host is out of descriptors.
    pub fn set_rate_limits(
        &self,
        from_guest: RateLimit,
        to_guest: RateLimit,
    ) -> Result<(), ControlError> {
        self.control.call(|answer| Command::RateLimits(from_guest, to_guest, answer))
    }
}

impl fmt::Debug for RuntimeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeHandle").finish_non_exhaustive()
    }
}
