//! Threads and reference counts: loom's in a model, the real ones elsewhere.

pub use framegate::Arc;

#[cfg(loom)]
pub use loom::thread::{JoinHandle, spawn};
#[cfg(not(loom))]
pub use std::thread::{JoinHandle, spawn};
