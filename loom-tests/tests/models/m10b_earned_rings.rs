//! M10b: nobody is rung for nothing. A batch rings once for the frames in it, and not if it has none or its
//! producer drains the queue himself; room is rung for when it was asked for, once.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::serve;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model {
        name: "M10b/frames",
        claim: "one ring for a batch, none for an empty one and none for one that nobody need hear of",
        shows: "I6",
        not_covered: "room: M10b/room",
        bounds: Bounds { quick: Some(3), full: None },
        cases: &["rung", "found_without_a_ring"],
        run: rings_for_frames,
    },
    &Model {
        name: "M10b/room",
        claim: "room that is asked for once is rung for once; the room of other pops is not",
        shows: "I6",
        not_covered: "room that is asked for and found at the second look: it may be rung for, once",
        bounds: Bounds { quick: Some(3), full: Some(7) },
        cases: &["rung", "never_refused"],
        run: rings_for_room,
    },
];

fn rings_for_frames(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(2);
    let theirs = Arc::clone(&queues);
    let writer = spawn(move || {
        let mut rings = 0;
        serve(&theirs.host_wake, |wakes| {
            rings += usize::from(wakes.frame());
            let mut drain = theirs.drain_to_guest();
            while drain.pop().is_some() {}
            !wakes.is_down()
        });
        rings
    });

    drop(queues.push_to_guest());
    let mut batch = queues.push_to_guest();
    batch.push(vec![0]).unwrap();
    batch.flush();
    drop(batch);
    let mut unheard = queues.push_to_guest();
    let _ = unheard.push(vec![1]); // The queue may be full.
    unheard.end_unheard();
    drop(unheard);
    queues.begin_shutdown();
    let rings = writer.join().unwrap();

    let writes = queues.host_wake.event().writes();
    assert!(rings <= 1, "rung {rings} times for one batch");
    assert!(writes <= 2, "{writes} writes for one batch and the shutdown");
    seen.when("rung", writes == 2);
    seen.when("found_without_a_ring", writes == 1);
}

fn rings_for_room(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    let theirs = Arc::clone(&queues);
    let reader = spawn(move || {
        let (mut rings, mut next, mut refused) = (0, 0, false);
        serve(theirs.guest_space(), |wakes| {
            rings += usize::from(wakes.space());
            while next < 2 && theirs.push_from_guest().push(vec![next]).is_ok() {
                next += 1;
            }
            refused |= next < 2;
            !wakes.is_down()
        });
        (rings, refused)
    });

    let mut got = 0;
    serve(&queues.guest_wake, |_| {
        let mut drain = queues.drain_from_guest();
        while drain.pop().is_some() {
            got += 1;
        }
        got < 2
    });
    queues.begin_shutdown();
    let (rings, refused) = reader.join().unwrap();

    // The first push finds an empty queue; the second asks once, and has room when it is rung.
    assert!(rings <= 1, "rung {rings} times for room that was asked for once");
    seen.when("rung", rings == 1);
    seen.when("never_refused", !refused);
}
