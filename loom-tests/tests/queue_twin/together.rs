//! Many threads: of each queue the same is true.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use framegate_loom_tests::watchdog::Watchdog;

use crate::{LIMIT, Shipped, Twin};

const PRODUCERS: u64 = 3;
const CONSUMERS: usize = 3;
const EACH: u64 = 10_000;

/// A value says who pushed it, and as which of his.
fn value(producer: u64, number: u64) -> u64 {
    producer * EACH + number
}

trait Queue: Sync {
    fn new(capacity: usize) -> Self;
    fn push(&self, value: u64) -> Result<(), u64>;
    fn pop(&self) -> Option<u64>;
}

macro_rules! queue {
    ($queue:ty) => {
        impl Queue for $queue {
            fn new(capacity: usize) -> Self {
                Self::new(capacity)
            }

            fn push(&self, value: u64) -> Result<(), u64> {
                self.push(value)
            }

            fn pop(&self) -> Option<u64> {
                self.pop()
            }
        }
    };
}

queue!(Twin);
queue!(Shipped);

/// Producers push all of theirs, and consumers pop until everything has come. What each consumer got.
fn transfer(queue: &impl Queue) -> Vec<Vec<u64>> {
    let came = AtomicU64::new(0);
    thread::scope(|scope| {
        for producer in 0..PRODUCERS {
            scope.spawn(move || {
                for number in 0..EACH {
                    while queue.push(value(producer, number)).is_err() {
                        thread::yield_now();
                    }
                }
            });
        }
        let consumer = || {
            let mut got = Vec::new();
            while came.load(Relaxed) < PRODUCERS * EACH {
                match queue.pop() {
                    Some(value) => {
                        came.fetch_add(1, Relaxed);
                        got.push(value);
                    }
                    None => thread::yield_now(),
                }
            }
            got
        };
        let consumers: Vec<_> = (0..CONSUMERS).map(|_| scope.spawn(consumer)).collect();
        consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
    })
}

fn check<Q: Queue>() {
    for capacity in [1, 2, 3, 4, 7, 64] {
        let message = format!("{PRODUCERS} producers, {CONSUMERS} consumers, {capacity} slots");
        let _watched = Watchdog::new(message, LIMIT);
        let queue = Q::new(capacity);
        let got = transfer(&queue);
        // A producer's values come to each consumer in the order in which they were pushed.
        for values in &got {
            let mut last = [None; PRODUCERS as usize];
            for value in values {
                let last = &mut last[(value / EACH) as usize];
                assert!(*last < Some(*value), "{value} after {last:?}");
                *last = Some(*value);
            }
        }
        let mut all = got.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..PRODUCERS * EACH), "a value was lost or came twice");
        assert_eq!(queue.pop(), None);
    }
}

#[test]
fn the_twin_keeps_order_and_loses_nothing() {
    check::<Twin>();
}

#[test]
fn the_shipped_queue_keeps_order_and_loses_nothing() {
    check::<Shipped>();
}
