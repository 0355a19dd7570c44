//! How many attempts an upstream has under way at once.
//!
//! Two bounds, of which the second bounds what a crash may repeat: that is what was sent and
//! not yet settled, and that is at most twice `concurrency`.
//!
//! - **calls**: `concurrency` permits, each held from admission until the answer is read;
//! - **unsettled**: twice as many, each held from admission until the settlement is committed. One
//!   fsync may settle many; a slow disk then slows the sending instead of widening the gap.

use std::{num::NonZeroU32, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The two bounds of one upstream.
#[derive(Debug)]
pub struct Concurrency {
    limit: u32,
    calls: Arc<Semaphore>,
    unsettled: Arc<Semaphore>,
}

/// Held while a call is under way.
#[derive(Debug)]
pub struct CallPermit {
    _permit: OwnedSemaphorePermit,
}

/// Held until the delivery is settled.
#[derive(Debug)]
pub struct UnsettledPermit {
    _permit: OwnedSemaphorePermit,
}

impl Concurrency {
    /// `limit` calls at once.
    #[must_use]
    pub fn new(limit: NonZeroU32) -> Self {
        // A semaphore holds far fewer permits than u32::MAX on 32-bit; no upstream needs a million.
        let calls = (limit.get() as usize).min(1 << 20);
        Self {
            limit: limit.get(),
            calls: Arc::new(Semaphore::new(calls)),
            unsettled: Arc::new(Semaphore::new(calls * 2)),
        }
    }

    /// Waits for both permits, in order of asking.
    pub async fn acquire(&self) -> (CallPermit, UnsettledPermit) {
        const OPEN: &str = "the semaphores are never closed";
        let unsettled = Arc::clone(&self.unsettled).acquire_owned().await.expect(OPEN);
        let call = Arc::clone(&self.calls).acquire_owned().await.expect(OPEN);
        (CallPermit { _permit: call }, UnsettledPermit { _permit: unsettled })
    }

    /// Calls at once, at most.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        let free = u32::try_from(self.calls.available_permits()).unwrap_or(u32::MAX);
        self.limit.min(1 << 20).saturating_sub(free)
    }

    /// Whether the next to ask would wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.calls.available_permits() == 0 || self.unsettled.available_permits() == 0
    }
}
