//! What other threads ask of the poll loop: a bounded queue of commands, each with a place for its
//! answer.
//!
//! # Theory of operation
//!
//! A command is pushed, then the poll loop's bell is rung, as relay threads do. The answer goes into a
//! queue of one place with a bell of the caller's. A command that is dropped answers "stopped", so a
//! caller never waits for somebody who has left, if every command is either carried out or dropped.
//!
//! The poll loop leaves by setting `closed`, and then dropping what is queued; a caller pushes, and
//! then looks at `closed`. Both do it by read-modify-writes on one word, of which one comes first: the
//! poll loop's drain sees the push, or the caller sees `closed` and drops what is queued itself.

use std::fmt;
use std::io;

use crate::handle::FlowInfo;
use crate::policy::{Compiled, EventHub, LiveFlows, PolicyError};
use crate::publish::{BoundPort, PublishId, Published};
use crate::rate::RateLimit;
use crate::sync::{Arc, ArrayQueue, AtomicU32, Ordering};
use crate::wake::WakePipe;

/// Commands that may wait at once, from all threads.
const COMMANDS: usize = 256;

/// What the poll loop is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// List the flows.
    Flows(Answer<Vec<FlowInfo>>),
    /// Lead these ports to the guest.
    Publish(Vec<BoundPort>, Answer<io::Result<Published>>),
    /// List what is published.
    Published(Answer<Vec<Published>>),
    /// Close published ports, and reset the flows through them or let them live.
    Unpublish { id: PublishId, reset: bool, answer: Answer<bool> },
    /// Change the rates from the guest and to the guest.
    RateLimits(RateLimit, RateLimit, Answer<()>),
    /// Put another policy in force.
    SetPolicy(Box<Compiled>, LiveFlows, Answer<()>),
}

/// Why the poll loop did not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum ControlError {
    /// The network has stopped.
    Stopped,
    /// Too many commands of other threads wait already.
    Busy,
    /// The host is out of descriptors.
    Host(io::Error),
    /// The policy cannot be enforced.
    Policy(PolicyError),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the network has stopped"),
            Self::Busy => f.write_str("too many changes are under way already; try again"),
            Self::Host(error) => write!(f, "the host has no descriptor to wait on: {error}"),
            Self::Policy(error) => write!(f, "the policy: {error}"),
        }
    }
}

impl std::error::Error for ControlError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Host(error) => Some(error),
            Self::Policy(error) => Some(error),
            _ => None,
        }
    }
}

/// The queue of commands of one NIC.
#[derive(Debug)]
pub(crate) struct Control {
    commands: ArrayQueue<Command>,
    /// 1 once the poll loop has left.
    closed: AtomicU32,
    poll_loop: WakePipe,
    /// The other way: what the policy decides, for who observes it.
    pub(crate) events: Arc<EventHub>,
}

impl Control {
    /// A queue whose commands ring `poll_loop`.
    pub(crate) fn new(poll_loop: WakePipe) -> Arc<Self> {
        Arc::new(Self {
            commands: ArrayQueue::new(COMMANDS),
            closed: AtomicU32::new(0),
            poll_loop,
            events: EventHub::new(),
        })
    }

    /// Asks the poll loop for something and waits for its answer, which takes it a turn.
    ///
    /// # Errors
    /// Nobody is there, or there is no descriptor to wait on.
    pub(crate) fn call<T>(
        &self,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<T, ControlError> {
        let bell = WakePipe::try_new().map_err(ControlError::Host)?;
        let slot = Arc::new(ArrayQueue::new(1));
        let answer = Answer { slot: Arc::clone(&slot), bell: bell.clone(), given: false };
        self.commands.push(command(answer)).map_err(|_refused| ControlError::Busy)?;
        self.poll_loop.wake();
        if self.closed.fetch_or(0, Ordering::AcqRel) != 0 {
            self.drop_all();
        }
        loop {
            bell.take();
            if let Some(answer) = slot.pop() {
                return answer.ok_or(ControlError::Stopped);
            }
            if bell.arm() {
                bell.wait();
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The next command.
    pub(crate) fn next(&self) -> Option<Command> {
        self.commands.pop()
    }

    /// The poll loop leaves: every command from now on is answered with "stopped".
    pub(crate) fn close(&self) {
        self.closed.fetch_or(1, Ordering::AcqRel);
        self.drop_all();
    }

    fn drop_all(&self) {
        while self.commands.pop().is_some() {}
    }
}

/// The place for the answer to one command. Dropping it says that there will be none.
pub(crate) struct Answer<T> {
    slot: Arc<ArrayQueue<Option<T>>>,
    bell: WakePipe,
    given: bool,
}

impl<T> Answer<T> {
    /// Gives the answer.
    pub(crate) fn give(mut self, answer: T) {
        self.put(Some(answer));
    }

    fn put(&mut self, answer: Option<T>) {
        self.given = true;
        // The slot is empty: an answer is given once.
        let _ = self.slot.push(answer);
        self.bell.wake();
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if !self.given {
            self.put(None);
        }
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("given", &self.given).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn control() -> Arc<Control> {
        Control::new(WakePipe::try_new().unwrap())
    }

    #[test]
    fn a_call_is_answered_and_rings_the_poll_loop() {
        let control = control();
        let caller = Arc::clone(&control);
        let caller = thread::spawn(move || caller.call(Command::Flows));
        loop {
            control.poll_loop.take();
            if let Some(Command::Flows(answer)) = control.next() {
                answer.give(Vec::new());
                break;
            }
            if control.poll_loop.arm() {
                control.poll_loop.wait();
            }
        }
        assert_eq!(caller.join().unwrap().unwrap(), Vec::new());
    }

    #[test]
    fn calls_around_the_end_are_answered_with_stopped() {
        for _ in 0..200 {
            let control = control();
            let caller = Arc::clone(&control);
            let caller = thread::spawn(move || caller.call(Command::Flows));
            control.close();
            assert!(matches!(caller.join().unwrap(), Err(ControlError::Stopped)));
            assert!(matches!(control.call(Command::Flows), Err(ControlError::Stopped)));
            assert!(control.is_empty());
        }
    }

    #[test]
    fn a_full_queue_is_said_to_be_busy() {
        let control = control();
        let bell = WakePipe::try_new().unwrap();
        for _ in 0..COMMANDS {
            let slot = Arc::new(ArrayQueue::new(1));
            let answer = Answer { slot, bell: bell.clone(), given: false };
            control.commands.push(Command::Flows(answer)).unwrap();
        }
        assert!(matches!(control.call(Command::Flows), Err(ControlError::Busy)));
    }
}
