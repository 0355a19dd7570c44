//! The two sides of the soak: services that publish and take events, the API, its webhooks. Each
//! goes on by itself whatever becomes of RabbitMQ and of the gateway.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions},
    types::FieldTable,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tidegate_tests::{
    Load,
    amqp::{self, Message},
    gateway::client,
};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{interval, timeout},
};

use super::ledger::{KEYS, Ledger, Side};

/// How long a confirm, a connection or an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Events of a side a second.
const RATE: u32 = 100;

/// What number `n` says.
fn data(n: u64) -> Value {
    json!({ "n": n, "key": format!("key-{}", n % KEYS), "text": "é€😀".repeat((n % 40) as usize) })
}

// ===== the service that publishes =====

/// A service that publishes the events of a side.
pub(super) fn publish(url: &str, side: Side) -> Load {
    let order = |n| Message::order(&format!("order-{n}"), &data(n));
    Load::in_order(url, side.name(), RATE, order)
}

async fn connect(url: &str) -> Option<Connection> {
    let connecting = Connection::connect(url, ConnectionProperties::default());
    timeout(PATIENCE, connecting).await.ok()?.ok()
}

// ===== the service that takes events =====

/// Takes what comes out of RabbitMQ.
pub(super) struct Subscriber {
    task: JoinHandle<()>,
}

impl Subscriber {
    pub(super) async fn start(url: &str, ledger: &Arc<Ledger>) -> Self {
        let name = Side::Hooks.name();
        amqp::bind(url, name, name, "#").await;
        let (url, ledger) = (url.to_owned(), Arc::clone(ledger));
        let task = tokio::spawn(async move {
            let mut retry = interval(Duration::from_millis(100));
            loop {
                retry.tick().await;
                if let Some(connection) = connect(&url).await {
                    let _ = take(&connection, &ledger).await;
                }
            }
        });
        Self { task }
    }
}

async fn take(connection: &Connection, ledger: &Ledger) -> Option<()> {
    let channel = timeout(PATIENCE, connection.create_channel()).await.ok()?.ok()?;
    let queue = Side::Hooks.name().into();
    let options = BasicConsumeOptions::default();
    let consume = channel.basic_consume(queue, "".into(), options, FieldTable::default());
    let mut consumer = timeout(PATIENCE, consume).await.ok()?.ok()?;
    while let Some(Ok(delivery)) = consumer.next().await {
        let event: Value = serde_json::from_slice(&delivery.data).expect("an event");
        let n = event["data"]["n"].as_u64().expect("a number");
        let id = event["id"].as_str().unwrap_or_default();
        ledger.note(Side::Hooks, n, id, event["data"] == data(n) && id == format!("hook-{n}"));
        delivery.acker.ack(BasicAckOptions::default()).await.ok()?;
    }
    None
}

// ===== the API =====

/// How the API is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Well,
    /// 500.
    Fails,
    /// 429, come again in a second.
    Refuses,
    /// It takes requests and never answers.
    Hangs,
    /// It closes connections in an answer's stead.
    Resets,
}

/// The third-party API.
pub(super) struct Api {
    url: String,
    mood: Arc<Mutex<Mood>>,
    task: JoinHandle<()>,
}

impl Api {
    pub(super) async fn start(ledger: &Arc<Ledger>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let mood = Arc::new(Mutex::new(Mood::Well));
        let (ledger, asked) = (Arc::clone(ledger), Arc::clone(&mood));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (ledger, mood) = (Arc::clone(&ledger), Arc::clone(&asked));
                let service = service_fn(move |request| {
                    let (ledger, mood) = (Arc::clone(&ledger), *mood.lock());
                    async move { answer(request, &ledger, mood).await }
                });
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async { drop(served.await) });
            }
        });
        Self { url, mood, task }
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    pub(super) fn set_mood(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }
}

async fn answer(
    request: Request<Incoming>,
    ledger: &Ledger,
    mood: Mood,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let status = match mood {
        Mood::Well => {
            let side = Side::EVENTS.into_iter().find(|side| head.uri.path()[1..] == *side.name());
            let side = side.expect("a path of ours");
            let said: Value = serde_json::from_slice(&body).expect("a JSON body");
            let n = said["n"].as_u64().expect("a number");
            let key = head.headers.get("idempotency-key").and_then(|key| key.to_str().ok());
            ledger.note(side, n, key.unwrap_or_default(), said == data(n) && key.is_some());
            200
        }
        Mood::Fails => 500,
        Mood::Refuses => 429,
        Mood::Hangs => std::future::pending::<u16>().await,
        Mood::Resets => return Err(std::io::Error::other("no answer")),
    };
    let answer = Response::builder().status(status).header("retry-after", "1");
    Ok(answer.body(Full::new(Bytes::from_static(b"{}"))).expect("a status and a body"))
}

// ===== its webhooks =====

/// Sends one webhook after the other, each until it was answered 2xx.
pub(super) struct Webhooks {
    base: Arc<Mutex<String>>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Webhooks {
    pub(super) fn start(base: String) -> Self {
        let (base, sent) = (Arc::new(Mutex::new(base)), Arc::<AtomicU64>::default());
        let (at, counted) = (Arc::clone(&base), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            let mut pace = interval(Duration::from_secs(1) / RATE);
            loop {
                pace.tick().await;
                let n = counted.load(Ordering::Relaxed);
                let url = format!("{}/hooks", *at.lock());
                let request = client()
                    .post(url)
                    .header("X-Api-Key", "soak-api-key-77")
                    .header("Content-Type", "application/json")
                    .body(data(n).to_string());
                let answered = timeout(PATIENCE, request.send()).await;
                if answered.is_ok_and(|answer| answer.is_ok_and(|is| is.status().is_success())) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { base, sent, task }
    }

    /// How many were taken.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Where the gateway takes them now.
    pub(super) fn set_base(&self, base: String) {
        *self.base.lock() = base;
    }
}

/// What goes on by itself ends with whoever holds it.
macro_rules! ends_when_dropped {
    ($($side:ty),*) => {
        $(impl Drop for $side {
            fn drop(&mut self) {
                self.task.abort();
            }
        })*
    };
}

ends_when_dropped!(Subscriber, Api, Webhooks);
