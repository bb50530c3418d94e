//! The bodies of the models on real threads and real eventfds, with many frames and random delays.
//!
//! `FRAMEGATE_STRESS_FRAMES` says how many frames, `FRAMEGATE_STRESS_SEED` which delays; arguments name bodies, by
//! part of their names. Nothing here looks at the time: a lost wake is a body that hangs, and the watchdog says
//! which.
#![allow(clippy::expect_used)] // All of this is test.

#[cfg(loom)]
fn main() {
    println!("the models have loom's threads; these have real ones, and run without --cfg loom");
}

#[cfg(not(loom))]
fn main() {
    real::main();
}

#[cfg(not(loom))]
mod real {
    use std::env;
    #[allow(clippy::disallowed_types)] // No part of what is tested.
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::thread;
    use std::time::{Duration, Instant};

    use framegate_loom_tests::bodies::{
        BackPressure, Budgeted, Nic, OneWay, PollLoop, Produced, Relayed, Stopped, Whole,
        back_pressure_from_guest, back_pressure_to_guest, budget, delivered, echo,
        guest_ends_first, one_way, producers, push_then_shutdown, service_ends_first, stopped,
    };
    use framegate_loom_tests::jitter::seed;
    use framegate_loom_tests::threads::Arc;
    use framegate_loom_tests::waiter::{Turns, Waiter};
    use framegate_loom_tests::watchdog::Watchdog;

    const FRAMES: usize = 100_000;
    const LIMIT: Duration = Duration::from_secs(300);

    /// The body that is to be run next.
    #[allow(clippy::disallowed_types)]
    static NEXT: AtomicUsize = AtomicUsize::new(0);

    /// A body, for as many frames as it is given; it says what it did.
    type Body = fn(usize) -> String;

    const BODIES: &[(&str, Body)] = &[
        ("from the guest, 1 frame", |n| both(back_pressure_from_guest(n, 1, usize::MAX))),
        ("from the guest, 7 frames", |n| both(back_pressure_from_guest(n, 7, usize::MAX))),
        ("from the guest, no bytes", |n| both(back_pressure_from_guest(n, 4, 0))),
        ("from the guest, 24 bytes", |n| both(back_pressure_from_guest(n, 64, 24))),
        ("to the guest, 1 frame", |n| both(back_pressure_to_guest(n, 1, usize::MAX))),
        ("to the guest, 24 bytes", |n| both(back_pressure_to_guest(n, 64, 24))),
        ("budget", run_out_of_budget),
        ("four producers", many_producers),
        ("four producers, again and again", many_producers_again),
        ("pipe, 1 chunk", |n| pipe(one_way(n, 1))),
        ("pipe, 5 chunks", |n| pipe(one_way(n, 5))),
        ("relay, echo", |n| relay(echo(n))),
        ("relay, the guest ends first", |n| relay(guest_ends_first(n))),
        ("relay, the service ends first", |n| relay(service_ends_first(n))),
        ("shutdown behind frames", |n| turns(&[("consumer", &push_then_shutdown(n).consumer)])),
        ("shutdown behind frames, again and again", shutdowns),
        ("the whole hand-over", whole),
        ("the whole hand-over, stopped", stops),
        ("halves, from the guest", |n| halves(n, 0).said()),
        ("halves, to the guest", |n| halves(0, n).said()),
        ("halves, both ways", |n| halves(n, n).said()),
        ("halves, again and again", halves_again),
    ];

