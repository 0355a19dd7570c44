//! Webhooks as a source: the public listener.
//!
//! # The yes
//!
//! A sender is answered 2xx after its route's intake has accepted the events, which means committed
//! and fsynced, and never else. What stands before it, in this order:
//!
//! | step | answer when it fails |
//! |---|---|
//! | framing: nothing that two servers could read differently | 400 |
//! | path, exact after one normalisation | 404 |
//! | method | 405, and `OPTIONS` answered |
//! | body: bounded, timed, within what all bodies together may take | 413, 408, 503 |
//! | verify, over the raw bytes | 401 |
//! | the route's own limit, after verification, or anyone could starve a sender | 429 |
//! | parse and map | 400, 415 |
//! | accept | 503 |
//!
//! A refusal before the body never asks for it: whoever expects `100 Continue` keeps it.
//!
//! # Who hangs
//!
//! A connection that has not sent a whole head within `header_timeout`, whether its first or its
//! next, is closed; a body has `body_timeout`. So a sender that hangs holds its place for so long
//! and no longer. Beyond `max_connections` new ones wait to be accepted.

mod body;
mod connection;
mod framing;
mod path;
mod problem;
mod served;
mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, Method, Request, StatusCode, header, request::Parts};
use hyper::body::Incoming;
use parking_lot::RwLock;
use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use self::{
    body::Budget,
    framing::Framing,
    problem::{Answered, Refusal},
    served::{Entry, Served},
    tls::Certificates,
};
use super::{
    verify::{Unverified, Verified},
    webhook::{Answer, Hook, Reading, Received, ServerConfig},
};
use crate::{Refused, Rejection, Timestamp};

pub use self::{
    path::normalise,
    served::{Hooks, PathTaken, ReceiverHandle},
    tls::TlsError,
};

/// After an error of accepting (out of descriptors, most likely), how long until the next try.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a sender is asked to wait when there is no room, or when we are stopping.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long requests under way may take once there are no more connections accepted.
const LAST_ANSWERS: Duration = Duration::from_secs(4);

/// The public listener: bound, serving nothing yet.
pub struct Receiver {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Certificates>,
    max_connections: usize,
    site: Arc<Site>,
}

/// What all connections share.
struct Site {
    served: RwLock<Arc<Served>>,
    /// Whether it runs: what is served then is connected.
    running: AtomicBool,
    now: fn() -> Timestamp,
    stopping: CancellationToken,
}

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address is taken, or not this machine's.
    #[error("listen {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The certificate or its key.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Receiver {
    /// Binds the address and loads the certificate; serves nothing. `now` tells the time.
    ///
    /// # Errors
    /// When the address cannot be bound or the certificate not be used.
    pub async fn bind(config: &ServerConfig, now: fn() -> Timestamp) -> Result<Self, BindError> {
        let tls = config.tls.as_ref().map(Certificates::load).transpose()?;
        let listen = |source| BindError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let budget = Budget::new(config.max_buffered);
        let site = Site {
            served: RwLock::new(Arc::new(Served::new(config, Hooks::default(), budget))),
            running: AtomicBool::new(false),
            now,
            stopping: CancellationToken::new(),
        };
        let max_connections = config.max_connections.get() as usize;
        Ok(Self { listener, address, tls, max_connections, site: Arc::new(site) })
    }

    /// For saying what it serves.
    #[must_use]
    pub fn handle(&self) -> ReceiverHandle {
        ReceiverHandle::new(self.address, Arc::clone(&self.site))
    }

    /// Serves until `shutdown`; then accepts no more, answers 503 to what comes on open
    /// connections, and gives what is under way some seconds to finish.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, tls, site, max_connections, .. } = self;
        site.run(true);
        let connections = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(max_connections));
        let watching = tls.clone().map(|tls| tokio::spawn(tls.watch(shutdown.clone())));
        loop {
            let slot = Arc::clone(&slots).acquire_owned();
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = async {
                    let slot = slot.await.expect("the slots are never closed");
                    listener.accept().await.map(|(stream, _)| (stream, slot))
                } => accepted,
            };
            let (stream, slot) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept a webhook connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (site, tls) = (Arc::clone(&site), tls.clone());
            connections.spawn(async move {
                connection::serve(stream, tls, site).await;
                drop(slot);
            });
        }
        drop(listener);
        site.stopping.cancel();
        connections.close();
        if tokio::time::timeout(LAST_ANSWERS, connections.wait()).await.is_err() {
            warn!(unfinished = connections.len(), "stopping with webhooks under way; not taken");
        }
        site.run(false);
        if let Some(watching) = watching {
            // It ends by the same token.
            let _ = watching.await;
        }
    }
}

impl Site {
    fn run(&self, running: bool) {
        let served = self.served.write();
        self.running.store(running, Ordering::Release);
        served.hooks.connected(running);
    }

