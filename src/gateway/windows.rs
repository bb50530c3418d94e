//! Where the windows of TCP flows live, and how much they may come to.

use std::io;

use crate::config::Limits;
use crate::sys::pages::{Pages, WindowedSocket};

/// The window of a flow when the windows of all have used the memory that the limits allow.
const SMALLEST: usize = 64 * 1024;

/// Idle windows kept for the next flow: each has 128 KiB at the most.
const KEPT: usize = 64;

/// The budget of window memory and a few idle windows.
#[derive(Debug)]
pub(crate) struct Windows {
    idle: Vec<Pages>,
    window: usize,
    budget: usize,
    reserved: usize,
}

impl Windows {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            idle: Vec::new(),
            // `WindowedSocket` needs a power of two; 4 MiB, the largest that the limits allow, is one.
            window: limits.tcp_window.next_power_of_two().max(SMALLEST),
            budget: limits.tcp_memory,
            reserved: 0,
        }
    }

    /// A socket with windows of its own: full ones while the budget lasts, the smallest after that.
    ///
    /// # Errors
    /// The host is out of memory or mappings.
    pub(crate) fn take(&mut self) -> io::Result<WindowedSocket> {
        let fits = self.reserved + 2 * self.window <= self.budget;
        let window = if fits { self.window } else { SMALLEST };
        let pages = match self.idle.pop_if(|pages| pages.window() == window) {
            Some(pages) => pages,
            None => Pages::new(window)?,
        };
        self.reserved += 2 * window;
        let mut socket = WindowedSocket::new(pages);
        socket.socket(|socket| {
            socket.set_nagle_enabled(false);
            // When to acknowledge is the flow's own decision.
            socket.set_ack_delay(None);
        });
        Ok(socket)
    }

    /// Takes a socket's windows back, given the bytes that went through each.
    pub(crate) fn give(&mut self, socket: WindowedSocket, received: u64, sent: u64) {
        let mut pages = socket.into_pages();
        self.reserved -= 2 * pages.window();
        if pages.window() == self.window && self.idle.len() < KEPT {
            pages.trim(received, sent);
            self.idle.push(pages);
        }
    }
}

#[cfg(test)]
mod tests;
