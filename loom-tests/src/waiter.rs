//! A thread that waits on a bell, as the documentation of the core tells it to.

use framegate::{WakePipe, Wakes};

use crate::jitter::delay;

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
        delay();
        if bell.arm() {
            turns.arms += 1;
            delay();
            bell.wait();
        } else {
            turns.refusals += 1;
        }
    }
    turns
}

/// A bell and what its waiter did.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// Where it waited.
    pub bell: WakePipe,
    /// How often.
    pub turns: Turns,
}

impl Waiter {
    /// As [`serve`].
    pub fn serve(bell: &WakePipe, drain: impl FnMut(Wakes) -> bool) -> Self {
        Self { bell: bell.clone(), turns: serve(bell, drain) }
    }
}

/// What a model sees of the eventfd.
#[cfg(loom)]
impl Waiter {
    /// Whether it really slept.
    pub fn slept(&self) -> bool {
        self.bell.event().sleeps() > 0
    }

    /// How many writes its wakes took.
    ///
    /// # Panics
    /// If they took more than one for each time that it armed.
    pub fn writes(&self) -> usize {
        let writes = self.bell.event().writes();
        assert!(writes <= self.turns.arms, "{writes} writes, {:?}", self.turns);
        writes
    }
}
