//! Random delays at the steps of the bodies, so that real threads meet in more ways than by themselves. In a
//! model there are none: loom goes through all orders anyway.

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
