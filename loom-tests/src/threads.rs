//! Threads, and what threads share: loom's in a model, the real ones elsewhere.

pub use framegate::Arc;

#[cfg(loom)]
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
#[cfg(loom)]
pub use loom::thread::{JoinHandle, spawn};
#[cfg(not(loom))]
#[allow(clippy::disallowed_types)]
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
#[cfg(not(loom))]
pub use std::thread::JoinHandle;

/// Runs `work` in a thread that may begin late.
#[cfg(not(loom))]
pub fn spawn<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    std::thread::spawn(|| {
        crate::jitter::late();
        work()
    })
}

/// What may go to another thread; in a model that is everything, since loom's threads are none.
#[cfg(loom)]
pub trait Portable {}
#[cfg(loom)]
impl<T> Portable for T {}

/// What may go to another thread.
#[cfg(not(loom))]
pub trait Portable: Send {}
#[cfg(not(loom))]
impl<T: Send> Portable for T {}

/// A number that rises. It has its latest value for everybody, as what the kernel keeps, and orders nothing.
#[derive(Debug)]
#[allow(clippy::disallowed_types)]
pub struct Counter(AtomicUsize);

impl Default for Counter {
    #[allow(clippy::disallowed_types)]
    fn default() -> Self {
        Self(AtomicUsize::new(0))
    }
}

impl Counter {
    /// Rises.
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n, Relaxed);
    }

    /// How far it has risen.
    pub fn get(&self) -> usize {
        self.0.fetch_add(0, Relaxed)
    }
}

/// Something that is done by one thread at a time, and by each only after what the others did: loom finds a
/// second one. Without loom that is left to ThreadSanitizer.
#[cfg(loom)]
#[derive(Debug)]
pub struct Alone(loom::cell::UnsafeCell<()>);

#[cfg(loom)]
impl Default for Alone {
    fn default() -> Self {
        Self(loom::cell::UnsafeCell::new(()))
    }
}

#[cfg(loom)]
impl Alone {
    /// Does it.
    pub fn act(&self) {
        self.0.with_mut(|_| ());
    }
}

/// Something that is done by one thread at a time.
#[cfg(not(loom))]
#[derive(Debug, Default)]
pub struct Alone;

#[cfg(not(loom))]
impl Alone {
    /// Does it.
    pub fn act(&self) {}
}

/// Results of a thread. Behind a lock that loom does not see, so that it orders nothing in a model.
#[derive(Debug, Default)]
#[allow(clippy::disallowed_types)]
pub struct Locked<T>(std::sync::Mutex<T>);

impl<T: Default> Locked<T> {
    /// Leaves a result.
    pub fn put(&self, value: T) {
        *self.0.lock().unwrap_or_else(|error| error.into_inner()) = value;
    }

    /// Takes it.
    pub fn take(&self) -> T {
        std::mem::take(&mut self.0.lock().unwrap_or_else(|error| error.into_inner()))
    }
}
