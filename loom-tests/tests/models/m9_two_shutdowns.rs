//! M9: two shutdowns at the same time are one: each bell is written once, and when either call returns
//! every bell is down.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::serve;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M9",
    claim: "two shutdowns at once: one write for each bell; after either, every bell is down",
    shows: "I3 I6",
    not_covered: "a third shutdown: the second writes to nothing already",
    bounds: Bounds { quick: Some(3), full: Some(7) },
    cases: &["slept", "awake", "raced_arm"],
    run: two_shutdowns,
}];

fn two_shutdowns(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    let stoppers = [(); 2].map(|()| {
        let theirs = Arc::clone(&queues);
        spawn(move || {
            theirs.begin_shutdown();
            assert!(theirs.is_shutting_down());
            // Nobody waits at these two in this model.
            assert!(theirs.host_wake.take().is_down() && theirs.guest_space().take().is_down());
        })
    });

    let turns = serve(&queues.guest_wake, |wakes| !wakes.is_down());
    stoppers.into_iter().for_each(|stopper| stopper.join().unwrap());

    for bell in [&queues.guest_wake, &queues.host_wake, queues.guest_space()] {
        assert_eq!(bell.event().writes(), 1, "two shutdowns write once");
    }
    seen.when("slept", queues.guest_wake.event().sleeps() > 0);
    seen.when("awake", turns.arms == 0);
    seen.when("raced_arm", turns.refusals > 0);
}
