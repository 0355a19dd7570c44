//! What can be seen of a route from outside its loop.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use tidegate_adapters::Timestamp;
use tokio::time::Instant;

use crate::{app::RouteActivity, protect::Upstream};

/// What can be seen of a route from outside its loop.
#[derive(Debug, Default)]
pub struct Activity {
    pub(super) active: AtomicU64,
    source_up: AtomicBool,
    pub(super) waiting: AtomicBool,
    progress_at: AtomicI64,
}

impl Activity {
    pub(crate) fn set_source_up(&self, up: bool) {
        self.source_up.store(up, Ordering::Relaxed);
    }

    pub(super) fn progress(&self, now: Timestamp) {
        self.progress_at.store(now.0, Ordering::Relaxed);
    }

    /// As an operator sees it. Waiting counts as progress while `upstream` gives a reason; for the
    /// broker that is waiting within an attempt too, when it blocks a window that is under way.
    #[must_use]
    pub fn seen(&self, upstream: &Upstream, now: Timestamp) -> RouteActivity {
        let waits = self.waiting.load(Ordering::Relaxed) || upstream.is_broker();
        let excused = waits && upstream.would_wait(Instant::now());
        let progress_at = match excused {
            true => now,
            false => Timestamp(self.progress_at.load(Ordering::Relaxed)),
        };
        RouteActivity {
            active: self.active.load(Ordering::Relaxed),
            source_up: self.source_up.load(Ordering::Relaxed),
            progress_at,
        }
    }
}
