//! Any frames as fragments of the guest. The oracle is in the crate: `gateway::fuzz_fragments`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| framegate::fuzz::fragments(data));
