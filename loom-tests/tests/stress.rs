//! The bodies of the models on real threads and real eventfds, with many frames and random delays.
//!
//! `FRAMEGATE_STRESS_FRAMES` says how many frames, `FRAMEGATE_STRESS_SEED` which delays. Nothing here looks at the
//! time: a lost wake is a test that hangs, and the watchdog says which.
#![cfg(not(loom))]
#![allow(clippy::expect_used)] // All of this is test.

use std::env;
use std::time::{Duration, Instant};

use framegate_loom_tests::bodies::{
    BackPressure, Budgeted, Nic, OneWay, PollLoop, Produced, Relayed, Stopped, Whole,
    back_pressure_from_guest, back_pressure_to_guest, budget, delivered, echo, guest_ends_first,
    one_way, producers, push_then_shutdown, service_ends_first, stopped,
};
use framegate_loom_tests::jitter::seed;
use framegate_loom_tests::threads::Arc;
use framegate_loom_tests::waiter::Turns;
use framegate_loom_tests::watchdog::watch;

const FRAMES: usize = 100_000;
const LIMIT: Duration = Duration::from_secs(300);

/// Runs a body with as many frames as there are to be, and prints what it says of itself.
fn stress(name: &str, body: impl FnOnce(usize) -> String) {
    let frames = env::var("FRAMEGATE_STRESS_FRAMES")
        .map_or(FRAMES, |frames| frames.parse().expect("FRAMEGATE_STRESS_FRAMES: a number"));
    let head = format!("{name}: frames={frames} FRAMEGATE_STRESS_SEED={}", seed());
    println!("{head}"); // Where it is if the body fails.
    let _watched = watch(head.clone(), LIMIT);
    let start = Instant::now();
    let went = body(frames);
    println!("{name}: {went} seconds={:.2}", start.elapsed().as_secs_f64());
}

fn turns(of: &[(&str, Turns)]) -> String {
    let one = |(who, Turns { arms, refusals }): &(&str, Turns)| {
        format!("{who}: armed {arms}, refused {refusals}")
    };
    of.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn both(BackPressure { producer, consumer }: &BackPressure) -> String {
    turns(&[("producer", producer.turns), ("consumer", consumer.turns)])
}

#[test]
fn back_pressure_from_the_guest_by_frames() {
    stress("back_pressure_from_guest 1", |n| both(&back_pressure_from_guest(n, 1, usize::MAX)));
    stress("back_pressure_from_guest 7", |n| both(&back_pressure_from_guest(n, 7, usize::MAX)));
}

#[test]
fn back_pressure_from_the_guest_by_bytes() {
    stress("back_pressure_from_guest 0 bytes", |n| both(&back_pressure_from_guest(n, 4, 0)));
    stress("back_pressure_from_guest 24 bytes", |n| both(&back_pressure_from_guest(n, 64, 24)));
}

#[test]
fn back_pressure_to_the_guest() {
    stress("back_pressure_to_guest 1", |n| both(&back_pressure_to_guest(n, 1, usize::MAX)));
    stress("back_pressure_to_guest 24 bytes", |n| both(&back_pressure_to_guest(n, 64, 24)));
}

#[test]
fn a_budget_that_runs_out() {
    stress("budget", |n| {
        let Budgeted { producer, consumer, over_budget } = budget(n, 8, 3);
        let turns = turns(&[("producer", producer.turns), ("consumer", consumer.turns)]);
        format!("{turns}; {over_budget} turns over budget")
    });
}

#[test]
fn many_producers() {
    stress("producers", |n| {
        let Produced { consumer, most_at_once } = producers(4, n / 4);
        format!("{}; at the most {most_at_once} at once", turns(&[("consumer", consumer.turns)]))
    });
    stress("producers, again and again", |n| {
        let turns = (0..n / 100).map(|_| producers(4, 25).consumer.turns);
        let armed: usize = turns.map(|turns| turns.arms).sum();
        format!("armed {armed}")
    });
}

#[test]
fn a_pipe_in_one_direction() {
    for capacity in [1, 5] {
        stress(&format!("one_way {capacity}"), |n| {
            let OneWay { writer, reader } = one_way(n, capacity);
            turns(&[("writer", writer.turns), ("reader", reader.turns)])
        });
    }
}

fn relayed(Relayed { poll_loop, .. }: &Relayed) -> String {
    turns(&[("poll loop", poll_loop.turns)])
}

#[test]
fn a_relay_that_echoes() {
    stress("echo", |n| relayed(&echo(n)));
}

#[test]
fn a_relay_whose_ends_end_one_after_the_other() {
    stress("guest_ends_first", |n| relayed(&guest_ends_first(n)));
    stress("service_ends_first", |n| relayed(&service_ends_first(n)));
}

#[test]
fn a_shutdown_behind_frames() {
    stress("push_then_shutdown", |n| {
        let Stopped { consumer, .. } = push_then_shutdown(n);
        turns(&[("consumer", consumer.turns)])
    });
    stress("push_then_shutdown, again and again", |n| {
        let together = |_: &usize| push_then_shutdown(10).frame_with_shutdown;
        format!("{} times with a frame", (0..n / 100).filter(together).count())
    });
}

#[test]
fn the_whole_hand_over() {
    stress("delivered", |n| {
        let Whole { reader, poll_loop, writer, .. } = delivered(n);
        turns(&[("reader", reader.turns), ("poll loop", poll_loop.turns), ("writer", writer.turns)])
    });
}

#[test]
fn the_whole_hand_over_stopped_at_any_moment() {
    stress("stopped", |n| {
        let runs = n / 100;
        let got: usize = (0..runs).map(|_| stopped(n).got.1).sum();
        format!("{runs} runs, {got} frames there and back")
    });
}

/// Moves frames over halves that change hands. What came from the guest, and what is on the wire.
fn over_halves(up: usize, down: usize) -> (usize, usize, String) {
    let nic = Nic::new(up, down);
    let threads = [nic.spawn_reader(), nic.spawn_writer(), nic.spawn_vmm()];
    let got = PollLoop::new(&nic).run(|_, _| {});
    threads.into_iter().for_each(|thread| thread.join().expect("it holds"));
    let said = format!(
        "lent {:?}; reader waited for room {}; writer blocked {}, sent {}",
        nic.lent(),
        nic.reader_waited_for_room(),
        nic.writer_blocked(),
        nic.sent_by_writer()
    );
    let stream = Arc::clone(&nic.stream);
    drop(nic);
    (got, stream.on_the_wire(), said)
}

#[test]
fn the_halves_of_the_stream_change_hands() {
    for (up, down) in [(1, 0), (0, 1), (1, 1)] {
        stress(&format!("halves {up} up {down} down"), |n| {
            let (got, sent, said) = over_halves(up * n, down * n);
            assert_eq!((got, sent), (up * n, down * n), "a frame was stranded");
            said
        });
    }
}
