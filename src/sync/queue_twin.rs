//! `crossbeam_queue::ArrayQueue` over loom's atomics: the same algorithm (Vyukov's bounded queue),
//! the same order on every access and the same fences as crossbeam-queue 0.3, so that a model sees
//! what the shipped queue orders, and no more.

use std::fmt;

use loom::alloc::Track;
use loom::cell::UnsafeCell;
use loom::hint::spin_loop;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
use loom::thread::yield_now;

struct Slot<T> {
    /// `tail` when the slot may be written, `tail + 1` when it may be read.
    stamp: AtomicUsize,
    /// Loom checks every access to this cell for races. The value lies beside it, behind a lock
    /// that loom does not see, that is never held across a step of a model, and that orders
    /// nothing in one. As long as it lies there loom tracks it: a value that is never dropped fails
    /// the model.
    access: UnsafeCell<()>,
    #[allow(clippy::disallowed_types)]
    value: std::sync::Mutex<Option<Track<T>>>,
}

impl<T> Slot<T> {
    fn put(&self, value: T) {
        let value = Track::new(value);
        self.access
            .with_mut(|_| *self.value.lock().unwrap_or_else(|e| e.into_inner()) = Some(value));
    }

    fn take(&self) -> Option<T> {
        let take = |_| self.value.lock().unwrap_or_else(|e| e.into_inner()).take();
        self.access.with_mut(take).map(Track::into_inner)
    }
}

/// A bounded queue of many producers and many consumers: the twin of
/// `crossbeam_queue::ArrayQueue` in models.
pub struct ArrayQueue<T> {
    head: AtomicUsize,
    tail: AtomicUsize,
    slots: Box<[Slot<T>]>,
    one_lap: usize,
    /// See [`switch`](Self::switch).
    switches: AtomicUsize,
}

impl<T> ArrayQueue<T> {
    /// A queue of `capacity` slots.
    ///
    /// # Panics
    /// If `capacity` is zero.
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "capacity must be non-zero");
        let slots = (0..capacity)
            .map(|index| Slot {
                stamp: AtomicUsize::new(index),
                access: UnsafeCell::new(()),
                value: None.into(),
            })
            .collect();
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            slots,
            one_lap: (capacity + 1).next_power_of_two(),
            switches: AtomicUsize::new(0),
        }
    }

    /// A place where loom switches threads: the beginning of every operation, and between two loads that
    /// are SeqCst and so never stale. Loom tries a change before another thread's load only if it finds
    /// that load as the last access to the word. A thread that loads a word before it changes it finds
    /// its own load, and so do all operations here: orders would be missing (tokio-rs/loom#166). A
    /// relaxed read-modify-write has loom try all orders, and orders nothing itself.
    fn switch(&self) {
        self.switches.fetch_add(1, Ordering::Relaxed);
    }

    /// The position after `at`: the next index of this lap, or index 0 of the next lap.
    fn next(&self, at: usize) -> usize {
        let index = at & (self.one_lap - 1);
        if index + 1 < self.slots.len() {
            at + 1
        } else {
            (at & !(self.one_lap - 1)).wrapping_add(self.one_lap)
        }
    }

    fn slot(&self, at: usize) -> Option<&Slot<T>> {
        self.slots.get(at & (self.one_lap - 1))
    }

    /// Appends `value`, or gives it back when the queue is full.
    ///
    /// # Errors
    /// `Err(value)` when the queue is full.
    pub fn push(&self, value: T) -> Result<(), T> {
        self.switch();
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            let Some(slot) = self.slot(tail) else { return Err(value) };
            let stamp = slot.stamp.load(Ordering::Acquire);
            if tail == stamp {
                match self.tail.compare_exchange_weak(
                    tail,
                    self.next(tail),
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        slot.put(value);
                        slot.stamp.store(tail + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(now) => {
                        tail = now;
                        spin_loop();
                    }
                }
            } else if stamp.wrapping_add(self.one_lap) == tail + 1 {
                fence(Ordering::SeqCst);
                if self.head.load(Ordering::Relaxed).wrapping_add(self.one_lap) == tail {
                    return Err(value);
                }
                spin_loop();
                tail = self.tail.load(Ordering::Relaxed);
            } else {
                yield_now();
                tail = self.tail.load(Ordering::Relaxed);
            }
        }
    }

    /// Removes the oldest value, or returns `None` when the queue is empty.
    pub fn pop(&self) -> Option<T> {
        self.switch();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(head)?;
            let stamp = slot.stamp.load(Ordering::Acquire);
            if head + 1 == stamp {
                match self.head.compare_exchange_weak(
                    head,
                    self.next(head),
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => {
                        let value = slot.take();
                        slot.stamp.store(head.wrapping_add(self.one_lap), Ordering::Release);
                        return value;
                    }
                    Err(now) => {
                        head = now;
                        spin_loop();
                    }
                }
            } else if stamp == head {
                fence(Ordering::SeqCst);
                if self.tail.load(Ordering::Relaxed) == head {
                    return None;
                }
                spin_loop();
                head = self.head.load(Ordering::Relaxed);
            } else {
                yield_now();
                head = self.head.load(Ordering::Relaxed);
            }
        }
    }

    /// How many values the queue can hold.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Whether the queue held nothing at some moment during the call: a hint, as crossbeam's is.
    pub fn is_empty(&self) -> bool {
        self.switch();
        let head = self.head.load(Ordering::SeqCst);
        self.switch();
        let tail = self.tail.load(Ordering::SeqCst);
        tail == head
    }

    /// Whether the queue was full at some moment during the call: a hint, as crossbeam's is.
    pub fn is_full(&self) -> bool {
        self.switch();
        let tail = self.tail.load(Ordering::SeqCst);
        self.switch();
        let head = self.head.load(Ordering::SeqCst);
        head.wrapping_add(self.one_lap) == tail
    }
}

impl<T> fmt::Debug for ArrayQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("ArrayQueue { .. }")
    }
}
