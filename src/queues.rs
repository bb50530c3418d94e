//! The two frame queues of one NIC, and the wakes that go with them.
//!
//! # Theory of operation
//!
//! ```text
//!              push                    pop
//!   reader ────────────> guest_to_host ────────> poll loop      guest_wake: a frame is there
//!          <──────────────────────────────────── (space)        guest_space: the reader may go on
//!
//!              pop                     push
//!   writer <──────────── host_to_guest <──────── poll loop      host_wake: a frame is there
//!          ────────────────────────────────────> (space)        host_space: the poll loop may go on
//! ```
//!
//! A queue hands over the ownership of frame bytes. Everything in the crate pushes through a
//! [`Batch`] and pops through a [`Drain`]; both ring when they are dropped, once for all the frames
//! that they moved, so no caller can forget to. The raw queues are public for embedders that have a
//! scheme of their own; who pushes there rings himself, and his frames count for nothing in the
//! byte bound.
//!
//! Each direction has one producer and one consumer that may sleep (there is one bell for each).
//! Where none sleeps on a full queue more threads may push. Beside a producer that sleeps they may
//! not: a push reserves its bytes before it finds the queue full, and rings no one for giving them
//! back.
//!
//! # Room
//!
//! A queue is bounded by frames and by bytes of buffer capacity. A push reserves its bytes or is
//! refused; the count never overshoots.
//!
//! A producer that was refused waits for room on its own bell, which the consumer rings when it has
//! made some. It rings for nobody else: a bell that rang for every frame taken would wake a reader that
//! waits for bytes, once for each packet. So the producer says that it waits, in one word `wanted`
//! beside the count, and looks once more:
//!
//! ```text
//! producer: refused ─> swap(wanted, 1) ─> try again ─> refused ─> arm ─> sleep
//! consumer: pop, give the bytes back ─> swap(wanted, 0) was 1 ─> ring
//! ```
//!
//! The race that looks possible and is not: the consumer takes the last frame and sees that nobody
//! waits, and the producer, refused just before, goes to sleep on an empty queue. The two swaps stand in
//! one order. If the consumer's came first, the producer's acquires what the consumer did before it,
//! and trying again finds the room. If the producer's came first, the consumer's returns 1, and it
//! rings; that the ring is not lost is the argument of [`wake`](crate::wake).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::pool::FramePool;
use crate::sync::{Arc, ArrayQueue, AtomicU32, AtomicUsize, Ordering};
use crate::wake::{Bell, Note, WakePipe};

#[cfg(all(test, not(loom)))]
pub(crate) mod oracle;
#[cfg(all(test, not(loom)))]
mod tests;

/// The default bound of each queue, in frames.
pub const DEFAULT_CAPACITY: usize = 1024;

/// The default bound of each queue, in bytes of buffer capacity.
pub const DEFAULT_BYTES: usize = 4 << 20;

/// The frame queues of one NIC, shared by all its threads, with the wakes and the shutdown flag.
#[derive(Debug)]
pub struct NetworkFrameQueues {
    /// Raw Ethernet frames emitted by the guest, waiting for smoltcp.
    pub guest_to_host: ArrayQueue<Vec<u8>>,
    /// Raw Ethernet frames emitted by smoltcp, waiting for libkrun.
    pub host_to_guest: ArrayQueue<Vec<u8>>,
    /// Wakes the smoltcp poll loop: a guest frame arrived.
    pub guest_wake: WakePipe,
    /// Wakes the libkrun writer: a host frame is ready.
    pub host_wake: WakePipe,
    /// Wakes the smoltcp poll loop: a TCP relay thread has new data.
    pub relay_wake: WakePipe,
    /// Wakes the reader: `guest_to_host` has room.
    guest_space: WakePipe,
    /// Wakes the poll loop: `host_to_guest` has room.
    host_space: WakePipe,
    guest_room: Room,
    host_room: Room,
    pool: FramePool,
}

impl NetworkFrameQueues {
    /// Queues of `capacity` frames and [`DEFAULT_BYTES`] bytes in each direction.
    ///
    /// # Panics
    /// If `capacity` is zero, or if the process or the host is out of file descriptors: three are
    /// needed. [`try_shared`](Self::try_shared) reports that instead.
    pub fn shared(capacity: usize) -> Arc<Self> {
        match Self::try_shared(capacity) {
            Ok(queues) => queues,
            Err(error) => panic!("no eventfd for the frame queues: {error}"),
        }
    }

    /// As [`shared`](Self::shared), without the panic for want of descriptors.
    ///
    /// # Errors
    /// EMFILE, ENFILE or ENOMEM from eventfd(2).
    ///
    /// # Panics
    /// If `capacity` is zero.
    pub fn try_shared(capacity: usize) -> io::Result<Arc<Self>> {
        Self::with_bounds(capacity, DEFAULT_BYTES)
    }

