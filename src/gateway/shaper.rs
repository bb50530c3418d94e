//! Token buckets: how fast the guest's link may be in each direction.
//!
//! # Theory of operation
//!
//! A bucket counts in millionths of a token, and time in microseconds. So a microsecond brings exactly as
//! many units as there are tokens in a second: nothing is rounded, nothing drifts, and a refill may be
//! as frequent or as rare as it likes. The widest product is 2⁶³ µs by 2⁶⁴ tokens/s, which 128 bits hold.
//!
//! A frame passes while the bucket holds anything at all, and leaves a debt if it is larger than that.
//! So nobody has to know a frame's size before it is there, which smoltcp's frames are not, and a frame
//! that is larger than the bucket passes too.
//!
//! What was held back is looked at again at a deadline, which stands among the poll loop's: when the
//! bucket holds what it gets in a hundredth of a second. A wake for every frame would cost a fast link
//! more than its frames do. There is a deadline only while something waits.

use std::cell::Cell;

use smoltcp::time::Instant;

use crate::config::Config;
use crate::rate::RateLimit;
use crate::wire;

#[cfg(test)]
mod tests;

/// Units in a token.
const TOKEN: i128 = 1_000_000;

/// Refills in a second, while something waits.
const REFILLS: u64 = 100;

/// The limiters of both directions.
#[derive(Debug)]
pub(crate) struct Shaper {
    pub(crate) from_guest: Limiter,
    pub(crate) to_guest: Limiter,
}

impl Shaper {
    pub(crate) fn new(config: &Config) -> Self {
        let max_frame = config.max_frame_to_guest();
        Self {
            from_guest: Limiter::new(config.rate_from_guest, max_frame, Instant::ZERO),
            to_guest: Limiter::new(config.rate_to_guest, max_frame, Instant::ZERO),
        }
    }

    /// Gives both directions what the time since the last refill has brought.
    pub(crate) fn refill(&mut self, now: Instant) {
        self.from_guest.refill(now);
        self.to_guest.refill(now);
    }

    /// When to look again at what was held back.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let deadlines = [self.from_guest.deadline(now), self.to_guest.deadline(now)];
        deadlines.into_iter().flatten().min()
    }
}

/// The rate of one direction.
#[derive(Debug)]
pub(crate) struct Limiter {
    bytes: Option<Bucket>,
    packets: Option<Bucket>,
    /// The longest frame on the link; a longer TCP segment is several on it.
    max_frame: usize,
    /// Something was held back since the last [`take_refused`](Self::take_refused).
    refused: Cell<bool>,
}

impl Limiter {
    pub(crate) fn new(limit: RateLimit, max_frame: usize, now: Instant) -> Self {
        let mut limiter = Self { bytes: None, packets: None, max_frame, refused: Cell::new(false) };
        limiter.set(limit, now);
        limiter
    }

    /// Changes the rate. Debts and savings stay, the latter up to the new burst.
    pub(crate) fn set(&mut self, limit: RateLimit, now: Instant) {
        let bucket = |rate: Option<u64>, burst, before: &Option<Bucket>| {
            rate.map(|rate| Bucket::new(rate, burst, before.as_ref(), now))
        };
        self.bytes = bucket(limit.bytes_per_second, limit.burst_bytes, &self.bytes);
        self.packets = bucket(limit.packets_per_second, limit.burst_packets, &self.packets);
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.bytes.is_some() || self.packets.is_some()
    }

    /// What a segment may hold, in bytes, if it is not to be a burst of its own: what the rate gives
    /// between two refills.
    pub(crate) fn segment(&self) -> usize {
        let span = |bucket: &Bucket| usize::try_from(bucket.rate / REFILLS).unwrap_or(usize::MAX);
        let bytes = self.bytes.as_ref().map_or(usize::MAX, span);
        let packets = self.packets.as_ref().map_or(usize::MAX, span);
        bytes.min(packets.saturating_mul(self.max_frame))
    }

    pub(crate) fn refill(&mut self, now: Instant) {
        for bucket in self.buckets_mut() {
            bucket.refill(now);
        }
    }

    /// Whether a frame may pass.
    pub(crate) fn has_tokens(&self) -> bool {
        self.buckets().all(|bucket| bucket.level > 0)
    }

