//! The byte pipe, in one direction.

use framegate::{BytePipe, PipeRead, WakePipe};

use super::{Ledger, frame};
use crate::threads::{Arc, spawn};
use crate::waiter::Waiter;

/// How [`one_way`] went.
#[derive(Debug)]
pub struct OneWay {
    /// Who wrote.
    pub writer: Waiter,
    /// Who read.
    pub reader: Waiter,
}

/// A writer writes `chunks` chunks through a pipe that holds `capacity`, and ends the stream; the reader
/// reads to the end.
///
/// # Panics
/// If the end comes before the last byte, or a chunk is lost.
pub fn one_way(chunks: usize, capacity: usize) -> OneWay {
    let (data, space) = (WakePipe::try_new().unwrap(), WakePipe::try_new().unwrap());
    let pipe = Arc::new(BytePipe::new(capacity, usize::MAX, data.clone(), space.clone()));
    let theirs = Arc::clone(&pipe);
    let writer = spawn(move || {
        let mut number = 0;
        Waiter::serve(&space, |_| {
            while number < chunks {
                if theirs.write(frame(0, number)).is_err() {
                    return true;
                }
                number += 1;
            }
            theirs.finish();
            false
        })
    });

    let mut got = Ledger::new(1);
    let reader = Waiter::serve(&data, |_| {
        loop {
            match pipe.read() {
                PipeRead::Chunk(chunk) => got.enter(&chunk),
                PipeRead::Empty => return true,
                PipeRead::End => return false,
                PipeRead::Reset => panic!("nobody reset the pipe"),
            }
        }
    });
    assert_eq!(got.len(), chunks, "the end came before the last byte");
    OneWay { writer: writer.join().unwrap(), reader }
}
