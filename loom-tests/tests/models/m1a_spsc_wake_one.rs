//! M1a: a frame that was pushed is drained, and costs no more writes than the waiter armed.

use framegate_loom_tests::bodies::producers;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M1a",
    claim: "a frame that was pushed is drained; no write without an arm",
    shows: "I1 I2 I6",
    not_covered: "a second frame: M1b",
    bounds: Bounds { quick: None, full: None },
    cases: &["slept", "awake"],
    run: spsc_wake_one,
}];

fn spsc_wake_one(seen: &Seen) {
    let consumer = producers(1, 1).consumer;
    seen.when("slept", consumer.slept());
    seen.when("awake", consumer.writes() == 0);
}
