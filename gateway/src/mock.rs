//! Mock third-party APIs: scripted status, latency, rate limit, errors and outages.
//!
//! One listener per API. Everything it is asked is recorded and can be read back, in process by a
//! [`Handle`], from outside at `/_mock/…` of the API's own address:
//!
//! ```text
//! GET    /_mock/requests       what it got, oldest first (the last 10,000), and counts
//! DELETE /_mock/requests       forget them
//! PUT    /_mock/down           answer 503 to everything
//! DELETE /_mock/down           be well again
//! ```
//!
//! What decides an answer, in this order: down or a scripted outage, the rate limit, the script's
//! next answer, the error ratio, the usual answer. Latency is slept before any of them is sent.

pub mod config;
mod record;
mod webhook;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{AnswerConfig, ApiConfig, MockConfig};
pub use record::{Recorded, Tally};
pub use webhook::WebhookTally;

use webhook::Webhooks;

/// The largest request body it reads.
const BODY_MAX: usize = 16 << 20;

/// The most connections of one API at once.
const CONNECTIONS_MAX: usize = 4096;

/// A mock API that listens but does not serve yet.
#[derive(Debug)]
pub struct MockApi {
    listener: TcpListener,
    handle: Handle,
    to_send: mpsc::Receiver<webhook::Webhook>,
}

/// A look into a mock API from the same process. Clones are one.
#[derive(Debug, Clone)]
pub struct Handle {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    name: String,
    address: SocketAddr,
    config: ApiConfig,
    start: Instant,
    play: Mutex<Play>,
    record: Mutex<record::Record>,
    webhooks: Arc<Webhooks>,
}

/// Where the script stands.
#[derive(Debug, Default)]
struct Play {
    down: bool,
    next: usize,
    /// When the requests of the current rate-limit period came.
    recent: std::collections::VecDeque<Instant>,
}

impl MockApi {
    /// Listens where `config` says. Outages count from now.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(name: &str, config: ApiConfig) -> std::io::Result<Self> {
        let listener = TcpListener::bind(config.listen).await?;
        let (webhooks, to_send) = Webhooks::new(config.webhooks.clone());
        let state = State {
            name: name.to_owned(),
            address: listener.local_addr()?,
            config,
            start: Instant::now(),
            play: Mutex::default(),
            record: Mutex::default(),
            webhooks: Arc::new(webhooks),
        };
        Ok(Self { listener, handle: Handle { state: Arc::new(state) }, to_send })
    }

    /// A look into it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Serves until `shutdown`; connections under way are dropped then.
    pub async fn run(self, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let webhooks = Arc::clone(&self.handle.state.webhooks);
        connections.spawn(webhooks.run(self.to_send, shutdown.clone()));
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let slot =
                Arc::clone(&slots).acquire_owned().await.expect("the slots are never closed");
            let stream = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // Out of descriptors, most likely: wait for some to be given back.
                    Err(_) => {
                        sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            // A mock that delays small answers would be blamed on the gateway.
            let _ = stream.set_nodelay(true);
            let (handle, shutdown) = (self.handle.clone(), shutdown.clone());
            connections.spawn(async move {
                let _slot = slot;
                let service = service_fn(move |request| {
                    let handle = handle.clone();
                    async move { Ok::<_, Infallible>(handle.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    // A peer that goes away is none of the mock's business.
                    _ = connection => {}
                    () = shutdown.cancelled() => {}
                }
            });
        }
        connections.close();
        connections.wait().await;
    }
}

impl Handle {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// `http://` and where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.state.address)
    }

    /// Answers 503 to everything, or is well again.
    pub fn set_down(&self, down: bool) {
        self.state.play.lock().down = down;
    }

    /// What it got, oldest first; the last 10,000.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.record.lock().requests()
    }

    /// Counts over everything it got.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.state.record.lock().tally()
    }

    /// Where webhooks go whose `to` is but a path.
    pub fn set_webhook_base(&self, base: url::Url) {
        self.state.webhooks.set_base(base);
    }

    /// What became of its webhooks.
    #[must_use]
    pub fn webhooks(&self) -> WebhookTally {
        self.state.webhooks.tally()
    }

    /// Resolves when it has got something it had not when last asked.
    pub async fn changed(&self) {
        let changed = self.state.record.lock().changed();
        changed.notified().await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        if let Some(path) = head.uri.path().strip_prefix("/_mock/") {
            return self.control(&head.method, path);
        }
        let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "the body broke off or is too large");
        };
        let came = Instant::now();
        let answer = self.decide(came);
        let at = came.duration_since(self.state.start);
        let recorded = self.state.record.lock().add(at, &head, body.to_bytes(), answer.status);
        if self.state.config.latency > Duration::ZERO {
            sleep(self.state.config.latency).await;
        }
        if (200..300).contains(&answer.status) {
            self.state.webhooks.after(&recorded);
        }
        render(&answer)
    }

    fn decide(&self, now: Instant) -> AnswerConfig {
        let config = &self.state.config;
        let mut play = self.state.play.lock();
        if play.down {
            return AnswerConfig::status(503);
        }
        let elapsed = now.duration_since(self.state.start);
        let outage = config.outages.iter().find(|outage| outage.covers(elapsed));
        if let Some(outage) = outage {
            return outage.answer.clone();
        }
        if let Some(limit) = &config.rate_limit {
            while play.recent.front().is_some_and(|at| now.duration_since(*at) >= limit.period) {
                play.recent.pop_front();
            }
            if play.recent.len() >= limit.limit as usize {
                return limit.answer.clone();
            }
            play.recent.push_back(now);
        }
        if let Some(answer) = config.script.get(play.next) {
            play.next += 1;
            return answer.clone();
        }
        match &config.errors {
            Some(errors) if fastrand::f64() < errors.ratio => errors.answer.clone(),
            _ => config.answer.clone(),
        }
    }

    fn control(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        match (method.as_str(), path) {
            ("GET", "requests") => {
                let body = serde_json::json!({
                    "api": self.state.name,
                    "counts": self.tally(),
                    "webhooks": self.webhooks(),
                    "requests": self.requests(),
                });
                json(&body)
            }
            ("DELETE", "requests") => {
                self.state.record.lock().clear();
                text(StatusCode::OK, "forgotten")
            }
            ("PUT", "down") => {
                self.set_down(true);
                text(StatusCode::OK, "down")
            }
            ("DELETE", "down") => {
                self.set_down(false);
                text(StatusCode::OK, "well again")
            }
            _ => text(StatusCode::NOT_FOUND, "GET|DELETE /_mock/requests, PUT|DELETE /_mock/down"),
        }
    }
}

fn render(answer: &AnswerConfig) -> Response<Full<Bytes>> {
    let mut builder = Response::builder().status(answer.status);
    if !answer.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
        builder = builder.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in &answer.headers {
        builder = builder.header(name, value);
    }
    let body = Full::new(Bytes::from(answer.body.clone()));
    builder.body(body).unwrap_or_else(|_| {
        text(StatusCode::INTERNAL_SERVER_ERROR, "the answer's status or headers are not HTTP")
    })
}

fn json(body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    let value = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}
