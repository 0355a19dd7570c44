//! The loop: due → prepare → admit → call → settle. One per route, and the only settler.
//!
//! ```text
//!            ┌────────────── feed (fresh, from memory) ◄── queue's writer
//!            ▼
//!  due ─► Window ─► prepare ─► admit ─► claim ─► call ─► settle ─► released
//!            ▲         │         │                          │
//!            │         │ fails   │ only its key is limited  │ again at T
//!            │         ▼         ▼                          ▼
//!            │       dead      later (memory), or back to the store with a due time
//!            └───────────────── pages of what is due ◄── the store
//! ```
//!
//! What waits for admission holds no claim and no permit: it is still pending. An attempt runs as
//! a task of its own and settles what it did; the loop releases the delivery when that is
//! committed. There is no `?` between a claim and its settlement.
//!
//! # Never twice, never lost
//!
//! - A delivery in hand is in the window's `held` until its settlement is *committed*, so a page
//!   read from an older snapshot cannot bring it back.
//! - The feed goes live *before* the page that catches up is read, and what gathered in it
//!   meanwhile is taken over right after, before any release: it is in both or in one, never in
//!   none, and `held` tells the doubles apart.

pub mod intake;
pub mod reply;
pub mod schedule;

mod activity;
mod attempt;
mod route;
mod window;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidegate_adapters::{Call, Delivery, DeliveryId, Failure, Request, Timestamp};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    protect::{Admission, rate_limit::Keys},
    queue::{Fed, Feed, Outcome, Queue, QueueError, Settlement},
    telemetry::Metrics,
};
pub use activity::Activity;
pub use route::{Route, Target, prepare};

use attempt::Attempt;
use window::{Candidate, PAGE, Window, earliest};

/// Wall time, as an argument.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A delivery whose key is limited for longer than this goes back to the store meanwhile.
const ASIDE_MAX: Duration = Duration::from_secs(2);

/// After an error of the store that is not final, how long until it is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// The loop of one route.
pub struct Loop {
    route: Arc<Route>,
    queue: Arc<dyn Queue>,
    feed: Arc<Feed>,
    window: Window,
    attempts: JoinSet<Finished>,
    activity: Arc<Activity>,
    metrics: Metrics,
    clock: Clock,
    /// When the earliest delivery that lies in the store will be due, as far as is known.
    next_at: Option<Timestamp>,
}

/// A delivery that left the loop's hands.
#[derive(Debug)]
struct Finished {
    id: DeliveryId,
    /// When it is due again, if it is.
    again_at: Option<Timestamp>,
}

/// What became of a candidate.
enum Offered {
    Done,
    Stop,
}

impl Loop {
    /// The loop of `route`. Runs nothing yet.
    #[must_use]
    pub fn new(
        route: Arc<Route>,
        queue: Arc<dyn Queue>,
        activity: Arc<Activity>,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        let feed = queue.feed(&route.name);
        activity.progress(clock());
        Self {
            route,
            queue,
            feed,
            window: Window::default(),
            attempts: JoinSet::new(),
            activity,
            metrics,
            clock,
            next_at: None,
        }
    }

    /// Delivers until `shutdown`, then finishes what is under way, for at most `drain`. What is
    /// unfinished then is still pending. Ends early when the queue is closed.
    pub async fn run(mut self, shutdown: CancellationToken, drain: Duration) {
        loop {
            // Not only while waiting: a loop that always finds work would never release any.
            while let Some(finished) = self.attempts.try_join_next() {
                self.finished(finished);
            }
            match self.refill().await {
                Ok(()) => {}
                Err(QueueError::Closed) => break,
                Err(error) => {
                    tracing::error!(route = %self.route.name, %error, "cannot read what is due");
                    self.pause(&shutdown).await;
                }
            }
            if shutdown.is_cancelled() {
                break;
            }
            let offered = match self.window.next(Instant::now()) {
                Some(candidate) => self.offer(candidate, &shutdown).await,
                None => self.wait(&shutdown).await,
            };
            if let Offered::Stop = offered {
                break;
            }
        }
        let drained = timeout(drain, async { while self.attempts.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(
                route = %self.route.name,
                unfinished = self.attempts.len(),
                "stopping with attempts under way; they stay pending"
            );
        }
        self.attempts.shutdown().await;
    }

    /// Takes over what the feed holds, or a page of the store when it fell behind or a retry is
    /// due.
    async fn refill(&mut self) -> Result<(), QueueError> {
        let now = (self.clock)();
        let retry_due = self.next_at.is_some_and(|at| at <= now);
        if !self.window.is_low() {
            return Ok(());
        }
        let behind = self.take_fed();
        if !(behind || retry_due) {
            return Ok(());
        }
        self.feed.go_live();
        let page = self.queue.page(&self.route.name, now, PAGE, self.window.held());
        let page = match page.await {
            Ok(page) => page,
            Err(error) => {
                self.feed.fall_behind();
                return Err(error);
            }
        };
        let arrived = Instant::now();
        for delivery in page.due {
            self.window.hold(delivery, arrived);
        }
        self.next_at = page.next_at;
        match page.more {
            true => self.feed.fall_behind(),
            false => {
                self.take_fed();
            }
        }
        Ok(())
    }

    /// True when the feed is behind the store.
    fn take_fed(&mut self) -> bool {
        let now = Instant::now();
        loop {
            match self.feed.take() {
                Fed::Fresh(delivery) => self.window.hold(delivery, now),
                Fed::Empty => return false,
                Fed::Behind => return true,
            }
        }
    }

    /// Nothing may go now: waits until something may.
    async fn wait(&mut self, shutdown: &CancellationToken) -> Offered {
        let now = Instant::now();
        let wall = (self.clock)();
        // A wall clock may jump: never trust a long wait.
        let due = self.next_at.map(|at| now + at.since(wall).min(Duration::from_secs(60)));
        let until = [due, self.window.wakes_at()].into_iter().flatten().min();
        let until = until.unwrap_or(now + Duration::from_secs(3600));
        tokio::select! {
            () = shutdown.cancelled() => return Offered::Stop,
            Some(finished) = self.attempts.join_next() => self.finished(finished),
            () = self.feed.changed() => {}
            () = sleep_until(until) => {}
        }
        Offered::Done
    }

    async fn pause(&mut self, shutdown: &CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(STORE_PAUSE) => {}
        }
    }

