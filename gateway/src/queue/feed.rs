//! Fresh deliveries of a route, from the writer's memory to the loop's.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tidegate_adapters::Delivery;
use tokio::sync::Notify;

/// The writer's side of a route's work: fresh deliveries, in commit order, from memory.
#[derive(Debug, Default)]
pub struct Feed {
    fresh: Mutex<Fresh>,
    wake: Notify,
    paused: AtomicBool,
    epoch: AtomicU64,
    replays: AtomicU64,
}

#[derive(Debug, Default)]
enum Fresh {
    /// Everything due since the last page is here, and how many bytes that is.
    Live(VecDeque<Arc<Delivery>>, usize),
    /// There is more in the store than in memory: read pages.
    #[default]
    Behind,
}

/// What [`Feed::take`] found.
#[derive(Debug)]
pub enum Fed {
    /// The next fresh delivery.
    Fresh(Arc<Delivery>),
    /// Nothing new, and nothing missed.
    Empty,
    /// The store holds more: call [`Feed::go_live`], then read a page.
    Behind,
}

impl Feed {
    /// The most deliveries a feed holds; beyond it falls behind. Bounds memory per route.
    pub const MOST: usize = 4096;

    /// The most data they may hold together, in bytes.
    pub const MOST_BYTES: usize = 4 << 20;

    /// Called by the writer, after the commit, in commit order.
    pub fn push(&self, delivery: Arc<Delivery>) {
        let mut fresh = self.fresh.lock();
        if let Fresh::Live(queue, bytes) = &mut *fresh {
            *bytes += delivery.event.size_hint();
            if queue.len() < Self::MOST && (*bytes <= Self::MOST_BYTES || queue.is_empty()) {
                queue.push_back(delivery);
            } else {
                *fresh = Fresh::Behind;
            }
        }
        drop(fresh);
        self.wake.notify_one();
    }

    /// Called by the loop.
    pub fn take(&self) -> Fed {
        match &mut *self.fresh.lock() {
            Fresh::Live(queue, bytes) => match queue.pop_front() {
                None => Fed::Empty,
                Some(delivery) => {
                    *bytes -= delivery.event.size_hint();
                    Fed::Fresh(delivery)
                }
            },
            Fresh::Behind => Fed::Behind,
        }
    }

    /// From now on pushes are kept again. Call *before* reading the page that is to catch up: a
    /// delivery committed in between is then in both, never in neither.
    pub fn go_live(&self) {
        *self.fresh.lock() = Fresh::Live(VecDeque::new(), 0);
    }

    /// The page was full, or something changed in the store that the feed did not carry.
    pub fn fall_behind(&self) {
        *self.fresh.lock() = Fresh::Behind;
        self.wake.notify_one();
    }

    /// Whether an operator has paused the route: nothing of it is to be attempted.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Called by the queue.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
        self.wake.notify_one();
    }

    /// Counts what was taken away in the store: deliveries that were discarded. What the loop took
    /// in hand under another epoch may be gone, and must be read again.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Called by the queue, after the commit and before it gives its claims on what was discarded
    /// back: whoever claims one of them after that sees the new epoch.
    pub fn next_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.fall_behind();
    }

    /// Counts the commits that made deliveries pending again which had been finished with. One that
    /// the loop still had in hand then, its settlement committed but not yet released, was left out
    /// of whatever page or push brought it. So whoever releases a finished delivery compares this
    /// with what it was at the claim, and on a difference calls [`Feed::fall_behind`].
    pub fn replays(&self) -> u64 {
        self.replays.load(Ordering::Acquire)
    }

    /// Called by the queue, after the commit and before what was replayed is pushed or paged.
    pub fn replayed(&self) {
        self.replays.fetch_add(1, Ordering::AcqRel);
    }

    /// Resolves when something was pushed, paused, resumed or taken away since the last call, or at
    /// once if that was missed.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}
