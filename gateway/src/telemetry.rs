//! What can be seen from outside: metrics (contract §6) and the log.
//!
//! Counters and histograms are pushed here by whoever knows; gauges are read at scrape time, from
//! the queue, the upstreams and the broker, so that they cannot drift from the truth.

use std::time::Duration;

use tidegate_adapters::{AttemptResult, DeadReason};

/// The counters and histograms of the process. Cheap to clone; clones are one set.
#[derive(Clone, Debug, Default)]
pub struct Metrics {}

/// Why a source's message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectReason {
    /// The queue, or the route's share of it, was full.
    QueueFull,
    /// Stopping.
    Closed,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The target took it.
    Delivered,
    /// The route's `when` said no.
    Filtered,
    /// Given up.
    Dead(DeadReason),
    /// Discarded by an operator.
    Discarded,
}

impl Metrics {
    /// `tidegate_events_accepted_total`.
    pub fn accepted(&self, route: &str, events: u64) {
        let _ = (route, events);
    }

    /// `tidegate_events_duplicate_total`.
    pub fn duplicate(&self, route: &str, events: u64) {
        let _ = (route, events);
    }

    /// `tidegate_events_rejected_total`.
    pub fn rejected(&self, route: &str, reason: RejectReason, events: u64) {
        let _ = (route, reason, events);
    }

    /// `tidegate_deliveries_total`.
    pub fn ended(&self, route: &str, ending: Ending) {
        let _ = (route, ending);
    }

    /// `tidegate_attempts_total` and `tidegate_attempt_duration_seconds`.
    pub fn attempt(&self, route: &str, upstream: &str, result: AttemptResult, took: Duration) {
        let _ = (route, upstream, result, took);
    }

    /// `tidegate_delivery_lag_seconds`: accepted to delivered.
    pub fn lag(&self, route: &str, lag: Duration) {
        let _ = (route, lag);
    }

    /// `tidegate_rate_limit_wait_seconds`.
    pub fn rate_limit_wait(&self, upstream: &str, waited: Duration) {
        let _ = (upstream, waited);
    }

    /// `tidegate_queue_commit_seconds`.
    pub fn commit(&self, took: Duration) {
        let _ = took;
    }
}
