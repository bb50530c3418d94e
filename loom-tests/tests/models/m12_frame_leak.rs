//! M12: whatever moment the shutdown takes, every frame is dropped: those that nobody drained with their
//! queue, and the buffers in the pool. Loom tracks every value as long as it lies in a twin of the queue, and
//! the queues themselves, and fails a model that leaves one behind.

use framegate::NetworkFrameQueues;
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::serve;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "M12",
    claim: "frames, pooled buffers and queues are freed whenever the shutdown comes",
    shows: "I8",
    not_covered: "memory behind std: loom tracks the frames and the queue, not the buffers' bytes",
    bounds: Bounds { quick: Some(2), full: Some(4) },
    cases: &["left_from_guest", "two_left_from_guest", "left_to_guest"],
    run: frame_leak,
}];

fn frame_leak(seen: &Seen) {
    let queues = NetworkFrameQueues::shared(2);
    let (theirs, stop) = (Arc::clone(&queues), Arc::clone(&queues));
    let stopper = spawn(move || stop.begin_shutdown());
    let reader = spawn(move || {
        // Large enough to be recycled.
        let _ = theirs.push_from_guest().push(theirs.buffer(100));
        let _ = theirs.push_from_guest().push(theirs.buffer(100));
    });

    serve(&queues.guest_wake, |wakes| {
        let mut drain = queues.drain_from_guest();
        if let Some(frame) = drain.pop() {
            queues.recycle(frame);
            // Nobody drains this queue.
            let _ = queues.push_to_guest().push(queues.buffer(100));
        }
        !wakes.is_down()
    });
    reader.join().unwrap();
    stopper.join().unwrap();
    seen.when("left_from_guest", !queues.guest_to_host.is_empty());
    seen.when("two_left_from_guest", queues.guest_to_host.is_full());
    seen.when("left_to_guest", !queues.host_to_guest.is_empty());
}
