//! The whole hand-over at small size: reader, poll loop, writer and shutdown, one frame each way.

use framegate_loom_tests::bodies::{Whole, delivered, stopped};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model {
        name: "whole/delivered",
        claim: "reader, poll loop, writer, shutdown: a frame each way arrives, and all leave",
        shows: "I1 I2 I3",
        not_covered: "full queues at the same time: M6, halves",
        bounds: Bounds { quick: Some(2), full: Some(3) },
        cases: &["poll_loop_slept", "writer_slept", "all_slept"],
        run: one_frame_each_way,
    },
    &Model {
        name: "whole/stopped",
        claim: "the same, stopped at any moment: what was pushed in time arrives, and all leave",
        shows: "I1 I2 I3",
        not_covered: "full queues at the same time: M11, halves",
        bounds: Bounds { quick: Some(2), full: Some(3) },
        cases: &["both_arrived", "one_arrived", "none_arrived", "all_slept"],
        run: stopped_at_any_moment,
    },
];

fn one_frame_each_way(seen: &Seen) {
    let Whole { reader, poll_loop, writer, .. } = delivered(1);
    seen.when("poll_loop_slept", poll_loop.slept());
    seen.when("writer_slept", writer.slept());
    seen.when("all_slept", reader.slept() && poll_loop.slept() && writer.slept());
}

fn stopped_at_any_moment(seen: &Seen) {
    let Whole { reader, poll_loop, writer, got } = stopped(1);
    seen.when("both_arrived", got == (1, 1));
    seen.when("one_arrived", got == (1, 0));
    seen.when("none_arrived", got == (0, 0));
    seen.when("all_slept", reader.slept() && poll_loop.slept() && writer.slept());
}
