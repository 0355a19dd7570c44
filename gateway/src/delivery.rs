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
//! # Orders
//!
//! A loop is told what to do by [`Orders`]: the route as the configuration in force has it, or
//! that there is none. It takes up new ones between two offers, so what it holds keeps its order
//! and is rendered anew; what is under way ends as it began. A loop without a route holds nothing
//! and waits to be given one again: its attempts under way still settle, once, here. A paused
//! route keeps what it holds, and offers nothing.
//!
//! # Never twice, never lost
//!
//! - A delivery in hand is in the window's `held` until its settlement is *committed*, so a page
//!   read from an older snapshot cannot bring it back.
//! - The feed goes live *before* the page that catches up is read, and what gathered in it
//!   meanwhile is taken over right after, before any release: it is in both or in one, never in
//!   none, and `held` tells the doubles apart.
//! - What an operator discards is claimed by the queue first, and the feed's epoch changes before
//!   that claim is given back. So a claim of ours that succeeds under the epoch our window was
//!   filled under is on something that is still pending; under another one the window is dropped
//!   and read again.

pub mod intake;
pub mod reply;
pub mod schedule;

mod activity;
mod attempt;
mod offer;
mod route;
mod seat;
mod window;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidegate_adapters::{DeliveryId, Timestamp};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    queue::{Fed, Feed, Queue, QueueError, is_due},
    telemetry::Metrics,
};
pub use activity::Activity;
pub use route::{Route, Target, prepare};
pub use seat::Seat;

use window::{PAGE, Window, earliest};

/// Wall time, as an argument.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A delivery whose key is limited for longer than this goes back to the store meanwhile.
const ASIDE_MAX: Duration = Duration::from_secs(2);

/// After an error of the store that is not final, how long until it is asked again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What a loop is to do: deliver as this route says, or nothing.
pub type Orders = Option<Arc<Route>>;

/// The loop of one route.
pub struct Loop {
    name: Arc<str>,
    orders: watch::Receiver<Orders>,
    /// The orders taken up.
    route: Orders,
    /// The feed's epoch before the window was last filled.
    epoch: u64,
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
    /// [`Feed::replays`] when it was claimed.
    replays: u64,
}

/// What became of a candidate.
enum Offered {
    Done,
    Stop,
}

impl Loop {
    /// The loop of the route `name`. Runs nothing yet.
    #[must_use]
    pub fn new(
        name: Arc<str>,
        orders: watch::Receiver<Orders>,
        queue: Arc<dyn Queue>,
        activity: Arc<Activity>,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        let feed = queue.feed(&name);
        activity.progress(clock());
        Self {
            name,
            orders,
            route: None,
            epoch: feed.epoch(),
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

    /// Delivers until `shutdown`, then finishes what is under way, for at most `drain` as it stands
    /// then. What is unfinished after that is still pending. Ends early when the queue is closed.
    pub async fn run(mut self, shutdown: CancellationToken, drain: watch::Receiver<Duration>) {
        self.orders.mark_changed();
        while !shutdown.is_cancelled() {
            // Not only while waiting: a loop that always finds work would never release any.
            while let Some(finished) = self.attempts.try_join_next() {
                self.finished(finished);
            }
            self.take_orders();
            let step = match self.route.clone() {
                Some(route) if !self.feed.is_paused() => self.step(&route, &shutdown).await,
                _ => self.stand(&shutdown).await,
            };
            if let Offered::Stop = step {
                break;
            }
        }
        let most = *drain.borrow();
        let drained = timeout(most, async { while self.attempts.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(
                route = %self.name,
                unfinished = self.attempts.len(),
                "stopping with attempts under way; they stay pending"
            );
        }
        self.attempts.shutdown().await;
    }

    /// Takes up new orders, if there are any.
    fn take_orders(&mut self) {
        // Whoever gives orders outlives the loop, or is about to stop it.
        if !self.orders.has_changed().unwrap_or(false) {
            return;
        }
        self.route = self.orders.borrow_and_update().clone();
        self.activity.progress((self.clock)());
        if self.route.is_none() {
            self.forget_window();
        }
    }

    /// Lets go of all that is not under way; it is read again when there is somebody to read it.
    fn forget_window(&mut self) {
        self.window.forget_waiting();
        self.feed.fall_behind();
        self.next_at = None;
    }

    /// One round: what is due is taken in hand, and the first of it offered.
    async fn step(&mut self, route: &Arc<Route>, shutdown: &CancellationToken) -> Offered {
        match self.refill().await {
            Ok(()) => {}
            Err(QueueError::Closed) => return Offered::Stop,
            Err(error) => {
                tracing::error!(route = %self.name, %error, "cannot read what is due");
                self.pause(shutdown).await;
            }
        }
        match self.window.next(Instant::now()) {
            Some(candidate) => self.offer(route, candidate, shutdown).await,
            None => self.wait(shutdown).await,
        }
    }

    /// Offers nothing until the orders change or the route is resumed.
    async fn stand(&mut self, shutdown: &CancellationToken) -> Offered {
        tokio::select! {
            () = shutdown.cancelled() => return Offered::Stop,
            Ok(()) = self.orders.changed() => self.orders.mark_changed(),
            Some(finished) = self.attempts.join_next() => self.finished(finished),
            () = self.feed.changed() => self.activity.progress((self.clock)()),
        }
        Offered::Done
    }

    /// Takes over what the feed holds, or a page of the store when it fell behind or a retry is
    /// due.
    async fn refill(&mut self) -> Result<(), QueueError> {
        let now = (self.clock)();
        let retry_due = self.next_at.is_some_and(|at| is_due(at, now));
        if !self.window.is_low() {
            return Ok(());
        }
        let behind = self.take_fed();
        if !(behind || retry_due) {
            return Ok(());
        }
        if self.epoch != self.feed.epoch() {
            self.window.forget_waiting();
            self.epoch = self.feed.epoch();
        }
        self.feed.go_live();
        let page = self.queue.page(&self.name, now, PAGE, self.window.held());
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
            Ok(()) = self.orders.changed() => self.orders.mark_changed(),
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

    fn spawn(&mut self, attempt: impl Future<Output = Finished> + Send + 'static) {
        self.activity.active.fetch_add(1, Ordering::Relaxed);
        self.attempts.spawn(attempt);
    }

    fn finished(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        self.activity.active.fetch_sub(1, Ordering::Relaxed);
        self.activity.progress((self.clock)());
        match finished {
            Ok(Finished { id, again_at, replays }) => {
                self.window.release(id);
                if replays != self.feed.replays() {
                    // It may be this one that was replayed, while it still was in hand.
                    self.feed.fall_behind();
                }
                self.next_at = earliest(self.next_at, again_at);
            }
            // Attempts catch their own panics; only a runtime that is going away ends one so.
            Err(error) => tracing::error!(route = %self.name, %error, "attempt ended"),
        }
    }
}
