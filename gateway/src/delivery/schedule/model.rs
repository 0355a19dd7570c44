//! The whole life of a delivery on virtual time, under any schedule and whatever answers come.

use std::num::NonZeroU32;

use proptest::prelude::*;
use tidegate_adapters::Throttle;

use super::{
    tests::{delivery, failure, retry},
    *,
};

/// Durations from nothing to absurd.
fn any_duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..100_000_u64).prop_map(Duration::from_millis),
        2 => (0..1_000_000_u64).prop_map(Duration::from_secs),
        1 => Just(Duration::ZERO),
        1 => Just(Duration::MAX),
    ]
}

prop_compose! {
    fn any_schedule()(
        initial_delay in any_duration(),
        factor in prop_oneof![Just(1.0), 1.0..10.0_f64, Just(f64::MAX)],
        max_delay in any_duration(),
        jitter in prop_oneof![Just(0.0), 0.0..=1.0_f64, Just(1.0)],
        attempts in prop::option::of(1..30_u32),
        within in prop::option::of(any_duration()),
        retry_after_max in any_duration(),
    ) -> RetryConfig {
        let attempts = attempts.and_then(NonZeroU32::new);
        RetryConfig { initial_delay, factor, max_delay, jitter, attempts, within, retry_after_max }
    }
}

/// What came back of one attempt, and how it was made.
#[derive(Debug, Clone)]
struct Answer {
    after: Option<Duration>,
    throttled: bool,
    probe: bool,
    /// The network was not reached.
    unreached: bool,
    given_up: bool,
    chance: f64,
    /// Between the time it was due and its end.
    took_ms: i64,
}

prop_compose! {
    fn any_answer()(
        after in prop::option::weighted(0.3, any_duration()),
        kind in 0..12_u8,
        chance in prop_oneof![Just(0.0), 0.0..1.0_f64, Just(1.0 - f64::EPSILON)],
        took_ms in prop_oneof![0..60_000_i64, 0..10_000_000_i64],
    ) -> Answer {
        let (throttled, probe, unreached) = (kind == 0, kind == 1, kind == 2);
        Answer { after, throttled, probe, unreached, given_up: kind == 3, chance, took_ms }
    }
}

/// Before the next attempt at least, and at most, as the operator reads the keys.
fn bounds(retry: &RetryConfig, used: u32, after: Option<Duration>) -> (Duration, Duration) {
    let mut delay = retry.initial_delay.min(retry.max_delay);
    for _ in 1..used {
        let longer = Duration::try_from_secs_f64(delay.as_secs_f64() * retry.factor);
        delay = longer.unwrap_or(Duration::MAX).min(retry.max_delay);
    }
    let times = |share: f64| {
        Duration::try_from_secs_f64(delay.as_secs_f64() * share).unwrap_or(Duration::MAX)
    };
    let asked = after.unwrap_or_default().min(retry.retry_after_max);
    let (least, most) = (times(1.0 - retry.jitter), times(1.0 + retry.jitter));
    // Nothing times more than there are numbers: only capped.
    let undefined = delay.is_zero() && retry.factor.powf(f64::from(used)).is_infinite();
    let most = if undefined { retry.max_delay.saturating_mul(2) } else { most };
    // However long is asked for, by whomever.
    (least.max(asked).min(WAIT_MAX), most.max(asked).min(WAIT_MAX))
}

/// Times in a file are whole milliseconds, and numbers with a fraction are not exact.
fn slack(of: Duration) -> Duration {
    of / 1_000_000 + Duration::from_millis(1)
}

/// Plays attempts one after the other until the delivery is dead or nothing more comes.
fn play(retry: &RetryConfig, answers: &[Answer]) {
    let (mut now, mut used, mut first) = (Timestamp(1_000), 0_u32, None);
    for answer in answers {
        now = now.after(Duration::from_millis(u64::try_from(answer.took_ms).unwrap()));
        let first_attempt_at = *first.get_or_insert(now);
        let throttle = answer.throttled.then_some(Throttle { after: answer.after });
        let mut failed = failure(answer.after, throttle);
        if answer.unreached {
            failed.result = None;
        }
        if answer.given_up {
            failed.verdict = Verdict::Dead(DeadReason::Rejected);
        }
        let moment = Moment { now, first_attempt_at, probe: answer.probe, chance: answer.chance };
        let free = answer.throttled || answer.probe || answer.unreached;
        let late = retry.within.is_some_and(|within| now.since(first_attempt_at) >= within);
        let expected = match retry.attempts {
            _ if answer.given_up => Some(DeadReason::Rejected),
            Some(most) if !free && used + 1 >= most.get() => Some(DeadReason::Exhausted),
            _ if late && !answer.unreached => Some(DeadReason::Expired),
            _ => None,
        };
        match after_failure(retry, &delivery(used), &failed, moment) {
            Outcome::Retry { at, attempts } => {
                assert_eq!(expected, None);
                assert_eq!(attempts, used + u32::from(!free));
                used = attempts;
                let (least, most) = bounds(retry, used, answer.after);
                let delay = at.since(now);
                assert!(delay + slack(least) >= least, "{delay:?}, at least {least:?}");
                assert!(delay <= most.saturating_add(slack(most)), "{delay:?}, at most {most:?}");
                now = at;
            }
            Outcome::Dead { reason, detail } => {
                assert_eq!(Some(reason), expected, "{detail}");
                return;
            }
            Outcome::Delivered => panic!("it failed"),
        }
        assert!(retry.attempts.is_none_or(|most| used < most.get()), "{used} attempts used up");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_attempt_comes_too_early_or_too_late_and_none_after_the_last(
        retry in any_schedule(),
        answers in prop::collection::vec(any_answer(), 1..60),
    ) {
        play(&retry, &answers);
    }

    #[test]
    fn no_delay_is_ever_out_of_bounds(
        attempts in any::<u32>(),
        chance in 0.0..1.0_f64,
        factor in 1.0..100.0_f64,
        jitter in 0.0..=1.0_f64,
    ) {
        let retry = RetryConfig { factor, jitter, ..retry() };
        let delay = backoff(&retry, attempts, chance);
        prop_assert!(delay <= retry.max_delay.mul_f64(1.0 + jitter));
        let next = backoff(&retry, attempts.saturating_add(1), chance);
        prop_assert!(delay <= next, "{next:?} after {delay:?}");
    }
}
