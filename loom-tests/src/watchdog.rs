//! The end of a test that hangs. Nothing in the bodies has a time-out, so a lost wake shows as a thread that
//! sleeps for ever.

use std::io::{Write, stderr};
use std::process::abort;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Ends the process with `message` unless the sender is dropped within `limit`.
#[must_use = "it watches as long as this lives"]
pub fn watch(message: String, limit: Duration) -> Sender<()> {
    let (alive, ended) = channel();
    thread::spawn(move || {
        if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            // Past what captures a test's output, which is lost when the process ends.
            let _ = writeln!(stderr(), "{message}: no end after {} s", limit.as_secs());
            abort();
        }
    });
    alive
}
