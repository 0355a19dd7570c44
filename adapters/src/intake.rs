//! Intake: what a source hands over, and what it is told.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::{DeliveryId, Event};

/// One thing that arrived at a source.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The event, or why there is none.
    pub event: Result<Event, Invalid>,
    /// Whether the event brought an id of its own. A fresh one is never taken for a repeat.
    pub own_id: bool,
}

/// Something that arrived and cannot become an event. It is kept as a dead delivery.
#[derive(Debug, Clone)]
pub struct Invalid {
    /// What is wrong, in one sentence an operator can act on.
    pub why: String,
    /// What arrived, at most its first 64 KiB.
    pub raw: Bytes,
    /// Where it came from: routing key, exchange, message id; for the operator's eyes.
    pub about: serde_json::Map<String, serde_json::Value>,
}

/// What became of an arrival that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// Enqueued.
    Pending(DeliveryId),
    /// Seen before within the window: enqueued once, under this id.
    Duplicate(DeliveryId),
    /// The route's `when` said no: only the event's id is kept.
    Filtered,
    /// Kept as dead: not an event, or its order key or filter could not be told.
    Dead(DeliveryId),
}

/// Why nothing of a batch was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue, or this route's share of it, is full; or the disk is. Heals by itself.
    #[error("the queue is full")]
    Full,
    /// The process is stopping, or the queue has failed for good.
    #[error("the queue is closed")]
    Closed,
}

/// Why a request or a batch was turned away. The closed set of `tidegate_events_rejected_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// The queue, or the route's share of it, was full.
    QueueFull,
    /// Stopping.
    Closed,
    /// Not what it says it is: 400.
    Malformed,
    /// Signature, key or timestamp: 401.
    Unauthorized,
    /// A method that is not served: 405.
    Method,
    /// The body did not come in time: 408.
    Timeout,
    /// Larger than `server.max_body`: 413.
    TooLarge,
    /// A body in a form that is not read: 415.
    MediaType,
    /// Over the route's own limit: 429.
    RateLimited,
    /// More bodies in memory than `server.max_buffered` allows: 503.
    Busy,
}

impl Rejection {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::QueueFull,
        Self::Closed,
        Self::Malformed,
        Self::Unauthorized,
        Self::Method,
        Self::Timeout,
        Self::TooLarge,
        Self::MediaType,
        Self::RateLimited,
        Self::Busy,
    ];

    /// The word in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Unauthorized => "unauthorized",
            Self::Method => "method",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::MediaType => "media_type",
            Self::RateLimited => "rate_limited",
            Self::Busy => "busy",
        }
    }
}

/// The durable yes. Implemented by the gateway, one per route; called by every source.
pub trait Intake: Send + Sync + 'static {
    /// Takes all of `batch`, in order, or nothing of it. `Ok` means: committed and fsynced.
    fn accept(&self, batch: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>>;

    /// As [`Intake::accept`], for what moves inside: an event that the in-process broker hands on.
    /// Its space is exempt from the queue's cap, or a full queue could not empty.
    fn accept_inside(
        &self,
        batch: Vec<Arrival>,
    ) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        self.accept(batch)
    }

    /// Whether the route's own limit allows one more request now; else how long until it does.
    ///
    /// # Errors
    /// The wait.
    fn admit(&self) -> Result<(), Duration> {
        Ok(())
    }

    /// A request was turned away before it came to [`Intake::accept`], and why.
    fn rejected(&self, _why: Rejection) {}

    /// Resolves once there is room again after [`Refused::Full`].
    fn room(&self) -> BoxFuture<'static, ()>;

    /// Tells whether the source is connected. The repeat window stands still while it is not.
    fn connected(&self, up: bool);
}
