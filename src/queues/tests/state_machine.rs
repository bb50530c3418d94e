//! Any sequence of operations on the queues of one NIC, against the oracles of a queue and of a bell.
#![allow(clippy::unwrap_used)] // All of this is test.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::oracle::QueueOracle;
use super::*;
use crate::wake::oracle::BellOracle;

/// The largest capacity.
const MOST_FRAMES: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Way {
    FromGuest,
    ToGuest,
}

/// Which thread's bell.
#[derive(Clone, Copy, Debug)]
enum Waiter {
    PollLoop,
    Writer,
    Reader,
}

#[derive(Clone, Debug)]
enum Step {
    /// A batch of frames with buffers of these sizes.
    Push(Way, Vec<usize>),
    /// One of a producer that does not wait for room.
    TryPush(Way, usize),
    /// One of a producer that drains the queue itself.
    PushUnheard(Way, usize),
    HasRoom(Way, usize),
    Pop(Way, usize),
    RelayWake,
    Take(Waiter),
    Arm(Waiter),
    BeginShutdown,
}

fn step() -> impl Strategy<Value = Step> {
    let way = || prop::sample::select(vec![Way::FromGuest, Way::ToGuest]);
    let waiter = || prop::sample::select(vec![Waiter::PollLoop, Waiter::Writer, Waiter::Reader]);
    let size = || 0usize..60;
    prop_oneof![
        30 => (way(), prop::collection::vec(size(), 0..5)).prop_map(|(w, n)| Step::Push(w, n)),
        8 => (way(), size()).prop_map(|(way, size)| Step::TryPush(way, size)),
        5 => (way(), size()).prop_map(|(way, size)| Step::PushUnheard(way, size)),
        8 => (way(), size()).prop_map(|(way, size)| Step::HasRoom(way, size)),
        25 => (way(), 0usize..6).prop_map(|(way, frames)| Step::Pop(way, frames)),
        3 => Just(Step::RelayWake),
        20 => waiter().prop_map(Step::Take),
        20 => waiter().prop_map(Step::Arm),
        1 => Just(Step::BeginShutdown),
    ]
}

/// What the cases reached, all together.
#[derive(Debug, Default)]
struct Reached {
    refused: usize,
    rung_for_room: usize,
    writes: u64,
    armed_in_vain: usize,
}

struct Machine<'a> {
    queues: Arc<NetworkFrameQueues>,
    from_guest: QueueOracle,
    to_guest: QueueOracle,
    poll_loop: BellOracle,
    writer: BellOracle,
    reader: BellOracle,
    number: u8,
    reached: &'a mut Reached,
}

impl<'a> Machine<'a> {
    fn new(capacity: usize, max_bytes: usize, reached: &'a mut Reached) -> Self {
        Self {
            queues: NetworkFrameQueues::with_bounds(capacity, max_bytes).unwrap(),
            from_guest: QueueOracle::new(capacity, max_bytes),
            to_guest: QueueOracle::new(capacity, max_bytes),
            poll_loop: BellOracle::default(),
            writer: BellOracle::default(),
            reader: BellOracle::default(),
            number: 0,
            reached,
        }
    }

    /// A frame with a buffer of `size` bytes, unlike the ones before it.
    fn frame(&mut self, size: usize) -> Vec<u8> {
        self.number = self.number.wrapping_add(1);
        let mut frame = Vec::with_capacity(size);
        frame.resize(size / 2, self.number);
        frame
    }

    /// The queue's oracle, its consumer's bell, and its producer's.
    fn oracles(&mut self, way: Way) -> (&mut QueueOracle, &mut BellOracle, &mut BellOracle) {
        match way {
            Way::FromGuest => (&mut self.from_guest, &mut self.poll_loop, &mut self.reader),
            Way::ToGuest => (&mut self.to_guest, &mut self.writer, &mut self.poll_loop),
        }
    }

    fn bell(&mut self, waiter: Waiter) -> (&WakePipe, &mut BellOracle) {
        match waiter {
            Waiter::PollLoop => (&self.queues.guest_wake, &mut self.poll_loop),
            Waiter::Writer => (&self.queues.host_wake, &mut self.writer),
            Waiter::Reader => (self.queues.guest_space(), &mut self.reader),
        }
    }

