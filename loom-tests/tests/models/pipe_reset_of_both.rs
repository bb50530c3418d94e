//! A relay that is reset, from either end, frees whoever waits at the other: a service's thread that reads
//! and one that writes, or the poll loop, which has one bell for both.

use framegate::PipeRead;
use framegate_loom_tests::bodies::{Relay, Reset};
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::Waiter;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model {
        name: "pipe/reset-by-poll-loop",
        claim: "the poll loop's reset frees a thread that reads and one that writes",
        shows: "I2 I9",
        not_covered: "a reset by both ends at once: each sets the same bit",
        bounds: Bounds { quick: Some(3), full: None },
        cases: &["reader_slept", "writer_slept", "both_slept", "both_awake"],
        run: relay_reset_by_the_poll_loop,
    },
    &Model {
        name: "pipe/reset-by-service",
        claim: "the service's reset frees a poll loop that waits for room and for bytes",
        shows: "I2 I9",
        not_covered: "a reset by both ends at once: each sets the same bit",
        bounds: Bounds { quick: Some(3), full: None },
        cases: &["slept_on_both", "awake"],
        run: relay_reset_by_the_service,
    },
];

fn relay_reset_by_the_poll_loop(seen: &Seen) {
    let relay = Relay::new(1);
    let (theirs, others) = (Arc::clone(&relay), Arc::clone(&relay));
    let reader = spawn(move || assert_eq!(theirs.read(), Err(Reset)));
    let writer = spawn(move || while others.write(vec![1]).is_ok() {});

    // As a flow does whose guest has reset the connection.
    relay.to_service.reset();
    relay.to_guest.reset();
    reader.join().unwrap();
    writer.join().unwrap();
    assert_eq!((relay.to_service.read(), relay.to_guest.read()), (PipeRead::Reset, PipeRead::Reset));
    let slept = [&relay.readable, &relay.writable].map(|bell| bell.event().sleeps() > 0);
    seen.when("reader_slept", slept[0]);
    seen.when("writer_slept", slept[1]);
    seen.when("both_slept", slept == [true, true]);
    seen.when("both_awake", slept == [false, false]);
}

fn relay_reset_by_the_service(seen: &Seen) {
    let relay = Relay::new(1);
    relay.to_service.write(vec![0]).unwrap();
    let theirs = Arc::clone(&relay);
    let service = spawn(move || {
        // As `RelayStream` does when a panic drops it.
        theirs.to_guest.reset();
        theirs.to_service.reset();
    });

    let poll_loop = Waiter::serve(&relay.queues.relay_wake, |_| {
        let bytes = relay.to_guest.read();
        assert!(matches!(bytes, PipeRead::Empty | PipeRead::Reset), "{bytes:?}");
        // It leaves when it has heard of both: each reset must be rung for.
        !(bytes == PipeRead::Reset && relay.to_service.is_reset())
    });
    service.join().unwrap();
    poll_loop.writes();
    seen.when("slept_on_both", poll_loop.slept());
    seen.when("awake", !poll_loop.slept());
}
