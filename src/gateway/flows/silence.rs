//! How long a flow may be silent.

use smoltcp::time::{Duration, Instant};

use crate::config::Limits;
use crate::gateway::flow::Open;

/// Until when a flow may be silent. A guest that is called has so long to answer, whatever else it says.
pub(super) fn may_idle_until(
    limits: &Limits,
    open: &mut Open,
    opened: Instant,
    heard: Instant,
) -> Instant {
    if open.is_calling() {
        return opened + span(limits.tcp_connect);
    }
    heard + span(if open.is_established() { limits.tcp_idle } else { limits.tcp_transitory })
}

/// A limit as smoltcp counts time: no longer than a century, so that no sum overflows.
pub(super) fn span(limit: std::time::Duration) -> Duration {
    const CENTURY: u64 = 100 * 365 * 24 * 3600;
    Duration::from_secs(limit.as_secs().min(CENTURY))
        + Duration::from_micros(u64::from(limit.subsec_micros()))
}
