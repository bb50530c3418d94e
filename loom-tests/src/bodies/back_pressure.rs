//! A queue that is too small for what goes through it.

use framegate::NetworkFrameQueues;

use super::{Ledger, frame};
use crate::threads::{Arc, spawn};
use crate::waiter::Waiter;

/// How a transfer through a small queue went.
#[derive(Debug)]
pub struct BackPressure {
    /// Who pushed.
    pub producer: Waiter,
    /// Who popped.
    pub consumer: Waiter,
}

/// What a producer has still to push.
struct Pending {
    number: usize,
    frames: usize,
}

impl Pending {
    /// Pushes until everything is pushed, which is `false`, or the queue refuses.
    fn push(&mut self, mut push: impl FnMut(Vec<u8>) -> Result<(), Vec<u8>>) -> bool {
        while self.number < self.frames {
            if push(frame(0, self.number)).is_err() {
                return true;
            }
            self.number += 1;
        }
        false
    }
}

/// The bridge's reader pushes `frames` frames, and waits for room where it must; the poll loop pops them.
///
/// # Panics
/// If a frame is lost, or the room of one is.
pub fn back_pressure_from_guest(frames: usize, capacity: usize, max_bytes: usize) -> BackPressure {
    let queues = NetworkFrameQueues::with_bounds(capacity, max_bytes).unwrap();
    let theirs = Arc::clone(&queues);
    let reader = spawn(move || {
        let mut pending = Pending { number: 0, frames };
        Waiter::serve(theirs.guest_space(), |_| {
            let mut batch = theirs.push_from_guest();
            pending.push(|frame| batch.push(frame))
        })
    });

    let mut got = Ledger::new(1);
    let consumer = Waiter::serve(&queues.guest_wake, |_| {
        let mut drain = queues.drain_from_guest();
        while let Some(frame) = drain.pop() {
            got.enter(&frame);
        }
        got.len() < frames
    });
    let producer = reader.join().unwrap();
    assert!(queues.push_from_guest().has_room(max_bytes.max(1)), "bytes were not given back");
    BackPressure { producer, consumer }
}

/// The poll loop pushes `frames` frames, and waits for room at the one bell that it has; the bridge's
/// writer pops them.
///
/// # Panics
/// If a frame is lost, or the room of one is; or if the poll loop went on without the note of room.
pub fn back_pressure_to_guest(frames: usize, capacity: usize, max_bytes: usize) -> BackPressure {
    let queues = NetworkFrameQueues::with_bounds(capacity, max_bytes).unwrap();
    let theirs = Arc::clone(&queues);
    let writer = spawn(move || {
        let mut got = Ledger::new(1);
        Waiter::serve(&theirs.host_wake, |_| {
            let mut drain = theirs.drain_to_guest();
            while let Some(frame) = drain.pop() {
                got.enter(&frame);
            }
            got.len() < frames
        })
    });

    let mut pending = Pending { number: 0, frames };
    let mut space = false;
    let producer = Waiter::serve(&queues.guest_wake, |wakes| {
        space |= wakes.space();
        let mut batch = queues.push_to_guest();
        pending.push(|frame| batch.push(frame))
    });
    let consumer = writer.join().unwrap();
    let waited = producer.turns.arms + producer.turns.refusals > 0;
    assert!(space || !waited, "sent on without the note of room");
    assert!(queues.push_to_guest().has_room(max_bytes.max(1)), "bytes were not given back");
    BackPressure { producer, consumer }
}
