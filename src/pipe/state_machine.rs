//! Any sequence of operations on a pipe, against an oracle: chunks in a queue, and how the stream ends.
#![allow(clippy::unwrap_used)] // All of this is test.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::queues::oracle::QueueOracle;
use crate::wake::Note;
use crate::wake::oracle::BellOracle;

#[derive(Clone, Copy, Debug)]
enum Waiter {
    Reader,
    Writer,
}

#[derive(Clone, Debug)]
enum Step {
    /// A chunk whose buffer has this size.
    Write(usize),
    Read,
    Finish,
    Reset,
    Take(Waiter),
    Arm(Waiter),
}

fn step() -> impl Strategy<Value = Step> {
    let waiter = || prop::sample::select(vec![Waiter::Reader, Waiter::Writer]);
    prop_oneof![
        40 => (0usize..40).prop_map(Step::Write),
        30 => Just(Step::Read),
        1 => Just(Step::Finish),
        1 => Just(Step::Reset),
        16 => waiter().prop_map(Step::Take),
        16 => waiter().prop_map(Step::Arm),
    ]
}

/// What the cases reached, all together.
#[derive(Debug, Default)]
struct Reached {
    refused: usize,
    rung_for_room: usize,
    chunks_after_the_end: usize,
    resets_over_chunks: usize,
    writes: u64,
}

struct Machine<'a> {
    pipe: BytePipe,
    chunks: QueueOracle,
    is_ended: bool,
    is_reset: bool,
    reader: BellOracle,
    writer: BellOracle,
    number: u8,
    reached: &'a mut Reached,
}

impl<'a> Machine<'a> {
    fn new(capacity: usize, max_bytes: usize, reached: &'a mut Reached) -> Self {
        let (data, space) = (WakePipe::try_new().unwrap(), WakePipe::try_new().unwrap());
        Self {
            pipe: BytePipe::new(capacity, max_bytes, data, space),
            chunks: QueueOracle::new(capacity, max_bytes),
            is_ended: false,
            is_reset: false,
            reader: BellOracle::default(),
            writer: BellOracle::default(),
            number: 0,
            reached,
        }
    }

    fn bell(&mut self, waiter: Waiter) -> (&WakePipe, &mut BellOracle) {
        match waiter {
            Waiter::Reader => (&self.pipe.data, &mut self.reader),
            Waiter::Writer => (&self.pipe.space, &mut self.writer),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(size) => {
                self.number = self.number.wrapping_add(1);
                let mut chunk = Vec::with_capacity(size);
                chunk.resize(size.div_ceil(2), self.number);
                let fits = self.chunks.push(&chunk);
                let expected = if fits { Ok(()) } else { Err(chunk.clone()) };
                assert_eq!(self.pipe.write(chunk), expected);
                if fits {
                    self.reader.ring(Note::Relay);
                }
                self.reached.refused += usize::from(!fits);
            }
            Step::Read => {
                let expected = self.read();
                assert_eq!(self.pipe.read(), expected);
            }
            Step::Finish => {
                self.pipe.finish();
                self.is_ended = true;
                self.reader.ring(Note::Relay);
            }
            Step::Reset => {
                self.pipe.reset();
                self.is_reset = true;
                self.reader.ring(Note::Relay);
                self.writer.ring(Note::Relay);
            }
            Step::Take(waiter) => {
                let (bell, oracle) = self.bell(waiter);
                oracle.check_take(bell);
            }
            Step::Arm(waiter) => {
                let (bell, oracle) = self.bell(waiter);
                oracle.check_arm(bell);
            }
        }
    }

    /// What a read should find: nothing after a reset, and the end only behind the last chunk.
    fn read(&mut self) -> PipeRead {
        if self.is_reset {
            self.reached.resets_over_chunks += usize::from(self.chunks.len() > 0);
            return PipeRead::Reset;
        }
        match self.chunks.pop() {
            Some(chunk) => {
                self.reached.chunks_after_the_end += usize::from(self.is_ended);
                if self.chunks.made_room() {
                    self.writer.ring(Note::Relay);
                    self.reached.rung_for_room += 1;
                }
                PipeRead::Chunk(chunk)
            }
            None if self.is_ended => PipeRead::End,
            None => PipeRead::Empty,
        }
    }

    fn check(&mut self) {
        assert_eq!(self.pipe.is_reset(), self.is_reset);
        #[cfg(feature = "runtime")]
        self.check_hints();
        self.chunks.check();
        for waiter in [Waiter::Reader, Waiter::Writer] {
            let (bell, oracle) = self.bell(waiter);
            self.reached.writes += oracle.check_writes(bell);
        }
    }

    #[cfg(feature = "runtime")]
    fn check_hints(&self) {
        let nothing = self.chunks.len() == 0 && !self.is_ended && !self.is_reset;
        assert_eq!(self.pipe.is_quiet(), nothing);
        assert_eq!(self.pipe.room(), self.chunks.bytes_left());
    }
}

#[test]
fn any_operations_do_what_the_oracle_says() {
    let reached = RefCell::new(Reached::default());
    let bounds = (1usize..5, prop_oneof![0usize..100, Just(usize::MAX)]);
    let cases = (bounds, prop::collection::vec(step(), 0..80));
    let config = Config { source_file: Some(file!()), ..Config::with_cases(500) };
    TestRunner::new(config)
        .run(&cases, |((capacity, max_bytes), steps)| {
            let mut reached = reached.borrow_mut();
            let mut machine = Machine::new(capacity, max_bytes, &mut reached);
            for step in steps {
                machine.step(step);
                machine.check();
            }
            Ok(())
        })
        .unwrap();
    let reached = reached.into_inner();
    println!("{reached:?}");
    assert!(reached.refused > 500 && reached.rung_for_room > 100, "{reached:?}");
    assert!(reached.chunks_after_the_end > 50 && reached.resets_over_chunks > 50, "{reached:?}");
    assert!(reached.writes > 50, "{reached:?}");
}
