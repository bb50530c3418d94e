//! Delays from a seed. Which thread gets which of them is the scheduler's choice, so a seed repeats the delays
//! of a run and not the run.

use std::cell::Cell;
use std::env;
use std::sync::LazyLock;
#[allow(clippy::disallowed_types)] // No part of what is tested.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

static SEED: LazyLock<u64> = LazyLock::new(|| match env::var("FRAMEGATE_STRESS_SEED") {
    Ok(seed) => seed.parse().expect("FRAMEGATE_STRESS_SEED: a number"),
    Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64,
});

#[allow(clippy::disallowed_types)]
static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static STATE: Cell<u64> = Cell::new(scramble(*SEED ^ scramble(THREADS.fetch_add(1, Relaxed))));
}

/// What the delays of this process follow from: the environment's `FRAMEGATE_STRESS_SEED`, else the time.
pub fn seed() -> u64 {
    *SEED
}

/// Splitmix64's output function.
fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn random() -> u64 {
    STATE.with(|state| {
        state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        scramble(state.get())
    })
}

fn spin(steps: u64) {
    (0..steps).for_each(|_| std::hint::spin_loop());
}

/// Mostly none, now and then as long as a few steps of another thread, rarely as long as its sleep.
#[allow(clippy::disallowed_methods)] // The delay stands in for nothing.
pub fn delay() {
    let (kind, length) = (random() % 1024, random());
    match kind {
        0 => thread::sleep(Duration::from_micros(length % 64)),
        1..8 => thread::yield_now(),
        8..64 => spin(length % 512),
        _ => {}
    }
}

/// As long as up to a few hundred frames take.
pub fn late() {
    spin(random() % (1 << 16));
}

/// Mostly none, and now and then so long that everybody waits for this thread.
pub fn pause() {
    if random().is_multiple_of(64) {
        late();
    }
}