    /// Whether a frame may pass; if not, there will be a deadline to ask again at.
    pub(crate) fn admits(&self) -> bool {
        let has_tokens = self.has_tokens();
        if !has_tokens {
            self.refused.set(true);
        }
        has_tokens
    }

    /// Whether a frame may pass on credit: the debt is less than a burst.
    pub(crate) fn gives_credit(&self) -> bool {
        self.buckets().all(|bucket| bucket.level > -bucket.burst)
    }

    /// Pays for a frame.
    pub(crate) fn charge(&mut self, frame: &[u8]) {
        if let Some(cost) = self.cost(frame) {
            self.pay(cost);
        }
    }

    /// What a frame costs, if anything does.
    pub(crate) fn cost(&self, frame: &[u8]) -> Option<Cost> {
        self.is_limited().then(|| Cost::of(frame, self.max_frame))
    }

    pub(crate) fn pay(&mut self, cost: Cost) {
        for (bucket, tokens) in [(&mut self.bytes, cost.bytes), (&mut self.packets, cost.packets)] {
            if let Some(bucket) = bucket {
                bucket.level = bucket.level.saturating_sub(tokens as i128 * TOKEN);
            }
        }
    }

    /// Whether something was held back since the last call.
    pub(crate) fn take_refused(&self) -> bool {
        self.refused.take()
    }

    /// Something waits for tokens still.
    pub(crate) fn refuse(&self) {
        self.refused.set(true);
    }

    /// When to look again at what was held back. `None` if nothing was, or if there is no rate.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        if !self.refused.get() {
            return None;
        }
        self.buckets().try_fold(now, |latest, bucket| Some(latest.max(bucket.ready_at(now)?)))
    }

    fn buckets(&self) -> impl Iterator<Item = &Bucket> {
        self.bytes.iter().chain(&self.packets)
    }

    fn buckets_mut(&mut self) -> impl Iterator<Item = &mut Bucket> {
        self.bytes.iter_mut().chain(&mut self.packets)
    }
}

/// A bucket of tokens, in millionths.
#[derive(Debug)]
struct Bucket {
    /// Tokens in a second, or millionths in a microsecond.
    rate: u64,
    burst: i128,
    /// Below zero for a debt.
    level: i128,
    at: Instant,
}

impl Bucket {
    /// A full bucket, or what `before` held. It holds what two refills bring, so that one which comes
    /// late loses nothing.
    fn new(rate: u64, burst: u64, before: Option<&Self>, now: Instant) -> Self {
        let least = rate.div_ceil(REFILLS).saturating_mul(2);
        let burst = i128::from(burst.max(least)) * TOKEN;
        let level = before.map_or(burst, |before| before.level.min(burst));
        Self { rate, burst, level, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.total_micros().saturating_sub(self.at.total_micros());
        if elapsed > 0 {
            let gained = i128::from(elapsed) * i128::from(self.rate);
            self.level = self.level.saturating_add(gained).min(self.burst);
            self.at = now;
        }
    }

    /// When the bucket holds what a hundredth of a second brings; `None` for never.
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        let wanted = i128::from(self.rate.div_ceil(REFILLS)) * TOKEN;
        let lacking = wanted.saturating_sub(self.level);
        if self.rate == 0 {
            return (self.level > 0).then_some(now);
        }
        if lacking <= 0 {
            return Some(now);
        }
        let rate = i128::from(self.rate);
        let wait = i64::try_from((lacking - 1) / rate + 1).unwrap_or(i64::MAX);
        Some(Instant::from_micros(self.at.total_micros().saturating_add(wait)).max(now))
    }
}

/// What a frame is on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    packets: usize,
    bytes: usize,
}

impl Cost {
    /// A TCP segment that is longer than a frame of the link may be was merged from several, or will be
    /// cut into as many.
    fn of(frame: &[u8], max_frame: usize) -> Self {
        let whole = Self { packets: 1, bytes: frame.len() };
        if frame.len() <= max_frame {
            return whole;
        }
        let Some(layout) = wire::tcp_layout(frame) else { return whole };
        let room = max_frame.saturating_sub(layout.payload).max(1);
        let packets = (layout.end - layout.payload).div_ceil(room).max(1);
        Self { packets, bytes: frame.len() + (packets - 1) * layout.payload }
    }
}
