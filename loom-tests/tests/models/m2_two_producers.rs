//! M2: of two producers neither's frame is lost, whichever of them finds the other's note.

use framegate_loom_tests::bodies::producers;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M2",
    claim: "two producers: neither's frame is lost, whichever finds the other's note",
    shows: "I1 I2",
    not_covered: "a third producer: loom has five threads, and each adds a factor",
    bounds: Bounds { quick: Some(2), full: Some(4) },
    cases: &["slept", "awake", "coalesced", "refused"],
    run: two_producers,
}];

fn two_producers(seen: &Seen) {
    let consumer = producers(2, 1).consumer;
    seen.when("slept", consumer.slept());
    seen.when("awake", consumer.writes() == 0);
    seen.when("coalesced", consumer.slept() && consumer.writes() == 1);
    seen.when("refused", consumer.turns.refusals > 0);
}
