//! What the models in `tests/models` share. Run them with `RUSTFLAGS="--cfg loom"`.
//!
//! A model is a function that loom runs once for every interleaving, and for every value that a load
//! may return, up to a bound on preemptions that stands in the model's file. The [`bodies`] compile
//! without loom as well: then they run on real threads and real descriptors, with as many frames as
//! the caller asks for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // All of this is test.

pub mod bodies;
#[cfg(loom)]
mod explore;
pub mod jitter;
#[cfg(loom)]
mod runner;
pub mod threads;
pub mod waiter;
pub mod watchdog;

#[cfg(loom)]
pub use explore::{Bounds, Model, Seen};
#[cfg(loom)]
pub use runner::run;
