//! One offer: prepare → admit → claim → call. The attempt settles.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use tidegate_adapters::{Call, Delivery};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    ASIDE_MAX, Loop, Offered, Route,
    attempt::{self, Attempt},
    window::Candidate,
};
use crate::{
    protect::{Admission, Permit, rate_limit::Keys},
    queue::{Outcome, Settlement, WAIT_MAX},
};

/// What came of waiting for admission.
enum Admitted {
    Go(Permit),
    Later(Instant),
    /// There are new orders, or the route was paused: it is not the time to go.
    Interrupted,
}

impl Loop {
    /// prepare → admit → claim → call; the attempt settles.
    pub(super) async fn offer(
        &mut self,
        route: &Arc<Route>,
        candidate: Candidate,
        shutdown: &CancellationToken,
    ) -> Offered {
        let delivery = Arc::clone(&candidate.delivery);
        let prepared = catch_unwind(AssertUnwindSafe(|| {
            super::prepare(&route.target, &route.limit_keys, &delivery)
        }));
        let (request, keys) = match prepared.unwrap_or_else(|_| Err(attempt::panicked())) {
            Ok(prepared) => prepared,
            Err(failure) => {
                if self.claim(&delivery) {
                    self.spawn(self.attempt(route, delivery).fail(failure));
                }
                return Offered::Done;
            }
        };
        let keys = Arc::new(Keys { epoch: route.limits_epoch, values: keys });
        let permit = match self.admit(route, &candidate, &keys, shutdown).await {
            None => return Offered::Stop,
            Some(Admitted::Interrupted) => {
                self.window.give_back(candidate);
                return Offered::Done;
            }
            Some(Admitted::Later(at)) => {
                self.put_aside(route, candidate, at);
                return Offered::Done;
            }
            Some(Admitted::Go(permit)) => permit,
        };
        self.activity.progress((self.clock)());
        if !self.claim(&delivery) {
            // Discarded while it waited; the permit is given back.
            return Offered::Done;
        }
        let attempt = delivery.tries + 1;
        let call = Call { delivery: Arc::clone(&delivery), attempt, request, gate: permit.gate() };
        self.spawn(self.attempt(route, delivery).make(call, permit));
        Offered::Done
    }

    /// Claims a delivery of the window, if it is still there to be claimed.
    fn claim(&mut self, delivery: &Delivery) -> bool {
        let claimed = self.queue.claim(delivery.id);
        if claimed && self.epoch == self.feed.epoch() {
            return true;
        }
        if claimed {
            self.queue.unclaim(delivery.id);
        }
        self.window.release(delivery.id);
        // Whatever holds it, the store knows best what is pending.
        self.forget_window();
        false
    }

    /// Waits for admission; `None` when told to stop. What finishes meanwhile is released.
    async fn admit(
        &mut self,
        route: &Arc<Route>,
        candidate: &Candidate,
        keys: &Arc<Keys>,
        shutdown: &CancellationToken,
    ) -> Option<Admitted> {
        let admission = route.upstream.admit(keys, candidate.since);
        tokio::pin!(admission);
        self.activity.waiting.store(true, Ordering::Relaxed);
        let admitted = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break None,
                Ok(()) = self.orders.changed() => {
                    self.orders.mark_changed();
                    break Some(Admitted::Interrupted);
                }
                admitted = &mut admission => break Some(match admitted {
                    Admission::Go(permit) => Admitted::Go(permit),
                    Admission::Later(at) => Admitted::Later(at),
                    // The orders that go with the new limits are on their way.
                    Admission::Stale => {
                        tokio::task::yield_now().await;
                        Admitted::Interrupted
                    }
                }),
                Some(finished) = self.attempts.join_next() => self.finished(finished),
                () = self.feed.changed() => {
                    if self.feed.is_paused() || self.epoch != self.feed.epoch() {
                        break Some(Admitted::Interrupted);
                    }
                }
            }
        };
        self.activity.waiting.store(false, Ordering::Relaxed);
        admitted
    }

    /// Its key is limited until `at`: soon, it waits in memory; else in the store.
    fn put_aside(&mut self, route: &Arc<Route>, candidate: Candidate, at: Instant) {
        let wait = at.saturating_duration_since(Instant::now());
        let returned = match wait <= ASIDE_MAX {
            true => self.window.put_aside(candidate, at),
            false => Some(candidate),
        };
        let Some(Candidate { delivery, .. }) = returned else { return };
        if !self.claim(&delivery) {
            return;
        }
        let outcome = Outcome::Retry {
            at: (self.clock)().after(wait.min(WAIT_MAX)),
            attempts: delivery.attempts,
        };
        let settlement = Settlement {
            delivery: Arc::clone(&delivery),
            outcome,
            attempt: None,
            reply: None,
            held: None,
        };
        self.spawn(self.attempt(route, delivery).settle(settlement));
    }

    fn attempt(&self, route: &Arc<Route>, delivery: Arc<Delivery>) -> Attempt {
        Attempt {
            route: Arc::clone(route),
            delivery,
            queue: Arc::clone(&self.queue),
            metrics: self.metrics.clone(),
            clock: Arc::clone(&self.clock),
            replays: self.feed.replays(),
        }
    }
}
