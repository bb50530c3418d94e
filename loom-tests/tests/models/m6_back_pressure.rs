//! M6: a producer that a full queue refused goes on when there is room, by frames and by bytes, and
//! its consumer gets every frame: neither is stuck.

use framegate_loom_tests::bodies::{BackPressure, back_pressure_from_guest};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model { name: "M6/frames", run: |seen| back_pressure_from_the_guest(seen, 1, 100), ..MODEL },
    &Model { name: "M6/bytes", run: |seen| back_pressure_from_the_guest(seen, 2, 0), ..MODEL },
];

const MODEL: Model = Model {
    name: "M6",
    claim: "from the guest: who was refused goes on when there is room; every frame arrives",
    shows: "I1 I2 I4 I5",
    not_covered: "a second producer: only the reader pushes here",
    bounds: Bounds { quick: Some(4), full: Some(7) },
    cases: &["producer_slept", "consumer_slept", "raced_room"],
    run: |_| {},
};

fn back_pressure_from_the_guest(seen: &Seen, capacity: usize, max_bytes: usize) {
    let BackPressure { producer, consumer } = back_pressure_from_guest(2, capacity, max_bytes);
    let (_, _) = (producer.writes(), consumer.writes()); // They look at the cost.
    seen.when("producer_slept", producer.slept());
    seen.when("consumer_slept", consumer.slept());
    seen.when("raced_room", producer.turns.refusals > 0);
}
