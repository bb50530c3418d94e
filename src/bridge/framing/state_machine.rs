//! Any sequence of a receiver's steps on the decoder, against the frames of the whole stream.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::check::parse;
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Up to so many bytes of the stream arrive, if there is room for them.
    Receive(usize),
    Peek,
    /// Takes a frame, and writes over it.
    TakeAndChange,
    Take,
    TakeAll,
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![1usize..20, 1usize..3000, Just(65_554usize), Just(usize::MAX)];
    prop_oneof![
        6 => size.prop_map(Step::Receive),
        2 => Just(Step::Peek),
        3 => Just(Step::Take),
        2 => Just(Step::TakeAndChange),
        3 => Just(Step::TakeAll),
    ]
}

/// Frames of many sizes, and now and then a length at the end that no frame has.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![
        8 => 14usize..100,
        4 => 1400usize..1600,
        2 => prop::sample::select(vec![14, 15, 65_549, 65_550]),
    ];
    let end = prop::option::of(prop::sample::select(vec![0, 13, 65_551, 1 << 24, u32::MAX]));
    (prop::collection::vec(len, 0..30), end).prop_map(|(lens, end)| {
        let mut bytes = Vec::new();
        for (number, len) in lens.into_iter().enumerate() {
            bytes.extend(prefix(len));
            bytes.extend((0..len).map(|at| (at ^ (at >> 8) ^ number) as u8));
        }
        bytes.extend(end.into_iter().flat_map(u32::to_be_bytes));
        bytes
    })
}

/// What the cases reached, all together.
#[derive(Debug, Default)]
struct Reached {
    frames: usize,
    violations: usize,
    /// Receives that moved what was held to the start of the buffer.
    moves: usize,
    /// Receives for which frames that nobody took had left no room.
    full: usize,
}

struct Machine<'a> {
    decoder: Decoder,
    stream: &'a [u8],
    received: usize,
    /// The frames that are still to come, each with where in the stream it ends.
    frames: std::vec::IntoIter<(usize, Vec<u8>)>,
    violation: Option<FramingViolation>,
    /// Frames that were taken since the last receive: where they lie, and what they are.
    taken: Vec<(Range<usize>, Vec<u8>)>,
    reached: &'a mut Reached,
}

impl<'a> Machine<'a> {
    fn new(stream: &'a [u8], buffer: usize, reached: &'a mut Reached) -> Self {
        let (frames, violation) = parse(stream);
        let mut end = 0;
        let with_end = |frame: Vec<u8>| {
            end += PREFIX + frame.len();
            (end, frame)
        };
        let frames: Vec<_> = frames.into_iter().map(with_end).collect();
        Self {
            decoder: Decoder::with_buffer(buffer),
            stream,
            received: 0,
            frames: frames.into_iter(),
            violation,
            taken: Vec::new(),
            reached,
        }
    }

    /// What the decoder must find next.
    fn expected(&self) -> Result<Option<&[u8]>, FramingViolation> {
        match (self.frames.as_slice().first(), self.violation) {
            (Some((end, frame)), _) => Ok((*end <= self.received).then_some(frame)),
            (None, Some(violation)) if self.received == self.stream.len() => Err(violation),
            (None, _) => Ok(None),
        }
    }

    fn receive(&mut self, size: usize) {
        let is_drained = matches!(self.decoder.peek(), Ok(None));
        let start = self.decoder.held.start;
        let space = self.decoder.space();
        assert!(!is_drained || !space.is_empty(), "no room, and no frame to take");
        self.reached.full += usize::from(space.is_empty());
        let n = size.min(space.len()).min(self.stream.len() - self.received);
        space[..n].copy_from_slice(&self.stream[self.received..self.received + n]);
        self.decoder.filled(n);
        self.received += n;
        self.reached.moves += usize::from(start > 0 && self.decoder.held.start == 0 && !is_drained);
        self.taken.clear();
    }

    /// Where the next frame lies, if it is there, and what it is.
    fn peek(&mut self) -> Option<(Range<usize>, Vec<u8>)> {
        let found = self.decoder.peek();
        assert_eq!(self.decoder.peek(), found, "a look changes nothing");
        let expected = self.expected().map(|frame| frame.map(<[u8]>::to_vec));
        let bytes = |range: Range<usize>| self.decoder.buffer[range].to_vec();
        assert_eq!(found.clone().map(|frame| frame.map(bytes)), expected);
        found.ok().flatten().zip(expected.ok().flatten())
    }

    fn take(&mut self, change: bool) -> bool {
        let Some((range, frame)) = self.peek() else { return false };
        self.decoder.take(&range);
        self.frames.next();
        self.reached.frames += 1;
        if change {
            self.decoder.bytes()[range].fill(0xff);
        } else {
            self.taken.push((range, frame));
        }
        true
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Receive(size) => self.receive(size),
            Step::Peek => {
                self.peek();
            }
            Step::TakeAndChange => {
                self.take(true);
            }
            Step::Take => {
                self.take(false);
            }
            Step::TakeAll => while self.take(false) {},
        }
        for (range, frame) in &self.taken {
            assert_eq!(self.decoder.bytes()[range.clone()], frame[..], "a taken frame stays");
        }
    }

    /// Whatever came before, the rest of the stream comes too, and nothing behind it.
    fn finish(mut self) {
        while self.received < self.stream.len() {
            self.step(&Step::TakeAll);
            self.step(&Step::Receive(usize::MAX));
        }
        self.step(&Step::TakeAll);
        assert_eq!(self.frames.len(), 0);
        assert_eq!(self.decoder.peek().err(), self.violation);
        self.reached.violations += usize::from(self.violation.is_some());
    }
}

#[test]
fn any_steps_find_the_frames_of_the_whole_stream() {
    let reached = RefCell::new(Reached::default());
    let buffer = PREFIX + MAX_FRAME..2 * (PREFIX + MAX_FRAME);
    let cases = (stream(), buffer, prop::collection::vec(step(), 0..100));
    let config = Config { source_file: Some(file!()), ..Config::with_cases(200) };
    TestRunner::new(config)
        .run(&cases, |(stream, buffer, steps)| {
            let mut reached = reached.borrow_mut();
            let mut machine = Machine::new(&stream, buffer, &mut reached);
            for step in &steps {
                machine.step(step);
            }
            machine.finish();
            Ok(())
        })
        .unwrap();
    let reached = reached.into_inner();
    println!("{reached:?}");
    assert!(reached.frames > 300 && reached.violations > 20, "{reached:?}");
    assert!(reached.moves > 20 && reached.full > 20, "{reached:?}");
}
