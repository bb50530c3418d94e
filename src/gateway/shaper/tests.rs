use proptest::prelude::*;

use super::*;
use crate::gateway::testing::Tcp;

const MAX_FRAME: usize = 1514;

fn at(micros: i64) -> Instant {
    Instant::from_micros(micros)
}

fn bytes(rate: u64, burst: u64) -> Limiter {
    let limit = RateLimit { burst_bytes: burst, ..RateLimit::bytes(rate) };
    Limiter::new(limit, MAX_FRAME, Instant::ZERO)
}

proptest! {
    /// Whatever is asked for, and whenever: no window has more than it may have.
    #[test]
    fn no_window_has_more_than_rate_and_burst(
        rate in 1_u64..10_000_000,
        burst in 1_u64..200_000,
        asks in prop::collection::vec((0_i64..50_000, 1_usize..70_000), 1..200),
    ) {
        let mut limiter = bytes(rate, burst);
        let burst = burst.max(2 * rate.div_ceil(REFILLS));
        let mut passed: Vec<(i64, u64)> = Vec::new();
        let mut now = 0;
        for (pause, len) in asks {
            now += pause;
            limiter.refill(at(now));
            if limiter.has_tokens() {
                limiter.pay(Cost { packets: 1, bytes: len });
                passed.push((now, len as u64));
            }
        }
        for first in 0..passed.len() {
            let mut sum = 0;
            for (time, len) in &passed[first..] {
                // All but the last frame of the window are within the rate.
                let elapsed = u128::from((time - passed[first].0).unsigned_abs());
                let most = u128::from(burst) * 1_000_000 + elapsed * u128::from(rate);
                prop_assert!(u128::from(sum) * 1_000_000 <= most);
                sum += len;
            }
        }
    }

    /// A sender that always has something, and is served at the deadlines alone, gets its rate.
    #[test]
    fn a_greedy_sender_gets_its_rate(
        rate in 1_000_u64..5_000_000_000,
        burst in 0_u64..1_000_000,
        len in 1_usize..66_000,
        late in 0_i64..9_000,
    ) {
        const SECONDS: i64 = 20;
        let mut limiter = bytes(rate, burst);
        let (mut now, mut sum, mut wakes) = (0, 0_u128, 0);
        while now < SECONDS * 1_000_000 {
            limiter.refill(at(now));
            // As many as pass, without going through them one by one.
            while limiter.admits() {
                let level = limiter.bytes.as_ref().unwrap().level;
                let frames = usize::try_from(level / TOKEN).unwrap() / len + 1;
                limiter.pay(Cost { packets: frames, bytes: frames * len });
                sum += (frames * len) as u128;
            }
            let deadline = limiter.deadline(at(now)).unwrap();
            prop_assert!(deadline > at(now));
            now = deadline.total_micros() + late;
            wakes += 1;
        }
        let least = u128::from(rate) * SECONDS.unsigned_abs() as u128;
        // The debt of the last frame is paid in the time after it.
        prop_assert!(sum + 66_000 + u128::from(rate / 50) >= least, "{sum} bytes, not {least}");
        prop_assert!(wakes <= SECONDS * 100 + 1, "{wakes} wakes");
    }

    /// No value overflows, and the level is never above the burst.
    #[test]
    fn any_values_are_taken(
        rate in any::<u64>(),
        burst in any::<u64>(),
        steps in prop::collection::vec((any::<i64>(), any::<usize>()), 1..20),
    ) {
        let limit = RateLimit {
            bytes_per_second: Some(rate),
            packets_per_second: Some(rate),
            burst_bytes: burst,
            burst_packets: burst,
        };
        let mut limiter = Limiter::new(limit, MAX_FRAME, Instant::ZERO);
        for (now, tokens) in steps {
            limiter.refill(at(now));
            let _ = (limiter.admits(), limiter.gives_credit(), limiter.deadline(at(now)));
            limiter.pay(Cost { packets: tokens, bytes: tokens });
            for bucket in limiter.buckets() {
                prop_assert!(bucket.level <= bucket.burst);
            }
        }
    }

    /// A thousand refills bring what one does.
    #[test]
    fn refills_do_not_drift(rate in 1_u64..1_000_000, steps in 1_i64..1_000, step in 1_i64..10_000) {
        let (mut often, mut once) = (bytes(rate, u64::MAX), bytes(rate, u64::MAX));
        for limiter in [&mut often, &mut once] {
            limiter.pay(Cost { packets: 0, bytes: usize::MAX });
        }
        for n in 1..=steps {
            often.refill(at(n * step));
        }
        once.refill(at(steps * step));
        prop_assert_eq!(often.bytes.unwrap().level, once.bytes.unwrap().level);
    }
}

