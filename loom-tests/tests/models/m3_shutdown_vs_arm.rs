//! M3: a waiter on any of the three bells leaves when the shutdown begins, awake, arming or asleep,
//! and no one can sleep on any bell again.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::serve;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model { name: "M3/guest_wake", run: |seen| shutdown_vs_arm(seen, 0), ..MODEL },
    &Model { name: "M3/host_wake", run: |seen| shutdown_vs_arm(seen, 1), ..MODEL },
    &Model { name: "M3/guest_space", run: |seen| shutdown_vs_arm(seen, 2), ..MODEL },
];

const MODEL: Model = Model {
    name: "M3",
    claim: "a shutdown ends every wait on this bell, and none can begin again",
    shows: "I3",
    not_covered: "frames beside the shutdown: M4, M11",
    bounds: Bounds { quick: None, full: None },
    cases: &["slept", "awake", "raced_arm"],
    run: |_| {},
};

fn shutdown_vs_arm(seen: &Seen, index: usize) {
    let queues = NetworkFrameQueues::shared(1);
    let theirs = Arc::clone(&queues);
    let stopper = spawn(move || theirs.begin_shutdown());

    let bells = [&queues.guest_wake, &queues.host_wake, queues.guest_space()];
    let bell = bells[index];
    let turns = serve(bell, |wakes| {
        assert_eq!(wakes.any(), wakes.is_down(), "the first take of a shutdown has its note");
        !wakes.is_down()
    });
    assert!(queues.is_shutting_down(), "one bell is down, and the queues are not");
    assert!(!bell.arm(), "armed after the shutdown");
    stopper.join().unwrap();

    for bell in bells {
        assert!(bell.take().is_down() && bell.take().is_down(), "the shutdown was taken");
        assert!(!bell.arm(), "armed after the shutdown");
    }
    assert_eq!(bell.event().writes(), 1, "a shutdown writes once: {turns:?}");
    seen.when("slept", bell.event().sleeps() > 0);
    seen.when("awake", turns.arms == 0);
    seen.when("raced_arm", turns.refusals > 0);
}
