//! Random delays at the steps of the bodies, so that real threads meet in more ways than by themselves. In a
//! model there are none: there the order of steps is loom's choice.

#[cfg(not(loom))]
mod random;

#[cfg(not(loom))]
pub use random::{delay, late, pause, seed};

/// Nothing, in a model.
#[cfg(loom)]
pub fn delay() {}

/// Nothing, in a model.
#[cfg(loom)]
pub fn pause() {}
