//! Any bytes as a frame of the guest. The oracle is in the crate: `gateway::fuzz_classify`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| framegate::fuzz::classify(data));
