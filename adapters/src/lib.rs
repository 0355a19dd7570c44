//! The ends of Tidegate: everything that touches the outside world, and nothing durable.
//!
//! ```text
//! rabbitmq::Consumer ─┐                                       ┌─► http::Caller ─► third party
//!                     ├─► Intake::accept ─► queue and loop  ──┤
//! http::Receiver     ─┘   its Ok is our yes   (the gateway)   └─► rabbitmq::Publisher
//! ```
//!
//! A **source** hands what arrived to an [`Intake`] and tells the outside world "yes" only after
//! `accept` returned. A **target** is a [`tower::Service`] from [`Call`] to [`Receipt`] or
//! [`Failure`]; only the leaf that read a status code classifies it, everyone else reads the
//! [`Failure`].
//!
//! This file is the vocabulary both sides of that picture share; what a source is told stands in
//! `intake`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use uuid::Uuid;

pub mod clock;
pub mod event;
pub mod expression;
mod intake;
pub mod secret;
pub mod trace;
pub mod units;

pub mod embedded;
pub mod http;
pub mod otlp;
pub mod rabbitmq;

pub use event::{Data, Event};
pub use intake::{Accepted, Arrival, Intake, Invalid, Refused, Rejection};
pub use trace::TraceContext;

/// Wall-clock milliseconds since the Unix epoch. Passed in as an argument wherever it matters, so
/// that code can be tested at any time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `duration` after this one, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(ms))
    }

    /// The moment `duration` before this one, saturating.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(ms))
    }

    /// How long ago `earlier` was, seen from here; zero when it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Position of a delivery in the order of our yes. Opaque to users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(pub i64);

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

// ===== delivery: what the queue holds =====

/// One event on one route, as read from the queue for an attempt.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Where it stands in the order of our yes.
    pub id: DeliveryId,
    /// The route's name.
    pub route: Arc<str>,
    /// The event itself.
    pub event: Arc<Event>,
    /// The order key, fixed when accepted; `None` is unordered.
    pub key: Option<Arc<str>>,
    /// When we said yes.
    pub accepted_at: Timestamp,
    /// When it was due for the attempt it is held for.
    pub due_at: Timestamp,
    /// Attempts so far that count against `retry.attempts`.
    pub attempts: u32,
    /// All attempts so far, for numbering them.
    pub tries: u32,
    /// When the first attempt was made, by the route's own clock: wall time less all the time it
    /// was paused. `retry.within` counts from here.
    pub first_attempt_at: Option<Timestamp>,
}

impl Delivery {
    /// The idempotency key: `UUIDv5(URL namespace, "tidegate:" route "\n" source "\n" id)`, the
    /// same for every attempt, restart and replay of this delivery.
    #[must_use]
    pub fn idempotency_key(&self) -> Uuid {
        let name = format!("tidegate:{}\n{}\n{}", self.route, self.event.source, self.event.id);
        Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes())
    }
}

// ===== call: what a target is given, and what it answers =====

/// One rendered attempt, ready for the wire once it is admitted.
#[derive(Debug)]
pub struct Call {
    /// The delivery it is for.
    pub delivery: Arc<Delivery>,
    /// 1 for the first attempt ever.
    pub attempt: u32,
    /// What to send, and where.
    pub request: Request,
    /// Asked right before bytes leave; see [`Gate`].
    pub gate: Arc<dyn Gate>,
}

/// What is sent: one variant per kind of target.
#[derive(Debug)]
pub enum Request {
    /// An HTTP request; shared, for what is to be said of it should it take too long.
    Http(Arc<http::HttpRequest>),
    /// A message for a RabbitMQ exchange, or its stand-in on the embedded broker.
    Rabbitmq(rabbitmq::PublishRequest),
}

impl Request {
    /// Puts `trace` on the wire, as `traceparent` and `tracestate`.
    pub fn carry(&mut self, trace: &TraceContext) {
        match self {
            Self::Http(request) => Arc::make_mut(request).carry(trace),
            Self::Rabbitmq(request) => request.trace = Some(trace.clone()),
        }
    }
}

/// The way back from the leaf to the rate limit.
///
/// A token is taken before the call, but a slow connect or a fresh OAuth2 token may come between
/// it and the wire; a burst of such stale tokens would break the limit as the upstream sees it.
pub trait Gate: Send + Sync + std::fmt::Debug {
    /// Resolves when the request may be sent now. Immediate while the token is younger than
    /// 50 ms; else takes another.
    fn pass(&self) -> BoxFuture<'_, ()>;

    /// As [`Gate::pass`], for sending once more within the same attempt: always another token.
    fn pass_again(&self) -> BoxFuture<'_, ()>;

    /// How long the two above have waited in all. The attempt's timeout does not count it.
    fn waited(&self) -> Duration;
}

