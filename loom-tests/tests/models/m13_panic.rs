//! M13: a thread that panics takes the others with it: they drain what it had pushed, leave, and find why.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::serve;
use framegate_loom_tests::{Bounds, Model, Seen};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(crate) const MODELS: &[&Model] = &[
    &Model { name: "M13/at-work", run: |seen| panicking_reader(seen, false), ..MODEL },
    &Model { name: "M13/telling-why", run: |seen| panicking_reader(seen, true), ..MODEL },
];

const MODEL: Model = Model {
    name: "M13",
    claim: "a thread that panics begins the shutdown; the others drain, leave and find its reason",
    shows: "I2 I3",
    not_covered: "a panic inside of push or pop: neither calls anything that panics",
    bounds: Bounds { quick: Some(3), full: Some(7) },
    cases: &["poll_loop_slept", "writer_slept", "frame_with_shutdown", "awake"],
    run: |_| {},
};

const OURS: &str = "the panic of the model";

/// It ended with our panic, and not with a failure of the model.
fn ours(end: Result<(), Box<dyn Any + Send>>) {
    let panic = end.expect_err("it panicked");
    if panic.downcast_ref() != Some(&OURS) {
        resume_unwind(panic);
    }
}

/// In its work, or also while it tells why.
fn panicking_reader(seen: &Seen, panics_again: bool) {
    let queues = NetworkFrameQueues::shared(1);
    let reason = Arc::new(AtomicUsize::new(0));
    let (theirs, why) = (Arc::clone(&queues), Arc::clone(&reason));
    let reader = spawn(move || {
        let work = || {
            theirs.push_from_guest().push(vec![7]).unwrap();
            resume_unwind(Box::new(OURS)); // A panic without the hook, which would print it each time.
        };
        let left = |left: Result<(), _>| {
            ours(left);
            why.store(1, Relaxed);
            if panics_again {
                resume_unwind(Box::new(OURS));
            }
        };
        let end = catch_unwind(AssertUnwindSafe(|| theirs.work_until_shutdown(work, left)));
        if panics_again {
            ours(end);
        } else {
            end.unwrap_or_else(|failure| resume_unwind(failure));
        }
    });
    let (theirs, why) = (Arc::clone(&queues), Arc::clone(&reason));
    let writer = spawn(move || {
        let turns = serve(&theirs.host_wake, |wakes| !wakes.is_down());
        assert_eq!(why.load(Relaxed), 1, "the writer left and nobody had said why");
        turns
    });

    let (mut got, mut together) = (Vec::new(), false);
    let turns = serve(&queues.guest_wake, |wakes| {
        let before = got.len();
        let mut drain = queues.drain_from_guest();
        got.extend(std::iter::from_fn(|| drain.pop()).flatten());
        together = wakes.is_down() && got.len() > before;
        !wakes.is_down()
    });
    assert_eq!(reason.load(Relaxed), 1, "the poll loop left and nobody had said why");
    assert_eq!(got, [7], "what was pushed before the panic is drained");
    reader.join().unwrap();
    writer.join().unwrap();
    seen.when("poll_loop_slept", queues.guest_wake.event().sleeps() > 0);
    seen.when("writer_slept", queues.host_wake.event().sleeps() > 0);
    seen.when("frame_with_shutdown", together);
    seen.when("awake", turns.arms == 0);
}