    /// Queues of `capacity` frames and `max_bytes` bytes of buffer capacity in each direction. One
    /// frame always fits into an empty queue, however large.
    ///
    /// # Errors
    /// EMFILE, ENFILE or ENOMEM from eventfd(2).
    ///
    /// # Panics
    /// If `capacity` is zero.
    pub fn with_bounds(capacity: usize, max_bytes: usize) -> io::Result<Arc<Self>> {
        let gateway = Bell::new()?;
        let writer = Bell::new()?;
        let reader = Bell::new()?;
        Ok(Arc::new(Self {
            guest_to_host: ArrayQueue::new(capacity),
            host_to_guest: ArrayQueue::new(capacity),
            guest_wake: WakePipe::new(&gateway, Note::Frame),
            host_wake: WakePipe::new(&writer, Note::Frame),
            relay_wake: WakePipe::new(&gateway, Note::Relay),
            guest_space: WakePipe::new(&reader, Note::Space),
            host_space: WakePipe::new(&gateway, Note::Space),
            guest_room: Room::new(max_bytes),
            host_room: Room::new(max_bytes),
            pool: FramePool::for_queues(capacity, max_bytes),
        }))
    }

    /// Begins the shutdown: sticky, idempotent, from any thread. Wakes all waiters, and none of them
    /// can sleep again. Frames pushed before it are drained before the threads leave.
    pub fn begin_shutdown(&self) {
        for bell in [&self.guest_wake, &self.host_wake, &self.guest_space] {
            bell.shut_down();
        }
    }

    /// Whether [`begin_shutdown`](Self::begin_shutdown) was called. A producer that pushes, rings and then
    /// hears `false` was in time: what it pushed is drained.
    pub fn is_shutting_down(&self) -> bool {
        // The first bell that begin_shutdown rings: who sees a later one down sees this one too.
        self.guest_wake.is_down()
    }

    /// Does the work of one of the threads. However it ends, by return or by panic, `left` hears how, and
    /// then the shutdown begins, so that the other threads leave as well.
    #[doc(hidden)]
    pub fn work_until_shutdown<R>(
        &self,
        work: impl FnOnce() -> R,
        left: impl FnOnce(thread::Result<R>),
    ) {
        let _shutdown = ShutdownOnDrop(self);
        left(catch_unwind(AssertUnwindSafe(work)));
    }

    /// The bell that tells the producer of `guest_to_host` that there is room again: the bridge's
    /// reader, or an embedder's device thread, waits on it when a push was refused.
    pub fn guest_space(&self) -> &WakePipe {
        &self.guest_space
    }

    /// The producer's side of `guest_to_host`.
    pub fn push_from_guest(&self) -> Batch<'_> {
        Batch::new(&self.guest_to_host, &self.guest_room, &self.guest_wake)
    }

    /// The consumer's side of `guest_to_host`.
    pub fn drain_from_guest(&self) -> Drain<'_> {
        Drain::new(&self.guest_to_host, &self.guest_room, &self.guest_space)
    }

    /// The producer's side of `host_to_guest`.
    pub fn push_to_guest(&self) -> Batch<'_> {
        Batch::new(&self.host_to_guest, &self.host_room, &self.host_wake)
    }

    /// The consumer's side of `host_to_guest`.
    pub fn drain_to_guest(&self) -> Drain<'_> {
        Drain::new(&self.host_to_guest, &self.host_room, &self.host_space)
    }

    /// An empty buffer with room for a frame of `len` bytes, used before if one is idle.
    pub fn buffer(&self, len: usize) -> Vec<u8> {
        self.pool.take(len)
    }

    /// A buffer with the bytes of a frame that lies elsewhere.
    #[cfg(feature = "runtime")]
    pub(crate) fn copy_of(&self, frame: &[u8]) -> Vec<u8> {
        let mut buffer = self.buffer(frame.len());
        buffer.extend_from_slice(frame);
        buffer
    }

    /// A buffer of `len` bytes for a caller that writes every one of them: what is in it is left over
    /// from other frames of this NIC.
    #[cfg(feature = "runtime")]
    pub(crate) fn sized_buffer(&self, len: usize) -> Vec<u8> {
        self.pool.take_sized(len)
    }

    /// Hands a popped frame's buffer back for use by [`buffer`](Self::buffer).
    pub fn recycle(&self, buffer: Vec<u8>) {
        self.pool.give(buffer);
    }
}

/// Begins the shutdown when it goes, also when what comes before that panics.
struct ShutdownOnDrop<'q>(&'q NetworkFrameQueues);

impl Drop for ShutdownOnDrop<'_> {
    fn drop(&mut self) {
        self.0.begin_shutdown();
    }
}

/// How many bytes lie in one queue, and whether its producer waits for room.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: AtomicUsize,
    max_bytes: usize,
    /// 1 since the producer was refused, until the consumer has made room and rung for it.
    wanted: AtomicU32,
}

