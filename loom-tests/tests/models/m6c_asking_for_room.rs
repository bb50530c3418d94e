//! M6c: a producer that asks for room before it makes a frame, as smoltcp's device does, is rung when there
//! is some, and has it then.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::Waiter;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model { name: "M6c/frames", run: |seen| asking_for_room(seen, 1, 100), ..MODEL },
    &Model { name: "M6c/bytes", run: |seen| asking_for_room(seen, 2, 0), ..MODEL },
];

const MODEL: Model = Model {
    name: "M6c",
    claim: "who asks for room and finds none is rung when there is some, and has it then",
    shows: "I2 I5",
    not_covered: "room for several frames at once: the same function with a larger number",
    bounds: Bounds { quick: Some(3), full: Some(6) },
    cases: &["producer_slept", "consumer_slept", "raced_room"],
    run: |_| {},
};

fn asking_for_room(seen: &Seen, capacity: usize, max_bytes: usize) {
    let queues = NetworkFrameQueues::with_bounds(capacity, max_bytes).unwrap();
    let theirs = Arc::clone(&queues);
    let writer = spawn(move || {
        let mut got = Vec::new();
        let waiter = Waiter::serve(&theirs.host_wake, |_| {
            let mut drain = theirs.drain_to_guest();
            got.extend(std::iter::from_fn(|| drain.pop()).flatten());
            got.len() < 2
        });
        assert_eq!(got, [0, 1]);
        waiter
    });

    let mut next = 0;
    let producer = Waiter::serve(&queues.guest_wake, |_| {
        let mut batch = queues.push_to_guest();
        while next < 2 && batch.has_room(1) {
            batch.push(vec![next]).expect("there was room, and nobody else pushes");
            next += 1;
        }
        next < 2
    });
    let consumer = writer.join().unwrap();
    producer.writes();
    consumer.writes();
    seen.when("producer_slept", producer.slept());
    seen.when("consumer_slept", consumer.slept());
    seen.when("raced_room", producer.turns.refusals > 0);
}
