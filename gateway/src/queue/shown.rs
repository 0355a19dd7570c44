//! What the queue shows of itself, and what an operator may ask of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tidegate_adapters::{DeadReason, Delivery, DeliveryId, Timestamp};

use super::AttemptRecord;

/// The states a delivery is counted in. `active` is the loop's, from memory, and part of pending
/// here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waiting or being attempted.
    Pending,
    /// Done.
    Delivered,
    /// Given up.
    Dead,
    /// Discarded by an operator.
    Discarded,
}

/// Counts of one route, kept up to date by every commit; no scan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Waiting or being attempted.
    pub pending: u64,
    /// In the history, not yet pruned.
    pub delivered: u64,
    /// Given up, kept.
    pub dead: u64,
    /// Discarded, kept.
    pub discarded: u64,
}

/// One route as the queue knows it.
#[derive(Debug, Clone)]
pub struct RouteStatus {
    /// The route's name.
    pub name: Arc<str>,
    /// Its deliveries by state.
    pub counts: Counts,
    /// Live bytes of its pending and dead deliveries.
    pub bytes: u64,
    /// Paused by an operator; survives restarts.
    pub paused: bool,
    /// Whether the configuration in force has this route.
    pub configured: bool,
    /// The repeat window really kept; `None` is off.
    pub dedupe: Option<Duration>,
}

/// What [`Queue::list`](super::Queue::list) filters by. All of them must hold.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Route names; empty is all.
    pub routes: Vec<Arc<str>>,
    /// State.
    pub state: Option<State>,
    /// Dead reason; of a discarded one the reason it had died for.
    pub reason: Option<DeadReason>,
    /// Event type, exact.
    pub kind: Option<String>,
    /// Event id, exact.
    pub event: Option<String>,
    /// Order key, exact.
    pub key: Option<String>,
    /// Accepted at or after.
    pub since: Option<Timestamp>,
    /// Accepted before.
    pub until: Option<Timestamp>,
}

/// What an operator may do to a delivery that is not being attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Dead or delivered: pending again, its attempts forgotten, its idempotency key the same. It
    /// goes behind what its key holds; one that holds its key keeps its place.
    Replay,
    /// Pending or dead: given up, and out of the way of the next of its key.
    Discard,
}

/// What one bounded step of an action on many came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acted {
    /// How many it was done to, or in a dry run would be, by route.
    pub routes: BTreeMap<Arc<str>, u64>,
    /// Where to go on; `None` at the end.
    pub next: Option<DeliveryId>,
}

/// One delivery as listed.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The delivery; its event is decoded without data for a list.
    pub delivery: Arc<Delivery>,
    /// Its state.
    pub state: State,
    /// Reason and detail when dead, or of one that was discarded when dead.
    pub dead: Option<(DeadReason, String)>,
    /// When it is due, if pending and not behind another of its lane.
    pub due_at: Option<Timestamp>,
    /// The raw bytes when it is no event.
    pub raw: Option<Bytes>,
    /// The attempts kept, oldest first; empty in a list.
    pub attempts: Vec<AttemptRecord>,
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct ListPage {
    /// Newest first.
    pub deliveries: Vec<Listed>,
    /// Where to go on; `None` at the end. A page may be short and still have one: a list stops
    /// after 20 ms, so that it answers at once and holds back no checkpoint.
    pub next: Option<DeliveryId>,
}

/// The queue as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Live data: pending, dead and history.
    pub bytes: u64,
    /// `queue.max_size`.
    pub bytes_max: u64,
    /// False when the size cap or the disk refuses appends.
    pub room: bool,
    /// False when the store failed for good.
    pub writable: bool,
}
