//! One limit, and what is spent of it: as a whole, or for each key.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{config::RateLimitConfig, protect::LimitStatus};

/// The most keys one keyed limit knows at a time; keys at rest are swept first.
pub const KEYS_MAX: usize = 65_536;

/// Ten years: keeps every sum of times within what a clock can hold.
const WHOLE_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A limit, and how much of it is spent.
#[derive(Debug)]
pub(super) struct Limited {
    pub(super) limit: Limit,
    pub(super) state: State,
    /// When it began, its burst spent: what a key that is seen first counts from.
    pub(super) start: Instant,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Limit {
    pub(super) limit: u32,
    period: Duration,
    burst: u32,
    pub(super) interval: Duration,
    /// The text of the key's template.
    pub(super) key: Option<String>,
}

#[derive(Debug)]
pub(super) enum State {
    Plain(Bucket),
    Keyed(HashMap<Arc<str>, Bucket>),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// Theoretical arrival time.
    pub(super) tat: Instant,
    /// The upstream asked for quiet on this key until then.
    pub(super) quiet_until: Option<Instant>,
    /// Quiet asked for so often in a row.
    pub(super) quiet_streak: u32,
    /// The slot given to the last call that was sent away to wait, so that the next gets a later
    /// one: a key's backlog is spread over time instead of waking all at once.
    pub(super) horizon: Instant,
}

impl Limited {
    /// As a start leaves it: with the burst spent, or whole.
    pub(super) fn new(limit: Limit, start: Instant, rested: bool) -> Self {
        let state = match limit.key {
            Some(_) => State::Keyed(HashMap::new()),
            None if rested => State::Plain(Bucket { tat: start, ..limit.spent(start, start) }),
            None => State::Plain(limit.spent(start, start)),
        };
        Self { limit, state, start }
    }

    /// The same under other numbers: as many requests count as spent as did before.
    pub(super) fn carried_over(self, limit: Limit, now: Instant) -> Self {
        let over = |mut bucket: Bucket| {
            let spent = bucket.tat.saturating_duration_since(now).as_secs_f64()
                / self.limit.interval.as_secs_f64().max(1e-9);
            let spent = spent.min(f64::from(limit.burst));
            let whole = Duration::try_from_secs_f64(limit.interval.as_secs_f64() * spent);
            bucket.tat = now + whole.unwrap_or(WHOLE_MAX).min(WHOLE_MAX);
            bucket.horizon = bucket.horizon.min(bucket.tat).max(now);
            bucket
        };
        let state = match self.state {
            State::Plain(bucket) => State::Plain(over(bucket)),
            State::Keyed(buckets) => {
                State::Keyed(buckets.into_iter().map(|(key, b)| (key, over(b))).collect())
            }
        };
        Self { limit, state, start: self.start }
    }
}

impl Limit {
    pub(super) fn new(config: &RateLimitConfig) -> Self {
        let limit = u128::from(config.limit.get());
        let interval_ns = config.period.as_nanos().div_ceil(limit);
        Self {
            limit: config.limit.get(),
            period: config.period,
            burst: config.burst.get(),
            interval: Duration::from_nanos(u64::try_from(interval_ns).unwrap_or(u64::MAX))
                .min(WHOLE_MAX),
            key: config.key.as_ref().map(|key| key.source().to_owned()),
        }
    }

    /// A bucket as a start leaves it. For a key first seen at `now`, the burst spent at `start` has
    /// refilled by as much as time has passed.
    pub(super) fn spent(&self, start: Instant, now: Instant) -> Bucket {
        let tat = start + self.whole();
        Bucket { tat, quiet_until: None, quiet_streak: 0, horizon: now }
    }

    /// How long a whole burst takes to come back.
    fn whole(&self) -> Duration {
        self.interval.saturating_mul(self.burst).min(WHOLE_MAX)
    }

    /// When the bucket allows the next request.
    pub(super) fn allows(&self, bucket: &Bucket) -> Instant {
        let tolerance = self.interval.saturating_mul(self.burst - 1).min(WHOLE_MAX);
        bucket.tat.checked_sub(tolerance).unwrap_or(bucket.tat)
    }

    pub(super) fn status(&self, state: &State, now: Instant) -> LimitStatus {
        let whole = self.whole().as_secs_f64();
        let used = |bucket: &Bucket| {
            let spent = bucket.tat.saturating_duration_since(now).as_secs_f64();
            (spent / whole).clamp(0.0, 1.0)
        };
        let (keys, used) = match state {
            State::Plain(bucket) => (None, used(bucket)),
            State::Keyed(buckets) => {
                (Some(buckets.len()), buckets.values().map(used).fold(0.0, f64::max))
            }
        };
        let period_ms = u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX);
        LimitStatus { limit: self.limit, period_ms, burst: self.burst, keys, used }
    }
}

impl Bucket {
    /// At rest, a bucket says what a new one would say.
    fn rests(&self, now: Instant) -> bool {
        self.tat <= now && self.quiet_until.is_none_or(|until| until <= now) && self.horizon <= now
    }
}

/// Makes room for one more key, sweeping those at rest. `Err`: none is; until when to wait.
pub(super) fn make_room(
    buckets: &mut HashMap<Arc<str>, Bucket>,
    now: Instant,
) -> Result<(), Instant> {
    if buckets.len() < KEYS_MAX {
        return Ok(());
    }
    buckets.retain(|_, bucket| !bucket.rests(now));
    if buckets.len() < KEYS_MAX {
        return Ok(());
    }
    Err(now + Duration::from_secs(1))
}
