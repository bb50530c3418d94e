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