impl Room {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), max_bytes, wanted: AtomicU32::new(0) }
    }

    fn with(&self, held: usize, len: usize) -> Option<usize> {
        let after = held.saturating_add(len);
        (held == 0 || after <= self.max_bytes).then_some(after)
    }

    fn reserve(&self, len: usize) -> bool {
        let with = |held| self.with(held, len);
        self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, with).is_ok()
    }

    /// Bytes that would fit now.
    #[cfg(feature = "runtime")]
    pub(crate) fn left(&self) -> usize {
        self.max_bytes.saturating_sub(self.bytes.load(Ordering::Acquire))
    }

    /// Saturates, because a frame that was pushed into the raw queue was never counted.
    fn give_back(&self, len: usize) {
        let less = |held: usize| Some(held.saturating_sub(len));
        let _ = self.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// The producer was refused. It must look once more after this: see "Room" in the module's theory.
    fn want(&self) {
        self.wanted.swap(1, Ordering::AcqRel);
    }

    /// The consumer has made room: whether somebody waits for it.
    fn is_wanted(&self) -> bool {
        self.wanted.swap(0, Ordering::AcqRel) == 1
    }
}

/// Pushes frames into one queue and rings the consumer, once, when it is dropped.
#[derive(Debug)]
pub struct Batch<'q> {
    queue: &'q ArrayQueue<Vec<u8>>,
    room: &'q Room,
    wake: &'q WakePipe,
    pushed: bool,
}

impl<'q> Batch<'q> {
    pub(crate) fn new(queue: &'q ArrayQueue<Vec<u8>>, room: &'q Room, wake: &'q WakePipe) -> Self {
        Self { queue, room, wake, pushed: false }
    }
}

impl Batch<'_> {
    /// Appends a frame. After a refusal the queue's space bell rings when there is room.
    ///
    /// # Errors
    /// Gives the frame back when the queue is full, by frames or by bytes.
    pub fn push(&mut self, frame: Vec<u8>) -> Result<(), Vec<u8>> {
        self.try_push(frame).or_else(|frame| {
            self.room.want();
            self.try_push(frame)
        })
    }

    /// As [`push`](Self::push), for a producer that does not wait for room: nothing rings for it.
    pub(crate) fn try_push(&mut self, frame: Vec<u8>) -> Result<(), Vec<u8>> {
        let len = frame.capacity();
        if !self.room.reserve(len) {
            return Err(frame);
        }
        match self.queue.push(frame) {
            Ok(()) => {
                self.pushed = true;
                Ok(())
            }
            Err(frame) => {
                self.room.give_back(len);
                Err(frame)
            }
        }
    }

    /// Whether the only producer could push a frame with a buffer of `len` bytes now. After `false`
    /// the queue's space bell rings when there is room.
    pub fn has_room(&self, len: usize) -> bool {
        self.sees_room(len) || {
            self.room.want();
            self.sees_room(len)
        }
    }

    /// As [`has_room`](Self::has_room), for `count` frames with buffers of `len` bytes each.
    #[cfg(feature = "runtime")]
    pub(crate) fn has_room_for(&self, count: usize, len: usize) -> bool {
        self.room_for(len) >= count || {
            self.room.want();
            self.room_for(len) >= count
        }
    }

    /// For how many frames with buffers of `len` bytes there is room now.
    #[cfg(feature = "runtime")]
    pub(crate) fn room_for(&self, len: usize) -> usize {
        let held = self.room.bytes.load(Ordering::Acquire);
        let bytes = self.room.max_bytes.saturating_sub(held) / len.max(1);
        let frames = self.queue.capacity() - self.queue.len();
        // One always fits an empty queue.
        frames.min(if held == 0 { bytes.max(1) } else { bytes })
    }

    fn sees_room(&self, len: usize) -> bool {
        let held = self.room.bytes.load(Ordering::Acquire);
        !self.queue.is_full() && self.room.with(held, len).is_some()
    }

    /// Rings now for what was pushed so far.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.pushed) {
            self.wake.wake();
        }
    }

    /// Ends the batch without a ring. For a producer that drains the queue itself, and does so next.
    #[doc(hidden)]
    pub fn end_unheard(&mut self) {
        self.pushed = false;
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Pops frames from one queue and, when it is dropped, rings the producer if that waits for room.
#[derive(Debug)]
pub struct Drain<'q> {
    queue: &'q ArrayQueue<Vec<u8>>,
    room: &'q Room,
    space: &'q WakePipe,
    popped: bool,
}

impl<'q> Drain<'q> {
    pub(crate) fn new(queue: &'q ArrayQueue<Vec<u8>>, room: &'q Room, space: &'q WakePipe) -> Self {
        Self { queue, room, space, popped: false }
    }
}

impl Drain<'_> {
    /// Removes the oldest frame. `None` is what "drained" means.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let frame = self.queue.pop()?;
        self.room.give_back(frame.capacity());
        self.popped = true;
        Some(frame)
    }

    /// Rings now, if somebody waits, for the room that was made so far.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.popped) && self.room.is_wanted() {
            self.space.wake();
        }
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}
