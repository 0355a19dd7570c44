//! Admission: what stands between a rendered call and the wire.
//!
//! | step | why there |
//! |---|---|
//! | [`breaker`] | open means wait; half-open is one permit, taken by due time |
//! | [`concurrency`] | permit before token, or tokens are spent and then sent in a burst |
//! | [`rate_limit`] | one token an attempt, from each limit that counts it |
//! | [`timeout`] | covers the wire, not the waiting |
//!
//! All or nothing: what waits holds no permit, no token and no claim; it is still pending.

pub mod breaker;
pub mod concurrency;
pub mod rate_limit;
pub mod timeout;

mod control;
mod gate;
mod permit;
mod status;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tidegate_adapters::{Call, Failure, Receipt, Timestamp};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tower::{Service, ServiceBuilder, util::BoxCloneSyncService};

use crate::{config::UpstreamConfig, telemetry::Metrics};
pub use control::quiet_for;
pub use permit::{Permit, Reported};
pub use status::{BreakerState, BreakerStatus, LimitStatus, UpstreamStatus};

use breaker::{Asked, Breaker, Change, Ticket};
use concurrency::Concurrency;
use control::Quiet;
use gate::TokenGate;
use rate_limit::{Keys, RateLimits, Taken};

/// A rate-limit token older than this when the request is about to leave is void. With
/// [`rate_limit::LATE_MAX`] it makes up the 50 ms that we promise between a token and the socket.
pub const STALE_AFTER: Duration = Duration::from_millis(40);

/// Publishes under way at once: two of the publisher's windows, one being filled while the other
/// waits for its confirms.
const PUBLISHES: NonZeroU32 = NonZeroU32::new(1024).expect("not zero");

/// What a target is to the loop: a call in, a receipt or a failure out.
pub type Target = BoxCloneSyncService<Call, Receipt, Failure>;

/// One third-party API and the protections that all routes calling it share.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    url: Mutex<String>,
    /// `None` is off.
    breaker: Mutex<Option<Breaker>>,
    concurrency: Concurrency,
    limits: RateLimits,
    /// Of the broker only: whether it can be published to now.
    flowing: Option<watch::Receiver<bool>>,
    quiet: Mutex<Quiet>,
    /// By an operator.
    paused: AtomicBool,
    /// One at a time waits for the limits of the whole upstream: first come, first served.
    turnstile: tokio::sync::Mutex<()>,
    /// The breaker closed, or its probe was given back: all who wait ask again.
    changed: Notify,
    metrics: Metrics,
}

/// What [`Upstream::admit`] answers.
#[derive(Debug)]
pub enum Admission {
    /// It may go now.
    Go(Permit),
    /// Only its key is limited, until then. Others of the route may go.
    Later(Instant),
    /// The limits are others than its keys were made for: to be rendered again.
    Stale,
}

impl Upstream {
    /// The protections of `config`, all at rest.
    #[must_use]
    pub fn new(name: Arc<str>, config: &UpstreamConfig, metrics: Metrics, now: Instant) -> Self {
        Self {
            name,
            url: Mutex::new(display_url(&config.api.url)),
            breaker: Mutex::new(config.breaker.clone().map(Breaker::new)),
            concurrency: Concurrency::new(config.concurrency),
            limits: RateLimits::new(&config.rate_limit, now),
            flowing: None,
            quiet: Mutex::default(),
            paused: AtomicBool::new(false),
            turnstile: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            metrics,
        }
    }

    /// The broker as a target: no upstream of the configuration, so it has no name, no breaker and
    /// no limits. While `flowing` is false nothing is admitted, so that an outage of the broker
    /// makes no attempts.
    #[must_use]
    pub fn broker(flowing: watch::Receiver<bool>, metrics: Metrics, now: Instant) -> Self {
        Self {
            name: "".into(),
            url: Mutex::default(),
            breaker: Mutex::default(),
            concurrency: Concurrency::new(PUBLISHES),
            limits: RateLimits::new(&[], now),
            flowing: Some(flowing),
            quiet: Mutex::default(),
            paused: AtomicBool::new(false),
            turnstile: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            metrics,
        }
    }

    /// Its name; empty for the broker.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it stands for the broker.
    #[must_use]
    pub fn is_broker(&self) -> bool {
        self.flowing.is_some()
    }

    /// Which limits a call's [`Keys`] must be made for.
    #[must_use]
    pub fn limits_epoch(&self) -> u64 {
        self.limits.epoch()
    }

    /// Waits until a call with these `keys` may go, in the order of the table above. `since` is
    /// when the call began to wait. Dropping the future gives everything back.
    pub async fn admit(self: &Arc<Self>, keys: &Arc<Keys>, since: Instant) -> Admission {
        loop {
            // A look ahead, so that a limited key neither takes a permit nor waits for one.
            if let Some(at) = self.limits.key_wait(keys, Instant::now()) {
                return Admission::Later(at);
            }
            self.flowing().await;
            let (call, unsettled) = self.concurrency.acquire().await;
            if self.wait(Instant::now()).is_some() {
                continue;
            }
            match self.take_token(keys, since).await {
                Token::Taken => {}
                Token::Later(at) => return Admission::Later(at),
                Token::Stale => return Admission::Stale,
                Token::NotFlowing => continue,
            }
            // Last, since it may start the probe: nothing may wait between it and the call.
            let Some(ticket) = self.ask_breaker() else { continue };
            let gate = Arc::new(TokenGate::new(Arc::clone(self), Arc::clone(keys)));
            return Admission::Go(Permit {
                upstream: Arc::clone(self),
                ticket,
                keys: Arc::clone(keys),
                gate,
                _call: call,
                unsettled: Some(unsettled),
            });
        }
    }

