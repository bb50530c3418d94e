//! A consumer that takes no more than a few frames in one turn, as the poll loop does.

use framegate::NetworkFrameQueues;

use super::{Ledger, frame};
use crate::threads::{Arc, spawn};
use crate::waiter::{Waiter, serve};

/// How [`budget`] went.
#[derive(Debug)]
pub struct Budgeted {
    /// Who pushed, and waited for room.
    pub producer: Waiter,
    /// The poll loop's side.
    pub consumer: Waiter,
    /// How many turns ended because their budget did.
    pub over_budget: usize,
}

/// A producer pushes `frames` frames through a queue of `capacity`, and rings once for as many as fit. The
/// consumer takes `budget` of them in a turn; when that is used up it does not arm.
///
/// # Panics
/// If a frame is lost.
pub fn budget(frames: usize, capacity: usize, budget: usize) -> Budgeted {
    let queues = NetworkFrameQueues::with_bounds(capacity, usize::MAX).unwrap();
    let theirs = Arc::clone(&queues);
    let producer = spawn(move || {
        let mut number = 0;
        Waiter::serve(theirs.guest_space(), |_| {
            let mut batch = theirs.push_from_guest();
            while number < frames && batch.push(frame(0, number)).is_ok() {
                number += 1;
            }
            number < frames
        })
    });

    let (mut got, mut over_budget) = (Ledger::new(1), 0);
    let turns = serve(&queues.guest_wake, |_| {
        // The loop of `serve`, but for a turn that goes round without asking for leave to sleep.
        while got.len() < frames && !turn(&queues, &mut got, budget) {
            over_budget += 1;
            queues.guest_wake.take();
        }
        got.len() < frames
    });
    let consumer = Waiter { bell: queues.guest_wake.clone(), turns };
    Budgeted { producer: producer.join().unwrap(), consumer, over_budget }
}

/// Whether the queue was drained before the budget was used up.
fn turn(queues: &NetworkFrameQueues, got: &mut Ledger, budget: usize) -> bool {
    let mut drain = queues.drain_from_guest();
    for _ in 0..budget {
        let Some(frame) = drain.pop() else { return true };
        got.enter(&frame);
    }
    false
}
