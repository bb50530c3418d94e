//! Frame buffers that go round: the consumer of a frame hands its buffer back to the producer.

use crate::sync::ArrayQueue;

/// A buffer of this capacity holds any frame of a link with the ordinary MTU.
pub(crate) const SMALL: usize = 2048;

/// A buffer of this capacity holds the largest frame there is, 65,550 bytes.
pub(crate) const LARGE: usize = 66 * 1024;

/// Two bounded stacks of idle buffers. Losing a race here costs an allocation and nothing else.
#[derive(Debug)]
pub(crate) struct FramePool {
    small: ArrayQueue<Vec<u8>>,
    large: ArrayQueue<Vec<u8>>,
}

impl FramePool {
    /// A pool for queues of `capacity` frames and `max_bytes` bytes. It holds nothing to begin with,
    /// 512 KiB of small buffers at the most, and of large ones half of what a queue may hold.
    pub(crate) fn for_queues(capacity: usize, max_bytes: usize) -> Self {
        // A model has no use for idle buffers, and pays for each slot.
        let most = if cfg!(loom) { 1 } else { 256 };
        Self {
            small: ArrayQueue::new(capacity.clamp(1, most)),
            large: ArrayQueue::new((max_bytes / LARGE / 2).clamp(1, most)),
        }
    }

    /// An empty buffer with room for `len` bytes.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.take_any(len);
        buffer.clear();
        buffer
    }

    /// A buffer of `len` bytes, which are those of some earlier frame: zeroing 64 KiB that are about
    /// to be written would be a pass over the data.
    #[cfg(feature = "runtime")]
    pub(crate) fn take_sized(&self, len: usize) -> Vec<u8> {
        let mut buffer = self.take_any(len);
        buffer.resize(len, 0);
        buffer
    }

    fn take_any(&self, len: usize) -> Vec<u8> {
        let (shelf, capacity) =
            if len <= SMALL { (&self.small, SMALL) } else { (&self.large, LARGE) };
        shelf.pop().unwrap_or_else(|| Vec::with_capacity(capacity.max(len)))
    }

    /// Takes a buffer back; frees it when there are enough idle ones.
    pub(crate) fn give(&self, buffer: Vec<u8>) {
        let shelf = match buffer.capacity() {
            LARGE.. => &self.large,
            SMALL.. => &self.small,
            _ => return,
        };
        // Full: the buffer comes back as an error and is freed here.
        let _ = shelf.push(buffer);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_buffers_lie_apart() {
        let pool = FramePool::for_queues(4, 4 * LARGE);
        let (small, large) = (pool.take(SMALL), pool.take(SMALL + 1));
        assert_eq!((small.capacity(), large.capacity()), (SMALL, LARGE));
        pool.give(small);
        pool.give(large);
        assert_eq!((pool.small.len(), pool.large.len()), (1, 1));
        assert_eq!((pool.take(1).capacity(), pool.small.len()), (SMALL, 0));
        assert_eq!((pool.take(LARGE).capacity(), pool.large.len()), (LARGE, 0));
        assert_eq!(pool.take(LARGE + 1).capacity(), LARGE + 1);
    }

    #[test]
    fn what_is_idle_is_bounded_and_what_is_too_small_is_not_kept() {
        let pool = FramePool::for_queues(2, 4 * LARGE);
        pool.give(Vec::with_capacity(SMALL - 1));
        assert!(pool.small.is_empty());
        for _ in 0..3 {
            pool.give(Vec::with_capacity(SMALL));
            pool.give(Vec::with_capacity(LARGE));
        }
        assert_eq!((pool.small.len(), pool.large.len()), (2, 2));
        let large = FramePool::for_queues(usize::MAX, usize::MAX);
        assert_eq!((large.small.capacity(), large.large.capacity()), (256, 256));
        let least = FramePool::for_queues(1, 1);
        assert_eq!((least.small.capacity(), least.large.capacity()), (1, 1));
    }

    #[cfg(feature = "runtime")]
    #[test]
    fn a_sized_buffer_keeps_what_was_in_it() {
        let pool = FramePool::for_queues(1, LARGE);
        pool.give([7].repeat(SMALL));
        let buffer = pool.take_sized(2);
        assert_eq!(buffer, [7, 7]);
        pool.give(buffer);
        assert_eq!(pool.take_sized(3), [7, 7, 0], "only what is new is zeroed");
        pool.give([7].repeat(SMALL));
        assert!(pool.take(10).is_empty());
    }
}
