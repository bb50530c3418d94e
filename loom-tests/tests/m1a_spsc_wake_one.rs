//! M1a: a frame that was pushed is drained, and costs no more writes than the waiter armed.
#![cfg(loom)]

use framegate::{Arc, NetworkFrameQueues};
use framegate_loom_tests::{Bounds, explore, serve};

#[test]
fn spsc_wake_one() {
    explore("M1a", Bounds { preemptions: None }, &["slept", "awake"], |seen| {
        let queues = NetworkFrameQueues::shared(1);
        let theirs = Arc::clone(&queues);
        let producer = loom::thread::spawn(move || theirs.push_from_guest().push(vec![0]).unwrap());

        let mut got = Vec::new();
        let turns = serve(&queues.guest_wake, |_| {
            let mut drain = queues.drain_from_guest();
            while let Some(frame) = drain.pop() {
                got.extend(frame);
            }
            got.is_empty()
        });
        producer.join().unwrap();

        assert_eq!(got, [0]);
        let bell = queues.guest_wake.event();
        assert!(bell.writes() <= turns.arms, "{} writes, {turns:?}", bell.writes());
        seen.when("slept", bell.sleeps() > 0);
        seen.when("awake", bell.writes() == 0);
    });
}
