//! M2: of two producers neither's frame is lost, whichever of them finds the other's note.
#![cfg(loom)]

use framegate::{Arc, NetworkFrameQueues};
use framegate_loom_tests::{Bounds, explore, serve};

#[test]
fn two_producers() {
    let cases = &["slept", "awake", "coalesced", "refused"];
    explore("M2", Bounds { preemptions: Some(3) }, cases, |seen| {
        let queues = NetworkFrameQueues::shared(2);
        let producers = [1, 2].map(|id| {
            let theirs = Arc::clone(&queues);
            loom::thread::spawn(move || theirs.push_from_guest().push(vec![id]).unwrap())
        });

        let mut got = Vec::new();
        let turns = serve(&queues.guest_wake, |_| {
            let mut drain = queues.drain_from_guest();
            while let Some(frame) = drain.pop() {
                got.extend(frame);
            }
            got.len() < 2
        });
        for producer in producers {
            producer.join().unwrap();
        }

        got.sort_unstable();
        assert_eq!(got, [1, 2]);
        let bell = queues.guest_wake.event();
        assert!(bell.writes() <= turns.arms, "{} writes, {turns:?}", bell.writes());
        seen.when("slept", bell.sleeps() > 0);
        seen.when("awake", bell.writes() == 0);
        seen.when("coalesced", bell.sleeps() > 0 && bell.writes() == 1);
        seen.when("refused", turns.refusals > 0);
    });
}
