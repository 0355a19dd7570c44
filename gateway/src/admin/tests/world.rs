//! A gateway that is not one: what the admin listener looks at, made up; and a client that says
//! exactly what it is told to.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use serde_json::Value;
use tidegate_adapters::{Data, Delivery, DeliveryId, Event, Timestamp};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    admin::Admin,
    app::{
        BrokerActivity, ControlError, Generation, Inspect, PublishError, ReloadError, Reloaded,
        RouteActivity,
    },
    config::{self, Config},
    protect::{BreakerState, UpstreamStatus},
    queue::{
        Acted, Action, Append, AppendError, Appended, Bounds, Counts, Feed, Filter, ListPage,
        Listed, Page, Queue, QueueError, QueueStatus, RouteSettings, RouteStatus, Settlement,
        Space, State,
    },
    telemetry::Metrics,
};

/// 2026-01-31T12:00:00Z: what the made-up gateway's clock shows.
pub(super) const NOW: Timestamp = Timestamp(1_769_860_800_000);

pub(super) const READ: &str = "read-token-0123456789";
pub(super) const OPERATE: &str = "operate-token-0123456789";
pub(super) const API_KEY: &str = "api-key-0123456789";

const YAML: &str = "
broker: { embedded: {} }
upstreams:
  loyalty: { url: 'https://api.loyalty.example/v2', auth: { bearer: api-key-0123456789 } }
  mail: { url: 'https://mail.example', timeout: 5m }
routes:
  award-points:
    description: Points for orders
    from: { rabbitmq: { bind: [{ exchange: orders, key: 'order.#' }] } }
    to: { http: { upstream: loyalty, path: '/members/{.data.id}' } }
  thank-you:
    from: { rabbitmq: { bind: [{ exchange: orders, key: 'order.#' }] } }
    to: { http: { upstream: mail } }
";

const TOKENS: &str = "
admin:
  tokens:
    dashboard: { token: read-token-0123456789, role: read }
    oncall: { token: operate-token-0123456789, role: operate }
";

/// What the made-up gateway shows.
pub(super) struct World {
    config: Mutex<Arc<Config>>,
    pub(super) generation: Mutex<Generation>,
    /// What the next reload comes to.
    pub(super) reload: Mutex<Option<Result<Reloaded, ReloadError>>>,
    metrics: Metrics,
    pub(super) queue: Arc<FakeQueue>,
    pub(super) upstreams: Mutex<Vec<UpstreamStatus>>,
    pub(super) routes: Mutex<BTreeMap<Arc<str>, RouteActivity>>,
    pub(super) broker: Mutex<BrokerActivity>,
    pub(super) stopping: AtomicBool,
    pub(super) published: Mutex<Vec<(String, String, Event)>>,
    pub(super) publish_error: Mutex<Option<PublishError>>,
}

#[derive(Default)]
pub(super) struct FakeQueue {
    /// Newest first.
    pub(super) deliveries: Mutex<Vec<Listed>>,
    pub(super) claims: Mutex<HashSet<DeliveryId>>,
    pub(super) routes: Mutex<Vec<RouteStatus>>,
    pub(super) oldest_due: Mutex<HashMap<Arc<str>, Timestamp>>,
    pub(super) status: Mutex<QueueStatus>,
    /// Deliveries that one step of an action on many looks at; 0 is as many as there are.
    pub(super) step: AtomicUsize,
    /// How many steps there were.
    pub(super) steps: watch::Sender<usize>,
    /// How long each takes.
    pub(super) step_takes: Mutex<Duration>,
}

