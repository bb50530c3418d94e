//! Which version of the shipped queue the twin is a twin of.
//!
//! Every access of crossbeam-queue 0.3.14, `src/array_queue.rs`, in the operations that framegate uses, as it
//! was read there and as `src/sync/queue_twin.rs` has it:
//!
//! | operation | access | order |
//! |---|---|---|
//! | push (`push_or_else`) | load `tail`, at the start and again after a refused look or a snooze | Relaxed |
//! | | load the slot's `stamp` | Acquire |
//! | | exchange `tail`, weakly | SeqCst, Relaxed if it fails |
//! | | store the `stamp` of the value that was written | Release |
//! | | fence before it looks whether the queue is full | SeqCst |
//! | | load `head` after that | Relaxed |
//! | pop | load `head`, at the start and again | Relaxed |
//! | | load the slot's `stamp` | Acquire |
//! | | exchange `head`, weakly | SeqCst, Relaxed if it fails |
//! | | store the `stamp` of the slot that is free | Release |
//! | | fence before it looks whether the queue is empty | SeqCst |
//! | | load `tail` after that | Relaxed |
//! | `is_empty` | load `head`, then `tail` | SeqCst |
//! | `is_full` | load `tail`, then `head` | SeqCst |
//!
//! `len` loads `tail`, `head` and `tail` again, all SeqCst; only the gateway asks for it, as a hint, and the twin
//! has none. `push_mut`, `pop_mut` and `force_push` are used nowhere. The indices are 64 bits wide there, and as
//! wide as a pointer in the twin.

use std::fs;
use std::path::Path;

const READ: &str = "0.3.14";
/// Of the package, so that the source is the one that was read.
const CHECKSUM: &str = "03e8bd762f7479489c70ed6c768ddca99d7296857de437a68dcb2a94365b3fae";

/// The value of `key` in the lock's entry for a package.
fn field<'a>(entry: &'a str, key: &str) -> Option<&'a str> {
    let line = entry.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
    Some(line.trim_matches('"'))
}

#[test]
fn the_orders_of_the_locked_queue_were_read() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock = fs::read_to_string(lock).unwrap();
    let entries = lock.split("[[package]]");
    let locked: Vec<_> = entries
        .filter(|entry| field(entry, "name") == Some("crossbeam-queue"))
        .map(|entry| (field(entry, "version"), field(entry, "checksum")))
        .collect();
    assert_eq!(
        locked,
        [(Some(READ), Some(CHECKSUM))],
        "crossbeam-queue has changed: read the orders in its src/array_queue.rs again, make the twin and the \
         table above this test agree with them, then change these two constants"
    );
}