    /// Whether there is a reason why an admission would wait now: what stands still for a reason
    /// is no fault.
    #[must_use]
    pub fn would_wait(&self, now: Instant) -> bool {
        self.wait(now).is_some()
            || self.concurrency.is_full()
            || self.limits.status(now).iter().any(|limit| limit.used > 0.0)
    }

    /// As an operator sees it.
    #[must_use]
    pub fn status(&self, now: Instant, wall: Timestamp) -> UpstreamStatus {
        let at = |moment: Instant| wall.after(moment.saturating_duration_since(now));
        let quiet_until = self.quiet.lock().until.filter(|until| *until > now);
        UpstreamStatus {
            name: Arc::clone(&self.name),
            url: self.url.lock().clone(),
            breaker: self.breaker.lock().as_ref().map(|breaker| breaker.status(at)),
            concurrency: self.concurrency.limit(),
            in_flight: self.concurrency.in_flight(),
            limits: self.limits.status(now),
            paused: self.paused.load(Ordering::Acquire),
            paused_until: quiet_until.map(at),
        }
    }

    /// Waits until neither the breaker nor asked-for quiet holds calls back.
    async fn flowing(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Registered before looking, or a change in between would be missed.
            changed.as_mut().enable();
            match self.wait(Instant::now()) {
                None => return,
                Some(Wait::Until(at)) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = changed => {}
                },
                Some(Wait::ForProbe | Wait::ForOperator) => changed.await,
                Some(Wait::ForBroker) => self.broker_flows().await,
            }
        }
    }

    /// Waits until the broker can be published to; for ever when nobody publishes any more.
    async fn broker_flows(&self) {
        let Some(flowing) = &self.flowing else { return };
        if flowing.clone().wait_for(|flowing| *flowing).await.is_err() {
            std::future::pending().await
        }
    }

    /// Why calls are held back now; a look that changes nothing.
    fn wait(&self, now: Instant) -> Option<Wait> {
        if self.flowing.as_ref().is_some_and(|flowing| !*flowing.borrow()) {
            return Some(Wait::ForBroker);
        }
        if self.paused.load(Ordering::Acquire) {
            return Some(Wait::ForOperator);
        }
        if let Some(until) = self.quiet.lock().until
            && until > now
        {
            return Some(Wait::Until(until));
        }
        let breaker = self.breaker.lock();
        let breaker = breaker.as_ref()?;
        if breaker.would_go(now) {
            return None;
        }
        Some(breaker.reopens_at().map_or(Wait::ForProbe, Wait::Until))
    }

    /// `None`: it may not go after all.
    fn ask_breaker(&self) -> Option<Option<Ticket>> {
        let mut breaker = self.breaker.lock();
        let Some(breaker) = &mut *breaker else { return Some(None) };
        match breaker.ask(Instant::now()) {
            Asked::Go(ticket) => Some(Some(ticket)),
            Asked::WaitUntil(_) | Asked::WaitForProbe => None,
        }
    }

    /// Takes a token of each limit, waiting in turn for those of the whole upstream.
    async fn take_token(&self, keys: &Keys, since: Instant) -> Token {
        if keys.epoch != self.limits.epoch() {
            return Token::Stale;
        }
        if self.limits.is_unlimited() {
            return Token::Taken;
        }
        let asked = Instant::now();
        let _turn = self.turnstile.lock().await;
        loop {
            let now = Instant::now();
            if self.wait(now).is_some() {
                return Token::NotFlowing;
            }
            match self.limits.take(keys, since, now) {
                Taken::Now => break,
                Taken::Key(at) => return Token::Later(at),
                Taken::Stale => return Token::Stale,
                // A reload may bring the next slot nearer.
                Taken::Upstream(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
        self.metrics.rate_limit_wait(&self.name, asked.elapsed());
        Token::Taken
    }

    /// A token for a request that is already admitted: waits for keys too, and for quiet.
    async fn take_another_token(&self, keys: &Keys) {
        let since = Instant::now();
        loop {
            let _turn = self.turnstile.lock().await;
            match self.limits.take_admitted(keys, since, Instant::now()) {
                Taken::Now | Taken::Stale => return,
                Taken::Upstream(at) => tokio::time::sleep_until(at).await,
                Taken::Key(at) => {
                    drop(_turn);
                    tokio::time::sleep_until(at).await;
                }
            }
        }
    }

    fn changed_to(&self, change: Change) {
        match change {
            Change::None => {}
            Change::Opened(pause) => {
                tracing::warn!(upstream = %self.name, pause = ?pause, "breaker opened");
            }
            Change::Closed => tracing::info!(upstream = %self.name, "breaker closed"),
        }
        self.changed.notify_waiters();
    }
}

/// Wraps `leaf` in what covers the wire. Inside out: the leaf knows the protocol; the timeout
/// ends an attempt that the leaf would wait on for ever. Everything else is admission, above.
pub fn stack<S>(leaf: S, timeout: Duration) -> Target
where
    S: Service<Call, Response = Receipt, Error = Failure> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(
        ServiceBuilder::new()
            // Outside the leaf: covers connect, send and the answer's body alike.
            .layer(timeout::TimeoutLayer::new(timeout))
            .service(leaf),
    )
}

/// The address as shown to operators: without the user part, which is a secret.
fn display_url(url: &url::Url) -> String {
    let mut url = url.clone();
    // Fails only for URLs that cannot have a user part.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

enum Wait {
    Until(Instant),
    ForProbe,
    ForOperator,
    ForBroker,
}

enum Token {
    Taken,
    Later(Instant),
    Stale,
    NotFlowing,
}
