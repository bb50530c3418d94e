//! A race that ThreadSanitizer must report: `ci.sh tsan` runs this first, so that its silence about the stress
//! tests means something.
//!
//! One thread writes a frame and publishes it by an atomic store; another reads it when it sees the store. With
//! the argument `release` the store is a release and there is no race; with `relaxed` it orders nothing.
#![allow(unsafe_code)] // No safe code has a race.
#![allow(clippy::disallowed_types)] // It is not to have the crate's protocol.

use std::cell::UnsafeCell;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, hint, thread};

struct Place {
    frame: UnsafeCell<u64>,
    is_published: AtomicBool,
}

// SAFETY: one thread writes the frame before it publishes it, and one reads it after that. With a relaxed store
// that is not enough: the race is what this program is for.
unsafe impl Sync for Place {}

static PLACE: Place = Place { frame: UnsafeCell::new(0), is_published: AtomicBool::new(false) };

impl Place {
    fn publish(&self, frame: u64, order: Ordering) {
        // SAFETY: nobody reads it before it is published.
        unsafe { *self.frame.get() = frame };
        self.is_published.store(true, order);
    }

    fn wait(&self) -> u64 {
        while !self.is_published.load(Ordering::Acquire) {
            hint::spin_loop();
        }
        // SAFETY: nobody writes it once it is published; see above for when that is wrong.
        unsafe { *self.frame.get() }
    }
}

fn main() -> ExitCode {
    let publish = match env::args().nth(1).as_deref() {
        Some("release") => Ordering::Release,
        Some("relaxed") => Ordering::Relaxed,
        _ => {
            eprintln!("usage: seeded_race release|relaxed");
            return ExitCode::from(2);
        }
    };
    let writer = thread::spawn(move || PLACE.publish(7, publish));
    println!("{}", PLACE.wait());
    if writer.join().is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
