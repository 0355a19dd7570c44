//! The queue: what makes our yes durable, and the only retry engine there is.
//!
//! # What it promises
//!
//! - [`Queue::append`] returns after the commit that holds the batch was fsynced. A batch is taken
//!   whole or not at all. Whether an event is a repeat is decided inside that same transaction.
//! - [`Queue::settle`] is one transaction: what became of the attempt, the attempt's record, the
//!   promotion of the lane's next delivery and, if there is one, the reply.
//! - What is neither settled nor discarded is found again after a crash, in the same order.
//! - Memory does not grow with the backlog: the loop holds a bounded window per route.
//!
//! # States
//!
//! ```text
//! append ──► pending ──claim (memory)──► active ──settle──► delivered
//!    │          ▲                           │
//!    │          └──────── again at T ───────┤
//!    ├──► dead (invalid, expression)        └──────────────► dead ──replay──► pending
//!    └──► filtered (only its id is kept)        pending | dead ──discard──► discarded
//! ```
//!
//! `active` exists in memory only: after a crash an active delivery is pending again, which is the
//! one way a second attempt follows one that may have succeeded.
//!
//! # How the loop gets its work
//!
//! Each route has a [`Feed`]. While the route has no backlog the writer pushes fresh deliveries
//! into it straight from memory, in commit order. When the feed overflows it falls *behind*: the
//! loop then reads pages from the store ([`Queue::page`]) until a page is not full, and is live
//! again. A retry lies in the store until its time; the loop remembers only the earliest.

pub mod sqlite;

mod feed;
mod shown;

pub use feed::{Fed, Feed};
pub use shown::{Acted, Action, Counts, Filter, ListPage, Listed, QueueStatus, RouteStatus, State};

use std::{
    any::Any,
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tidegate_adapters::{
    AttemptResult, DeadReason, Delivery, DeliveryId, Event, Exchange, Invalid, Timestamp,
};

/// What one route asks of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// The route's name.
    pub name: Arc<str>,
    /// The repeat window; `None` is off.
    pub dedupe: Option<Duration>,
    /// Whether a dead delivery holds its order key until an operator acts.
    pub hold: bool,
}

/// What bounds the queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Live data at most, in bytes.
    pub max_size: u64,
    /// Share of it that one route's pending and dead deliveries may take; in (0, 1].
    pub max_route_share: f64,
    /// How long delivered and discarded deliveries are kept.
    pub keep_delivered: Duration,
    /// How long dead ones are kept.
    pub keep_dead: Duration,
}

/// A delivery to be enqueued.
#[derive(Debug)]
pub struct Append {
    /// The event, or what stands in for one.
    pub content: Content,
    /// Order key; `None` is unordered.
    pub key: Option<Arc<str>>,
    /// Whether the event's own source and id guard against repeats.
    pub dedupe: bool,
}

/// What an [`Append`] holds.
#[derive(Debug)]
pub enum Content {
    /// To be delivered.
    Pending(Arc<Event>),
    /// The route's filter said no: only the id is kept, so that a repeat is known.
    Filtered(Arc<Event>),
    /// An event whose filter or order key failed: kept as dead, spends no id.
    Dead(Arc<Event>, DeadReason, String),
    /// Not an event: kept as dead `invalid` with its raw bytes, spends no id.
    Invalid(Invalid),
}

/// Which space an [`Append`] takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Within the size cap and the route's share: what comes from outside.
    Capped,
    /// Whatever there is: what moves inside. A full queue could not empty otherwise.
    Exempt,
}

/// What became of an [`Append`].
pub use tidegate_adapters::Accepted as Appended;

/// Why a batch was not appended. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The size cap, the route's share or the disk is full. [`Queue::room`] tells when it heals.
    #[error("the queue is full: {0}")]
    Full(&'static str),
    /// The queue is closed, or failed for good.
    #[error("the queue is closed")]
    Closed,
}

