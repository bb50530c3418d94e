//! The twin of the queue: every value comes out once, and those of one producer in order, also where
//! positions wrap. There are two producers or two consumers and not both: two threads that spin for a third
//! starve it in loom (tokio-rs/loom#53).

use framegate::ArrayQueue;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::{Bounds, Model, Seen};
use loom::thread::yield_now;

pub(crate) const MODELS: &[&Model] = &[
    &Model {
        name: "queue/laps",
        claim: "one producer, one consumer, capacity 2, 3 laps: in order, none lost, none doubled",
        shows: "I1 I4 I5",
        not_covered: "crossbeam's own code: its twin is what runs",
        bounds: Bounds { quick: Some(3), full: Some(5) },
        cases: &["found_full", "found_empty"],
        run: three_laps,
    },
    &Model {
        name: "queue/two-producers",
        claim: "two producers: each one's values in order, none lost, none doubled",
        shows: "I1 I4",
        not_covered: "a third producer; crossbeam's own code",
        bounds: Bounds { quick: Some(2), full: Some(5) },
        cases: &["first_ahead", "second_ahead", "interleaved", "popped_meanwhile"],
        run: two_producers,
    },
    &Model {
        name: "queue/two-consumers",
        claim: "two consumers and a producer: each value to one of them, in order for each",
        shows: "I1 I4",
        not_covered: "bound 3: loom's scheduler lets a thread that spins run for ever; crossbeam's own code",
        bounds: Bounds { quick: Some(2), full: Some(2) },
        cases: &["second_was_first", "found_full", "popped_meanwhile"],
        run: two_consumers,
    },
];

const LAPS: usize = 2;

/// A queue that has gone round `LAPS` times.
fn used(capacity: usize) -> Arc<ArrayQueue<usize>> {
    let queue = ArrayQueue::new(capacity);
    for value in 0..LAPS * capacity {
        queue.push(value).unwrap();
        assert_eq!(queue.pop(), Some(value));
    }
    Arc::new(queue)
}

fn three_laps(seen: &Seen) {
    let queue = Arc::new(ArrayQueue::new(2));
    let theirs = Arc::clone(&queue);
    let producer = spawn(move || {
        let mut full = 0;
        for value in 0..6 {
            while theirs.push(value).is_err() {
                full += 1;
                yield_now();
            }
        }
        full
    });
    let mut empty = 0;
    for value in 0..6 {
        let got = loop {
            match queue.pop() {
                Some(got) => break got,
                None => {
                    empty += 1;
                    yield_now();
                }
            }
        };
        assert_eq!(got, value);
    }
    let full = producer.join().unwrap();
    assert_eq!(queue.pop(), None);
    seen.when("found_full", full > 0);
    seen.when("found_empty", empty > 0);
}

fn two_producers(seen: &Seen) {
    let queue = used(4);
    let producers = [0, 10].map(|first| {
        let theirs = Arc::clone(&queue);
        spawn(move || {
            theirs.push(first).unwrap();
            theirs.push(first + 1).unwrap();
        })
    });
    let mut got: Vec<_> = [queue.pop(), queue.pop()].into_iter().flatten().collect();
    let meanwhile = got.len();
    producers.into_iter().for_each(|producer| producer.join().unwrap());
    got.extend(std::iter::from_fn(|| queue.pop()));

    let of = |from| got.iter().copied().filter(|value| value / 10 == from).collect::<Vec<_>>();
    assert_eq!((of(0), of(1)), (vec![0, 1], vec![10, 11]));
    seen.when("first_ahead", got == [0, 1, 10, 11]);
    seen.when("second_ahead", got == [10, 11, 0, 1]);
    seen.when("interleaved", got == [0, 10, 1, 11]);
    seen.when("popped_meanwhile", meanwhile == 2);
}

fn two_consumers(seen: &Seen) {
    let queue = used(2);
    queue.push(0).unwrap();
    queue.push(1).unwrap();
    let theirs = Arc::clone(&queue);
    let first = spawn(move || [theirs.pop(), theirs.pop()].into_iter().flatten().collect());
    let theirs = Arc::clone(&queue);
    let second = spawn(move || theirs.pop());
    let full = queue.push(2).is_err();
    let first: Vec<_> = first.join().unwrap();
    let second = second.join().unwrap();
    if full {
        queue.push(2).unwrap();
    }
    let left: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
    assert!(first.is_sorted() && left.is_sorted(), "{first:?}, {left:?}");
    let mut all = [&first[..], second.as_slice(), &left].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2], "a value was lost or came twice");
    seen.when("second_was_first", second == Some(0));
    seen.when("found_full", full);
    seen.when("popped_meanwhile", left.is_empty());
}
