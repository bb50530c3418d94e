//! Decisions, for the embedder to see: a bounded queue beside the path of the packets.

use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::{fmt, io};

use super::{Action, Because};
use crate::handle::Protocol;
use crate::sync::{Arc, ArrayQueue, AtomicU32, Ordering, SetOnce};
use crate::wake::WakePipe;

/// Events that wait for their reader, at the most. Each costs about 100 bytes and its name.
const EVENTS: usize = 1024;

const READING: u32 = 1;
const CLOSED: u32 = 1 << 1;

/// What the guest wanted to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attempt {
    /// To open a TCP connection, to send the first datagram of a mapping to a destination, or to send
    /// echo requests there. The port of an echo is zero.
    Reach {
        /// With which protocol.
        protocol: Protocol,
        /// Where to, as the guest has it.
        destination: SocketAddr,
        /// The name that the address was last learned for, if a rule mentions it.
        name: Option<Arc<str>>,
    },
    /// To resolve a name.
    Resolve {
        /// The name.
        name: Arc<str>,
    },
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyEvent {
    /// What was decided.
    pub verdict: Action,
    /// On what.
    pub attempt: Attempt,
    /// What decided.
    pub because: Because,
    /// How many events were lost since the one before, because the queue was full.
    pub lost: u64,
}

impl fmt::Display for PolicyEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.verdict)?;
        match &self.attempt {
            Attempt::Reach { protocol, destination, name } => {
                write!(f, "{protocol}:{destination}")?;
                if let Some(name) = name {
                    write!(f, " ({name})")?;
                }
            }
            Attempt::Resolve { name } => write!(f, "dns:{name}")?,
        }
        match self.because {
            Because::Rule(index) => write!(f, " by rule {index}"),
            Because::Default => f.write_str(" by default"),
            Because::Floor(floor) => write!(f, " by the floor: {floor:?}"),
        }
    }
}

/// What the reader and the gateway share. The queue comes into being with the first reader.
#[derive(Debug)]
pub(crate) struct EventHub {
    /// [`READING`], [`CLOSED`]; changed by read-modify-writes alone.
    state: AtomicU32,
    channel: SetOnce<Channel>,
}

#[derive(Debug)]
struct Channel {
    queue: ArrayQueue<PolicyEvent>,
    bell: WakePipe,
}

impl EventHub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicU32::new(0), channel: SetOnce::new() })
    }

    /// The reader; `None` while there is another.
    pub(crate) fn reader(self: &Arc<Self>) -> io::Result<Option<PolicyEvents>> {
        if self.channel.get().is_none() {
            self.channel
                .set(Channel { queue: ArrayQueue::new(EVENTS), bell: WakePipe::try_new()? });
        }
        // A gateway that closes after this exchange finds the channel; one that closed before it is found
        // here: all changes of the word stand in one order.
        let before = self.state.fetch_or(READING, Ordering::AcqRel);
        if before & READING != 0 {
            return Ok(None);
        }
        let Some(channel) = self.channel.get() else { return Ok(None) };
        if before & CLOSED != 0 {
            channel.bell.shut_down();
        }
        let bell = channel.bell.clone();
        Ok(Some(PolicyEvents { hub: Arc::clone(self), bell, armed: false }))
    }
}

/// The gateway's end: puts events into the queue, never waits.
#[derive(Debug)]
pub(crate) struct EventSource {
    hub: Arc<EventHub>,
    lost: Cell<u64>,
}

impl EventSource {
    pub(crate) fn new(hub: &Arc<EventHub>) -> Self {
        Self { hub: Arc::clone(hub), lost: Cell::new(0) }
    }

    /// Whether anybody reads; without a reader an event costs this question.
    pub(crate) fn is_read(&self) -> bool {
        self.hub.state.load(Ordering::Acquire) & READING != 0
    }

    /// Publishes an event; `false` if it was lost.
    pub(crate) fn push(&self, verdict: Action, attempt: Attempt, because: Because) -> bool {
        let Some(channel) = self.hub.channel.get() else { return true };
        let event = PolicyEvent { verdict, attempt, because, lost: self.lost.get() };
        let kept = channel.queue.push(event).is_ok();
        self.lost.set(if kept { 0 } else { self.lost.get() + 1 });
        channel.bell.wake();
        kept
    }
}

impl Drop for EventSource {
    fn drop(&mut self) {
        self.hub.state.fetch_or(CLOSED, Ordering::AcqRel);
        if let Some(channel) = self.hub.channel.get() {
            channel.bell.shut_down();
        }
    }
}

/// Reads the decisions of one gateway's policy, from any thread; there is one reader at a time.
///
/// The queue holds 1,024 events. Those that come while it is full are lost and counted, in the next event
/// and in [`Stats::policy_events_lost`](crate::Stats): the gateway never waits for its observer. Dropping
/// the reader ends the events.
#[derive(Debug)]
pub struct PolicyEvents {
    hub: Arc<EventHub>,
    bell: WakePipe,
    /// Whether we asked to be woken and have not looked since.
    armed: bool,
}

impl PolicyEvents {
    /// The next event, if there is one. After `None` the descriptor of [`AsFd`] becomes readable with the
    /// next event or with the gateway's end; call this again then.
    pub fn try_next(&mut self) -> Option<PolicyEvent> {
        let queue = &self.hub.channel.get()?.queue;
        loop {
            if let Some(event) = queue.pop() {
                return Some(event);
            }
            if self.bell.is_down() {
                // What was pushed before the end can be seen now.
                return queue.pop();
            }
            if std::mem::take(&mut self.armed) {
                self.bell.take();
                self.bell.clear();
            } else if self.bell.arm() {
                self.armed = true;
                return None;
            } else {
                self.bell.take();
            }
        }
    }

    /// The next event, when it comes; `None` at the gateway's end.
    pub fn wait_next(&mut self) -> Option<PolicyEvent> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.bell.is_down() {
                return self.try_next();
            }
            self.bell.wait();
        }
    }

    /// Whether the gateway has ended. Events may still be there.
    pub fn is_ended(&self) -> bool {
        self.hub.state.load(Ordering::Acquire) & CLOSED != 0
    }
}

impl Drop for PolicyEvents {
    fn drop(&mut self) {
        self.hub.state.fetch_and(!READING, Ordering::AcqRel);
        if let Some(channel) = self.hub.channel.get() {
            while channel.queue.pop().is_some() {}
        }
    }
}

impl AsFd for PolicyEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests;
