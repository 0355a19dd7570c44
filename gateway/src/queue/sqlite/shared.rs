//! What the writer shows the rest of the process.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tidegate_adapters::{DeliveryId, Timestamp};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    Options,
    ledger::{Ledger, Row},
    transaction::Caps,
};
use crate::queue::{Feed, QueueStatus, RouteStatus};

/// What the writer shows the rest of the process.
pub(super) struct Shared {
    pub(super) feeds: RwLock<HashMap<Arc<str>, Arc<Feed>>>,
    pub(super) claims: Mutex<HashSet<DeliveryId>>,
    pub(super) seen: RwLock<Seen>,
    pub(super) room: Notify,
    pub(super) failure: watch::Sender<Option<String>>,
    pub(super) is_closed: AtomicBool,
    pub(super) pruned: Mutex<BTreeMap<Arc<str>, u64>>,
    pub(super) stopped: Mutex<BTreeSet<Arc<str>>>,
    pub(super) options: Options,
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) routes: Vec<RouteStatus>,
    /// In the order of `routes`: all pauses that are over together, and since when one goes on.
    pub(super) pauses: Vec<(Duration, Option<Timestamp>)>,
    pub(super) status: QueueStatus,
    pub(super) route_cap: u64,
}

impl Shared {
    pub(super) fn new(options: Options) -> Self {
        Self {
            feeds: RwLock::default(),
            claims: Mutex::default(),
            seen: RwLock::default(),
            room: Notify::new(),
            failure: watch::channel(None).0,
            is_closed: AtomicBool::new(false),
            pruned: Mutex::default(),
            stopped: Mutex::default(),
            options,
        }
    }

    pub(super) fn wall(&self) -> Timestamp {
        (self.options.clock)()
    }

    pub(super) fn observe(&self, took: Duration) {
        (self.options.observer)(took);
    }

    pub(super) fn feed(&self, route: &Arc<str>) -> Arc<Feed> {
        if let Some(feed) = self.feeds.read().get(route) {
            return Arc::clone(feed);
        }
        Arc::clone(self.feeds.write().entry(Arc::clone(route)).or_default())
    }

    pub(super) fn settled(&self, ids: impl Iterator<Item = DeliveryId>) {
        let mut claims = self.claims.lock();
        for id in ids {
            claims.remove(&id);
        }
    }

    /// For how long a route has been paused, all its pauses together.
    pub(super) fn paused_for(&self, route: &str) -> Duration {
        let seen = self.seen.read();
        let index = seen.routes.iter().position(|known| &*known.name == route);
        let Some((over, since)) = index.and_then(|index| seen.pauses.get(index)) else {
            return Duration::ZERO;
        };
        over.saturating_add(since.map_or(Duration::ZERO, |since| self.wall().since(since)))
    }

    /// Upstreams were paused or resumed.
    pub(super) fn stopped(&self, upstreams: Vec<(Arc<str>, bool)>) {
        if upstreams.is_empty() {
            return;
        }
        let mut stopped = self.stopped.lock();
        for (upstream, paused) in upstreams {
            match paused {
                true => stopped.insert(upstream),
                false => stopped.remove(&upstream),
            };
        }
    }

    pub(super) fn pruned(&self, route: &Arc<str>, count: u64) {
        *self.pruned.lock().entry(Arc::clone(route)).or_default() += count;
    }

    pub(super) fn publish(&self, ledger: &Ledger, caps: Caps, disk_full: bool) {
        let bytes = ledger.bytes();
        let evictable = ledger.history_bytes();
        // Two hundredths below the cap, so that intake does not flutter.
        let room = !disk_full && bytes.saturating_sub(evictable) < caps.size / 50 * 49;
        let mut seen = self.seen.write();
        seen.routes = ledger.statuses(Instant::now());
        seen.pauses.clear();
        seen.pauses.extend(ledger.rows().iter().map(Row::pauses));
        seen.route_cap = caps.route;
        seen.status = QueueStatus { bytes, bytes_max: caps.size, room, writable: !self.failed() };
        drop(seen);
        self.room.notify_waiters();
    }

    pub(super) fn has_room(&self, route: &str) -> bool {
        let seen = self.seen.read();
        let held = seen.routes.iter().find(|known| &*known.name == route);
        let held = held.map_or(0, |known| known.bytes);
        seen.status.room && held < seen.route_cap / 50 * 49
    }

    pub(super) fn fail(&self, reason: String) {
        tracing::error!(reason, "the queue has failed for good");
        self.is_closed.store(true, Ordering::Relaxed);
        self.seen.write().status.writable = false;
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(reason);
            first
        });
    }

    pub(super) fn failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    pub(super) fn closed(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }
}