/// How an attempt went, as one of the closed set of results that metrics and attempts show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AttemptResult {
    /// Taken: a 2xx answer (1xx never ends an attempt), or RabbitMQ's confirm.
    Success,
    /// A redirect; never followed.
    Redirect,
    /// A 4xx answer other than 401 and 407.
    ClientError,
    /// A 5xx answer.
    ServerError,
    /// 401 or 407, or no OAuth2 token could be had.
    Auth,
    /// The name did not resolve.
    Dns,
    /// No connection; nothing was sent.
    Connect,
    /// The TLS handshake failed; nothing was sent.
    Tls,
    /// No complete answer in time, after sending.
    Timeout,
    /// The connection broke after sending.
    Reset,
    /// The answer was not HTTP.
    Protocol,
    /// The address is private and not listed in `egress.allow`.
    RefusedAddress,
    /// The request cannot be sent: too large.
    Oversize,
    /// RabbitMQ returned the message: nothing is bound for it.
    Unroutable,
    /// RabbitMQ would not take the message: a queue is full, or failed.
    Nack,
    /// The connection broke before RabbitMQ's confirm: it may have the message or not.
    Ambiguous,
}

impl AttemptResult {
    /// Every result.
    pub const ALL: [Self; 16] = [
        Self::Success,
        Self::Redirect,
        Self::ClientError,
        Self::ServerError,
        Self::Auth,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::Protocol,
        Self::RefusedAddress,
        Self::Oversize,
        Self::Unroutable,
        Self::Nack,
        Self::Ambiguous,
    ];

    /// The word in metrics, attempts and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Auth => "auth",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
            Self::RefusedAddress => "refused_address",
            Self::Oversize => "oversize",
            Self::Unroutable => "unroutable",
            Self::Nack => "nack",
            Self::Ambiguous => "ambiguous",
        }
    }
}

/// Why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeadReason {
    /// The API said no, and retrying would not help.
    Rejected,
    /// `retry.attempts` used up.
    Exhausted,
    /// `retry.within` has passed since the first attempt.
    Expired,
    /// What arrived is not an event.
    Invalid,
    /// An expression or template of the route failed on this event.
    Expression,
    /// Nothing is bound for it in RabbitMQ.
    Unroutable,
}

impl DeadReason {
    /// Every reason, in the order of the contract.
    pub const ALL: [Self; 6] = [
        Self::Rejected,
        Self::Exhausted,
        Self::Expired,
        Self::Invalid,
        Self::Expression,
        Self::Unroutable,
    ];

    /// The word in metrics, the API and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Invalid => "invalid",
            Self::Expression => "expression",
            Self::Unroutable => "unroutable",
        }
    }
}

/// What an attempt says about the upstream's health; the breaker reads only this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// A complete answer other than 5xx, 401 and 407.
    Good,
    /// Network error, timeout, 5xx, 401 or 407.
    Bad,
    /// Says nothing: throttled, refused before the network, or our own fault.
    Silent,
}

/// What was sent and what came back, masked and cut to 4 KiB each, for the attempt's record.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exchange {
    /// Request line, headers and body, secrets masked.
    pub request: String,
    /// Status code, when an answer came.
    pub status: Option<u16>,
    /// Headers and body of the answer, secrets masked.
    pub response: String,
}

/// The target took it: the delivery is delivered.
#[derive(Debug)]
pub struct Receipt {
    /// How it went.
    pub result: AttemptResult,
    /// What it says about the upstream.
    pub health: Health,
    /// For the record.
    pub exchange: Exchange,
    /// The answer, for the route's reply: `{status, headers, body}` as JSON text, secrets masked.
    /// Absent where no reply wants it.
    pub response: Option<Bytes>,
}

/// The target did not take it, and what follows from that.
#[derive(Debug, thiserror::Error)]
#[error("{}: {detail}", result.map_or("not sent", AttemptResult::as_str))]
pub struct Failure {
    /// How it went; `None` if the network was never reached: then it is no attempt.
    pub result: Option<AttemptResult>,
    /// What becomes of the delivery.
    pub verdict: Verdict,
    /// What it says about the upstream.
    pub health: Health,
    /// The upstream asked for quiet (429, or 503 with `Retry-After`): pause it, or its limit key.
    pub throttle: Option<Throttle>,
    /// One sentence for the operator, secrets masked.
    pub detail: String,
    /// For the record.
    pub exchange: Exchange,
    /// As [`Receipt::response`], when an answer came.
    pub response: Option<Bytes>,
}

/// What becomes of a delivery whose attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again, no sooner than `after` from now (already capped) when the answer named a time.
    Retry {
        /// From `Retry-After` or the upstream's `retry_after` expression.
        after: Option<Duration>,
    },
    /// Give up now.
    Dead(DeadReason),
}

/// The upstream's wish to be left alone for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// For how long, already capped; `None` when it did not say (then 1 s doubling to 1 min).
    pub after: Option<Duration>,
}

impl Failure {
    /// An expression or template of the configuration failed on this event, named by its key.
    /// Nothing was sent; trying again would fail again.
    #[must_use]
    pub fn expression(key: &str, failed: &expression::ExpressionError) -> Self {
        Self {
            result: None,
            verdict: Verdict::Dead(DeadReason::Expression),
            health: Health::Silent,
            throttle: None,
            detail: format!("{key}: {failed}"),
            exchange: Exchange::default(),
            response: None,
        }
    }
}
