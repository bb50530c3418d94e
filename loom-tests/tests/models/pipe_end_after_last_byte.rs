//! The byte pipe: the end of the stream is seen after the last byte and not before, and neither end
//! sleeps through its wake.

use framegate_loom_tests::bodies::{OneWay, one_way};
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[&Model {
    name: "pipe/end",
    claim: "the end of a stream is read after its last byte; neither end sleeps through a wake",
    shows: "I1 I2 I4 I9",
    not_covered: "more than three chunks: real threads with 100,000",
    bounds: Bounds { quick: Some(3), full: Some(6) },
    cases: &["reader_slept", "writer_slept", "awake"],
    run: pipe_end_after_last_byte,
}];

fn pipe_end_after_last_byte(seen: &Seen) {
    let OneWay { writer, reader } = one_way(2, 1);
    let (_, _) = (writer.writes(), reader.writes()); // They look at the cost.
    seen.when("reader_slept", reader.slept());
    seen.when("writer_slept", writer.slept());
    seen.when("awake", !reader.slept());
}
