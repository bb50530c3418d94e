//! M4: a frame that was pushed before the shutdown began is drained before the waiter leaves.
#![cfg(loom)]

use framegate::{Arc, NetworkFrameQueues};
use framegate_loom_tests::{Bounds, explore, serve};

#[test]
fn push_then_shutdown() {
    let cases = &["slept", "awake", "frame_with_shutdown", "frame_before_shutdown"];
    explore("M4", Bounds { preemptions: None }, cases, |seen| {
        let queues = NetworkFrameQueues::shared(1);
        let theirs = Arc::clone(&queues);
        let producer = loom::thread::spawn(move || {
            theirs.push_from_guest().push(vec![7]).unwrap();
            theirs.begin_shutdown();
        });

        let (mut got, mut together) = (Vec::new(), false);
        let turns = serve(&queues.guest_wake, |wakes| {
            let before = got.len();
            let mut drain = queues.drain_from_guest();
            while let Some(frame) = drain.pop() {
                got.extend(frame);
            }
            together = wakes.is_down() && got.len() > before;
            !wakes.is_down()
        });
        assert_eq!(got, [7], "the waiter left before the frame was drained");
        producer.join().unwrap();

        let bell = queues.guest_wake.event();
        // The shutdown writes once, armed or not.
        assert!(bell.writes() <= turns.arms + 1, "{} writes, {turns:?}", bell.writes());
        seen.when("slept", bell.sleeps() > 0);
        seen.when("awake", turns.arms == 0);
        seen.when("frame_with_shutdown", together);
        seen.when("frame_before_shutdown", !together);
    });
}
