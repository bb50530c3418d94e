//! What the benchmarks call: the parts of the per-packet path that are no API.

pub use crate::bridge::by_hand::{Cut, Framing};
pub use crate::gateway::by_hand::{Classify, Nic};

/// The one's complement sum of these bytes.
pub fn checksum(bytes: &[u8]) -> u16 {
    use crate::wire::checksum::{fold, sum};
    fold(sum(bytes))
}