#[test]
fn no_limit_admits_everything_and_has_no_deadline() {
    let mut limiter = Limiter::new(RateLimit::default(), MAX_FRAME, Instant::ZERO);
    assert!(!limiter.is_limited());
    for _ in 0..1000 {
        assert!(limiter.admits() && limiter.gives_credit());
        limiter.charge(&[0; 1514]);
    }
    assert_eq!(limiter.deadline(at(5)), None);
}

#[test]
fn a_frame_that_is_larger_than_the_bucket_passes_and_is_paid_for() {
    let mut limiter = bytes(1_000, 100);
    assert!(limiter.admits());
    limiter.charge(&[0; 1100]);
    assert!(!limiter.admits(), "1,000 bytes of debt");
    // Then there is a hundredth of a second's worth, 10 bytes.
    assert_eq!(limiter.deadline(at(0)), Some(at(1_010_000)));
    limiter.refill(at(1_000_000));
    assert!(!limiter.has_tokens());
    limiter.refill(at(1_000_001));
    assert!(limiter.has_tokens());
}

#[test]
fn answers_have_credit_of_one_burst() {
    let mut limiter = bytes(1_000, 3_000);
    let mut passed = 0;
    while limiter.gives_credit() {
        limiter.charge(&[0; 60]);
        passed += 60;
    }
    assert_eq!(passed, 6_000);
    limiter.refill(at(60_000));
    assert!(limiter.gives_credit() && !limiter.has_tokens());
}

#[test]
fn a_rate_of_zero_stops_after_the_burst_without_a_deadline() {
    let mut limiter = bytes(0, 1_000);
    assert!(limiter.admits());
    limiter.charge(&[0; 1_000]);
    assert!(!limiter.admits());
    limiter.refill(at(i64::MAX));
    assert!(!limiter.admits());
    assert_eq!(limiter.deadline(at(i64::MAX)), None);
}

#[test]
fn both_buckets_must_have_tokens() {
    let limit =
        RateLimit { packets_per_second: Some(10), burst_packets: 2, ..RateLimit::bytes(1_000_000) };
    let mut limiter = Limiter::new(limit, MAX_FRAME, Instant::ZERO);
    limiter.charge(&[0; 60]);
    limiter.charge(&[0; 60]);
    assert!(!limiter.admits());
    assert_eq!(limiter.deadline(at(0)), Some(at(100_000)));
}

#[test]
fn a_segment_that_is_cut_counts_as_its_frames() {
    let frame = Tcp { payload: vec![0; 14_600], ..Tcp::to([1, 2, 3, 4], 0x10) }.frame();
    assert_eq!(Cost::of(&frame, MAX_FRAME), Cost { packets: 10, bytes: 10 * 1514 });
    let frame = Tcp { payload: vec![0; 14_601], ..Tcp::to([1, 2, 3, 4], 0x10) }.frame();
    assert_eq!(Cost::of(&frame, MAX_FRAME), Cost { packets: 11, bytes: 10 * 1514 + 55 });
    assert_eq!(Cost::of(&[0; 9000], MAX_FRAME), Cost { packets: 1, bytes: 9000 }, "no segment");
}

#[test]
fn a_change_keeps_debts_and_trims_savings() {
    let mut limiter = bytes(1_000, 100_000);
    let now = Instant::ZERO;
    limiter.set(RateLimit { burst_bytes: 500, ..RateLimit::bytes(1_000) }, now);
    limiter.charge(&[0; 700]);
    assert!(!limiter.admits());
    limiter.set(RateLimit { burst_bytes: 900, ..RateLimit::bytes(2_000) }, now);
    assert!(!limiter.admits(), "200 bytes of debt");
    assert_eq!(limiter.deadline(now), Some(at(110_000)));
    limiter.set(RateLimit::default(), now);
    assert!(limiter.admits());
    assert_eq!(limiter.deadline(now), Some(now), "what was held back is looked at now");
}
