//! M10: rings for a waiter that is awake cost no system call, however many there are.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M10",
    claim: "a storm of rings of three kinds at a waiter that is awake: no write",
    shows: "I6",
    not_covered: "a waiter that sleeps: M1b counts its writes",
    bounds: Bounds { quick: Some(3), full: Some(7) },
    cases: &["before_the_storm", "within_the_storm", "all_at_once"],
    run: ring_storm,
}];

fn ring_storm(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(2);
    let (theirs, relay_wake) = (Arc::clone(&queues), queues.relay_wake.clone());
    let reader = spawn(move || {
        theirs.push_from_guest().push(vec![0]).unwrap();
        theirs.push_from_guest().push(vec![1]).unwrap();
    });
    let relay = spawn(move || {
        relay_wake.wake();
        relay_wake.wake();
    });

    let (mut got, mut found) = (Vec::new(), Vec::new());
    let mut turn = || {
        let wakes = queues.guest_wake.take();
        found.push((wakes.frame(), wakes.relay()));
        let mut drain = queues.drain_from_guest();
        while let Some(frame) = drain.pop() {
            got.extend(frame);
        }
    };
    turn();
    turn();
    reader.join().unwrap();
    relay.join().unwrap();
    turn();
    turn();

    assert_eq!(got, [0, 1]);
    assert_eq!(queues.guest_wake.event().writes(), 0, "a waiter that is awake was written to");
    assert_eq!(found[3], (false, false), "a note was taken and stayed");
    assert!(found.iter().any(|it| it.0) && found.iter().any(|it| it.1), "a note was lost");
    seen.when("before_the_storm", found[0] == (false, false));
    seen.when("within_the_storm", found[1] != (false, false) && found[2] != (false, false));
    seen.when("all_at_once", found.contains(&(true, true)));
}