/// An admin listener over a made-up gateway; ends when dropped.
pub(super) struct Listening {
    pub(super) world: Arc<World>,
    pub(super) address: SocketAddr,
    pub(super) shutdown: CancellationToken,
    pub(super) running: tokio::task::JoinHandle<()>,
    _stop: DropGuard,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

impl Said {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Without tokens.
pub(super) async fn open() -> Listening {
    listen(YAML).await
}

/// With a token of each role.
pub(super) async fn guarded() -> Listening {
    listen(&format!("{YAML}{TOKENS}")).await
}

/// What `check` says about `yaml`.
pub(super) fn load(yaml: &str) -> Result<Config, config::Report> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    std::fs::write(&file, yaml).unwrap();
    let loaded = config::load(&[file], &config::Environment::default());
    loaded.map(|loaded| loaded.config)
}

async fn listen(yaml: &str) -> Listening {
    let config = load(yaml).unwrap_or_else(|report| panic!("{report}"));
    let world = Arc::new(World::new(Arc::new(config)));
    let free = "127.0.0.1:0".parse().unwrap();
    let (admin, address) = Admin::bind(free).await.unwrap();
    let shutdown = CancellationToken::new();
    let inspect: Arc<dyn Inspect> = world.clone();
    let running = tokio::spawn(admin.run(inspect, shutdown.clone()));
    Listening { world, address, _stop: shutdown.clone().drop_guard(), shutdown, running }
}

impl Listening {
    pub(super) async fn get(&self, path: &str) -> Said {
        self.ask("GET", path, &[], "").await
    }

    pub(super) async fn get_as(&self, path: &str, token: &str) -> Said {
        self.ask("GET", path, &[("authorization", &format!("Bearer {token}"))], "").await
    }

    /// POSTs JSON, or without a body.
    pub(super) async fn post(&self, path: &str, body: &str) -> Said {
        let json = [("content-type", "application/json")];
        self.ask("POST", path, if body.is_empty() { &[] } else { &json }, body).await
    }

    /// With `host: <address>`, unless the headers bring their own.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Said {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head.push_str(&format!("host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.send(format!("{head}\r\n{body}").as_bytes()).await
    }

    /// Sends these bytes, and reads until the listener closes.
    pub(super) async fn send(&self, bytes: &[u8]) -> Said {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // A refusal may come, and close, before all of it is sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        parse(&String::from_utf8(answer).unwrap())
    }
}

fn parse(answer: &str) -> Said {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    Said { status, headers, body: body.to_owned() }
}

impl World {
    fn new(config: Arc<Config>) -> Self {
        let status = |name: &Arc<str>| RouteStatus {
            name: Arc::clone(name),
            counts: Counts { pending: 7, delivered: 5, dead: 3, discarded: 1 },
            bytes: 4096,
            paused: false,
            configured: true,
            dedupe: None,
        };
        let fresh = RouteActivity { active: 2, source_up: true, progress_at: NOW };
        let queue = FakeQueue {
            routes: Mutex::new(config.routes.keys().map(status).collect()),
            status: Mutex::new(QueueStatus {
                bytes: 8192,
                bytes_max: 1 << 30,
                room: true,
                writable: true,
            }),
            ..FakeQueue::default()
        };
        Self {
            metrics: Metrics::new(&config),
            queue: Arc::new(queue),
            upstreams: Mutex::default(),
            routes: Mutex::new(config.routes.keys().map(|n| (n.clone(), fresh.clone())).collect()),
            broker: Mutex::new(BrokerActivity {
                consume_connected: true,
                publish_connected: true,
                blocked: false,
            }),
            stopping: AtomicBool::new(false),
            published: Mutex::default(),
            publish_error: Mutex::default(),
            generation: Mutex::new(Generation {
                number: 1,
                hash: "0123456789abcdef".to_owned(),
                since: NOW,
                failed: None,
            }),
            reload: Mutex::default(),
            config: Mutex::new(config),
        }
    }

    /// Has other tokens from now on: `name: { token: …, role: … }`, comma-separated.
    pub(super) fn set_tokens(&self, tokens: &str) {
        let yaml = format!("{YAML}\nadmin: {{ tokens: {{ {tokens} }} }}\n");
        *self.config.lock() = Arc::new(load(&yaml).unwrap_or_else(|report| panic!("{report}")));
    }

