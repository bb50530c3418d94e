//! One model, in all its executions.

use std::collections::BTreeMap;
use std::env;
#[allow(clippy::disallowed_types)] // Loom must not see what counts its executions.
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::watchdog::Watchdog;

/// How far a model is explored: executions with this many preemptions at the most, or all of them.
/// The environment variable `LOOM_MAX_PREEMPTIONS` overrides both.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For every change: all models together in less than two minutes.
    pub quick: Option<usize>,
    /// With `FRAMEGATE_LOOM=full`: none where that ends, else the highest that ends within ten minutes.
    pub full: Option<usize>,
}

/// A claim and the function that would fail if it did not hold.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// What it is called on the command line and in the table.
    pub name: &'static str,
    /// What it shows, in one line.
    pub claim: &'static str,
    /// The invariants of SPECIFICATION.md that the claim is part of.
    pub shows: &'static str,
    /// What it leaves to others, or why there is nothing.
    pub not_covered: &'static str,
    /// How far it is explored.
    pub bounds: Bounds,
    /// Cases that some execution must reach: a model that never does says nothing about them.
    pub cases: &'static [&'static str],
    /// One execution.
    pub run: fn(&Seen),
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

/// What one exploration found.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) bound: Option<usize>,
    pub(crate) executions: usize,
    pub(crate) seconds: f64,
    pub(crate) cases: Vec<(&'static str, usize)>,
}

/// Whether the full set of bounds was asked for.
///
/// # Panics
/// If `FRAMEGATE_LOOM` is neither `quick` nor `full`.
pub(crate) fn is_full() -> bool {
    match env::var("FRAMEGATE_LOOM").as_deref() {
        Err(_) | Ok("" | "quick") => false,
        Ok("full") => true,
        Ok(other) => panic!("FRAMEGATE_LOOM={other}: quick or full"),
    }
}

/// Runs a model in every execution within its bounds.
///
/// # Panics
/// If the model does; if there was one execution only, or a case was reached in none. Aborts after
/// `limit`, and when a failure lies inside a `Drop`.
#[allow(clippy::disallowed_types)]
pub(crate) fn explore(model: &'static Model, limit: Duration) -> Explored {
    let name = model.name;
    let bound = if is_full() { model.bounds.full } else { model.bounds.quick };
    let mut loom = loom::model::Builder::new(); // It has read LOOM_MAX_PREEMPTIONS.
    loom.preemption_bound = loom.preemption_bound.or(bound);
    loom.max_branches = 10_000;
    (loom.max_permutations, loom.max_duration) = (None, None); // These end early, as a success.
    let bound = loom.preemption_bound;

    // No end of the model, a panic included, leaves the watchdog behind.
    let _watched = Watchdog::new(name.into(), limit);

    let counts = model.cases.iter().map(|&case| (case, AtomicUsize::new(0))).collect();
    let seen = std::sync::Arc::new((AtomicUsize::new(0), Seen(counts)));
    let counted = std::sync::Arc::clone(&seen);
    let start = Instant::now();
    loom.check(move || {
        counted.0.fetch_add(1, Relaxed);
        (model.run)(&counted.1);
    });

    let executions = seen.0.load(Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    let cases: Vec<_> = seen.1.0.iter().map(|(&case, count)| (case, count.load(Relaxed))).collect();
    assert!(executions > 1, "{name} explored one execution only");
    for (case, count) in &cases {
        assert!(*count > 0, "{name} never reached the case {case}: {cases:?}");
    }
    Explored { bound, executions, seconds, cases }
}