    /// What is served this moment.
    fn served(&self) -> Arc<Served> {
        Arc::clone(&self.served.read())
    }

    /// The answer to one request: the steps of the table above.
    async fn answer(&self, request: Request<Incoming>, framing: &Framing) -> Answered {
        let (head, body) = request.into_parts();
        let served = self.served();
        let entry = served.hooks.at(&normalise(head.uri.path()));
        let taken = match framing.check(&head) {
            Ok(()) => self.take(&served, &head, body, entry).await,
            Err(refusal) => Err(refusal),
        };
        match taken {
            Ok(answer) => problem::answered(answer),
            Err(refusal) => {
                if let (Some(entry), Some(why)) = (entry, refusal.rejection()) {
                    entry.intake.rejected(why);
                }
                refusal.answered()
            }
        }
    }

    async fn take(
        &self,
        served: &Served,
        head: &Parts,
        body: Incoming,
        entry: Option<&Arc<Entry>>,
    ) -> Result<Answer, Refusal> {
        let Some(entry) = entry else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "no webhook comes in here"));
        };
        let Entry { hook, intake } = &**entry;
        if let Some(answer) = method(head)? {
            return Ok(answer);
        }
        if self.stopping.is_cancelled() {
            let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
            return Err(refusal.because(Rejection::Closed).after(RETRY_AFTER));
        }
        let body = body::read(body, &served.config, &served.budget).await?;
        let request = served.received(head, &body);
        let now = (self.now)();
        let verified = hook.verify(&request, now).map_err(|why| unauthorized(hook, &why))?;
        if let Some(answer) = verified.handshake {
            return Ok(answer);
        }
        intake.admit().map_err(|wait| {
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "over this webhook's rate limit")
                .because(Rejection::RateLimited)
                .after(wait)
        })?;
        let reading = entry.read(request, verified, now).await.map_err(Refusal::malformed)?;
        let accepted = match reading.arrivals.is_empty() {
            true => Vec::new(),
            // The gateway counts its own refusals.
            false => intake.accept(reading.arrivals).await.map_err(|refused| {
                let why = match refused {
                    Refused::Full => "the queue is full",
                    Refused::Closed => "shutting down",
                };
                Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why).after(RETRY_AFTER)
            })?,
        };
        Ok(reading.reply.answer(&accepted))
    }
}

/// What a webhook makes of a request, before any intake is asked.
#[derive(Debug)]
pub enum Rehearsed {
    /// Its events, for the intake.
    Read(Reading),
    /// A handshake: answered, and no event.
    Handshake(Answer),
    /// Turned away.
    Refused(Answer),
}

/// Verifies and reads `request` as the listener does, without a listener, a limit or an intake.
#[must_use]
pub fn rehearse(hook: &Hook, request: &Received, now: Timestamp) -> Rehearsed {
    let verified = match hook.verify(request, now) {
        Ok(Verified { handshake: Some(answer), .. }) => return Rehearsed::Handshake(answer),
        Ok(verified) => verified,
        Err(why) => return Rehearsed::Refused(unauthorized(hook, &why).answer()),
    };
    match hook.read(request, &verified, now) {
        Ok(reading) => Rehearsed::Read(reading),
        Err(malformed) => Rehearsed::Refused(Refusal::malformed(malformed).answer()),
    }
}

fn unauthorized(hook: &Hook, why: &Unverified) -> Refusal {
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, why.to_string());
    let refusal = refusal.because(Rejection::Unauthorized);
    match hook.challenge() {
        None => refusal,
        Some(challenge) => {
            refusal.with(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
        }
    }
}

/// Webhooks are POSTed. `OPTIONS` is answered: the validation that CloudEvents senders ask for
/// (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md>, §4) allows any
/// origin and rate, since it is the signature that tells who may send.
fn method(head: &Parts) -> Result<Option<Answer>, Refusal> {
    const ALLOW: HeaderValue = HeaderValue::from_static("POST, OPTIONS");
    match head.method {
        Method::POST => Ok(None),
        Method::OPTIONS => {
            let mut answer = Answer {
                status: StatusCode::NO_CONTENT,
                headers: http::HeaderMap::new(),
                body: bytes::Bytes::new(),
            };
            answer.headers.insert(header::ALLOW, ALLOW);
            if let Some(origin) = head.headers.get("webhook-request-origin") {
                answer.status = StatusCode::OK;
                answer.headers.insert("webhook-allowed-origin", origin.clone());
                answer.headers.insert("webhook-allowed-rate", HeaderValue::from_static("*"));
            }
            Ok(Some(answer))
        }
        _ => {
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "webhooks are POSTed");
            Err(refusal.because(Rejection::Method).with(header::ALLOW, ALLOW))
        }
    }
}

#[cfg(test)]
mod tests;
