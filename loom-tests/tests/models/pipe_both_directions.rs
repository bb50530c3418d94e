//! Two byte pipes, one for each direction, whose end at the poll loop is one bell: each direction ends by
//! itself, after its last byte, and goes on when the other has ended.

use framegate_loom_tests::bodies::{Relayed, echo, guest_ends_first, service_ends_first};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model { name: "pipe/echo", run: both_at_once, ..MODEL },
    &Model { name: "pipe/guest-ends-first", run: half_closed_by_the_guest, ..MODEL },
    &Model { name: "pipe/service-ends-first", run: half_closed_by_the_service, ..MODEL },
];

const MODEL: Model = Model {
    name: "pipe",
    claim: "two pipes, one bell at the poll loop: each direction ends for itself, after its last byte",
    shows: "I1 I2 I9",
    not_covered: "the sockets beyond: tests of the relays",
    bounds: Bounds { quick: Some(2), full: Some(3) },
    cases: &["poll_loop_slept", "poll_loop_refused", "reader_slept", "writer_slept"],
    run: |_| {},
};

fn both_at_once(seen: &Seen) {
    count(seen, &echo(2));
}

fn half_closed_by_the_guest(seen: &Seen) {
    count(seen, &guest_ends_first(2));
}

fn half_closed_by_the_service(seen: &Seen) {
    count(seen, &service_ends_first(2));
}

fn count(seen: &Seen, Relayed { poll_loop, relay }: &Relayed) {
    poll_loop.writes(); // It looks at the cost.
    seen.when("poll_loop_slept", poll_loop.slept());
    seen.when("poll_loop_refused", poll_loop.turns.refusals > 0);
    seen.when("reader_slept", relay.readable.event().sleeps() > 0);
    seen.when("writer_slept", relay.writable.event().sleeps() > 0);
}