    fn step(&mut self, step: Step) {
        let queues = Arc::clone(&self.queues);
        let batch = |way| match way {
            Way::FromGuest => queues.push_from_guest(),
            Way::ToGuest => queues.push_to_guest(),
        };
        match step {
            Step::Push(way, sizes) => {
                let mut batch = batch(way);
                let mut accepted = false;
                for size in sizes {
                    let frame = self.frame(size);
                    let fits = self.oracles(way).0.push(&frame);
                    let expected = if fits { Ok(()) } else { Err(frame.clone()) };
                    assert_eq!(batch.push(frame), expected);
                    accepted |= fits;
                    self.reached.refused += usize::from(!fits);
                }
                if accepted {
                    self.oracles(way).1.ring(Note::Frame);
                }
            }
            Step::TryPush(way, size) => {
                let frame = self.frame(size);
                let (queue, consumer, _) = self.oracles(way);
                let fits = queue.try_push(&frame);
                assert_eq!(batch(way).try_push(frame).is_ok(), fits);
                if fits {
                    consumer.ring(Note::Frame);
                }
            }
            Step::PushUnheard(way, size) => {
                let frame = self.frame(size);
                let fits = self.oracles(way).0.push(&frame);
                let mut batch = batch(way);
                assert_eq!(batch.push(frame).is_ok(), fits);
                batch.end_unheard();
            }
            Step::HasRoom(way, size) => {
                let queue = self.oracles(way).0;
                #[cfg(feature = "runtime")]
                assert_eq!(batch(way).room_for(size), queue.room_for(size));
                assert_eq!(batch(way).has_room(size), queue.has_room(size));
            }
            Step::Pop(way, frames) => self.pop(way, frames),
            Step::RelayWake => {
                queues.relay_wake.wake();
                self.poll_loop.ring(Note::Relay);
            }
            Step::Take(waiter) => {
                let (bell, oracle) = self.bell(waiter);
                oracle.check_take(bell);
            }
            Step::Arm(waiter) => {
                let (bell, oracle) = self.bell(waiter);
                let leave = oracle.check_arm(bell);
                self.reached.armed_in_vain += usize::from(!leave);
            }
            Step::BeginShutdown => {
                queues.begin_shutdown();
                for oracle in [&mut self.poll_loop, &mut self.writer, &mut self.reader] {
                    oracle.shut_down();
                }
            }
        }
    }

    /// Pops this many frames in one drain.
    fn pop(&mut self, way: Way, frames: usize) {
        let queues = Arc::clone(&self.queues);
        let mut drain = match way {
            Way::FromGuest => queues.drain_from_guest(),
            Way::ToGuest => queues.drain_to_guest(),
        };
        let (queue, _, producer) = self.oracles(way);
        let mut popped = false;
        for _ in 0..frames {
            let frame = queue.pop();
            popped |= frame.is_some();
            assert_eq!(drain.pop(), frame);
        }
        if popped && queue.made_room() {
            producer.ring(Note::Space);
            self.reached.rung_for_room += 1;
        }
    }

    fn check(&mut self) {
        let queues = &self.queues;
        for (queue, room, oracle) in [
            (&queues.guest_to_host, &queues.guest_room, &self.from_guest),
            (&queues.host_to_guest, &queues.host_room, &self.to_guest),
        ] {
            assert_eq!(queue.len(), oracle.len());
            assert_eq!(room.bytes.load(Ordering::Acquire), oracle.bytes());
            oracle.check();
        }
        for waiter in [Waiter::PollLoop, Waiter::Writer, Waiter::Reader] {
            let (bell, oracle) = self.bell(waiter);
            self.reached.writes += oracle.check_writes(bell);
        }
        assert_eq!(self.queues.is_shutting_down(), self.poll_loop.is_down());
    }

    /// Whatever happened before, who was refused is rung once there is room.
    fn check_nobody_waits_in_vain(mut self) {
        for (way, waiter) in [(Way::FromGuest, Waiter::Reader), (Way::ToGuest, Waiter::PollLoop)] {
            self.step(Step::Push(way, vec![1; MOST_FRAMES + 1]));
            self.step(Step::Take(waiter));
            self.pop(way, MOST_FRAMES + 1);
            let (bell, oracle) = self.bell(waiter);
            assert!(oracle.has(Note::Space));
            oracle.check_take(bell);
        }
    }
}

#[test]
fn any_operations_do_what_the_oracles_say() {
    let reached = RefCell::new(Reached::default());
    let bounds = (1..=MOST_FRAMES, prop_oneof![0usize..200, Just(usize::MAX)]);
    let cases = (bounds, prop::collection::vec(step(), 0..120));
    let config = Config { source_file: Some(file!()), ..Config::with_cases(300) };
    TestRunner::new(config)
        .run(&cases, |((capacity, max_bytes), steps)| {
            let mut reached = reached.borrow_mut();
            let mut machine = Machine::new(capacity, max_bytes, &mut reached);
            for step in steps {
                machine.step(step);
                machine.check();
            }
            machine.check_nobody_waits_in_vain();
            Ok(())
        })
        .unwrap();
    let reached = reached.into_inner();
    println!("{reached:?}");
    assert!(reached.refused > 1000 && reached.rung_for_room > 200, "{reached:?}");
    assert!(reached.writes > 100 && reached.armed_in_vain > 300, "{reached:?}");
}
