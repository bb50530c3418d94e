//! Wakes: "go and look at the queue now".
//!
//! # Theory of operation
//!
//! Every thread that waits has one *bell*: a state word and an eventfd. Whoever has news for the
//! thread publishes it first and rings then. The thread goes round one loop:
//!
//! ```text
//!         take ──> drain every source ──> arm ──Err──> (take again)
//!          ^                               │Ok
//!          └──── poll(eventfd, …) <────────┘
//! ```
//!
//! | bit of the state word | set by | meaning |
//! |---|---|---|
//! | `ARMED` | [`arm`](WakePipe::arm) | the waiter sleeps, or is about to |
//! | a note | [`wake`](WakePipe::wake) | there is news since the last take; the bit says of which kind |
//! | `DOWN` | shutdown | no one sleeps on this bell again |
//!
//! **Rule 0: the word is changed by read-modify-writes alone**, so all its changes stand in one
//! order that every thread agrees on. That is the whole argument:
//!
//! * A ring that comes *before* the waiter's take or arm in that order is acquired by it: the drain
//!   that follows a take sees what was published; an arm that meets a note fails, and the loop goes
//!   round.
//! * A ring that comes *after* the arm finds `ARMED` and writes to the eventfd, which breaks the
//!   poll that the waiter is in or about to enter.
//!
//! The race that looks possible and is not: the waiter finds its queue empty; the producer pushes
//! and rings; the waiter arms and sleeps on a queue with a frame in it. The producer's ring set a
//! note, and arm is a compare-exchange from *zero*: it fails. There is no moment between "look" and
//! "sleep" in which a ring goes unseen, and so no timer that comes to the rescue either.
//!
//! `DOWN` makes the exchange from zero impossible for good: shutdown is sticky by construction. The first
//! shutdown writes to the eventfd whether or not the waiter armed. So a waiter that only shutdown
//! concerns, such as a writer whose stream is full, may sleep *without* arming: rings cost it nothing,
//! the shutdown's token stays in the eventfd until it looks, and a take follows every sleep.
//!
//! No ring makes a system call while the waiter is awake (its word is not `ARMED`), and one at the most
//! for each time it armed: the first ring leaves a note beside `ARMED`, and the rings after that see
//! the note. A waiter that left poll for another reason may be followed by one late token, which
//! costs one empty turn of its loop.
//!
//! # Level, edge and the token
//!
//! A bridge thread has the eventfd in a poll(2) set, which is level-triggered, and takes the token
//! on each return. The poll loop has it in an edge-triggered epoll set and need not read it: the
//! kernel queues an edge for every write(2) to an eventfd, also to one that is readable already,
//! and holds it until an epoll_wait returns it. Both behave as an auto-reset event, which is what
//! the models check; and in both, any return from the wait leads to a take, so no token carries
//! anything that could be lost with it. That is why the poll loop may also wait on the eventfd alone for a
//! moment (`gateway`, "Moderation"), and take a token whose edge epoll still has: an edge without a token is
//! not reported, and the next write queues another.

use std::fmt;
use std::io;
#[cfg(not(loom))]
use std::os::fd::{AsFd, BorrowedFd};

use crate::sync::{Arc, AtomicU32, EventFd, Ordering};

#[cfg(all(test, not(loom)))]
pub(crate) mod oracle;

const ARMED: u32 = 1;
const DOWN: u32 = 1 << 1;

/// The kinds of news that one bell can announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Note {
    /// A frame lies in the queue.
    Frame = 1 << 2,
    /// A relay thread has moved bytes.
    Relay = 1 << 3,
    /// A queue that was full has room.
    Space = 1 << 4,
    /// Shutdown has begun.
    Shutdown = 1 << 5,
}

/// One waiter's state word and its eventfd.
#[derive(Debug)]
pub(crate) struct Bell {
    state: AtomicU32,
    event: EventFd,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { state: AtomicU32::new(0), event: EventFd::new()? }))
    }

    fn ring(&self, note: Note) {
        // Release: what the caller published is seen by the take or arm that reads this note. Acquire: a
        // caller who rings after the shutdown came to this bell sees that it came to those before it.
        let before = self.state.fetch_or(note as u32, Ordering::AcqRel);
        if before == ARMED {
            self.event.signal();
        }
    }

    fn shut_down(&self) {
        let before = self.state.fetch_or(DOWN | Note::Shutdown as u32, Ordering::AcqRel);
        if before & DOWN == 0 {
            self.event.signal();
        }
    }
}

/// Rings one waiter's bell with one kind of note; and, in the waiter's hands, waits on it.
///
/// Clones and the pipes that [`NetworkFrameQueues`](crate::NetworkFrameQueues) gives for the same
/// thread share the bell. Any thread may [`wake`](Self::wake). [`take`](Self::take),
/// [`arm`](Self::arm) and [`wait`](Self::wait) belong to the one thread that owns the waiting side.
///
/// ```
/// # fn main() -> std::io::Result<()> {
/// let queues = framegate::NetworkFrameQueues::try_shared(64)?;
/// queues.guest_wake.wake();
/// assert!(queues.guest_wake.take().any());      // look at every queue now …
/// assert!(queues.guest_wake.arm());             // … nothing there: it is safe to sleep
/// queues.guest_wake.wake();                     // breaks the sleep
/// queues.guest_wake.wait();
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct WakePipe {
    bell: Arc<Bell>,
    note: Note,
}

