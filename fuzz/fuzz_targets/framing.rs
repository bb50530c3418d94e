//! Any bytes as the VMM's stream. The oracle is in the crate: `bridge::fuzz_framing`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| framegate::fuzz::framing(data));
