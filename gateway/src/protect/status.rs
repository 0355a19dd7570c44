//! An upstream as an operator sees it.

use std::sync::Arc;

use tidegate_adapters::Timestamp;

/// One upstream as an operator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Its address, user part masked.
    pub url: String,
    /// The breaker; `None` when it is off.
    pub breaker: Option<BreakerStatus>,
    /// Attempts at once, at most.
    pub concurrency: u32,
    /// Attempts under way.
    pub in_flight: u32,
    /// Its rate limits, in the order of the configuration.
    pub limits: Vec<LimitStatus>,
    /// Paused by an operator.
    pub paused: bool,
    /// Until when the upstream asked for quiet.
    pub paused_until: Option<Timestamp>,
}

/// A breaker's state, in the electrical sense: closed = flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerStatus {
    /// Where it stands.
    pub state: BreakerState,
    /// Failures in a row.
    pub failures: u32,
    /// When the next probe may go, if open.
    pub probe_at: Option<Timestamp>,
}

/// `tidegate_breaker_state`: 0 closed, 1 half-open, 2 open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls flow.
    Closed,
    /// One probe is under way.
    HalfOpen,
    /// Calls wait in the queue.
    Open,
}

/// A rate limit and how much of it is in use.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitStatus {
    /// Requests per period.
    pub limit: u32,
    /// The period in milliseconds.
    pub period_ms: u64,
    /// Requests at once.
    pub burst: u32,
    /// Whether it is one limit per key, and how many keys are known now.
    pub keys: Option<usize>,
    /// Share of the allowance used over the last period, 0 to 1; of the busiest key if keyed.
    pub used: f64,
}
