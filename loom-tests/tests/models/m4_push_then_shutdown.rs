//! M4: a frame that was pushed before the shutdown began is drained before the waiter leaves.

use framegate_loom_tests::bodies::push_then_shutdown;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M4",
    claim: "a frame pushed before the shutdown is drained before its consumer leaves",
    shows: "I1 I3",
    not_covered: "a frame pushed after the shutdown began: it may stay, and is freed, M12",
    bounds: Bounds { quick: None, full: None },
    cases: &["slept", "awake", "frame_with_shutdown", "frame_before_shutdown"],
    run: frame_then_shutdown,
}];

fn frame_then_shutdown(seen: &Seen) {
    let stopped = push_then_shutdown(1);
    let (bell, turns) = (stopped.consumer.bell.event(), stopped.consumer.turns);
    // The shutdown writes once, armed or not.
    assert!(bell.writes() <= turns.arms + 1, "{} writes, {turns:?}", bell.writes());
    seen.when("slept", bell.sleeps() > 0);
    seen.when("awake", turns.arms == 0);
    seen.when("frame_with_shutdown", stopped.frame_with_shutdown);
    seen.when("frame_before_shutdown", !stopped.frame_with_shutdown);
}
