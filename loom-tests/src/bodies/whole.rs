//! The whole hand-over: the reader, the poll loop, the writer and whoever begins the shutdown, over one set
//! of queues. The poll loop sends a frame to the guest for each that comes from it.

use framegate::{NetworkFrameQueues, WakePipe};

use super::{Ledger, frame};
use crate::threads::{Arc, JoinHandle, Portable, spawn};
use crate::waiter::Waiter;

/// How it went.
#[derive(Debug)]
pub struct Whole {
    /// The reader's waits, for room.
    pub reader: Waiter,
    /// The poll loop's.
    pub poll_loop: Waiter,
    /// The writer's.
    pub writer: Waiter,
    /// Frames that the poll loop and the writer got.
    pub got: (usize, usize),
}

/// What a producer has still to push, and how much of it was pushed before any shutdown.
#[derive(Debug, Default)]
struct Pushed {
    all: usize,
    in_time: usize,
}

/// The shutdown comes when the writer has `frames` frames. Nothing is lost then.
///
/// # Panics
/// If something is.
pub fn delivered(frames: usize) -> Whole {
    let queues = NetworkFrameQueues::shared(1);
    let done = WakePipe::try_new().unwrap();
    let (theirs, bell) = (Arc::clone(&queues), done.clone());
    let stopper = spawn(move || {
        Waiter::serve(&bell, |wakes| !wakes.any());
        theirs.begin_shutdown();
    });
    let whole = run(&queues, frames, move |got| {
        if got == frames {
            done.wake();
        }
    });
    stopper.join().unwrap();
    assert_eq!(whole.got, (frames, frames), "every frame arrives");
    whole
}

/// The shutdown comes at any moment. What was pushed before it is drained, and everybody leaves.
///
/// # Panics
/// If that is not so.
pub fn stopped(frames: usize) -> Whole {
    let queues = NetworkFrameQueues::shared(1);
    let theirs = Arc::clone(&queues);
    let stopper = spawn(move || theirs.begin_shutdown());
    let whole = run(&queues, frames, |_| {});
    stopper.join().unwrap();
    whole
}

fn run(
    queues: &Arc<NetworkFrameQueues>,
    frames: usize,
    written: impl FnMut(usize) + Portable + 'static,
) -> Whole {
    let reader = spawn_reader(Arc::clone(queues), frames);
    let writer = spawn_writer(Arc::clone(queues), written);

    let (mut got, mut sent) = (Ledger::new(1), Pushed::default());
    let poll_loop = Waiter::serve(&queues.guest_wake, |wakes| {
        let mut drain = queues.drain_from_guest();
        while let Some(frame) = drain.pop() {
            got.enter(&frame);
        }
        drop(drain);
        push(&mut sent, got.len(), queues, |frame| queues.push_to_guest().push(frame));
        !wakes.is_down()
    });
    let (pushed, reader) = reader.join().unwrap();
    let (mut wrote, writer) = writer.join().unwrap();

    let counts = (got.len(), wrote.len());
    assert!(got.len() >= pushed.in_time, "a frame of the guest was pushed in time and stranded");
    assert!(wrote.len() >= sent.in_time, "a frame to the guest was pushed in time and stranded");
    // What came with the shutdown lies in its queue: nothing is lost even so.
    while let Some(frame) = queues.guest_to_host.pop() {
        got.enter(&frame);
    }
    while let Some(frame) = queues.host_to_guest.pop() {
        wrote.enter(&frame);
    }
    assert_eq!((got.len(), wrote.len()), (pushed.all, sent.all), "a frame was lost");
    Whole { reader, poll_loop, writer, got: counts }
}

/// Pushes up to `frames` frames, as many as there is room for.
fn push(
    pushed: &mut Pushed,
    frames: usize,
    queues: &NetworkFrameQueues,
    mut push: impl FnMut(Vec<u8>) -> Result<(), Vec<u8>>,
) {
    while pushed.all < frames && push(frame(0, pushed.all)).is_ok() {
        pushed.all += 1;
        // Who finds no shutdown after its ring has rung before it.
        if !queues.is_shutting_down() {
            pushed.in_time = pushed.all;
        }
    }
}

fn spawn_reader(queues: Arc<NetworkFrameQueues>, frames: usize) -> JoinHandle<(Pushed, Waiter)> {
    spawn(move || {
        let mut pushed = Pushed::default();
        let waiter = Waiter::serve(queues.guest_space(), |wakes| {
            push(&mut pushed, frames, &queues, |frame| queues.push_from_guest().push(frame));
            !wakes.is_down()
        });
        (pushed, waiter)
    })
}

fn spawn_writer(
    queues: Arc<NetworkFrameQueues>,
    mut written: impl FnMut(usize) + Portable + 'static,
) -> JoinHandle<(Ledger, Waiter)> {
    spawn(move || {
        let mut got = Ledger::new(1);
        let waiter = Waiter::serve(&queues.host_wake, |wakes| {
            let mut drain = queues.drain_to_guest();
            while let Some(frame) = drain.pop() {
                got.enter(&frame);
                written(got.len());
            }
            !wakes.is_down()
        });
        (got, waiter)
    })
}
