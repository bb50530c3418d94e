//! The byte pipe: a reset by the reader frees a writer that waits for room, and a reset by the writer a
//! reader that waits for bytes; whoever looks afterwards sees it.

use framegate::{BytePipe, PipeRead, WakePipe};
use framegate_loom_tests::threads::{Arc, spawn};
use framegate_loom_tests::waiter::serve;
use framegate_loom_tests::{Bounds, Model, Seen};

pub(crate) const MODELS: &[&Model] = &[
    &Model {
        name: "pipe/reset-by-reader",
        claim: "a reader that closes frees a writer that waits for room",
        shows: "I2 I9",
        not_covered: "chunks that the reset cuts off: they may be lost",
        bounds: Bounds { quick: Some(3), full: Some(7) },
        cases: &["writer_slept", "writer_awake"],
        run: pipe_reset_by_the_reader,
    },
    &Model {
        name: "pipe/reset-by-writer",
        claim: "a writer's reset frees a reader that waits, and never looks like an end",
        shows: "I2 I9",
        not_covered: "chunks that the reset cuts off: they may be lost",
        bounds: Bounds { quick: Some(3), full: None },
        cases: &["reader_slept", "overtaken", "in_time"],
        run: pipe_reset_by_the_writer,
    },
];

fn pipe_reset_by_the_reader(seen: &Seen) {
    let (data, space) = (WakePipe::try_new().unwrap(), WakePipe::try_new().unwrap());
    let pipe = Arc::new(BytePipe::new(1, 100, data, space.clone()));
    let (theirs, bell) = (Arc::clone(&pipe), space.clone());
    let writer = spawn(move || {
        // As `RelayStream` writes: what was refused is tried again unless the pipe was reset.
        serve(&bell, |_| {
            loop {
                if theirs.is_reset() {
                    return false;
                }
                if theirs.write(vec![1]).is_err() {
                    return true;
                }
            }
        });
    });
    let first = pipe.read();
    pipe.reset();
    writer.join().unwrap();
    assert!(matches!(first, PipeRead::Chunk(_) | PipeRead::Empty));
    assert_eq!(pipe.read(), PipeRead::Reset);
    seen.when("writer_slept", space.event().sleeps() > 0);
    seen.when("writer_awake", space.event().sleeps() == 0);
}

fn pipe_reset_by_the_writer(seen: &Seen) {
    let (data, space) = (WakePipe::try_new().unwrap(), WakePipe::try_new().unwrap());
    let pipe = Arc::new(BytePipe::new(1, 100, data.clone(), space));
    let theirs = Arc::clone(&pipe);
    let writer = spawn(move || {
        theirs.write(vec![1]).unwrap();
        theirs.reset();
        // As `RelayStream` does when it is dropped: too late to make a reset an end.
        theirs.finish();
    });
    let mut got = 0;
    serve(&data, |_| {
        loop {
            match pipe.read() {
                PipeRead::Chunk(chunk) => got += chunk.len(),
                PipeRead::Empty => return true,
                PipeRead::End => panic!("a stream that was cut off looks complete"),
                PipeRead::Reset => return false,
            }
        }
    });
    writer.join().unwrap();
    seen.when("reader_slept", data.event().sleeps() > 0);
    seen.when("overtaken", got == 0);
    seen.when("in_time", got == 1);
}
