//! The only file that names the primitives of std, loom, crossbeam and the kernel that threads
//! share. Everything else has them from here: under `--cfg loom` the same protocol code compiles
//! against loom.
//!
//! The atomics are types of their own, with the operations that the protocols use and no others.
//! There is no plain store, so none can be mixed with read-modify-writes by accident: the arguments
//! of [`wake`](crate::wake) rest on that, and loom reports impossible executions where it is done.
//! `clippy.toml` bans the originals everywhere else. It sees through re-exports, so it cannot ban
//! `Arc` and `ArrayQueue`, which the public API fixes; a test reads the sources for those.
//!
//! What the models can't see: [`EventFd`] and [`ArrayQueue`] are twins under loom. The queue's twin
//! is crossbeam's algorithm with crossbeam's orders; the eventfd's twin is a counter behind a mutex,
//! which adds happens-before edges that the kernel gives too but that no claim rests on.

#![allow(clippy::disallowed_types)]

#[cfg(not(loom))]
mod primitive {
    #[cfg(feature = "runtime")]
    pub(super) use std::sync::atomic::AtomicU64;
    pub(super) use std::sync::atomic::{AtomicU32, AtomicUsize};
}
#[cfg(loom)]
mod primitive {
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicUsize};
}

#[cfg(loom)]
mod event_fd_twin;
#[cfg(loom)]
mod queue_twin;

#[cfg(loom)]
pub(crate) use event_fd_twin::EventFd;
#[cfg(loom)]
pub use loom::sync::Arc;
#[cfg(loom)]
pub use queue_twin::ArrayQueue;

#[cfg(not(loom))]
pub(crate) use crate::sys::EventFd;
#[cfg(not(loom))]
pub use crossbeam_queue::ArrayQueue;
#[cfg(not(loom))]
pub use std::sync::Arc;

pub(crate) use std::sync::atomic::Ordering;

/// A word that several threads change, by read-modify-writes alone.
#[derive(Debug)]
pub(crate) struct AtomicU32(primitive::AtomicU32);

impl AtomicU32 {
    pub(crate) fn new(value: u32) -> Self {
        Self(primitive::AtomicU32::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    pub(crate) fn swap(&self, value: u32, order: Ordering) -> u32 {
        self.0.swap(value, order)
    }

    pub(crate) fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        self.0.fetch_or(bits, order)
    }

    pub(crate) fn fetch_and(&self, bits: u32, order: Ordering) -> u32 {
        self.0.fetch_and(bits, order)
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.0.compare_exchange(current, new, success, failure)
    }
}

/// A count that several threads change, by read-modify-writes alone.
#[derive(Debug)]
pub(crate) struct AtomicUsize(primitive::AtomicUsize);

impl AtomicUsize {
    pub(crate) fn new(value: usize) -> Self {
        Self(primitive::AtomicUsize::new(value))
    }

    pub(crate) fn load(&self, order: Ordering) -> usize {
        self.0.load(order)
    }

    pub(crate) fn fetch_update(
        &self,
        success: Ordering,
        failure: Ordering,
        update: impl FnMut(usize) -> Option<usize>,
    ) -> Result<usize, usize> {
        self.0.fetch_update(success, failure, update)
    }
}

/// A statistic: it orders nothing.
#[cfg(feature = "runtime")]
#[derive(Debug, Default)]
pub(crate) struct Tally(primitive::AtomicU64);

#[cfg(feature = "runtime")]
impl Tally {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that one thread uses at a time. Only threads of the embedder's meet here: no thread of this
/// crate waits for another in a lock.
#[cfg(feature = "runtime")]
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(std::sync::Mutex<T>);

#[cfg(feature = "runtime")]
impl<T> Lock<T> {
    /// Works with the value. A panic of an earlier user is its own affair.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// A value that is set once; later values are dropped.
#[cfg(feature = "runtime")]
#[derive(Debug)]
pub(crate) struct SetOnce<T>(std::sync::OnceLock<T>);

#[cfg(feature = "runtime")]
impl<T> SetOnce<T> {
    pub(crate) fn new() -> Self {
        Self(std::sync::OnceLock::new())
    }

    pub(crate) fn set(&self, value: T) {
        // The value that came too late comes back.
        let _ = self.0.set(value);
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.0.get()
    }
}
