//! Producers that never wait, and one consumer.

use framegate::NetworkFrameQueues;

use super::{Ledger, frame};
use crate::threads::{Arc, spawn};
use crate::waiter::Waiter;

/// How [`producers`] went.
#[derive(Debug)]
pub struct Produced {
    /// The poll loop's side.
    pub consumer: Waiter,
    /// The largest number of frames that one turn found.
    pub most_at_once: usize,
}

/// As many producers as asked for push `frames` frames each, and ring for each of them; the consumer
/// gets them all.
///
/// # Panics
/// If a frame is lost, comes twice or overtakes another of its producer.
pub fn producers(count: usize, frames: usize) -> Produced {
    let queues = NetworkFrameQueues::with_bounds(count * frames, usize::MAX).unwrap();
    let producers: Vec<_> = (0..count)
        .map(|id| {
            let theirs = Arc::clone(&queues);
            spawn(move || {
                for number in 0..frames {
                    theirs.push_from_guest().push(frame(id, number)).unwrap();
                }
            })
        })
        .collect();

    let (mut got, mut most_at_once) = (Ledger::new(count), 0);
    let consumer = Waiter::serve(&queues.guest_wake, |_| {
        let before = got.len();
        let mut drain = queues.drain_from_guest();
        while let Some(frame) = drain.pop() {
            got.enter(&frame);
        }
        most_at_once = most_at_once.max(got.len() - before);
        got.len() < count * frames
    });
    for producer in producers {
        producer.join().unwrap();
    }
    let space = queues.guest_space().take();
    assert!(!space.any(), "a producer that was never refused was rung for room");
    Produced { consumer, most_at_once }
}
