//! Any segments of a guest, and any doings of the host, as the life of a TCP flow. The oracle and the
//! input's form are in the crate: `gateway::flow_check`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| framegate::fuzz::flow(data));
