//! The end of a test that hangs. Nothing in the bodies has a time-out, so a lost wake shows as a thread that
//! sleeps for ever.

use std::io::{ErrorKind, Read, Write, stderr};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::abort;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// As long as it lives, a thread waits for its end. The two share a socket and nothing else, so that
/// ThreadSanitizer has nothing to say about them.
#[derive(Debug)]
pub struct Watchdog {
    alive: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Ends the process with `message` after `limit`.
    ///
    /// # Panics
    /// If there is no descriptor.
    pub fn new(message: String, limit: Duration) -> Self {
        let (alive, mut other) = UnixStream::pair().unwrap();
        other.set_read_timeout(Some(limit)).unwrap();
        let thread = thread::spawn(move || {
            if other.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
                // Past what captures a test's output, which is lost when the process ends.
                let _ = writeln!(stderr(), "{message}: no end after {} s", limit.as_secs());
                abort();
            }
        });
        Self { alive, thread: Some(thread) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.alive.shutdown(Shutdown::Both);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
