//! M3b: a waiter that sleeps without arming, as the writer does whose stream is full, is woken by the
//! shutdown and by nothing else.
#![cfg(loom)]

use framegate::{Arc, NetworkFrameQueues};
use framegate_loom_tests::{Bounds, explore};

#[test]
fn shutdown_unarmed() {
    explore("M3b", Bounds { preemptions: None }, &["slept", "awake", "two_stoppers"], |seen| {
        let queues = NetworkFrameQueues::shared(1);
        let stoppers = [(); 2].map(|()| {
            let theirs = Arc::clone(&queues);
            loom::thread::spawn(move || {
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
    });
}
