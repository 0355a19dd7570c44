//! Rate limits: GCRA over a list of limits, keyed or not, all or nothing.
//!
//! # The bound
//!
//! A limit of `limit` per `period` with `burst` has the interval `I = ⌈period / limit⌉` (rounded up
//! to whole nanoseconds) and one number of state, the theoretical arrival time `tat`:
//!
//! ```text
//! a request may go at t  if  t ≥ tat − (burst − 1)·I;   then  tat ← max(tat, t) + I
//! ```
//!
//! So the n-th request of a window goes no sooner than `(n − burst)·I` after the first, which is
//! the promise: at most `burst + ⌈limit·t/period⌉ − 1` in any half-open window of length t.
//! A start begins with the burst spent: `tat = start + burst·I`.
//!
//! # Why not governor
//!
//! A list of limits must take all or nothing, and a delivery must be able to *look* at its key's
//! limit without spending: governor can neither peek nor give back, so a token taken from the
//! strict limit would go stale while the loose one waits. With the state in our hands all limits
//! of an upstream are read and taken under one lock.
//!
//! # Late wakes
//!
//! Timers wake up to a few milliseconds late. If each lateness were lost, a limit of 1,000/s would
//! be used by half. A request that was already waiting when its slot came is therefore counted at
//! its slot, at most [`LATE_MAX`] ago, not at the moment it woke. Together with
//! [`STALE_AFTER`](super::STALE_AFTER) this stays within the 50 ms that the contract allows between
//! the token and the socket.

mod bucket;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::LimitStatus;
use crate::config::RateLimitConfig;
pub use bucket::KEYS_MAX;

use bucket::{Bucket, Limit, Limited, State, make_room};

/// How far back a request that waited for its slot may be counted.
pub const LATE_MAX: Duration = Duration::from_millis(10);

/// The values of a call's keyed limits, one per limit of the upstream; `None` where the limit is
/// not keyed or does not count this call.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Which limits they were made for; see [`RateLimits::reconfigure`].
    pub epoch: u64,
    /// In the order of the limits.
    pub values: Vec<Option<Arc<str>>>,
}

impl Keys {
    /// Of a call that no keyed limit counts.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }
}

/// What a request must wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// One token of every limit was taken.
    Now,
    /// Nothing was taken: a limit of the whole upstream allows it then.
    Upstream(Instant),
    /// Nothing was taken: only this call's key is limited. Others may go; this one then.
    Key(Instant),
    /// Nothing was taken: the keys were made for limits that are no more.
    Stale,
}

/// All limits of one upstream.
#[derive(Debug)]
pub struct RateLimits {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    limits: Vec<Limited>,
    /// Whether a limit begins with its burst whole.
    rested: bool,
    /// One more each time the limits are others.
    epoch: u64,
}

impl RateLimits {
    /// Limits in the order of the configuration, all with their burst spent.
    #[must_use]
    pub fn new(config: &[RateLimitConfig], now: Instant) -> Self {
        Self::beginning(config, now, false)
    }

    /// The same with their burst whole: for what comes in, where nobody was promised anything and
    /// the first request after a start should not be turned away.
    #[must_use]
    pub fn rested(config: &[RateLimitConfig], now: Instant) -> Self {
        Self::beginning(config, now, true)
    }

    fn beginning(config: &[RateLimitConfig], now: Instant, rested: bool) -> Self {
        let begin = |config| Limited::new(Limit::new(config), now, rested);
        let limits = config.iter().map(begin).collect();
        Self { inner: Mutex::new(Inner { limits, rested, epoch: 0 }) }
    }

    /// Takes up other limits, in place: what is spent of a limit stays spent, counted in requests,
    /// where the limit is still there under its place in the list. A new one begins as it would at
    /// a start. Answers the epoch that [`Keys`] made for them must name.
    pub fn reconfigure(&self, config: &[RateLimitConfig], now: Instant) -> u64 {
        let inner = &mut *self.inner.lock();
        let limits: Vec<Limit> = config.iter().map(Limit::new).collect();
        if limits.iter().eq(inner.limits.iter().map(|limited| &limited.limit)) {
            return inner.epoch;
        }
        let mut before = std::mem::take(&mut inner.limits).into_iter();
        let carried = limits.into_iter().map(|limit| match before.next() {
            Some(old) if old.limit.key == limit.key => old.carried_over(limit, now),
            _ => Limited::new(limit, now, inner.rested),
        });
        inner.limits = carried.collect();
        inner.epoch += 1;
        inner.epoch
    }