    /// prepare → admit → claim → call; the attempt settles.
    async fn offer(&mut self, candidate: Candidate, shutdown: &CancellationToken) -> Offered {
        let delivery = Arc::clone(&candidate.delivery);
        let prepared = catch_unwind(AssertUnwindSafe(|| self.prepare(&delivery)));
        let (request, keys) = match prepared.unwrap_or_else(|_| Err(attempt::panicked())) {
            Ok(prepared) => prepared,
            Err(failure) => {
                if self.queue.claim(delivery.id) {
                    self.spawn(self.attempt(delivery).fail(failure));
                } else {
                    self.window.release(delivery.id);
                }
                return Offered::Done;
            }
        };
        let keys = Arc::new(keys);
        let permit = match self.admit(&candidate, &keys, shutdown).await {
            None => return Offered::Stop,
            Some(Admission::Later(at)) => {
                self.put_aside(candidate, at);
                return Offered::Done;
            }
            Some(Admission::Go(permit)) => permit,
        };
        self.activity.progress((self.clock)());
        if !self.queue.claim(delivery.id) {
            // Discarded while it waited; the permit is given back.
            self.window.release(delivery.id);
            return Offered::Done;
        }
        let attempt = delivery.tries + 1;
        let call = Call { delivery: Arc::clone(&delivery), attempt, request, gate: permit.gate() };
        self.spawn(self.attempt(delivery).make(call, permit));
        Offered::Done
    }

    /// Renders the call, and the keys of the upstream's limits. Pure: no network, no token.
    fn prepare(&self, delivery: &Arc<Delivery>) -> Result<(Request, Keys), Failure> {
        route::prepare(&self.route.target, &self.route.limit_keys, delivery)
    }

    /// Waits for admission; `None` when told to stop. What finishes meanwhile is released.
    async fn admit(
        &mut self,
        candidate: &Candidate,
        keys: &Arc<Keys>,
        shutdown: &CancellationToken,
    ) -> Option<Admission> {
        let route = Arc::clone(&self.route);
        let admission = route.upstream.admit(keys, candidate.since);
        tokio::pin!(admission);
        self.activity.waiting.store(true, Ordering::Relaxed);
        let admitted = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break None,
                admitted = &mut admission => break Some(admitted),
                Some(finished) = self.attempts.join_next() => self.finished(finished),
            }
        };
        self.activity.waiting.store(false, Ordering::Relaxed);
        admitted
    }

    /// Its key is limited until `at`: soon, it waits in memory; else in the store.
    fn put_aside(&mut self, candidate: Candidate, at: Instant) {
        let wait = at.saturating_duration_since(Instant::now());
        let returned = match wait <= ASIDE_MAX {
            true => self.window.put_aside(candidate, at),
            false => Some(candidate),
        };
        let Some(Candidate { delivery, .. }) = returned else { return };
        if !self.queue.claim(delivery.id) {
            self.window.release(delivery.id);
            return;
        }
        let outcome =
            Outcome::Retry { at: (self.clock)().after(wait), attempts: delivery.attempts };
        let settlement =
            Settlement { delivery: Arc::clone(&delivery), outcome, attempt: None, reply: None };
        self.spawn(self.attempt(delivery).settle(settlement));
    }

    fn attempt(&self, delivery: Arc<Delivery>) -> Attempt {
        Attempt {
            route: Arc::clone(&self.route),
            delivery,
            queue: Arc::clone(&self.queue),
            metrics: self.metrics.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    fn spawn(&mut self, attempt: impl Future<Output = Finished> + Send + 'static) {
        self.activity.active.fetch_add(1, Ordering::Relaxed);
        self.attempts.spawn(attempt);
    }

    fn finished(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        self.activity.active.fetch_sub(1, Ordering::Relaxed);
        self.activity.progress((self.clock)());
        match finished {
            Ok(Finished { id, again_at }) => {
                self.window.release(id);
                self.next_at = earliest(self.next_at, again_at);
            }
            // Attempts catch their own panics; only a runtime that is going away ends one so.
            Err(error) => tracing::error!(route = %self.route.name, %error, "attempt ended"),
        }
    }
}
