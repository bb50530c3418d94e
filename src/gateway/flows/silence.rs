//! How long a flow may be silent.

use smoltcp::time::Instant;

use crate::config::Limits;
use crate::gateway::flow::Open;
use crate::gateway::timers::span;

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
