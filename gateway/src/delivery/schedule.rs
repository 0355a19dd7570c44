//! When a failed delivery is tried again, or given up. Pure: time and chance are arguments.

use std::time::Duration;

use tidegate_adapters::{DeadReason, Delivery, Failure, Timestamp, Verdict};

use crate::{
    config::RetryConfig,
    queue::{Outcome, WAIT_MAX},
};

/// What the schedule needs to know besides the failure.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Now.
    pub now: Timestamp,
    /// When the first attempt of the delivery began: this one, if it was the first.
    pub first_attempt_at: Timestamp,
    /// Whether the attempt was the probe of a half-open breaker.
    pub probe: bool,
    /// Chance, in [0, 1).
    pub chance: f64,
}

/// What follows from a failed attempt.
///
/// A 429 and a failed probe do not use up `attempts`: they say something about the upstream, not
/// about the delivery. `within` is looked at here and only here, so waiting never kills.
#[must_use]
pub fn after_failure(
    retry: &RetryConfig,
    delivery: &Delivery,
    failure: &Failure,
    moment: Moment,
) -> Outcome {
    let after = match failure.verdict {
        Verdict::Dead(reason) => return dead(reason, failure.detail.clone()),
        Verdict::Retry { after } => after,
    };
    let free = moment.probe || failure.throttle.is_some() || failure.result.is_none();
    let attempts = delivery.attempts.saturating_add(u32::from(!free));
    if let Some(most) = retry.attempts
        && !free
        && attempts >= most.get()
    {
        return dead(DeadReason::Exhausted, format!("{most} attempts used up; last: {failure}"));
    }
    if let Some(within) = retry.within
        && failure.result.is_some()
        && moment.now.since(moment.first_attempt_at) >= within
    {
        let detail = format!("{within:?} have passed since the first attempt; last: {failure}");
        return dead(DeadReason::Expired, detail);
    }
    let delay = backoff(retry, attempts.max(1), moment.chance);
    let delay = after.map_or(delay, |after| delay.max(after.min(retry.retry_after_max)));
    Outcome::Retry { at: moment.now.after(delay.min(WAIT_MAX)), attempts }
}

/// The pause after the `attempts`-th attempt: `initial_delay · factor^(attempts − 1)`, at most
/// `max_delay`, stretched or shrunk by up to `jitter`.
#[must_use]
pub fn backoff(retry: &RetryConfig, attempts: u32, chance: f64) -> Duration {
    let exponent = f64::from(attempts.saturating_sub(1));
    let grown = retry.initial_delay.as_secs_f64() * retry.factor.powf(exponent);
    // An infinite or undefined product is capped as well.
    let capped = grown.min(retry.max_delay.as_secs_f64());
    let jittered = capped * (1.0 + retry.jitter * (2.0 * chance - 1.0));
    Duration::try_from_secs_f64(jittered.max(0.0)).unwrap_or(retry.max_delay)
}

fn dead(reason: DeadReason, detail: String) -> Outcome {
    Outcome::Dead { reason, detail }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, sync::Arc};

    use tidegate_adapters::{AttemptResult, Data, DeliveryId, Event, Exchange, Health, Throttle};

    use super::*;

    pub(super) fn retry() -> RetryConfig {
        RetryConfig {
            initial_delay: Duration::from_secs(1),
            factor: 2.0,
            max_delay: Duration::from_secs(900),
            jitter: 0.2,
            attempts: None,
            within: Some(Duration::from_secs(3 * 86_400)),
            retry_after_max: Duration::from_secs(3600),
        }
    }

    pub(super) fn delivery(attempts: u32) -> Delivery {
        let event = Event {
            id: "1".into(),
            source: "/orders".into(),
            kind: "order.confirmed.v1".into(),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: Default::default(),
            traceparent: None,
            hops: 0,
            data: Data::Absent,
        };
        Delivery {
            id: DeliveryId(1),
            route: "r".into(),
            event: Arc::new(event),
            key: None,
            accepted_at: Timestamp(0),
            due_at: Timestamp(0),
            attempts,
            tries: attempts,
            first_attempt_at: Some(Timestamp(0)),
        }
    }

    pub(super) fn failure(after: Option<Duration>, throttle: Option<Throttle>) -> Failure {
        Failure {
            result: Some(AttemptResult::ServerError),
            verdict: Verdict::Retry { after },
            health: Health::Bad,
            throttle,
            detail: "500".into(),
            exchange: Exchange::default(),
            response: None,
        }
    }

    fn at(now_ms: i64) -> Moment {
        Moment { now: Timestamp(now_ms), first_attempt_at: Timestamp(0), probe: false, chance: 0.5 }
    }

    fn retry_at(outcome: &Outcome) -> (i64, u32) {
        match outcome {
            Outcome::Retry { at, attempts } => (at.0, *attempts),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let delays: Vec<u64> = (1..=12).map(|n| backoff(&retry(), n, 0.5).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]);
    }

    #[test]
    fn u11_jitter_stretches_and_shrinks_by_its_share() {
        assert_eq!(backoff(&retry(), 1, 0.0), Duration::from_millis(800));
        assert!(backoff(&retry(), 1, 0.999_999) > Duration::from_millis(1199));
    }

    #[test]
    fn retry_after_is_heeded_when_longer_and_capped() {
        let failed = failure(Some(Duration::from_secs(60)), None);
        assert_eq!(retry_at(&after_failure(&retry(), &delivery(0), &failed, at(0))), (60_000, 1));
        let failed = failure(Some(Duration::from_secs(1_000_000)), None);
        let outcome = after_failure(&retry(), &delivery(0), &failed, at(0));
        assert_eq!(retry_at(&outcome), (3_600_000, 1));
    }

    #[test]
    fn attempts_used_up_are_exhausted() {
        let retry = RetryConfig { attempts: NonZeroU32::new(3), ..retry() };
        let failed = failure(None, None);
        assert_eq!(retry_at(&after_failure(&retry, &delivery(1), &failed, at(0))).1, 2);
        let outcome = after_failure(&retry, &delivery(2), &failed, at(0));
        assert!(matches!(outcome, Outcome::Dead { reason: DeadReason::Exhausted, .. }));
    }

    #[test]
    fn throttles_and_failed_probes_use_up_nothing() {
        let retry = RetryConfig { attempts: NonZeroU32::new(1), ..retry() };
        let throttled = failure(None, Some(Throttle { after: None }));
        assert_eq!(retry_at(&after_failure(&retry, &delivery(0), &throttled, at(0))).1, 0);
        let probe = Moment { probe: true, ..at(0) };
        let outcome = after_failure(&retry, &delivery(0), &failure(None, None), probe);
        assert_eq!(retry_at(&outcome).1, 0);
    }

    #[test]
    fn age_counts_from_the_first_attempt() {
        let day_ms = 86_400_000;
        let failed = failure(None, None);
        assert!(
            retry_at(&after_failure(&retry(), &delivery(9), &failed, at(3 * day_ms - 1))).0 > 0
        );
        let outcome = after_failure(&retry(), &delivery(9), &failed, at(3 * day_ms));
        assert!(matches!(outcome, Outcome::Dead { reason: DeadReason::Expired, .. }));
    }
}
