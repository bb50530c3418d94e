//! M7: the bell by itself carries what was published before the ring, be it a relaxed store.
#![cfg(loom)]

use framegate::{Arc, NetworkFrameQueues};
use framegate_loom_tests::{Bounds, explore, serve};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[test]
fn weakest_source() {
    explore("M7", Bounds { preemptions: None }, &["slept", "awake", "refused"], |seen| {
        let queues = NetworkFrameQueues::shared(1);
        let source = Arc::new(AtomicUsize::new(0));
        let (theirs, news) = (Arc::clone(&queues), Arc::clone(&source));
        let producer = loom::thread::spawn(move || {
            news.store(1, Relaxed);
            theirs.guest_wake.wake();
        });

        let turns = serve(&queues.guest_wake, |_| source.load(Relaxed) == 0);
        producer.join().unwrap();

        let bell = queues.guest_wake.event();
        assert!(bell.writes() <= turns.arms, "{} writes, {turns:?}", bell.writes());
        seen.when("slept", bell.sleeps() > 0);
        seen.when("awake", bell.writes() == 0);
        seen.when("refused", turns.refusals > 0);
    });
}
