use std::num::NonZeroU32;

use proptest::prelude::*;
use tidegate_adapters::expression::Template;

use super::*;

mod model;

fn config(limit: u32, period: Duration, burst: u32) -> RateLimitConfig {
    RateLimitConfig {
        limit: NonZeroU32::new(limit).unwrap(),
        period,
        burst: NonZeroU32::new(burst).unwrap(),
        key: None,
    }
}

fn keyed(limit: u32, period: Duration, burst: u32) -> RateLimitConfig {
    RateLimitConfig {
        key: Some(Template::compile("{.data.tenant}").unwrap()),
        ..config(limit, period, burst)
    }
}

fn key(name: &str) -> Keys {
    Keys { epoch: 0, values: vec![Some(name.into())] }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_start_begins_with_the_burst_spent() {
    let start = Instant::now();
    let limits = RateLimits::new(&[config(10, SECOND, 5)], start);
    let Taken::Upstream(at) = limits.take(&Keys::none(), start, start) else { panic!("taken") };
    assert_eq!(at - start, Duration::from_millis(100));
    let later = start + SECOND;
    let taken = (0..9).filter(|_| limits.take(&Keys::none(), later, later) == Taken::Now).count();
    assert_eq!(taken, 5, "one burst after a second of rest, no more");
}

#[tokio::test(start_paused = true)]
async fn a_list_takes_all_or_nothing() {
    let start = Instant::now();
    let limits = RateLimits::new(&[config(100, SECOND, 10), config(2, SECOND, 1)], start);
    let now = start + SECOND;
    assert_eq!(limits.take(&Keys::none(), now, now), Taken::Now);
    let before = limits.status(now)[0].used;
    for _ in 0..50 {
        assert!(matches!(limits.take(&Keys::none(), now, now), Taken::Upstream(_)));
    }
    assert!(
        (limits.status(now)[0].used - before).abs() < f64::EPSILON,
        "the loose one lost tokens"
    );
}

#[tokio::test(start_paused = true)]
async fn a_limited_key_lets_others_go_and_its_backlog_is_spread() {
    let start = Instant::now();
    let limits = RateLimits::new(&[keyed(1, SECOND, 1)], start);
    let now = start + 10 * SECOND;
    assert_eq!(limits.take(&key("a"), now, now), Taken::Now);
    let slots: Vec<_> = (0..3)
        .map(|_| match limits.take(&key("a"), now, now) {
            Taken::Key(at) => at - now,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(slots, [SECOND, 2 * SECOND, 3 * SECOND]);
    assert_eq!(limits.take(&key("b"), now, now), Taken::Now);
    assert_eq!(limits.take(&Keys::none(), now, now), Taken::Now, "a null key is not counted");
}

#[tokio::test(start_paused = true)]
async fn quiet_asked_for_a_key_leaves_the_others_alone() {
    let start = Instant::now();
    let limits = RateLimits::new(&[keyed(10, SECOND, 10)], start);
    let now = start + 10 * SECOND;
    assert!(limits.quiet(&key("a"), Some(30 * SECOND), now));
    let Taken::Key(at) = limits.take(&key("a"), now, now) else { panic!("taken") };
    assert!(at - now >= 30 * SECOND);
    assert_eq!(limits.take(&key("b"), now, now), Taken::Now);
    assert!(!limits.quiet(&Keys::none(), None, now), "without a key the whole upstream is meant");
}

#[tokio::test(start_paused = true)]
async fn s14_keys_are_bounded_and_swept() {
    let start = Instant::now();
    let limits = RateLimits::new(&[keyed(1, SECOND, 1)], start);
    let now = start + 10 * SECOND;
    for n in 0..KEYS_MAX {
        assert_eq!(limits.take(&key(&n.to_string()), now, now), Taken::Now);
    }
    assert!(matches!(limits.take(&key("one more"), now, now), Taken::Key(_)));
    let later = now + 2 * SECOND;
    assert_eq!(limits.take(&key("one more"), later, later), Taken::Now);
    assert_eq!(limits.status(later)[0].keys, Some(1));
}

#[tokio::test(start_paused = true)]
async fn other_numbers_carry_over_what_is_spent() {
    let start = Instant::now();
    let limits = RateLimits::new(&[config(10, SECOND, 10)], start);
    let now = start + 10 * SECOND;
    for _ in 0..6 {
        assert_eq!(limits.take(&Keys::none(), now, now), Taken::Now);
    }
    let epoch = limits.reconfigure(&[config(1, SECOND, 8)], now);
    assert_eq!(limits.take(&Keys::none(), now, now), Taken::Stale, "made for other limits");
    let keys = Keys { epoch, values: Vec::new() };
    let taken = (0..9).filter(|_| limits.take(&keys, now, now) == Taken::Now).count();
    assert_eq!(taken, 2, "six of the burst of eight were spent under the old numbers");
    let Taken::Upstream(at) = limits.take(&keys, now, now) else { panic!("taken") };
    assert_eq!(at - now, SECOND, "the new rate holds");
}

#[tokio::test(start_paused = true)]
async fn the_same_limits_again_change_nothing() {
    let start = Instant::now();
    let same = [config(10, SECOND, 5), keyed(1, SECOND, 1)];
    let limits = RateLimits::new(&same, start);
    let now = start + 10 * SECOND;
    let both = Keys { epoch: 0, values: vec![None, Some("a".into())] };
    assert_eq!(limits.take(&both, now, now), Taken::Now);
    let before = limits.status(now);
    assert_eq!(limits.reconfigure(&same, now), 0);
    assert_eq!(limits.status(now), before);
    assert!(matches!(limits.take(&both, now, now), Taken::Key(_)));
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_new_begins_with_its_burst_spent() {
    let start = Instant::now();
    let limits = RateLimits::new(&[keyed(10, SECOND, 10)], start);
    let now = start + 10 * SECOND;
    // By its key: it counts other calls together than the one before.
    let epoch = limits.reconfigure(&[config(10, SECOND, 10)], now);
    let keys = Keys { epoch, values: Vec::new() };
    assert!(matches!(limits.take(&keys, now, now), Taken::Upstream(_)));
    assert_eq!(limits.reconfigure(&[], now), epoch + 1);
    assert!(limits.is_unlimited());
}

proptest! {
    /// Contract §2.5 on virtual time, with callers that come at random and wake late at random:
    /// within `LATE_MAX` no window holds more than the bound.
    #[test]
    fn no_window_exceeds_the_bound(
        limit in 1_u32..500,
        burst in 1_u32..20,
        steps in prop::collection::vec((0_u64..40_000, 0_u64..12_000), 1..400),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _guard = runtime.enter();
        let start = Instant::now();
        let limits = RateLimits::new(&[config(limit, SECOND, burst)], start);
        let mut now = start;
        let mut sent: Vec<Duration> = Vec::new();
        for (idle_us, late_us) in steps {
            now += Duration::from_micros(idle_us);
            let since = now;
            loop {
                match limits.take(&Keys::none(), since, now) {
                    Taken::Now => break,
                    Taken::Upstream(at) => now = at + Duration::from_micros(late_us),
                    Taken::Key(_) | Taken::Stale => unreachable!("one limit, not keyed"),
                }
            }
            sent.push(now - start);
        }
        for (first, from) in sent.iter().enumerate() {
            for (last, until) in sent.iter().enumerate().skip(first) {
                // The half-open window that just holds both ends, widened by the lateness allowed.
                let window = *until - *from + LATE_MAX + Duration::from_nanos(1);
                let refilled = (f64::from(limit) * window.as_secs_f64()).ceil();
                let bound = f64::from(burst) + refilled - 1.0;
                let count = (last - first + 1) as f64;
                prop_assert!(count <= bound, "{count} in {window:?}, bound {bound}");
            }
        }
    }
}
