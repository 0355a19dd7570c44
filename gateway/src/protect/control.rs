//! What changes an upstream's protections from outside: a reload, an operator, and the upstream
//! itself when it asks for quiet.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{
    Upstream,
    breaker::{Breaker, Change},
    display_url,
    rate_limit::Keys,
};
use crate::config::UpstreamConfig;

/// Quiet asked for without a time: 1 s, doubling up to this while it lasts.
const QUIET_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Quiet {
    pub(super) until: Option<Instant>,
    pub(super) streak: u32,
}

impl Upstream {
    /// Takes up other protections, in place: calls under way count on, a breaker stays where it
    /// stands, what is spent of a limit stays spent.
    pub fn reconfigure(&self, config: &UpstreamConfig, now: Instant) {
        *self.url.lock() = display_url(&config.api.url);
        let mut breaker = self.breaker.lock();
        match (&mut *breaker, &config.breaker) {
            (Some(breaker), Some(config)) => breaker.reconfigure(config.clone()),
            (breaker, config) => *breaker = config.clone().map(Breaker::new),
        }
        drop(breaker);
        self.concurrency.resize(config.concurrency);
        self.limits.reconfigure(&config.rate_limit, now);
        self.changed.notify_waiters();
    }

    /// Pauses or resumes: while paused nothing is admitted, and what waits is still pending.
    pub fn pause(&self, paused: bool) {
        if self.paused.swap(paused, Ordering::AcqRel) == paused {
            return;
        }
        match paused {
            true => tracing::warn!(upstream = %self.name, "upstream paused by an operator"),
            false => tracing::info!(upstream = %self.name, "upstream resumed by an operator"),
        }
        self.changed.notify_waiters();
    }

    /// Closes the breaker, and forgets the quiet that was asked for, of single keys too.
    pub fn reset(&self) {
        let change = self.breaker.lock().as_mut().map(Breaker::reset);
        *self.quiet.lock() = Quiet::default();
        self.limits.forget_quiet();
        tracing::info!(upstream = %self.name, "upstream reset by an operator");
        self.changed_to(change.unwrap_or(Change::None));
    }

    /// The upstream asked for quiet. Of many calls under way that all hear it, one counts.
    pub(super) fn hush(&self, keys: &Keys, asked: Option<Duration>, now: Instant) {
        if self.limits.quiet(keys, asked, now) {
            return;
        }
        let mut quiet = self.quiet.lock();
        let already = quiet.until.is_some_and(|until| until > now);
        if already && asked.is_none() {
            return;
        }
        let pause = quiet_for(asked, quiet.streak);
        if !already {
            quiet.streak = quiet.streak.saturating_add(1);
            tracing::warn!(upstream = %self.name, pause = ?pause, "upstream asked for quiet");
        }
        quiet.until = quiet.until.max(Some(now + pause));
    }
}

/// How long to be quiet: what was asked for, else 1 s doubling to 1 min while it lasts. `streak` is
/// how often it was asked for without a pause in between.
#[must_use]
pub fn quiet_for(asked: Option<Duration>, streak: u32) -> Duration {
    asked
        .unwrap_or_else(|| Duration::from_secs(1).saturating_mul(1 << streak.min(6)).min(QUIET_MAX))
}