/// What an operation on the store can fail with. Any fsync error closes the queue for good:
/// after it nobody knows what the disk holds, so the process must end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// Another process owns the file.
    #[error("{path}: in use by process {owner}; one process per queue file")]
    Owned {
        /// The queue file.
        path: String,
        /// Its owner's process id, as it wrote it down.
        owner: String,
    },
    /// Written by a version of Tidegate that this one does not understand.
    #[error("{path}: on-disk format {found}, this version reads {known}")]
    Format {
        /// The queue file.
        path: String,
        /// The format found.
        found: i64,
        /// The format known.
        known: i64,
    },
    /// The store is closed, or failed for good.
    #[error("the queue is closed")]
    Closed,
    /// There is no such delivery.
    #[error("there is no delivery {0}")]
    Missing(DeliveryId),
    /// The queue has never heard of that route.
    #[error("there is no route {0}")]
    NoRoute(Arc<str>),
    /// It is in a state in which this cannot be done to it.
    #[error("delivery {id} is {state}")]
    Unfit {
        /// The delivery.
        id: DeliveryId,
        /// `active`, `pending`, `delivered`, `dead`, `discarded`, or `dead and not an event`: what
        /// was kept as raw bytes has nothing that could be sent.
        state: &'static str,
    },
    /// The store said no.
    #[error("queue: {0}")]
    Store(Arc<str>),
}

/// What became of an attempt, or of a delivery that never reached the network.
#[derive(Debug)]
pub struct Settlement {
    /// What it is about.
    pub delivery: Arc<Delivery>,
    /// What follows.
    pub outcome: Outcome,
    /// The attempt, when the network was reached; the last 3 of a delivery are kept.
    pub attempt: Option<AttemptRecord>,
    /// What came of it, as an event for another route: in the same transaction, exempt from the
    /// size cap.
    pub reply: Option<Reply>,
    /// Held until it is committed, and let go of right then: what bounds the unsettled.
    pub held: Option<Box<dyn Any + Send>>,
}

/// A delivery that another's settlement brings forth.
#[derive(Debug)]
pub struct Reply {
    /// The route it is for; one that is not configured gets nothing.
    pub route: Arc<str>,
    /// The delivery.
    pub append: Append,
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Delivered,
    /// Again at `at`.
    Retry {
        /// When it is due.
        at: Timestamp,
        /// Attempts used up so far.
        attempts: u32,
    },
    /// Given up.
    Dead {
        /// Why.
        reason: DeadReason,
        /// One sentence for the operator.
        detail: String,
    },
}

/// One attempt, for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// 1 for the first.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub duration: Duration,
    /// How it went.
    pub result: AttemptResult,
    /// What went wrong, in words; empty when nothing did.
    pub detail: String,
    /// What was sent and what came back.
    pub exchange: Exchange,
}

/// The most data a page of due deliveries holds: memory stays bounded whatever the messages' size.
pub const PAGE_BYTES: usize = 8 << 20;

/// The longest that a delivery waits for its next attempt.
pub const WAIT_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What lies further ahead than this was put off by a wall clock that has been set right since.
pub const AHEAD_MAX: Duration = Duration::from_secs(60 * 86_400);

/// Whether what was to be due at `at` is due `now`.
#[must_use]
pub fn is_due(at: Timestamp, now: Timestamp) -> bool {
    at <= now || at.since(now) > AHEAD_MAX
}

/// A page of due deliveries, in the order they are due.
#[derive(Debug, Default)]
pub struct Page {
    /// At most as many as were asked for.
    pub due: Vec<Arc<Delivery>>,
    /// Whether there are more that are due now.
    pub more: bool,
    /// When the earliest one that is not due yet will be.
    pub next_at: Option<Timestamp>,
}

