//! M1b: of two frames, each with a ring of its own, both are drained, in order, and the second ring
//! writes nothing while the note of the first stands.
#![cfg(loom)]

use framegate::{Arc, NetworkFrameQueues};
use framegate_loom_tests::{Bounds, explore, serve};

#[test]
fn spsc_wake_two() {
    let cases = &["slept", "awake", "coalesced", "refused"];
    explore("M1b", Bounds { preemptions: None }, cases, |seen| {
        let queues = NetworkFrameQueues::shared(2);
        let theirs = Arc::clone(&queues);
        let producer = loom::thread::spawn(move || {
            theirs.push_from_guest().push(vec![0]).unwrap();
            theirs.push_from_guest().push(vec![1]).unwrap();
        });

        let mut got = Vec::new();
        let turns = serve(&queues.guest_wake, |_| {
            let mut drain = queues.drain_from_guest();
            while let Some(frame) = drain.pop() {
                got.extend(frame);
            }
            got.len() < 2
        });
        producer.join().unwrap();

        assert_eq!(got, [0, 1]);
        let bell = queues.guest_wake.event();
        assert!(bell.writes() <= turns.arms, "{} writes, {turns:?}", bell.writes());
        seen.when("slept", bell.sleeps() > 0);
        seen.when("awake", bell.writes() == 0);
        seen.when("coalesced", bell.sleeps() > 0 && bell.writes() == 1);
        seen.when("refused", turns.refusals > 0);
    });
}
