//! How many ICMP errors the guest gets (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)).

use std::cell::Cell;

use smoltcp::time::Instant;

/// One error in this many microseconds, in the long run.
const INTERVAL: i64 = 1_000;
/// This much may be made up for at once: a burst of 1,000 errors.
const BURST: i64 = 1_000 * INTERVAL;

/// A token bucket: 1,000 errors at once, and 1,000 in a second. That is as much as a guest's
/// connections to closed destinations ask for, and no flood.
#[derive(Clone, Debug, Default)]
pub(crate) struct ErrorLimit {
    /// The time in microseconds at which the bucket is full.
    full_at: Cell<i64>,
}

impl ErrorLimit {
    /// Whether one more error may be sent now; counts it if so.
    pub(crate) fn allows(&self, now: Instant) -> bool {
        let now = now.total_micros();
        let full_at = self.full_at.get().max(now).saturating_add(INTERVAL);
        let allowed = full_at - now <= BURST;
        if allowed {
            self.full_at.set(full_at);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::time::Duration;

    use super::*;

    #[test]
    fn rfc_1812_4_3_2_8_a_burst_and_then_the_rate() {
        let limit = ErrorLimit::default();
        let mut now = Instant::from_secs(5);
        assert_eq!((0..5000).filter(|_| limit.allows(now)).count(), 1000);
        now += Duration::from_millis(100);
        assert_eq!((0..5000).filter(|_| limit.allows(now)).count(), 100);
        now += Duration::from_secs(3600);
        assert_eq!((0..5000).filter(|_| limit.allows(now)).count(), 1000, "no more is saved up");
    }
}
