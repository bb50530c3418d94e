//! M14: a turn whose budget ran out leaves frames behind for which nobody rings again: it goes round without
//! arming, and the producer hears of the room that it made.

use framegate_loom_tests::bodies::{Budgeted, budget};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M14",
    claim: "a budget that ran out strands no frame: no arm; the room that it made is rung for",
    shows: "I1 I2 I5",
    not_covered: "the budgets of the real turn, which are larger",
    bounds: Bounds { quick: Some(3), full: Some(6) },
    cases: &["over_budget", "consumer_slept", "producer_slept"],
    run: budget_ran_out,
}];

fn budget_ran_out(seen: &Seen) {
    let Budgeted { producer, consumer, over_budget } = budget(3, 2, 1);
    let (_, _) = (producer.writes(), consumer.writes()); // They look at the cost.
    seen.when("over_budget", over_budget > 1);
    seen.when("consumer_slept", consumer.slept());
    seen.when("producer_slept", producer.slept());
}
