//! M11: a producer that waits on a full queue leaves with the shutdown; what it had pushed is drained,
//! and what was refused is still its own.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::{Waiter, serve};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model { name: "M11/from-guest", run: shutdown_while_the_reader_waits, ..MODEL },
    &Model { name: "M11/to-guest", run: shutdown_while_the_poll_loop_waits, ..MODEL },
];

const MODEL: Model = Model {
    name: "M11",
    claim: "a shutdown frees a producer that waits on a full queue; no frame lost or doubled",
    shows: "I2 I3",
    not_covered: "both queues full at once: their words are apart",
    bounds: Bounds { quick: Some(2), full: Some(3) },
    cases: &["slept_on_a_full_queue", "had_room_in_time", "refused_by_shutdown"],
    run: |_| {},
};

/// The next of two frames to push, to a queue of one.
fn push_all(next: &mut u8, mut push: impl FnMut(Vec<u8>) -> Result<(), Vec<u8>>) {
    while *next < 2 && push(vec![*next]).is_ok() {
        *next += 1;
    }
}

fn shutdown_while_the_reader_waits(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    let (theirs, stop) = (Arc::clone(&queues), Arc::clone(&queues));
    let reader = spawn(move || {
        let mut next = 0;
        let waiter = Waiter::serve(theirs.guest_space(), |wakes| {
            push_all(&mut next, |frame| theirs.push_from_guest().push(frame));
            !wakes.is_down()
        });
        (next, waiter)
    });
    let stopper = spawn(move || stop.begin_shutdown());

    let mut got = Vec::new();
    serve(&queues.guest_wake, |wakes| {
        let mut drain = queues.drain_from_guest();
        got.extend(std::iter::from_fn(|| drain.pop()).flatten());
        !wakes.is_down()
    });
    let (next, reader) = reader.join().unwrap();
    stopper.join().unwrap();
    ends(seen, &reader, next, got, || queues.guest_to_host.pop());
}

fn shutdown_while_the_poll_loop_waits(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(1);
    let (theirs, stop) = (Arc::clone(&queues), Arc::clone(&queues));
    let writer = spawn(move || {
        let mut got = Vec::new();
        serve(&theirs.host_wake, |wakes| {
            let mut drain = theirs.drain_to_guest();
            got.extend(std::iter::from_fn(|| drain.pop()).flatten());
            !wakes.is_down()
        });
        got
    });
    let stopper = spawn(move || stop.begin_shutdown());

    let mut next = 0;
    let poll_loop = Waiter::serve(&queues.guest_wake, |wakes| {
        push_all(&mut next, |frame| queues.push_to_guest().push(frame));
        !wakes.is_down()
    });
    let got = writer.join().unwrap();
    stopper.join().unwrap();
    ends(seen, &poll_loop, next, got, || queues.host_to_guest.pop());
}

fn ends(
    seen: &Seen,
    producer: &Waiter,
    pushed: u8,
    mut got: Vec<u8>,
    left: impl FnMut() -> Option<Vec<u8>>,
) {
    let drained = got.len();
    got.extend(std::iter::from_fn(left).flatten());
    assert_eq!(got, (0..pushed).collect::<Vec<_>>(), "what was pushed is drained or still there");
    assert!(!producer.bell.arm(), "armed after the shutdown");
    let slept = producer.slept();
    seen.when("slept_on_a_full_queue", slept && pushed == 1);
    seen.when("had_room_in_time", pushed == 2 && drained == 2);
    seen.when("refused_by_shutdown", pushed == 1);
}
