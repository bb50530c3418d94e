//! A non-blocking eventfd and the poll set it lies in, over loom's mutex and condition variable.

use std::io;

use loom::sync::{Condvar, Mutex};

/// What the kernel knows: the eventfd's counter, and one more descriptor of the same poll set.
#[derive(Debug, Default)]
struct Kernel {
    token: bool,
    other: bool,
    writes: usize,
    sleeps: usize,
}

/// The twin of an eventfd in a model.
#[derive(Debug)]
pub struct EventFd {
    kernel: Mutex<Kernel>,
    changed: Condvar,
}

impl EventFd {
    /// A new eventfd whose counter is zero.
    ///
    /// # Errors
    /// Never: the twin takes the signature of the real call.
    pub fn new() -> io::Result<Self> {
        Ok(Self { kernel: Mutex::new(Kernel::default()), changed: Condvar::new() })
    }

    fn kernel(&self) -> loom::sync::MutexGuard<'_, Kernel> {
        match self.kernel.lock() {
            Ok(kernel) => kernel,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// Makes the descriptor readable.
    pub(crate) fn signal(&self) {
        let mut kernel = self.kernel();
        kernel.token = true;
        kernel.writes += 1;
        drop(kernel);
        self.changed.notify_one();
    }

    /// Makes the other descriptor of the poll set readable, as a host socket becomes.
    pub fn make_other_ready(&self) {
        self.kernel().other = true;
        self.changed.notify_one();
    }

    /// Sleeps until the eventfd or the other descriptor is readable, takes what is readable, and
    /// says whether the other descriptor was. There is no time-out: a wake that was lost deadlocks.
    pub(crate) fn wait(&self) -> bool {
        let mut kernel = self.kernel();
        while !kernel.token && !kernel.other {
            kernel.sleeps += 1;
            kernel = match self.changed.wait(kernel) {
                Ok(kernel) => kernel,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
        kernel.token = false;
        std::mem::take(&mut kernel.other)
    }

    /// How many times the eventfd was written: what a wake costs in system calls.
    pub fn writes(&self) -> usize {
        self.kernel().writes
    }

    /// How many times a waiter really slept.
    pub fn sleeps(&self) -> usize {
        self.kernel().sleeps
    }
}
