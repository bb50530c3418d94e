//! framegate gives a microVM guest its network from an ordinary host process: no root, no tap device
//! and no kernel module.
//!
//! This is its core: [`NetworkFrameQueues`], two bounded frame queues and the wakes that go with them,
//! shared by all the threads of one NIC. Start with [`wake`] for the protocol.

pub mod queues;
pub mod wake;

mod pool;
mod sync;
#[cfg(not(loom))]
mod sys;

pub use queues::NetworkFrameQueues;
pub use sync::{Arc, ArrayQueue};
pub use wake::{WakePipe, Wakes};