/// The durable queue. One implementation runs at a time; callers hold it as `Arc<dyn Queue>`.
pub trait Queue: Send + Sync + 'static {
    /// Makes these the routes in force. Deliveries of routes not named stay, unfed (orphaned).
    fn configure(&self, routes: Vec<RouteSettings>) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Takes the batch, in order, or nothing of it; returns after the fsync.
    fn append(
        &self,
        route: &Arc<str>,
        batch: Vec<Append>,
        space: Space,
    ) -> BoxFuture<'static, Result<Vec<Appended>, AppendError>>;

    /// Resolves when a batch for `route` that was refused as full may be tried again.
    fn room(&self, route: &Arc<str>) -> BoxFuture<'static, ()>;

    /// Whether `route`'s source is connected: its repeat window runs only then.
    fn connected(&self, route: &Arc<str>, up: bool);

    /// Where the writer puts fresh deliveries of `route` for the loop.
    fn feed(&self, route: &Arc<str>) -> Arc<Feed>;

    /// Deliveries of `route` due at `now` that are not among `held`, by due time, then id: at most
    /// `limit`, and no more than fit [`PAGE_BYTES`], but at least one if there is one.
    fn page(
        &self,
        route: &Arc<str>,
        now: Timestamp,
        limit: usize,
        held: HashSet<DeliveryId>,
    ) -> BoxFuture<'_, Result<Page, QueueError>>;

    /// Marks a pending delivery active. False when it is not pending any more (discarded since it
    /// was paged in). Memory only.
    fn claim(&self, id: DeliveryId) -> bool;

    /// Gives a claim back without an attempt.
    fn unclaim(&self, id: DeliveryId);

    /// Whether it is active.
    fn claimed(&self, id: DeliveryId) -> bool;

    /// Every active one, in no order; no more than the upstreams' `concurrency` together.
    fn active(&self) -> Vec<DeliveryId>;

    /// Records what became of a claimed delivery and gives the claim back; returns after the
    /// commit. A promoted lane head goes to the route's feed.
    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), QueueError>>;

    /// A page of deliveries, newest first, from `cursor` (exclusive) downwards.
    fn list(
        &self,
        filter: Filter,
        cursor: Option<DeliveryId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ListPage, QueueError>>;

    /// One delivery with its event, raw bytes and attempts.
    fn show(&self, id: DeliveryId) -> BoxFuture<'_, Result<Listed, QueueError>>;

    /// Replays or discards one delivery; returns after the commit.
    fn act(&self, action: Action, id: DeliveryId) -> BoxFuture<'_, Result<(), QueueError>>;

    /// One bounded step of replaying or discarding all that `filter` finds and the action fits,
    /// the oldest first, so that those of one key keep their order: from `cursor` (exclusive) up;
    /// the active ones are left alone. A filter without a state means every state that the action
    /// fits. A `dry` one only counts, and its cursors go downwards. Call it until
    /// [`Acted::next`] is `None`; a delivery that a step replayed is not met again by the next.
    fn act_on_many(
        &self,
        action: Action,
        filter: Filter,
        cursor: Option<DeliveryId>,
        dry: bool,
    ) -> BoxFuture<'_, Result<Acted, QueueError>>;

    /// Pauses or resumes the attempts of `route`; survives restarts. Its [`Feed`] says so.
    fn pause_route(&self, route: &Arc<str>, paused: bool) -> BoxFuture<'_, Result<(), QueueError>>;

    /// For how long `route` has been paused, all its pauses together: ages stand still meanwhile.
    fn paused_for(&self, route: &Arc<str>) -> Duration;

    /// Keeps that `upstream` is paused, or that it no longer is; survives restarts.
    fn pause_upstream(
        &self,
        upstream: &Arc<str>,
        paused: bool,
    ) -> BoxFuture<'_, Result<(), QueueError>>;

    /// The upstreams that are paused.
    fn paused_upstreams(&self) -> BTreeSet<Arc<str>>;

    /// A text kept under `name`, if there is one.
    fn note(&self, name: &'static str) -> BoxFuture<'_, Result<Option<String>, QueueError>>;

    /// Keeps `text` under `name`; returns after the fsync.
    fn keep_note(
        &self,
        name: &'static str,
        text: String,
    ) -> BoxFuture<'static, Result<(), QueueError>>;

    /// Takes up other bounds; deliveries stay.
    fn set_bounds(&self, bounds: Bounds) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Every route the queue holds anything of, and every configured one.
    fn routes(&self) -> Vec<RouteStatus>;

    /// When the oldest due delivery of `route` became due; `None` when none is.
    fn oldest_due(
        &self,
        route: &Arc<str>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Timestamp>, QueueError>>;

    /// Live bytes, and whether it can be written to.
    fn status(&self) -> QueueStatus;

    /// Deliveries pruned since the start, by route.
    fn pruned(&self) -> Vec<(Arc<str>, u64)>;

    /// Resolves when the queue has failed for good, with the reason: the process must end.
    fn failed(&self) -> BoxFuture<'static, String>;

    /// Commits what is there, folds the write-ahead log in and lets go of the file.
    fn close(&self) -> BoxFuture<'_, ()>;
}
