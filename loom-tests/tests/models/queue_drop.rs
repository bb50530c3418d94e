//! The twin of the queue: values that nobody popped are dropped with it, whoever drops it last, and no
//! value is dropped twice. Loom tracks each.

use framegate::ArrayQueue;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::{Bounds, Model, Seen};
use loom::alloc::Track;

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "queue/drop",
    claim: "values inside a queue are dropped with it, each once, whoever drops it last",
    shows: "I8",
    not_covered: "crossbeam's own code",
    bounds: Bounds { quick: Some(3), full: None },
    cases: &["popped_by_both", "dropped_inside", "refused"],
    run: items_inside,
}];

fn items_inside(seen: &Seen) {
    let drops = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
    let value = || Track::new(CountsItsDrop(Arc::clone(&drops)));
    let queue = Arc::new(ArrayQueue::new(2));
    let theirs = Arc::clone(&queue);
    let (first, second, third) = (value(), value(), value());
    let other = spawn(move || {
        let pushed = [theirs.push(first).is_ok(), theirs.push(second).is_ok()];
        (pushed, theirs.pop().is_some())
    });
    let refused = queue.push(third).is_err();
    let popped = queue.pop().is_some();
    drop(queue); // Either thread may be the last.
    let (pushed, theirs_popped) = other.join().unwrap();
    let pushed = pushed.into_iter().filter(|it| *it).count() + usize::from(!refused);
    let popped_by = usize::from(popped) + usize::from(theirs_popped);
    assert_eq!(drops.load(loom::sync::atomic::Ordering::Relaxed), 3, "{popped_by} were popped");
    seen.when("popped_by_both", popped_by == 2);
    seen.when("dropped_inside", pushed > popped_by);
    seen.when("refused", pushed < 3);
}

struct CountsItsDrop(Arc<loom::sync::atomic::AtomicUsize>);

impl Drop for CountsItsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, loom::sync::atomic::Ordering::Relaxed);
    }
}
