//! M1b: of two frames, each with a ring of its own, both are drained, in order, and the second ring
//! writes nothing while the note of the first stands.

use framegate_loom_tests::bodies::producers;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M1b",
    claim: "two frames, a ring each: both drained in order, the rings coalesce",
    shows: "I1 I2 I4 I6",
    not_covered: "a third frame: Spin, and real threads with 100,000",
    bounds: Bounds { quick: Some(5), full: None },
    cases: &["slept", "awake", "coalesced", "refused"],
    run: spsc_wake_two,
}];

fn spsc_wake_two(seen: &Seen) {
    let consumer = producers(1, 2).consumer;
    seen.when("slept", consumer.slept());
    seen.when("awake", consumer.writes() == 0);
    seen.when("coalesced", consumer.slept() && consumer.writes() == 1);
    seen.when("refused", consumer.turns.refusals > 0);
}
