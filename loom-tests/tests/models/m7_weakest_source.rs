//! M7: the bell by itself carries what was published before the ring, be it a relaxed store.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::Waiter;
use framegate_loom_tests::{Bounds, Model, Seen};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M7",
    claim: "the bell alone carries what was published before the ring, be it a relaxed store",
    shows: "I7",
    not_covered: "a second waiter: a bell has one",
    bounds: Bounds { quick: None, full: None },
    cases: &["slept", "awake", "refused"],
    run: weakest_source,
}];

fn weakest_source(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    let source = Arc::new(AtomicUsize::new(0));
    let (theirs, news) = (Arc::clone(&queues), Arc::clone(&source));
    let producer = spawn(move || {
        news.store(1, Relaxed);
        theirs.guest_wake.wake();
    });

    let waiter = Waiter::serve(&queues.guest_wake, |_| source.load(Relaxed) == 0);
    producer.join().unwrap();

    seen.when("slept", waiter.slept());
    seen.when("awake", waiter.writes() == 0);
    seen.when("refused", waiter.turns.refusals > 0);
}
