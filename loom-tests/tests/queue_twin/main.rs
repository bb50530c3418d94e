//! The queue's twin, which the models run, against the queue that ships.
//!
//! The twin is written over loom's types. Here the same file is compiled over types of the same names
//! that are made of std's, in `stand_in.rs`: this crate takes loom's name for itself.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)] // All of this is test.
#![allow(clippy::disallowed_types)] // What the twin stands on here is made of them.

extern crate self as loom;

mod alone;
mod stand_in;
mod together;
mod version;

pub(crate) use stand_in::{alloc, cell, hint, sync, thread};

#[path = "../../../src/sync/queue_twin.rs"]
#[allow(unreachable_pub)] // In the library it is public.
mod twin;

type Twin = twin::ArrayQueue<u64>;
type Shipped = framegate::ArrayQueue<u64>;

/// Far longer than any of these tests takes: a queue that goes round for ever makes no test fail.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(120);
