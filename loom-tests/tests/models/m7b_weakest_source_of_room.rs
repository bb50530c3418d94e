//! M7b: M7 for room: the note of space by itself carries what the consumer did before it rang, be it a
//! relaxed store. What the producer finds is looked at before it touches the queue again.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::Waiter;
use framegate_loom_tests::{Bounds, Model, Seen};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(crate) const MODELS: &[&Model] = &[
    &Model { name: "M7b/from-guest", run: weakest_source_of_room_from_the_guest, ..MODEL },
    &Model { name: "M7b/to-guest", run: weakest_source_of_room_to_the_guest, ..MODEL },
];

const MODEL: Model = Model {
    name: "M7b",
    claim: "the ring for room alone carries what came before it, be it a relaxed store",
    shows: "I7",
    not_covered: "the release of the consumer's swap: loom runs it in program order",
    bounds: Bounds { quick: Some(4), full: None },
    cases: &["slept", "not_refused", "refused_and_rung"],
    run: |_| {},
};

fn weakest_source_of_room_from_the_guest(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    queues.push_from_guest().push(vec![0]).unwrap();
    let source = Arc::new(AtomicUsize::new(0));
    let (theirs, news) = (Arc::clone(&queues), Arc::clone(&source));
    let consumer = spawn(move || {
        news.store(1, Relaxed);
        assert_eq!(theirs.drain_from_guest().pop(), Some(vec![0]));
    });
    let producer = Waiter::serve(queues.guest_space(), |wakes| {
        assert!(!wakes.space() || source.load(Relaxed) == 1, "a ring came before its news");
        queues.push_from_guest().push(vec![1]).is_err()
    });
    consumer.join().unwrap();
    count(seen, &producer);
}

fn weakest_source_of_room_to_the_guest(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    queues.push_to_guest().push(vec![0]).unwrap();
    let source = Arc::new(AtomicUsize::new(0));
    let (theirs, news) = (Arc::clone(&queues), Arc::clone(&source));
    let consumer = spawn(move || {
        news.store(1, Relaxed);
        assert_eq!(theirs.drain_to_guest().pop(), Some(vec![0]));
    });
    let producer = Waiter::serve(&queues.guest_wake, |wakes| {
        assert!(!wakes.space() || source.load(Relaxed) == 1, "a ring came before its news");
        queues.push_to_guest().push(vec![1]).is_err()
    });
    consumer.join().unwrap();
    count(seen, &producer);
}

fn count(seen: &Seen, producer: &Waiter) {
    assert!(producer.turns.arms + producer.turns.refusals <= 1, "one ring for one room");
    producer.writes();
    seen.when("slept", producer.slept());
    seen.when("not_refused", producer.turns.arms + producer.turns.refusals == 0);
    seen.when("refused_and_rung", producer.turns.refusals > 0);
}
