//! M3: a waiter on any of the three bells leaves when the shutdown begins, awake, arming or asleep,
//! and no one can sleep on any bell again.
#![cfg(loom)]

use framegate::{Arc, NetworkFrameQueues};
use framegate_loom_tests::{Bounds, explore, serve};

#[test]
fn shutdown_vs_arm() {
    let names = ["M3/guest_wake", "M3/host_wake", "M3/guest_space"];
    for (index, name) in names.into_iter().enumerate() {
        let cases = &["slept", "awake", "raced_arm"];
        explore(name, Bounds { preemptions: None }, cases, move |seen| {
            let queues = NetworkFrameQueues::shared(1);
            let theirs = Arc::clone(&queues);
            let stopper = loom::thread::spawn(move || theirs.begin_shutdown());

            let bells = [&queues.guest_wake, &queues.host_wake, queues.guest_space()];
            let bell = bells[index];
            let turns = serve(bell, |wakes| !wakes.is_down());
            assert!(queues.is_shutting_down(), "one bell is down, and the queues are not");
            assert!(!bell.arm(), "armed after the shutdown");
            stopper.join().unwrap();

            for bell in bells {
                assert!(bell.take().is_down() && bell.take().is_down(), "the shutdown was taken");
                assert!(!bell.arm(), "armed after the shutdown");
            }
            assert_eq!(bell.event().writes(), 1, "a shutdown writes once: {turns:?}");
            seen.when("slept", bell.event().sleeps() > 0);
            seen.when("awake", turns.arms == 0);
            seen.when("raced_arm", turns.refusals > 0);
        });
    }
}
