//! M3b: a waiter that sleeps without arming, as the writer does whose stream is full, is woken by the
//! shutdown and by nothing else.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M3b",
    claim: "a sleep without an arm is ended by the shutdown and by no ring",
    shows: "I3",
    not_covered: "the stream that such a waiter waits for: halves/to-guest",
    bounds: Bounds { quick: Some(3), full: None },
    cases: &["slept", "awake", "two_stoppers"],
    run: shutdown_unarmed,
}];

fn shutdown_unarmed(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    let stoppers = [(); 2].map(|()| {
        let theirs = Arc::clone(&queues);
        spawn(move || {
            theirs.host_wake.wake();
            theirs.begin_shutdown();
        })
    });

    let bell = &queues.host_wake;
    let mut sleeps = 0;
    while !bell.take().is_down() {
        bell.wait();
        sleeps += 1;
    }
    assert!(sleeps <= 1, "something but the shutdown broke the sleep");
    stoppers.into_iter().for_each(|stopper| stopper.join().unwrap());

    assert_eq!(bell.event().writes(), 1, "two shutdowns write once, and rings not at all");
    seen.when("slept", bell.event().sleeps() > 0);
    seen.when("awake", sleeps == 0);
    seen.when("two_stoppers", sleeps == 1);
}
