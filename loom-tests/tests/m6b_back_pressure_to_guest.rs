//! M6b: M6 towards the guest. The poll loop, refused by a full queue, is rung for the room at the
//! one bell it has, and the writer gets every frame: neither is stuck.
#![cfg(loom)]

use framegate::{Arc, NetworkFrameQueues};
use framegate_loom_tests::{Bounds, explore, serve};

#[test]
fn back_pressure_to_the_guest() {
    for (name, capacity, max_bytes) in [("M6b/frames", 1, 100), ("M6b/bytes", 2, 0)] {
        let cases = &["producer_slept", "consumer_slept", "raced_room"];
        explore(name, Bounds { preemptions: Some(5) }, cases, move |seen| {
            let queues = NetworkFrameQueues::with_bounds(capacity, max_bytes).unwrap();
            let theirs = Arc::clone(&queues);
            let writer = loom::thread::spawn(move || {
                let mut got = Vec::new();
                let turns = serve(&theirs.host_wake, |_| {
                    let mut drain = theirs.drain_to_guest();
                    while let Some(frame) = drain.pop() {
                        got.extend(frame);
                    }
                    got.len() < 2
                });
                (got, turns)
            });

            let (mut frames, mut space) = (vec![vec![1], vec![0]], false);
            let polled = serve(&queues.guest_wake, |wakes| {
                space |= wakes.space();
                let mut batch = queues.push_to_guest();
                while let Some(frame) = frames.pop() {
                    if let Err(refused) = batch.push(frame) {
                        frames.push(refused);
                        return true;
                    }
                }
                false
            });
            let (got, wrote) = writer.join().unwrap();

            assert_eq!(got, [0, 1]);
            assert!(queues.push_to_guest().has_room(100), "bytes were not given back");
            assert!(
                space || polled.arms + polled.refusals == 0,
                "sent on without the note of room"
            );
            let (bell, room) = (queues.host_wake.event(), queues.guest_wake.event());
            assert!(bell.writes() <= wrote.arms && room.writes() <= polled.arms);
            seen.when("producer_slept", room.sleeps() > 0);
            seen.when("consumer_slept", bell.sleeps() > 0);
            seen.when("raced_room", polled.refusals > 0);
        });
    }
}