impl WakePipe {
    pub(crate) fn new(bell: &Arc<Bell>, note: Note) -> Self {
        Self { bell: Arc::clone(bell), note }
    }

    /// A bell of its own, for a thread that the queues have none for: a relay thread.
    ///
    /// # Errors
    /// EMFILE, ENFILE or ENOMEM from eventfd(2).
    pub fn try_new() -> io::Result<Self> {
        Ok(Self::new(&Bell::new()?, Note::Relay))
    }

    /// Tells the waiter to go and look. Publish first, then wake.
    ///
    /// Costs one atomic operation while the waiter is awake, and one write(2) at the most for each
    /// time it sleeps. Never blocks and never fails.
    pub fn wake(&self) {
        self.bell.ring(self.note);
    }

    /// Tells the waiter, for good, that nothing will come after what lies in the queues now.
    pub(crate) fn shut_down(&self) {
        self.bell.shut_down();
    }

    /// The waiter is awake: takes all notes. Whatever was published before the rings that left them
    /// is visible from here on, so drain *every* source after this and before [`arm`](Self::arm).
    pub fn take(&self) -> Wakes {
        Wakes(self.bell.state.fetch_and(DOWN, Ordering::AcqRel))
    }

    /// The waiter found nothing to do and asks for leave to sleep. `false`: there is news since the
    /// last [`take`](Self::take), or the queues are shutting down; go round the loop again.
    ///
    /// After `true` the waiter must wait, or take: what it does before it waits it does with a stale
    /// view of its queues.
    #[must_use = "a waiter that sleeps without leave sleeps through its wake"]
    pub fn arm(&self) -> bool {
        self.bell.state.compare_exchange(0, ARMED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Sleeps until someone wakes the armed waiter, in poll(2) without a time-out, and takes the
    /// token. Returns at once if somebody has. A waiter that did not arm sleeps until shutdown begins.
    pub fn wait(&self) {
        self.bell.event.wait();
    }

    /// As [`wait`](Self::wait), but not for longer than `most`; says whether somebody woke the waiter. If
    /// not, it is still armed.
    #[cfg(all(feature = "runtime", not(loom)))]
    pub(crate) fn wait_for(&self, most: std::time::Duration) -> bool {
        self.bell.event.wait_for(most)
    }

    /// Whether shutdown has begun, without taking any note.
    pub(crate) fn is_down(&self) -> bool {
        self.bell.state.load(Ordering::Acquire) & DOWN != 0
    }
}

#[cfg(not(loom))]
impl WakePipe {
    /// Takes the eventfd's token after a poll(2) of the caller's own found it readable.
    pub fn clear(&self) {
        self.bell.event.clear();
    }
}

/// The descriptor to put in a poll set: readable when the armed waiter has been woken.
#[cfg(not(loom))]
impl AsFd for WakePipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.event.as_fd()
    }
}

#[cfg(loom)]
impl WakePipe {
    /// The eventfd's twin, for what a model must see of it.
    pub fn event(&self) -> &EventFd {
        &self.bell.event
    }

    /// Sleeps on the bell and on the other descriptor of the poll set; `true` if that was readable.
    pub fn wait_with_other(&self) -> bool {
        self.bell.event.wait_with_other()
    }
}

impl fmt::Debug for WakePipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakePipe").field("note", &self.note).finish_non_exhaustive()
    }
}

/// The notes that a [`take`](WakePipe::take) found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakes(u32);

impl Wakes {
    /// Somebody rang since the last take.
    pub fn any(self) -> bool {
        self.0 & !(ARMED | DOWN) != 0
    }

    /// A frame was pushed for this waiter.
    pub fn frame(self) -> bool {
        self.0 & Note::Frame as u32 != 0
    }

    /// A relay thread has moved bytes.
    pub fn relay(self) -> bool {
        self.0 & Note::Relay as u32 != 0
    }

    /// A queue that this waiter pushes to has room again.
    pub fn space(self) -> bool {
        self.0 & Note::Space as u32 != 0
    }

    /// Shutdown has begun: drain what there is and leave. Stays true for good.
    pub fn is_down(self) -> bool {
        self.0 & DOWN != 0
    }
}

#[cfg(all(test, feature = "runtime", not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wait_that_ended_without_a_wake_leaves_the_waiter_armed() {
        let bell = WakePipe::try_new().unwrap();
        assert!(bell.arm());
        assert!(!bell.wait_for(Duration::ZERO));
        bell.wake();
        assert!(bell.wait_for(Duration::MAX), "it was not armed, or the wake was lost");
        assert!(!bell.wait_for(Duration::ZERO), "the token was not taken");
        assert!(bell.take().any());
    }
}
