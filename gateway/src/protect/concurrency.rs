//! How many attempts an upstream has under way at once.
//!
//! Two bounds, of which the second bounds what a crash may repeat: that is what was sent and
//! not yet settled, and that is at most twice `concurrency`.
//!
//! - **calls**: `concurrency` permits, each held from admission until the answer is read;
//! - **unsettled**: twice as many, each held from admission until the settlement is committed. One
//!   fsync may settle many; a slow disk then slows the sending instead of widening the gap.

//!
//! Both can be changed while calls are under way. Fewer than are under way: those that end give
//! nothing back until as many are gone.

use std::{num::NonZeroU32, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A semaphore holds far fewer permits than `u32::MAX` on 32-bit; no upstream needs a million.
const MOST: u32 = 1 << 20;

/// The two bounds of one upstream.
#[derive(Debug)]
pub struct Concurrency {
    calls: Arc<Bound>,
    unsettled: Arc<Bound>,
}

/// One bound, and how far beyond it is what is under way.
#[derive(Debug)]
struct Bound {
    permits: Arc<Semaphore>,
    size: Mutex<Size>,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    limit: u32,
    /// Permits out that are not to come back.
    excess: u32,
}

/// Held while a call is under way.
#[derive(Debug)]
pub struct CallPermit {
    _permit: Held,
}

/// Held until the delivery is settled.
#[derive(Debug)]
pub struct UnsettledPermit {
    _permit: Held,
}

#[derive(Debug)]
struct Held {
    permit: Option<OwnedSemaphorePermit>,
    of: Arc<Bound>,
}

impl Concurrency {
    /// `limit` calls at once.
    #[must_use]
    pub fn new(limit: NonZeroU32) -> Self {
        let calls = limit.get().min(MOST);
        Self { calls: Bound::new(calls), unsettled: Bound::new(calls * 2) }
    }

    /// `limit` calls at once from now on, those under way counted.
    pub fn resize(&self, limit: NonZeroU32) {
        let calls = limit.get().min(MOST);
        self.calls.resize(calls);
        self.unsettled.resize(calls * 2);
    }

    /// Waits for both permits, in order of asking.
    pub async fn acquire(&self) -> (CallPermit, UnsettledPermit) {
        let unsettled = self.unsettled.acquire().await;
        let call = self.calls.acquire().await;
        (CallPermit { _permit: call }, UnsettledPermit { _permit: unsettled })
    }

    /// Calls at once, at most.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.calls.size.lock().limit
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.calls.held()
    }

    /// Whether the next to ask would wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.calls.is_full() || self.unsettled.is_full()
    }
}

impl Bound {
    fn new(limit: u32) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(limit as usize));
        Arc::new(Self { permits, size: Mutex::new(Size { limit, excess: 0 }) })
    }

    fn resize(&self, limit: u32) {
        let mut size = self.size.lock();
        if limit < size.limit {
            let fewer = size.limit - limit;
            let free = self.permits.forget_permits(fewer as usize);
            size.excess += fewer - u32::try_from(free).unwrap_or(fewer);
        } else {
            let more = limit - size.limit;
            let back = more.min(size.excess);
            size.excess -= back;
            self.permits.add_permits((more - back) as usize);
        }
        size.limit = limit;
    }

    async fn acquire(self: &Arc<Self>) -> Held {
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned().await;
            let permit = permit.expect("the semaphores are never closed");
            let mut size = self.size.lock();
            if size.excess == 0 {
                drop(size);
                return Held { permit: Some(permit), of: Arc::clone(self) };
            }
            // Given to us before there were fewer, or back by one who was cancelled since.
            size.excess -= 1;
            permit.forget();
        }
    }

    fn held(&self) -> u32 {
        let size = *self.size.lock();
        let free = u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX);
        (size.limit + size.excess).saturating_sub(free)
    }

    fn is_full(&self) -> bool {
        let limit = self.size.lock().limit;
        self.held() >= limit
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        let mut size = self.of.size.lock();
        if size.excess > 0 {
            size.excess -= 1;
            permit.forget();
        } else {
            // Under the lock, or what makes it fewer would take it for one that is still out.
            drop(permit);
        }
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn limit(limit: u32) -> NonZeroU32 {
        NonZeroU32::new(limit).unwrap()
    }

    #[tokio::test]
    async fn fewer_at_once_holds_for_those_under_way_too() {
        let concurrency = Concurrency::new(limit(4));
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(concurrency.acquire().await);
        }
        concurrency.resize(limit(2));
        assert_eq!((concurrency.limit(), concurrency.in_flight()), (2, 4));
        held.truncate(2);
        assert_eq!(concurrency.in_flight(), 2);
        assert!(concurrency.acquire().now_or_never().is_none(), "two are under way still");
        held.truncate(1);
        held.push(concurrency.acquire().now_or_never().unwrap());
        assert!(concurrency.is_full());
    }

    #[tokio::test]
    async fn more_at_once_go_at_once() {
        let concurrency = Concurrency::new(limit(1));
        let first = concurrency.acquire().await;
        assert!(concurrency.acquire().now_or_never().is_none());
        concurrency.resize(limit(3));
        let others = [concurrency.acquire().await, concurrency.acquire().await];
        assert_eq!(concurrency.in_flight(), 3);
        concurrency.resize(limit(1));
        concurrency.resize(limit(2));
        drop(others);
        assert_eq!(concurrency.in_flight(), 1, "one of the excess was wanted again");
        assert!(concurrency.acquire().now_or_never().is_some());
        drop(first);
    }
}
