//! M7c: M7 for the shutdown: who sees that it has begun, by asking or by a take, sees what came before it, be
//! it a relaxed store.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::{Bounds, Model, Seen};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M7c",
    claim: "who sees that the shutdown has begun sees what came before it, be it a relaxed store",
    shows: "I7",
    not_covered: "a shutdown that a ring overtakes: wakes order nothing but themselves",
    bounds: Bounds { quick: None, full: None },
    cases: &["asked_in_time", "taken_in_time", "too_early"],
    run: weakest_source_of_shutdown,
}];

fn weakest_source_of_shutdown(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    let source = Arc::new(AtomicUsize::new(0));
    let (theirs, news) = (Arc::clone(&queues), Arc::clone(&source));
    let stopper = spawn(move || {
        news.store(1, Relaxed);
        theirs.begin_shutdown();
    });
    let (theirs, news) = (Arc::clone(&queues), Arc::clone(&source));
    let writer = spawn(move || {
        let is_down = theirs.host_wake.take().is_down();
        assert!(!is_down || news.load(Relaxed) == 1, "the shutdown was taken before its news");
        is_down
    });
    let is_down = queues.is_shutting_down();
    assert!(!is_down || source.load(Relaxed) == 1, "the shutdown was seen before its news");
    let taken = writer.join().unwrap();
    stopper.join().unwrap();
    seen.when("asked_in_time", is_down);
    seen.when("taken_in_time", taken);
    seen.when("too_early", !is_down && !taken);
}
