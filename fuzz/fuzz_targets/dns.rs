//! Any bytes as a query of the guest and an upstream's answer to it, and as a resolv.conf. The oracle is
//! in the crate: `gateway::dns::fuzz_dns`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| framegate::fuzz::dns(data));
