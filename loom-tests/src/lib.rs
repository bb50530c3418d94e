//! What the models in `tests/` share. Run them with `RUSTFLAGS="--cfg loom"`; without it this crate
//! is empty.
//!
//! A model is a closure that loom runs once for every interleaving, and for every value that a load
//! may return, up to the bound on preemptions that stands in the model. Each model is a process of
//! its own, because a failure inside a `Drop` aborts.
#![cfg(loom)]

use std::collections::BTreeMap;
#[allow(clippy::disallowed_types)] // Loom must not see what counts its executions.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use framegate::{WakePipe, Wakes};

/// A model that runs for longer is stuck, or too large for the gate.
const TIME_OUT: Duration = Duration::from_secs(300);

/// How far a model is explored. The environment variable `LOOM_MAX_PREEMPTIONS` overrides it.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Explore executions with this many preemptions at the most; `None` explores all.
    pub preemptions: Option<usize>,
}

/// In how many executions each interesting case was reached.
#[derive(Debug)]
#[allow(clippy::disallowed_types)]
pub struct Seen(BTreeMap<&'static str, AtomicUsize>);

impl Seen {
    /// Counts this execution if it `reached` the case.
    ///
    /// # Panics
    /// If `case` is not one of those that the model was announced with.
    pub fn when(&self, case: &str, reached: bool) {
        let Some(count) = self.0.get(case) else { panic!("{case} was not announced") };
        count.fetch_add(usize::from(reached), Relaxed);
    }
}

/// Runs `model` in every execution within `bounds`, and prints one line of counts.
///
/// # Panics
/// If the model does; if there was one execution only, or an interesting case was reached in none:
/// then the model does not say what it seems to say. Aborts after five minutes.
#[allow(clippy::disallowed_types)]
pub fn explore(
    name: &str,
    bounds: Bounds,
    interesting: &[&'static str],
    model: impl Fn(&Seen) + Send + Sync + 'static,
) {
    let mut loom = loom::model::Builder::new(); // It has read LOOM_MAX_PREEMPTIONS.
    loom.preemption_bound = loom.preemption_bound.or(bounds.preemptions);
    loom.max_branches = 10_000;
    (loom.max_permutations, loom.max_duration) = (None, None); // These end early, as a success.
    let bound = loom.preemption_bound.map_or("none".into(), |n| n.to_string());

    // No end of the model, a panic included, leaves the watchdog behind: it ends with the sender.
    let (_alive, ended) = channel::<()>();
    let label = name.to_owned();
    std::thread::spawn(move || {
        if ended.recv_timeout(TIME_OUT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("model={label} FAILED: no end after {} s", TIME_OUT.as_secs());
            std::process::abort();
        }
    });

    let counts = interesting.iter().map(|&case| (case, AtomicUsize::new(0))).collect();
    let seen = std::sync::Arc::new((AtomicUsize::new(0), Seen(counts)));
    let counted = std::sync::Arc::clone(&seen);
    let start = Instant::now();
    loom.check(move || {
        counted.0.fetch_add(1, Relaxed);
        model(&counted.1);
    });

    let executions = seen.0.load(Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    let mut line =
        format!("model={name} bound={bound} executions={executions} seconds={seconds:.2}");
    for (case, count) in &seen.1.0 {
        line += &format!(" {case}={}", count.load(Relaxed));
    }
    println!("{line}");
    assert!(executions > 1, "{name} explored one execution only");
    for (case, count) in &seen.1.0 {
        assert!(count.load(Relaxed) > 0, "{name} never reached the case {case}");
    }
}

/// What [`serve`] did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    /// The bell was armed, and the waiter waited.
    pub arms: usize,
    /// There was news between the take and the arm, and the arm was refused.
    pub refusals: usize,
}

/// The documented loop of a waiter: take, drain everything, arm, wait. `drain` gets what the take
/// found and says whether there is reason to stay.
pub fn serve(bell: &WakePipe, mut drain: impl FnMut(Wakes) -> bool) -> Turns {
    let mut turns = Turns::default();
    while drain(bell.take()) {
        if bell.arm() {
            turns.arms += 1;
            bell.wait();
        } else {
            turns.refusals += 1;
        }
    }
    turns
}
