//! What the fuzzer of `fragments` drives.

use smoltcp::time::Duration;

use super::*;
use crate::config::Builder;
use crate::gateway::classify::{Verdict, classify};
use crate::gateway::icmp::{self, IcmpError};
use crate::gateway::link::Link;
use crate::wire::ETHERNET;

/// Frames, each behind two bytes of length and one of seconds that pass before it: nothing grows beyond
/// its bounds, the books balance, and no whole packet is a fragment.
pub(crate) fn fuzz_fragments(mut data: &[u8]) {
    let link = Link::new(&Builder::default().into_config_for_tests(), true);
    let counters = Counters::default();
    let mut reassembly = Reassembly::default();
    let mut now = Instant::ZERO;
    while let Some(([high, low, seconds], rest)) = data.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (frame, rest) = rest.split_at(len);
        data = rest;
        now += Duration::from_secs(u64::from(*seconds));
        while let Some(first) = reassembly.expire(now, &counters) {
            let packet = first.get(ETHERNET..).unwrap_or_default();
            let error = icmp::error(Vec::new(), &link, None, packet, IcmpError::Reassembly);
            assert!(error.is_none_or(|frame| frame.len() <= ETHERNET + 1280), "errors stay small");
        }
        let Ok(Verdict::Fragment(fragment)) = classify(frame, &link) else { continue };
        let taken = reassembly.take(frame, &fragment, now, &counters);
        if let Ok(Some(whole)) = taken {
            assert!(whole.len() <= ETHERNET + 40 + 65_535, "no packet is larger");
            let verdict = classify(&whole, &link);
            assert!(!matches!(verdict, Ok(Verdict::Fragment(_))), "a whole is no fragment");
        }
        assert!(reassembly.partials.len() <= PACKETS && reassembly.bytes <= BYTES, "the bounds");
        let held: usize = reassembly.partials.iter().map(Partial::cost).sum();
        assert_eq!(held, reassembly.bytes, "the books balance");
    }
}
