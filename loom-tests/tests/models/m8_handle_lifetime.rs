//! M8: a bell's descriptor stays open as long as somebody can ring it, and is closed once, after the last
//! ring. The twin of the eventfd has its descriptor in a cell in which loom finds a use that the close does
//! not wait for.

#[allow(clippy::disallowed_types)] // Loom must not see what counts the handles.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M8",
    claim: "a bell's descriptor is closed once, after the last use of its last handle",
    shows: "I8",
    not_covered: "the descriptor: a flag that must be open when it is written to",
    bounds: Bounds { quick: Some(3), full: None },
    cases: &["both_wrote", "ring_outlives_the_queues", "shutdown_outlives_the_waiter"],
    run: handle_lifetime,
}];

#[allow(clippy::disallowed_types)]
fn handle_lifetime(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    let holders = std::sync::Arc::new(AtomicUsize::new(2)); // Of the queues.
    assert!(queues.guest_wake.arm());

    // A relay thread has its handle of the bell and not the queues.
    let (relay_wake, left) = (queues.relay_wake.clone(), std::sync::Arc::clone(&holders));
    let relay = spawn(move || {
        relay_wake.wake();
        let alone = left.load(Relaxed) == 0;
        drop(relay_wake);
        alone
    });
    let (theirs, left) = (Arc::clone(&queues), std::sync::Arc::clone(&holders));
    let stopper = spawn(move || {
        theirs.begin_shutdown();
        let last = left.fetch_sub(1, Relaxed) == 1;
        drop(theirs);
        last
    });

    queues.guest_wake.wait();
    let both = queues.guest_wake.event().writes() == 2;
    holders.fetch_sub(1, Relaxed);
    drop(queues);

    seen.when("both_wrote", both);
    seen.when("ring_outlives_the_queues", relay.join().unwrap());
    seen.when("shutdown_outlives_the_waiter", stopper.join().unwrap());
}
