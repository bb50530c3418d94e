//! A shutdown behind frames.

use framegate::NetworkFrameQueues;

use super::{Ledger, frame};
use crate::threads::{Arc, spawn};
use crate::waiter::Waiter;

/// How [`push_then_shutdown`] went.
#[derive(Debug)]
pub struct Stopped {
    /// The poll loop's side.
    pub consumer: Waiter,
    /// The last turn, which saw the shutdown, found a frame as well.
    pub frame_with_shutdown: bool,
}

/// One thread pushes `frames` frames and then begins the shutdown; the consumer has them all when it
/// leaves.
///
/// # Panics
/// If it has not.
pub fn push_then_shutdown(frames: usize) -> Stopped {
    let queues = NetworkFrameQueues::with_bounds(frames, usize::MAX).unwrap();
    let theirs = Arc::clone(&queues);
    let producer = spawn(move || {
        for number in 0..frames {
            theirs.push_from_guest().push(frame(0, number)).unwrap();
        }
        theirs.begin_shutdown();
    });

    let (mut got, mut frame_with_shutdown) = (Ledger::new(1), false);
    let consumer = Waiter::serve(&queues.guest_wake, |wakes| {
        let before = got.len();
        let mut drain = queues.drain_from_guest();
        while let Some(frame) = drain.pop() {
            got.enter(&frame);
        }
        frame_with_shutdown = wakes.is_down() && got.len() > before;
        !wakes.is_down()
    });
    assert_eq!(got.len(), frames, "the waiter left before the frames were drained");
    producer.join().unwrap();
    Stopped { consumer, frame_with_shutdown }
}
