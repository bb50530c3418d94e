//! The twin of the queue: "full" and "empty" are true when they are said. Another thread that is in the
//! middle of its own push or pop, at the place that comes next, changes nothing about that: who must wait for
//! it waits.

use framegate::ArrayQueue;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::{Bounds, Model, Seen};
use loom::sync::atomic::{AtomicUsize, Ordering};

pub(crate) const MODELS: &[&Model] = &[
    &Model {
        name: "queue/not-empty",
        claim: "who knows of a value finds one, also behind a push that is not complete",
        shows: "I1",
        not_covered: "crossbeam's own code",
        bounds: Bounds { quick: Some(4), full: Some(6) },
        cases: &["knew", "did_not_know"],
        run: not_empty,
    },
    &Model {
        name: "queue/not-full",
        claim: "who knows of room finds it, also behind a pop that is not complete",
        shows: "I5",
        not_covered: "crossbeam's own code",
        bounds: Bounds { quick: Some(4), full: Some(6) },
        cases: &["knew", "did_not_know"],
        run: not_full,
    },
    &Model {
        name: "queue/hints",
        claim: "is_empty and is_full: a queue that always holds one of two is neither",
        shows: "I5",
        not_covered: "that a hint is true by the time it is used: nobody relies on that",
        bounds: Bounds { quick: None, full: None },
        cases: &["before", "after", "between"],
        run: hints,
    },
];

fn not_empty(seen: &Seen) {
    let queue = Arc::new(ArrayQueue::new(2));
    let flag = Arc::new(AtomicUsize::new(0));
    let (theirs, pushed) = (Arc::clone(&queue), Arc::clone(&flag));
    let first = spawn(move || {
        theirs.push(1).unwrap();
        pushed.fetch_add(1, Ordering::Release);
    });
    let theirs = Arc::clone(&queue);
    let second = spawn(move || theirs.push(2).unwrap());
    let knew = flag.load(Ordering::Acquire) == 1;
    let got = queue.pop();
    assert!(got.is_some() || !knew, "a queue with a value looked empty");
    first.join().unwrap();
    second.join().unwrap();
    let left = std::iter::from_fn(|| queue.pop()).chain(got).sum::<usize>();
    assert_eq!(left, 3);
    seen.when("knew", knew);
    seen.when("did_not_know", !knew);
}

fn not_full(seen: &Seen) {
    let queue = Arc::new(ArrayQueue::new(2));
    queue.push(1).unwrap();
    queue.push(2).unwrap();
    let flag = Arc::new(AtomicUsize::new(0));
    let (theirs, popped) = (Arc::clone(&queue), Arc::clone(&flag));
    let first = spawn(move || {
        let value = theirs.pop().unwrap();
        popped.fetch_add(1, Ordering::Release);
        value
    });
    let theirs = Arc::clone(&queue);
    let second = spawn(move || theirs.pop().unwrap());
    let knew = flag.load(Ordering::Acquire) == 1;
    let pushed = queue.push(4);
    assert!(pushed.is_ok() || !knew, "a queue with room looked full");
    let got = first.join().unwrap() + second.join().unwrap();
    let left = std::iter::from_fn(|| queue.pop()).sum::<usize>();
    assert_eq!(got + left + pushed.err().unwrap_or(0), 7);
    seen.when("knew", knew);
    seen.when("did_not_know", !knew);
}

/// One value, then two and then one again; and the other way round, none: full only in between.
fn hints(seen: &Seen) {
    let queues = [Arc::new(ArrayQueue::new(2)), Arc::new(ArrayQueue::new(2))];
    let [grows, shrinks] = &queues;
    grows.push(1).unwrap();
    shrinks.push(1).unwrap();
    let flag = Arc::new(AtomicUsize::new(0));
    let (theirs, done) = (queues.clone(), Arc::clone(&flag));
    let other = spawn(move || {
        let [grows, shrinks] = theirs;
        grows.push(2).unwrap();
        done.fetch_add(1, Ordering::Relaxed);
        grows.pop().unwrap();
        shrinks.pop().unwrap();
        shrinks.push(2).unwrap();
        done.fetch_add(1, Ordering::Relaxed);
    });
    assert!(!grows.is_empty(), "it holds one or two");
    assert!(!shrinks.is_full(), "it holds one or none");
    let done = flag.load(Ordering::Relaxed);
    other.join().unwrap();
    assert!(!grows.is_empty() && !grows.is_full() && !shrinks.is_empty() && !shrinks.is_full());
    seen.when("before", done == 0);
    seen.when("between", done == 1);
    seen.when("after", done == 2);
}