    fn turns(waiters: &[(&str, &Waiter)]) -> String {
        let one = |(who, waiter): &(&str, &Waiter)| {
            let Turns { arms, refusals } = waiter.turns;
            format!("{who} armed {arms}, refused {refusals}")
        };
        waiters.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn both(BackPressure { producer, consumer }: BackPressure) -> String {
        turns(&[("producer", &producer), ("consumer", &consumer)])
    }

    fn pipe(OneWay { writer, reader }: OneWay) -> String {
        turns(&[("writer", &writer), ("reader", &reader)])
    }

    fn relay(Relayed { poll_loop, .. }: Relayed) -> String {
        turns(&[("poll loop", &poll_loop)])
    }

    fn run_out_of_budget(frames: usize) -> String {
        let Budgeted { producer, consumer, over_budget } = budget(frames, 8, 3);
        let turns = turns(&[("producer", &producer), ("consumer", &consumer)]);
        format!("{turns}; {over_budget} turns over budget")
    }

    fn many_producers(frames: usize) -> String {
        let Produced { consumer, most_at_once } = producers(4, frames / 4);
        format!("{}; at the most {most_at_once} at once", turns(&[("consumer", &consumer)]))
    }

    fn many_producers_again(frames: usize) -> String {
        let runs = frames / 100;
        let arms: usize = (0..runs).map(|_| producers(4, 25).consumer.turns.arms).sum();
        format!("{runs} runs; consumer armed {arms}")
    }

    fn shutdowns(frames: usize) -> String {
        let runs = frames / 100;
        let together = |_: &usize| {
            let Stopped { frame_with_shutdown, .. } = push_then_shutdown(100);
            frame_with_shutdown
        };
        format!("{runs} runs; {} saw a frame with it", (0..runs).filter(together).count())
    }

    fn whole(frames: usize) -> String {
        let Whole { reader, poll_loop, writer, .. } = delivered(frames);
        turns(&[("reader", &reader), ("poll loop", &poll_loop), ("writer", &writer)])
    }

    fn stops(frames: usize) -> String {
        let runs = frames / 100;
        let got: usize = (0..runs).map(|_| stopped(frames).got.1).sum();
        format!("{runs} runs; {got} frames there and back")
    }

    /// How often halves changed hands.
    #[derive(Default)]
    struct Hands {
        lent: (usize, usize),
        reader_waited: usize,
        writer_sent: usize,
    }

    impl Hands {
        fn said(&self) -> String {
            let Self { lent: (receiver, sender), reader_waited, writer_sent } = self;
            format!(
                "receiver lent {receiver}, sender {sender}; reader waited for room {reader_waited}, \
                 writer sent {writer_sent}"
            )
        }
    }

    /// So many frames in each direction, over halves that change hands.
    fn halves(up: usize, down: usize) -> Hands {
        let nic = Nic::new(up, down);
        let threads = [nic.spawn_reader(), nic.spawn_writer(), nic.spawn_vmm()];
        let got = PollLoop::new(&nic).run(|_, _| {});
        threads.into_iter().for_each(|thread| thread.join().expect("nothing failed there"));
        let hands = Hands {
            lent: nic.lent(),
            reader_waited: nic.reader_waited_for_room(),
            writer_sent: nic.sent_by_writer(),
        };
        let stream = Arc::clone(&nic.stream);
        drop(nic);
        assert_eq!((got, stream.on_the_wire()), (up, down), "a frame was stranded");
        hands
    }

    fn halves_again(frames: usize) -> String {
        let runs = frames / 400;
        let mut all = Hands::default();
        for _ in 0..runs {
            let hands = halves(100, 100);
            all.lent = (all.lent.0 + hands.lent.0, all.lent.1 + hands.lent.1);
            all.reader_waited += hands.reader_waited;
            all.writer_sent += hands.writer_sent;
        }
        format!("{runs} runs; {}", all.said())
    }

    /// Runs bodies as long as there are some that nobody has begun, and says what they did.
    fn work(bodies: &[(&str, Body)], frames: usize) -> Vec<String> {
        let next = || bodies.get(NEXT.fetch_add(1, Relaxed));
        let mut said = Vec::new();
        while let Some((name, body)) = next() {
            let message = format!("{name}, FRAMEGATE_STRESS_SEED={}", seed());
            let _watched = Watchdog::new(message, LIMIT);
            let start = Instant::now();
            let did = body(frames);
            said.push(format!("{name}: {did}; {:.2} s", start.elapsed().as_secs_f64()));
        }
        said
    }

    pub(crate) fn main() {
        let frames = env::var("FRAMEGATE_STRESS_FRAMES")
            .map_or(FRAMES, |frames| frames.parse().expect("FRAMEGATE_STRESS_FRAMES: a number"));
        let parts: Vec<_> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
        let wanted = |name: &str| parts.is_empty() || parts.iter().any(|part| name.contains(part));
        let bodies: Vec<_> = BODIES.iter().filter(|(name, _)| wanted(name)).copied().collect();
        println!("FRAMEGATE_STRESS_FRAMES={frames} FRAMEGATE_STRESS_SEED={}", seed());

        // Two at a time keep two cores busy, and each other from running undisturbed.
        let start = Instant::now();
        let others = bodies.clone();
        let other = thread::spawn(move || work(&others, frames));
        let mut said = work(&bodies, frames);
        said.extend(other.join().expect("a body failed"));
        for line in said {
            println!("{line}");
        }
        println!("{:.1} s in all", start.elapsed().as_secs_f64());
    }
}