    fn with_upstream(
        &self,
        name: &str,
        change: impl FnOnce(&mut UpstreamStatus),
    ) -> Result<(), ControlError> {
        let mut upstreams = self.upstreams.lock();
        let found = upstreams.iter_mut().find(|upstream| &*upstream.name == name);
        change(found.ok_or_else(|| ControlError::NoUpstream(name.to_owned()))?);
        Ok(())
    }

    /// Due since `due`, and last seen to get anywhere at `progress_at`.
    pub(super) fn stands_still(&self, route: &str, due: Timestamp, progress_at: Timestamp) {
        let mut routes = self.routes.lock();
        let activity = routes.get_mut(route).unwrap();
        activity.progress_at = progress_at;
        activity.active = 0;
        self.queue.oldest_due.lock().insert(route.into(), due);
    }
}

impl Inspect for World {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.lock())
    }

    fn queue(&self) -> Arc<dyn Queue> {
        self.queue.clone()
    }

    fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    fn upstreams(&self) -> Vec<UpstreamStatus> {
        self.upstreams.lock().clone()
    }

    fn routes(&self) -> BTreeMap<Arc<str>, RouteActivity> {
        self.routes.lock().clone()
    }

    fn broker(&self) -> BrokerActivity {
        *self.broker.lock()
    }

    fn pause_upstream(
        &self,
        name: &str,
        paused: bool,
    ) -> BoxFuture<'static, Result<(), ControlError>> {
        let done = self.with_upstream(name, |upstream| upstream.paused = paused);
        Box::pin(async move { done })
    }

    fn reset_upstream(&self, name: &str) -> Result<(), ControlError> {
        self.with_upstream(name, |upstream| {
            upstream.paused_until = None;
            if let Some(breaker) = &mut upstream.breaker {
                breaker.state = BreakerState::Closed;
            }
        })
    }

    fn reload(&self) -> BoxFuture<'static, Result<Reloaded, ReloadError>> {
        let unchanged = Reloaded {
            generation: self.generation.lock().clone(),
            changed: Vec::new(),
            warnings: Vec::new(),
        };
        let done = self.reload.lock().take().unwrap_or(Ok(unchanged));
        Box::pin(async move { done })
    }

    fn generation(&self) -> Generation {
        self.generation.lock().clone()
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn now(&self) -> Timestamp {
        NOW
    }

    fn webhooks_url(&self) -> Option<String> {
        None
    }

    fn admin_url(&self) -> String {
        unreachable!("the listener knows where it is")
    }

    fn publish(
        &self,
        exchange: String,
        key: String,
        event: Event,
    ) -> BoxFuture<'static, Result<(), PublishError>> {
        let error = self.publish_error.lock().clone();
        if error.is_none() {
            self.published.lock().push((exchange, key, event));
        }
        Box::pin(async move { error.map_or(Ok(()), Err) })
    }
}

