//! M5: a waiter with a socket beside its bell sees both, and a token that comes late, after the
//! socket broke the sleep, costs an empty turn and no frame.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M5",
    claim: "a socket and a ring: both seen; a late token costs an empty turn and no frame",
    shows: "I1 I2",
    not_covered: "the kernel: a flag of the eventfd's twin is the socket, and stays until it is read",
    bounds: Bounds { quick: Some(3), full: Some(4) },
    cases: &["slept", "socket", "late_token"],
    run: socket_and_ring,
}];

fn socket_and_ring(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(2);
    let (theirs, kernel) = (Arc::clone(&queues), Arc::clone(&queues));
    let producer = spawn(move || {
        theirs.push_from_guest().push(vec![0]).unwrap();
        theirs.push_from_guest().push(vec![1]).unwrap();
    });
    let peer = spawn(move || kernel.guest_wake.event().make_other_ready());

    let bell = &queues.guest_wake;
    let (mut got, mut socket, mut arms, mut late, mut token) = (Vec::new(), false, 0, false, false);
    loop {
        late |= !bell.take().any() && token;
        let mut drain = queues.drain_from_guest();
        while let Some(frame) = drain.pop() {
            got.extend(frame);
        }
        if got.len() == 2 && socket {
            break;
        }
        token = bell.arm();
        if token {
            arms += 1;
            let other = bell.wait_with_other();
            (socket, token) = (socket | other, !other);
        }
    }
    producer.join().unwrap();
    peer.join().unwrap();

    assert_eq!(got, [0, 1]);
    assert!(bell.event().writes() <= arms, "{} writes, {arms} arms", bell.event().writes());
    seen.when("slept", bell.event().sleeps() > 0);
    seen.when("socket", bell.event().writes() == 0);
    seen.when("late_token", late);
}