    /// Which limits these are: one more each time they are others.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.inner.lock().epoch
    }

    /// Whether there is any limit at all.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        self.inner.lock().limits.is_empty()
    }

    /// Takes one token of each limit, or of none. `since` is when the call began to wait.
    pub fn take(&self, keys: &Keys, since: Instant, now: Instant) -> Taken {
        let inner = &mut *self.inner.lock();
        match keys.epoch == inner.epoch {
            true => inner.take(keys, since, now),
            false => Taken::Stale,
        }
    }

    /// As [`RateLimits::take`], for a request that is already admitted: were the limits others
    /// then, those of single keys no longer count it.
    pub fn take_admitted(&self, keys: &Keys, since: Instant, now: Instant) -> Taken {
        let inner = &mut *self.inner.lock();
        match keys.epoch == inner.epoch {
            true => inner.take(keys, since, now),
            false => inner.take(&Keys::none(), since, now),
        }
    }

    /// As [`RateLimits::take`], without taking: whether only this call's key would have to wait,
    /// and until when.
    pub fn key_wait(&self, keys: &Keys, now: Instant) -> Option<Instant> {
        if keys.values.iter().all(Option::is_none) {
            return None;
        }
        let inner = &mut *self.inner.lock();
        if keys.epoch != inner.epoch {
            return None;
        }
        match inner.allowed_at(keys, now) {
            Err(full_until) => Some(full_until),
            Ok((upstream_at, key_at)) if key_at > now && key_at > upstream_at => {
                Some(inner.slot(keys, key_at))
            }
            Ok(_) => None,
        }
    }

    /// The upstream asked for quiet on the keys of this call. False if the call has none: then it
    /// is the whole upstream that is meant.
    pub fn quiet(&self, keys: &Keys, asked: Option<Duration>, now: Instant) -> bool {
        let inner = &mut *self.inner.lock();
        if keys.epoch != inner.epoch {
            return false;
        }
        let mut keyed = false;
        for (Limited { limit, state, start }, key) in inner.limits.iter_mut().zip(&keys.values) {
            if let (State::Keyed(buckets), Some(key)) = (state, key) {
                let bucket =
                    buckets.entry(Arc::clone(key)).or_insert_with(|| limit.spent(*start, now));
                keyed = true;
                let already = bucket.quiet_until.is_some_and(|until| until > now);
                if already && asked.is_none() {
                    continue;
                }
                let pause = super::control::quiet_for(asked, bucket.quiet_streak);
                bucket.quiet_streak = bucket.quiet_streak.saturating_add(u32::from(!already));
                bucket.quiet_until = bucket.quiet_until.max(Some(now + pause));
            }
        }
        keyed
    }

    /// An answer came that did not ask for quiet: the streak of the call's keys is over.
    pub fn answered(&self, keys: &Keys) {
        if keys.values.iter().all(Option::is_none) {
            return;
        }
        let inner = &mut *self.inner.lock();
        if keys.epoch != inner.epoch {
            return;
        }
        for (_, bucket) in inner.buckets(keys) {
            bucket.quiet_streak = 0;
        }
    }

    /// Forgets the quiet asked for on single keys; what is spent stays spent.
    pub fn forget_quiet(&self) {
        for limited in &mut self.inner.lock().limits {
            if let State::Keyed(buckets) = &mut limited.state {
                for bucket in buckets.values_mut() {
                    (bucket.quiet_until, bucket.quiet_streak) = (None, 0);
                }
            }
        }
    }

    /// Each limit and how much of it is in use.
    #[must_use]
    pub fn status(&self, now: Instant) -> Vec<LimitStatus> {
        let inner = self.inner.lock();
        inner.limits.iter().map(|limited| limited.limit.status(&limited.state, now)).collect()
    }
}

impl Inner {
    fn take(&mut self, keys: &Keys, since: Instant, now: Instant) -> Taken {
        let (upstream_at, key_at) = match self.allowed_at(keys, now) {
            Ok(times) => times,
            Err(full_until) => return Taken::Key(full_until),
        };
        if key_at > now && key_at > upstream_at {
            return Taken::Key(self.slot(keys, key_at));
        }
        if upstream_at > now {
            return Taken::Upstream(upstream_at);
        }
        let slot = since.max(upstream_at).max(key_at);
        let slot = slot.max(now.checked_sub(LATE_MAX).unwrap_or(now)).min(now);
        for (limit, bucket) in self.buckets(keys) {
            bucket.tat = bucket.tat.max(slot) + limit.interval;
        }
        Taken::Now
    }

    /// When the limits of the whole upstream, and when those of the call's keys, allow it; long
    /// ago where there are none. `Err`: a keyed limit knows no more keys; until when.
    fn allowed_at(&mut self, keys: &Keys, now: Instant) -> Result<(Instant, Instant), Instant> {
        let starts = self.limits.iter().map(|limited| limited.start);
        let first = starts.min().unwrap_or(now).min(now);
        let (mut upstream_at, mut key_at) = (first, first);
        for (index, Limited { limit, state, start }) in self.limits.iter_mut().enumerate() {
            match state {
                State::Plain(bucket) => upstream_at = upstream_at.max(limit.allows(bucket)),
                State::Keyed(buckets) => {
                    let Some(key) = keys.values.get(index).and_then(Option::as_ref) else {
                        continue;
                    };
                    if !buckets.contains_key(key) {
                        make_room(buckets, now)?;
                        buckets.insert(Arc::clone(key), limit.spent(*start, now));
                    }
                    let bucket = buckets.get(key).expect("the key was put there above");
                    key_at = key_at.max(limit.allows(bucket));
                    key_at = key_at.max(bucket.quiet_until.unwrap_or(key_at));
                }
            }
        }
        Ok((upstream_at, key_at))
    }

    /// The next slot for a call that is sent away because its key is limited until `key_at`.
    fn slot(&mut self, keys: &Keys, key_at: Instant) -> Instant {
        let mut slot = key_at;
        for (limit, bucket) in self.buckets(keys) {
            if limit.key.is_some() {
                slot = slot.max(bucket.horizon);
            }
        }
        for (limit, bucket) in self.buckets(keys) {
            if limit.key.is_some() {
                bucket.horizon = slot + limit.interval;
            }
        }
        slot
    }

    /// The buckets that count this call.
    fn buckets<'a>(
        &'a mut self,
        keys: &'a Keys,
    ) -> impl Iterator<Item = (&'a Limit, &'a mut Bucket)> {
        let numbered = self.limits.iter_mut().enumerate();
        numbered.filter_map(move |(index, Limited { limit, state, .. })| match state {
            State::Plain(bucket) => Some((&*limit, bucket)),
            State::Keyed(buckets) => {
                let key = keys.values.get(index)?.as_ref()?;
                buckets.get_mut(key).map(|bucket| (&*limit, bucket))
            }
        })
    }
}

#[cfg(test)]
mod tests;