/// A pending delivery of `award-points`, with number `id` and accepted `id` seconds after [`NOW`]
/// minus an hour.
pub(super) fn pending(id: i64) -> Listed {
    let event = Event {
        id: format!("e-{id}"),
        source: "/shop".to_owned(),
        kind: "order.confirmed.v1".to_owned(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: Data::Json(r#"{"total":12.50}"#.into()),
    };
    let accepted_at = Timestamp(NOW.0 - 3_600_000 + id * 1000);
    let delivery = Delivery {
        id: DeliveryId(id),
        route: "award-points".into(),
        event: Arc::new(event),
        key: Some("customer-1".into()),
        accepted_at,
        attempts: 1,
        tries: 2,
        due_at: NOW,
        first_attempt_at: None,
    };
    Listed {
        delivery: Arc::new(delivery),
        state: State::Pending,
        dead: None,
        due_at: Some(NOW),
        raw: None,
        attempts: Vec::new(),
    }
}

fn matches(filter: &Filter, listed: &Listed) -> bool {
    let delivery = &listed.delivery;
    let reason = listed.dead.as_ref().map(|(reason, _)| *reason);
    (filter.routes.is_empty() || filter.routes.contains(&delivery.route))
        && filter.state.is_none_or(|state| state == listed.state)
        && (filter.reason.is_none() || filter.reason == reason)
        && filter.kind.as_ref().is_none_or(|kind| *kind == delivery.event.kind)
        && filter.event.as_ref().is_none_or(|event| *event == delivery.event.id)
        && (filter.key.is_none() || filter.key.as_deref() == delivery.key.as_deref())
        && filter.since.is_none_or(|since| delivery.accepted_at >= since)
        && filter.until.is_none_or(|until| delivery.accepted_at < until)
}

impl FakeQueue {
    fn fits(&self, action: Action, listed: &Listed) -> Result<(), &'static str> {
        if self.claims.lock().contains(&listed.delivery.id) {
            return Err("active");
        }
        match (action, listed.state) {
            (Action::Replay, State::Dead | State::Delivered)
            | (Action::Discard, State::Dead | State::Pending) => Ok(()),
            (_, State::Pending) => Err("pending"),
            (_, State::Delivered) => Err("delivered"),
            (_, State::Discarded) => Err("discarded"),
        }
    }

    /// What the states are now, by id.
    pub(super) fn states(&self) -> Vec<(i64, State)> {
        let deliveries = self.deliveries.lock();
        deliveries.iter().map(|listed| (listed.delivery.id.0, listed.state)).collect()
    }
}

fn after(action: Action, listed: &mut Listed) {
    listed.dead = None;
    listed.state = match action {
        Action::Replay => State::Pending,
        Action::Discard => State::Discarded,
    };
}

impl Queue for FakeQueue {
    fn list(
        &self,
        filter: Filter,
        cursor: Option<DeliveryId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ListPage, QueueError>> {
        let deliveries = self.deliveries.lock().clone();
        let mut found = deliveries.into_iter().filter(|listed| {
            cursor.is_none_or(|cursor| listed.delivery.id < cursor) && matches(&filter, listed)
        });
        let deliveries: Vec<Listed> = found.by_ref().take(limit).collect();
        let more = found.next().is_some();
        let next = deliveries.last().filter(|_| more).map(|last| last.delivery.id);
        Box::pin(async move { Ok(ListPage { deliveries, next }) })
    }

    fn show(&self, id: DeliveryId) -> BoxFuture<'_, Result<Listed, QueueError>> {
        let deliveries = self.deliveries.lock();
        let found = deliveries.iter().find(|listed| listed.delivery.id == id).cloned();
        Box::pin(async move { found.ok_or(QueueError::Missing(id)) })
    }

    fn claimed(&self, id: DeliveryId) -> bool {
        self.claims.lock().contains(&id)
    }

    fn active(&self) -> Vec<DeliveryId> {
        self.claims.lock().iter().copied().collect()
    }

    fn routes(&self) -> Vec<RouteStatus> {
        self.routes.lock().clone()
    }

    fn oldest_due(
        &self,
        route: &Arc<str>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Timestamp>, QueueError>> {
        let due = self.oldest_due.lock().get(route).copied().filter(|due| *due <= now);
        Box::pin(async move { Ok(due) })
    }

    fn status(&self) -> QueueStatus {
        *self.status.lock()
    }

    fn pruned(&self) -> Vec<(Arc<str>, u64)> {
        vec![("award-points".into(), 11)]
    }

    fn act(&self, action: Action, id: DeliveryId) -> BoxFuture<'_, Result<(), QueueError>> {
        let mut deliveries = self.deliveries.lock();
        let found = deliveries.iter_mut().find(|listed| listed.delivery.id == id);
        let done = match found {
            None => Err(QueueError::Missing(id)),
            Some(listed) => match self.fits(action, listed) {
                Ok(()) => {
                    after(action, listed);
                    Ok(())
                }
                Err(state) => Err(QueueError::Unfit { id, state }),
            },
        };
        Box::pin(async move { done })
    }

    fn act_on_many(
        &self,
        action: Action,
        filter: Filter,
        cursor: Option<DeliveryId>,
        dry: bool,
    ) -> BoxFuture<'_, Result<Acted, QueueError>> {
        Box::pin(async move {
            let takes = *self.step_takes.lock();
            tokio::time::sleep(takes).await;
            let step = self.step.load(Ordering::Relaxed);
            let mut acted = Acted::default();
            let mut deliveries = self.deliveries.lock();
            let below = deliveries
                .iter_mut()
                .filter(|listed| cursor.is_none_or(|cursor| listed.delivery.id < cursor));
            for (n, listed) in below.enumerate() {
                if matches(&filter, listed) && self.fits(action, listed).is_ok() {
                    *acted.routes.entry(Arc::clone(&listed.delivery.route)).or_default() += 1;
                    if !dry {
                        after(action, listed);
                    }
                }
                if n + 1 == step {
                    acted.next = Some(listed.delivery.id);
                    break;
                }
            }
            self.steps.send_modify(|steps| *steps += 1);
            Ok(acted)
        })
    }

    fn pause_route(&self, route: &Arc<str>, paused: bool) -> BoxFuture<'_, Result<(), QueueError>> {
        let mut routes = self.routes.lock();
        routes.iter_mut().find(|status| status.name == *route).unwrap().paused = paused;
        Box::pin(async { Ok(()) })
    }

    // What follows is the loop's and the sources'.

    fn paused_for(&self, _: &Arc<str>) -> Duration {
        unreachable!("the listener only looks")
    }

    fn pause_upstream(&self, _: &Arc<str>, _: bool) -> BoxFuture<'_, Result<(), QueueError>> {
        unreachable!("the listener asks the gateway")
    }

    fn paused_upstreams(&self) -> BTreeSet<Arc<str>> {
        unreachable!("the listener only looks")
    }

    fn note(&self, _: &'static str) -> BoxFuture<'_, Result<Option<String>, QueueError>> {
        unreachable!("the listener only looks")
    }

    fn keep_note(&self, _: &'static str, _: String) -> BoxFuture<'static, Result<(), QueueError>> {
        unreachable!("the listener only looks")
    }

    fn set_bounds(&self, _: Bounds) -> BoxFuture<'_, Result<(), QueueError>> {
        unreachable!("the listener only looks")
    }

    fn configure(&self, _: Vec<RouteSettings>) -> BoxFuture<'_, Result<(), QueueError>> {
        unreachable!("the listener only looks")
    }

    fn append(
        &self,
        _: &Arc<str>,
        _: Vec<Append>,
        _: Space,
    ) -> BoxFuture<'static, Result<Vec<Appended>, AppendError>> {
        unreachable!("the listener only looks")
    }

    fn room(&self, _: &Arc<str>) -> BoxFuture<'static, ()> {
        unreachable!("the listener only looks")
    }

    fn connected(&self, _: &Arc<str>, _: bool) {
        unreachable!("the listener only looks")
    }

    fn feed(&self, _: &Arc<str>) -> Arc<Feed> {
        unreachable!("the listener only looks")
    }

    fn page(
        &self,
        _: &Arc<str>,
        _: Timestamp,
        _: usize,
        _: HashSet<DeliveryId>,
    ) -> BoxFuture<'_, Result<Page, QueueError>> {
        unreachable!("the listener only looks")
    }

    fn claim(&self, _: DeliveryId) -> bool {
        unreachable!("the listener only looks")
    }

    fn unclaim(&self, _: DeliveryId) {
        unreachable!("the listener only looks")
    }

    fn settle(&self, _: Settlement) -> BoxFuture<'static, Result<(), QueueError>> {
        unreachable!("the listener only looks")
    }

    fn failed(&self) -> BoxFuture<'static, String> {
        unreachable!("the listener only looks")
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        unreachable!("the listener only looks")
    }
}
