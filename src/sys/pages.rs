//! Memory for TCP windows: address space that costs memory only when it is used, and a smoltcp socket
//! that lives in it.
//!
//! A window of a megabyte from the ordinary allocator would be zeroed by hand as soon as the
//! allocator reuses memory. Mapped pages are zero for nothing until they are touched.

use std::io;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp;

/// What a pooled pair of windows keeps of its memory, in bytes for each direction.
const KEPT: usize = 64 * 1024;

/// A private anonymous mapping: the windows of one flow, receive first and send after it.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    receive: usize,
    send: usize,
}

// SAFETY: the mapping is owned by this value alone and has no tie to a thread.
unsafe impl Send for Pages {}

impl Pages {
    /// Maps windows of so many bytes.
    ///
    /// # Errors
    /// ENOMEM as mmap(2) reports it: address space, memory or the number of mappings.
    pub(crate) fn new(receive: usize, send: usize) -> io::Result<Self> {
        let len = receive.checked_add(send).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that
        // exists.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // With huge pages one byte of traffic would cost 2 MiB.
        #[cfg(target_os = "linux")]
        // SAFETY: the range is the mapping just made.
        unsafe {
            libc::madvise(start.as_ptr().cast(), len, libc::MADV_NOHUGEPAGE);
        }
        Ok(Self { start, receive, send })
    }

    /// Gives the memory beyond the first 64 KiB of each window back to the host, where `used` says
    /// that it was touched. The contents become unspecified.
    pub(crate) fn trim(&mut self, used_receive: usize, used_send: usize) {
        let windows = [(0, self.receive, used_receive), (self.receive, self.send, used_send)];
        for (offset, window, used) in windows {
            if used > KEPT && window > KEPT {
                // SAFETY: the range lies within this mapping, which `&mut self` says nobody else
                // looks at, and it is aligned: windows and KEPT are multiples of the page size
                // (the former is checked in `new`'s callers; an unaligned range fails with EINVAL and
                // changes nothing).
                unsafe {
                    libc::madvise(
                        self.start.as_ptr().add(offset + KEPT).cast(),
                        window - KEPT,
                        libc::MADV_DONTNEED,
                    );
                }
            }
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.receive + self.send) };
    }
}

/// A smoltcp socket set of one TCP socket whose buffers lie in [`Pages`].
#[derive(Debug)]
pub(crate) struct WindowedSocket {
    /// Borrows from `pages` for a lifetime that nobody outside can name.
    set: ManuallyDrop<SocketSet<'static>>,
    handle: SocketHandle,
    pages: ManuallyDrop<Pages>,
}

// SAFETY: everything in it is `Send` but for the lent slices, which are parts of `pages`.
unsafe impl Send for WindowedSocket {}

impl WindowedSocket {
    /// A socket on windows of which that for receiving is a power of two.
    ///
    /// Its receive buffer is one byte smaller. smoltcp 0.14 takes the window of its SYN or SYN-ACK, which
    /// is never scaled (RFC 7323 section 2.2), for a scaled one until it sends the next segment. It may
    /// not be beyond the buffer then: data there would pass for data within the window, and smoltcp would
    /// panic. 65,535 << n fits a buffer of 2ⁿ⁺¹⁶ - 1 bytes, whose scale is n.
    pub(crate) fn new(pages: Pages) -> Self {
        debug_assert!(pages.receive.is_power_of_two());
        // SAFETY: the two slices are disjoint parts of a live mapping of initialised (zero or
        // written) bytes. They are handed to sockets inside `set` alone; `with` gives the set out only
        // under a lifetime that its caller cannot name, so neither the slices nor a socket that
        // holds them can leave it; and `set` is dropped before `pages` is dropped or given back.
        let (receive, send): (&'static mut [u8], &'static mut [u8]) = unsafe {
            let start = pages.start.as_ptr();
            (
                std::slice::from_raw_parts_mut(start, pages.receive - 1),
                std::slice::from_raw_parts_mut(start.add(pages.receive), pages.send),
            )
        };
        let mut set = SocketSet::new(Vec::with_capacity(1));
        let handle = set
            .add(tcp::Socket::new(tcp::SocketBuffer::new(receive), tcp::SocketBuffer::new(send)));
        Self { set: ManuallyDrop::new(set), handle, pages: ManuallyDrop::new(pages) }
    }

    /// Works with the set and its socket.
    pub(crate) fn with<R>(
        &mut self,
        work: impl for<'a> FnOnce(&mut SocketSet<'a>, SocketHandle) -> R,
    ) -> R {
        work(&mut self.set, self.handle)
    }

    /// Works with the socket.
    pub(crate) fn socket<R>(&mut self, work: impl for<'a> FnOnce(&mut tcp::Socket<'a>) -> R) -> R {
        work(self.set.get_mut::<tcp::Socket<'static>>(self.handle))
    }

    /// Gives the memory of the receive window back to the host. To be called while nothing waits there: what
    /// does becomes zeros.
    pub(crate) fn release_received(&mut self) {
        // SAFETY: the range is the receive window of a live mapping, page-aligned (an unaligned one fails with
        // EINVAL and changes nothing). The only reference to it is in the set, which `&mut self` says
        // nobody uses; its bytes stay readable, writable and initialised, as zeros.
        unsafe {
            libc::madvise(
                self.pages.start.as_ptr().cast(),
                self.pages.receive,
                libc::MADV_DONTNEED,
            );
        }
    }

    /// Ends the socket and gives the memory back for another.
    pub(crate) fn into_pages(self) -> Pages {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped, so each field is dropped or moved out exactly once, the
        // borrower before the memory.
        unsafe {
            ManuallyDrop::drop(&mut this.set);
            ManuallyDrop::take(&mut this.pages)
        }
    }
}

impl Drop for WindowedSocket {
    fn drop(&mut self) {
        // SAFETY: each field is dropped once, here, the borrower before the memory; `into_pages` does
        // not run this.
        unsafe {
            ManuallyDrop::drop(&mut self.set);
            ManuallyDrop::drop(&mut self.pages);
        }
    }
}
