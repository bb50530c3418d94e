//! Where the windows of TCP flows live, and how much of them they may use.
//!
//! # Theory of operation
//!
//! Every flow has full windows, which are address space. What costs is what was touched of them, so that is
//! what is paid for, from a [`Budget`] of all flows: a [`Share`] of each window, which grows twofold when the
//! flow gets to its end. 10,000 idle flows leave the budget to the busy one.
//!
//! How much of a window was touched is known without looking at it. smoltcp fills a ring from its beginning,
//! and goes round. It begins again when it sends and the ring is empty, and never when it receives; but
//! few of the guest's bytes get into that ring (`splice`).
//!
//! A flow that is refused goes on with what it has. To the guest that is 64 KiB at a time, at the beginning of
//! the ring. To the host it is what the host takes at once, and as much as the share in the ring; what comes
//! on top is dropped, and the guest sends it again. When that ring is empty its memory goes back to the host
//! and the share begins anew.

use std::io;

use smoltcp::socket::tcp::Socket;

use crate::config::Limits;
use crate::sys::pages::{Pages, WindowedSocket};

/// What each flow has of each window without asking, and the smallest window.
const FREE: usize = 64 * 1024;

/// The largest ring for bytes to the guest. All of them pass through it, so that of eight flows is to stay in a
/// cache; what comes from the guest seldom sees its ring (`splice`), and may be more.
const SEND: usize = 1 << 20;

/// Idle windows kept for the next flow: each has 128 KiB at the most.
const KEPT: usize = 64;

/// Windows for flows, and a few idle ones.
#[derive(Debug)]
pub(crate) struct Windows {
    idle: Vec<Pages>,
    receive: usize,
    send: usize,
    pub(crate) budget: Budget,
}

/// What is left for all flows, beyond what each has without asking.
#[derive(Debug)]
pub(crate) struct Budget(usize);

/// What a flow may use of its windows.
#[derive(Debug)]
pub(crate) struct Share {
    receive_window: usize,
    send_window: usize,
    receive: usize,
    send: usize,
    /// Bytes that were taken out of the ring of the receive window.
    taken: u64,
    /// The flow wanted more of the receive window than there was.
    is_refused: bool,
    /// Bytes that were written to the guest's ring since it was empty.
    written: usize,
}

impl Windows {
    pub(crate) fn new(limits: &Limits) -> Self {
        // `WindowedSocket` needs a power of two; 4 MiB, the largest that the limits allow, is one.
        let window = limits.tcp_window.next_power_of_two().max(FREE);
        Self {
            idle: Vec::new(),
            receive: window,
            send: window.min(SEND),
            budget: Budget(limits.tcp_memory),
        }
    }

    /// A socket with windows of its own.
    ///
    /// # Errors
    /// The host is out of address space or mappings.
    pub(crate) fn take(&mut self) -> io::Result<WindowedSocket> {
        let pages = match self.idle.pop() {
            Some(pages) => pages,
            None => Pages::new(self.receive, self.send)?,
        };
        let mut socket = WindowedSocket::new(pages);
        socket.socket(|socket| {
            socket.set_nagle_enabled(false);
            // When to acknowledge is the flow's own decision.
            socket.set_ack_delay(None);
        });
        Ok(socket)
    }

    /// Takes a socket's windows back, and its share of the budget.
    pub(crate) fn give(&mut self, socket: WindowedSocket, share: &Share) {
        let mut pages = socket.into_pages();
        self.budget.0 += share.receive + share.send - 2 * FREE;
        if self.idle.len() < KEPT {
            pages.trim(share.receive, share.send);
            self.idle.push(pages);
        }
    }
}

impl Budget {
    /// Lets a share of one window grow to `wanted`, or twofold if that is more. `false` if there is not so
    /// much left.
    fn grow(&mut self, share: &mut usize, wanted: u64, window: usize) -> bool {
        let wanted = usize::try_from(wanted).unwrap_or(window).max(*share * 2).min(window);
        let left = self.0.checked_sub(wanted - *share);
        if let Some(left) = left {
            self.0 = left;
            *share = wanted;
        }
        left.is_some()
    }
}

impl Share {
    pub(crate) fn of(socket: &mut WindowedSocket) -> Self {
        // The last byte of the receive window is not the socket's.
        let capacities =
            |socket: &mut Socket<'_>| (socket.recv_capacity() + 1, socket.send_capacity());
        let (receive_window, send_window) = socket.socket(capacities);
        let (receive, send) = (FREE, FREE);
        Self { receive_window, send_window, receive, send, taken: 0, is_refused: false, written: 0 }
    }

    /// How far, up to `n`, the ring of the receive window may be filled after what was taken out of it. Holes
    /// count: what fills one later must find room.
    pub(crate) fn may_receive(&mut self, n: usize, budget: &mut Budget) -> usize {
        let through = self.taken.saturating_add(n as u64);
        if through <= self.receive as u64
            || self.receive == self.receive_window
            || budget.grow(&mut self.receive, through, self.receive_window)
        {
            return n;
        }
        self.is_refused = true;
        self.receive.saturating_sub(usize::try_from(self.taken).unwrap_or(usize::MAX))
    }

    pub(crate) fn has_taken(&mut self, n: usize) {
        self.taken = self.taken.saturating_add(n as u64);
    }

    /// Begins anew after a refusal, with a receive window in which nothing waits.
    pub(crate) fn renew(&mut self, socket: &mut WindowedSocket) {
        if std::mem::take(&mut self.is_refused) {
            self.taken = 0;
            socket.release_received();
        }
    }

    /// How many bytes may be written to the ring of the send window, of which `waiting` are not acknowledged.
    pub(crate) fn may_send(&mut self, waiting: usize, budget: &mut Budget) -> usize {
        if waiting == 0 {
            // The ring begins again.
            self.written = 0;
        }
        if self.send < self.send_window && self.written >= self.send {
            budget.grow(&mut self.send, 0, self.send_window);
        }
        match self.send < self.send_window {
            true => self.send - self.written.min(self.send),
            false => self.send_window,
        }
    }

    pub(crate) fn has_sent(&mut self, n: usize) {
        self.written = self.written.saturating_add(n);
    }
}

#[cfg(test)]
mod tests;
