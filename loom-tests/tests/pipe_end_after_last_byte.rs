//! The byte pipe: the end of the stream is seen after the last byte and not before, and neither end
//! sleeps through its wake.
#![cfg(loom)]

use framegate::{Arc, BytePipe, PipeRead, WakePipe};
use framegate_loom_tests::{Bounds, explore, serve};

#[test]
fn pipe_end_after_last_byte() {
    let cases = &["reader_slept", "writer_slept", "awake"];
    explore("pipe/end", Bounds { preemptions: Some(3) }, cases, |seen| {
        let (data, space) = (WakePipe::try_new().unwrap(), WakePipe::try_new().unwrap());
        let pipe = Arc::new(BytePipe::new(1, 100, data.clone(), space.clone()));
        let (theirs, bell) = (Arc::clone(&pipe), space.clone());
        let writer = loom::thread::spawn(move || {
            let mut chunks = vec![vec![2], vec![1]];
            serve(&bell, |_| {
                while let Some(chunk) = chunks.pop() {
                    if let Err(refused) = theirs.write(chunk) {
                        chunks.push(refused);
                        return true;
                    }
                }
                theirs.finish();
                false
            });
        });

        let mut got = Vec::new();
        serve(&data, |_| {
            loop {
                match pipe.read() {
                    PipeRead::Chunk(chunk) => got.extend(chunk),
                    PipeRead::Empty => return true,
                    PipeRead::End => return false,
                    PipeRead::Reset => panic!("nobody reset the pipe"),
                }
            }
        });
        writer.join().unwrap();

        assert_eq!(got, [1, 2], "the end came before the last byte");
        seen.when("reader_slept", data.event().sleeps() > 0);
        seen.when("writer_slept", space.event().sleeps() > 0);
        seen.when("awake", data.event().sleeps() == 0);
    });
}
