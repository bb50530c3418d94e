//! M6: a producer that a full queue refused goes on when there is room, by frames and by bytes, and
//! its consumer gets every frame: neither is stuck.
#![cfg(loom)]

use framegate::{Arc, NetworkFrameQueues};
use framegate_loom_tests::{Bounds, explore, serve};

#[test]
fn back_pressure_of_a_guest() {
    for (name, capacity, max_bytes) in [("M6/frames", 1, 100), ("M6/bytes", 2, 0)] {
        let cases = &["producer_slept", "consumer_slept", "raced_room"];
        explore(name, Bounds { preemptions: Some(5) }, cases, move |seen| {
            let queues = NetworkFrameQueues::with_bounds(capacity, max_bytes).unwrap();
            let theirs = Arc::clone(&queues);
            let reader = loom::thread::spawn(move || {
                let mut frames = vec![vec![1], vec![0]];
                serve(theirs.guest_space(), |_| {
                    let mut batch = theirs.push_from_guest();
                    while let Some(frame) = frames.pop() {
                        if let Err(refused) = batch.push(frame) {
                            frames.push(refused);
                            return true;
                        }
                    }
                    false
                })
            });

            let mut got = Vec::new();
            let polled = serve(&queues.guest_wake, |_| {
                let mut drain = queues.drain_from_guest();
                while let Some(frame) = drain.pop() {
                    got.extend(frame);
                }
                got.len() < 2
            });
            let read = reader.join().unwrap();

            assert_eq!(got, [0, 1]);
            assert!(queues.push_from_guest().has_room(100), "bytes were not given back");
            let (bell, space) = (queues.guest_wake.event(), queues.guest_space().event());
            assert!(bell.writes() <= polled.arms && space.writes() <= read.arms);
            seen.when("producer_slept", space.sleeps() > 0);
            seen.when("consumer_slept", bell.sleeps() > 0);
            seen.when("raced_room", read.refusals > 0);
        });
    }
}
