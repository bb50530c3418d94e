//! A non-blocking eventfd and the poll set it lies in, over loom's mutex and condition variable.

use std::io;

use loom::cell::UnsafeCell;
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
    /// Loom checks that every use of the descriptor comes before its close.
    descriptor: UnsafeCell<()>,
    /// Behind a lock that loom does not see, so that it orders nothing in a model.
    #[allow(clippy::disallowed_types)]
    is_closed: std::sync::Mutex<bool>,
}

impl EventFd {
    /// A new eventfd whose counter is zero.
    ///
    /// # Errors
    /// Never: the twin takes the signature of the real call.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            kernel: Mutex::new(Kernel::default()),
            changed: Condvar::new(),
            descriptor: UnsafeCell::new(()),
            is_closed: false.into(),
        })
    }

    /// Uses the descriptor, in a system call.
    fn touch(&self) {
        let is_closed = self.descriptor.with(|_| *self.lock_closed());
        assert!(
            !is_closed,
            "a descriptor was used that is closed: it may be somebody else's by now"
        );
    }

    /// As close(2) does, once.
    pub(crate) fn close(&self) {
        let was = self.descriptor.with_mut(|_| std::mem::replace(&mut *self.lock_closed(), true));
        assert!(!was, "a descriptor was closed twice");
    }

    #[allow(clippy::disallowed_types)]
    fn lock_closed(&self) -> std::sync::MutexGuard<'_, bool> {
        self.is_closed.lock().unwrap_or_else(|error| error.into_inner())
    }

    fn kernel(&self) -> loom::sync::MutexGuard<'_, Kernel> {
        match self.kernel.lock() {
            Ok(kernel) => kernel,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// Makes the descriptor readable.
    pub(crate) fn signal(&self) {
        self.touch();
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

    /// Sleeps until the eventfd is readable, and takes its token. There is no time-out: a wake that was
    /// lost deadlocks.
    pub(crate) fn wait(&self) {
        self.wait_for(|kernel| kernel.token);
    }

    /// As [`wait`](Self::wait), or until the other descriptor is readable; says whether that was.
    pub(crate) fn wait_with_other(&self) -> bool {
        std::mem::take(&mut self.wait_for(|kernel| kernel.token || kernel.other).other)
    }

    fn wait_for(&self, is_ready: fn(&Kernel) -> bool) -> loom::sync::MutexGuard<'_, Kernel> {
        self.touch();
        let mut kernel = self.kernel();
        while !is_ready(&kernel) {
            kernel.sleeps += 1;
            kernel = match self.changed.wait(kernel) {
                Ok(kernel) => kernel,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
        kernel.token = false;
        kernel
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

impl Drop for EventFd {
    fn drop(&mut self) {
        // Loom must not be asked for more while a failure unwinds.
        if !std::thread::panicking() {
            self.close();
        }
    }
}
