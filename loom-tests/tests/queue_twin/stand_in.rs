//! What the twin uses of loom, made of std.

pub(crate) mod alloc {
    /// Loom's finds values that are never dropped.
    pub(crate) struct Track<T>(T);

    impl<T> Track<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(value)
        }

        pub(crate) fn into_inner(self) -> T {
            self.0
        }
    }
}

pub(crate) mod cell {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    /// Loom's finds two accesses that nothing orders; this one those that happen at the same time.
    pub(crate) struct UnsafeCell<T> {
        in_use: AtomicBool,
        _value: T,
    }

    impl<T> UnsafeCell<T> {
        pub(crate) fn new(value: T) -> Self {
            Self { in_use: AtomicBool::new(false), _value: value }
        }

        /// The twin has its value elsewhere and makes no use of the pointer.
        pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
            assert!(!self.in_use.swap(true, Relaxed), "two threads use one slot");
            let result = access(std::ptr::null_mut());
            assert!(self.in_use.swap(false, Relaxed));
            result
        }
    }
}

pub(crate) mod hint {
    pub(crate) use std::hint::spin_loop;
}

pub(crate) mod sync {
    pub(crate) mod atomic {
        pub(crate) use std::sync::atomic::{AtomicUsize, Ordering, fence};
    }
}

pub(crate) mod thread {
    pub(crate) use std::thread::yield_now;
}
