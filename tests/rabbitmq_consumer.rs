//! RabbitMQ as a source, alone: a real node, real consumers, and an intake that records what it
//! is given and answers as it is told.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use lapin::{
    Connection, ConnectionProperties, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};
use parking_lot::Mutex;
use serde_json::json;
use tidegate_adapters::{
    Accepted, Arrival, Data, DeliveryId, Event, Intake, Refused,
    rabbitmq::{
        self, Broker, BrokerConfig, ConnectionState, ConsumerConfig, Consumers, PublishError,
        Server, Wanted, WantedConsumer,
    },
};
use tidegate_tests::{
    amqp::{Message, Publisher},
    eventually,
    rabbitmq::{Node, Vhost},
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    sync::{Notify, Semaphore},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

const IN_TIME: Duration = Duration::from_secs(60);
const RESUMES: Duration = Duration::from_secs(10);

/// An intake that records, and answers once it may.
struct Recorder {
    arrivals: Mutex<Vec<Result<Event, String>>>,
    /// One for each batch that may be answered.
    answers: Semaphore,
    full: AtomicBool,
    room: Notify,
    refusals: AtomicUsize,
    up: AtomicBool,
}

impl Recorder {
    /// One that accepts everything at once.
    fn new() -> Arc<Self> {
        Self::answering(Semaphore::MAX_PERMITS)
    }

    /// One that answers so many batches and then falls silent.
    fn answering(batches: usize) -> Arc<Self> {
        Arc::new(Self {
            arrivals: Mutex::default(),
            answers: Semaphore::new(batches),
            full: AtomicBool::new(false),
            room: Notify::new(),
            refusals: AtomicUsize::new(0),
            up: AtomicBool::new(false),
        })
    }

    fn ids(&self) -> Vec<String> {
        let arrivals = self.arrivals.lock();
        arrivals.iter().filter_map(|arrival| arrival.as_ref().ok()).map(|e| e.id.clone()).collect()
    }

    fn different(&self) -> usize {
        self.ids().into_iter().collect::<HashSet<_>>().len()
    }

    fn count(&self) -> usize {
        self.arrivals.lock().len()
    }

    fn up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
        if !full {
            self.room.notify_waiters();
        }
    }
}

/// An intake is shared; this is the handle that the consumer has.
struct Shared(Arc<Recorder>);

impl Intake for Shared {
    fn accept(&self, batch: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        let recorder = Arc::clone(&self.0);
        if recorder.full.load(Ordering::SeqCst) {
            recorder.refusals.fetch_add(1, Ordering::SeqCst);
            return Box::pin(std::future::ready(Err(Refused::Full)));
        }
        let count = batch.len();
        let arrived = batch.into_iter().map(|arrival| arrival.event.map_err(|bad| bad.why));
        recorder.arrivals.lock().extend(arrived);
        Box::pin(async move {
            recorder.answers.acquire().await.expect("never closed").forget();
            Ok(vec![Accepted::Pending(DeliveryId(0)); count])
        })
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        let recorder = Arc::clone(&self.0);
        Box::pin(async move {
            let mut room = std::pin::pin!(recorder.room.notified());
            room.as_mut().enable();
            if recorder.full.load(Ordering::SeqCst) {
                room.await;
            }
        })
    }

    fn connected(&self, up: bool) {
        self.0.up.store(up, Ordering::SeqCst);
    }
}

/// Consumers that run until dropped or stopped.
struct Running {
    stop: CancellationToken,
    state: Arc<ConnectionState>,
    task: Option<JoinHandle<()>>,
}

impl Running {
    fn start(url: &str, routes: Vec<Route>) -> Self {
        let nothing_unbound = |_| -> BoxFuture<'static, ()> { Box::pin(std::future::ready(())) };
        let server = Server::new(Broker::new(&broker(url)).expect("a good configuration"));
        let consumers = Consumers::new(&server, nothing_unbound);
        let wanted = routes.into_iter().map(|route| WantedConsumer {
            route: route.name.into(),
            config: Arc::new(route.config),
            ordered: route.ordered,
            intake: Arc::new(Shared(route.intake)),
        });
        let handle = consumers.handle();
        handle.set(Wanted { consumers: wanted.collect(), unbind: Vec::new() });
        let (stop, state) = (CancellationToken::new(), handle.state());
        let task = Some(tokio::spawn(consumers.run(stop.clone())));
        Self { stop, state, task }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let task = self.task.take().expect("stopped once");
        timeout(Duration::from_secs(20), task).await.expect("it stops in time").expect("no panic");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A route `r` from queue `q`, bound to topic exchange `orders`, unless said otherwise.
struct Route {
    name: &'static str,
    config: ConsumerConfig,
    ordered: bool,
    intake: Arc<Recorder>,
}

impl Route {
    fn new(intake: &Arc<Recorder>) -> Self {
        Self::named("r", "q", intake)
    }

    fn named(name: &'static str, queue: &str, intake: &Arc<Recorder>) -> Self {
        Self::with(
            name,
            json!({ "queue": queue, "bind": [{"exchange": "orders", "key": "#"}] }),
            intake,
        )
    }

    fn with(name: &'static str, changes: serde_json::Value, intake: &Arc<Recorder>) -> Self {
        let mut config = json!({
            "queue": "q",
            "declare": true,
            "prefetch": 1000,
            "max_message": "16MiB",
            "dedupe": "10m",
        });
        for (key, value) in changes.as_object().expect("a map") {
            config[key] = value.clone();
        }
        let config = serde_json::from_value(config).expect("a consumer's configuration");
        Self { name, config, ordered: false, intake: Arc::clone(intake) }
    }

    fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }
}

fn broker(url: &str) -> BrokerConfig {
    serde_json::from_value(json!({ "url": url, "heartbeat": "10s" })).expect("a broker")
}

fn orders(numbers: std::ops::Range<usize>) -> Vec<Message> {
    numbers.map(|n| Message::order(&format!("o-{n}"), &json!({ "n": n }))).collect()
}

async fn publish(broker: &Vhost, messages: &[Message]) {
    Publisher::connect(&broker.url()).await.publish("orders", messages).await;
}

async fn vhost() -> Vhost {
    Node::shared().await.vhost().await
}

async fn is_up(recorder: &Recorder) {
    eventually("it consumes", IN_TIME, || async { recorder.up().then_some(()) }).await;
}

async fn has(recorder: &Recorder, different: usize, within: Duration) {
    eventually("all have arrived", within, || async {
        (recorder.different() == different).then_some(())
    })
    .await;
}

async fn is_empty(broker: &Vhost) {
    eventually("all are acked", IN_TIME, || async {
        (broker.messages("q").await == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_an_ordered_route_arrive_in_order_once_and_are_acked() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let running = Running::start(&broker.url(), vec![Route::new(&recorder).ordered()]);
    is_up(&recorder).await;
    assert!(running.state.connected());
    assert!(!running.state.blocked());
    publish(&broker, &orders(0..5000)).await;
    has(&recorder, 5000, IN_TIME).await;
    is_empty(&broker).await;
    let expected: Vec<_> = (0..5000).map(|n| format!("o-{n}")).collect();
    assert_eq!(recorder.ids(), expected);
    running.stop().await;
    assert!(!recorder.up());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_any_route_arrive_once_while_its_prefetch_grows() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let running = Running::start(&broker.url(), vec![Route::new(&recorder)]);
    is_up(&recorder).await;
    publish(&broker, &orders(0..5000)).await;
    has(&recorder, 5000, IN_TIME).await;
    is_empty(&broker).await;
    assert_eq!(recorder.count(), 5000);
    running.stop().await;
}

/// What RabbitMQ sends right behind a consume must find its consumer known, however busy the
/// machine is: else nobody sees it, nobody acks it, and nothing more comes. Eight at once make it
/// busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_consumes_gets_what_was_waiting_at_once_and_all_of_it() {
    const WAITING: usize = 60;
    let rounds = std::env::var("TIDEGATE_ROUNDS").map_or(4, |n| n.parse().expect("a number"));
    let consuming = (0..8).map(async |_| {
        let (broker, recorder) = (vhost().await, Recorder::new());
        let running = Running::start(&broker.url(), vec![Route::new(&recorder)]);
        is_up(&recorder).await;
        running.stop().await;
        for round in 0..rounds {
            publish(&broker, &orders(round * WAITING..(round + 1) * WAITING)).await;
            let running = Running::start(&broker.url(), vec![Route::new(&recorder)]);
            has(&recorder, (round + 1) * WAITING, IN_TIME).await;
            is_empty(&broker).await;
            running.stop().await;
        }
        assert_eq!(recorder.count(), rounds * WAITING, "none came twice");
    });
    futures_util::future::join_all(consuming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_intake_has_not_answered_is_not_acked() {
    let (broker, recorder) = (vhost().await, Recorder::answering(0));
    let running = Running::start(&broker.url(), vec![Route::new(&recorder)]);
    is_up(&recorder).await;
    publish(&broker, &orders(0..4)).await;
    has(&recorder, 4, IN_TIME).await;
    assert_eq!(broker.messages("q").await, 4, "none is acked");
    recorder.answers.add_permits(Semaphore::MAX_PERMITS >> 1);
    is_empty(&broker).await;
    running.stop().await;
    assert_eq!(recorder.count(), 4, "none came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_acks_what_is_accepted_and_leaves_the_rest() {
    let (broker, recorder) = (vhost().await, Recorder::answering(0));
    let running = Running::start(&broker.url(), vec![Route::new(&recorder).ordered()]);
    is_up(&recorder).await;
    publish(&broker, &orders(0..1)).await;
    has(&recorder, 1, IN_TIME).await;
    publish(&broker, &orders(1..3)).await;
    running.stop.cancel();
    // The one under way is answered while it stops; those behind it were never handed over.
    recorder.answers.add_permits(1);
    running.stop().await;
    eventually("the rest is ready again", IN_TIME, || async {
        (broker.counts("q").await == (2, 0)).then_some(())
    })
    .await;
    assert_eq!(recorder.ids(), ["o-0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b18_a_full_intake_cancels_the_consumer_and_takes_it_up_again() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let running = Running::start(&broker.url(), vec![Route::new(&recorder)]);
    is_up(&recorder).await;
    recorder.set_full(true);
    publish(&broker, &orders(0..100)).await;
    eventually("nobody consumes", IN_TIME, || async {
        (broker.consumers("q").await == 0).then_some(())
    })
    .await;
    eventually("all messages are ready again", IN_TIME, || async {
        (broker.counts("q").await == (100, 0)).then_some(())
    })
    .await;
    assert!(!recorder.up());
    let refusals = recorder.refusals.load(Ordering::SeqCst);
    assert!((1..=4).contains(&refusals), "no hot loop: {refusals} batches were refused");
    recorder.set_full(false);
    has(&recorder, 100, RESUMES).await;
    is_empty(&broker).await;
    assert_eq!(recorder.count(), 100, "each once");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b20_what_was_unacked_comes_again_after_the_connections_were_closed() {
    let (broker, recorder) = (vhost().await, Recorder::answering(0));
    let running = Running::start(&broker.url(), vec![Route::new(&recorder)]);
    is_up(&recorder).await;
    publish(&broker, &orders(0..4)).await;
    has(&recorder, 4, IN_TIME).await;
    broker.close_connections().await;
    recorder.answers.add_permits(Semaphore::MAX_PERMITS >> 1);
    eventually("they come again", RESUMES, || async { (recorder.count() >= 8).then_some(()) })
        .await;
    is_empty(&broker).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b19_b21_twenty_closed_connections_leave_one_consumer_with_its_prefetch() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let config = json!({
        "bind": [{"exchange": "orders", "key": "#"}],
        "prefetch": 137,
        // So that no growth of the prefetch is under way: 137 of them fit from the start.
        "max_message": "256KiB",
    });
    let running = Running::start(&broker.url(), vec![Route::with("r", config, &recorder)]);
    is_up(&recorder).await;
    for flap in 0..20 {
        broker.close_connections().await;
        eventually("it is told", IN_TIME, || async { (!recorder.up()).then_some(()) }).await;
        is_up(&recorder).await;
        let consumers = broker.consumer_list("q").await;
        assert_eq!(consumers.len(), 1, "after {flap}: {consumers:?}");
        assert_eq!(consumers[0].prefetch, 137, "after {flap}");
    }
    publish(&broker, &orders(0..10)).await;
    has(&recorder, 10, RESUMES).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b6_a_deleted_queue_is_declared_and_bound_again() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let running = Running::start(&broker.url(), vec![Route::new(&recorder)]);
    for round in 0..3 {
        is_up(&recorder).await;
        broker.delete_queue("q").await;
        eventually("it consumes again", RESUMES, || async {
            (broker.consumers("q").await == 1).then_some(())
        })
        .await;
        publish(&broker, &orders(round..round + 1)).await;
        has(&recorder, round + 1, RESUMES).await;
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_consumed_again_when_it_is_back() {
    let mut node = Node::start().await;
    let (broker, recorder) = (node.root().clone(), Recorder::new());
    let running = Running::start(&node.url(), vec![Route::new(&recorder)]);
    is_up(&recorder).await;
    publish(&broker, &orders(0..100)).await;
    has(&recorder, 100, IN_TIME).await;
    node.kill().await;
    eventually("it is told", RESUMES, || async { (!recorder.up()).then_some(()) }).await;
    assert!(!running.state.connected());
    node.restart().await;
    publish(&broker, &orders(100..200)).await;
    has(&recorder, 200, RESUMES).await;
    // The application alone, as in an upgrade: the port answers before the queues do.
    node.stop_app().await;
    eventually("it is told", RESUMES, || async { (!recorder.up()).then_some(()) }).await;
    node.start_app().await;
    publish(&broker, &orders(200..300)).await;
    has(&recorder, 300, RESUMES).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b4_alarms_stop_publishers_and_not_the_consumer() {
    let node = Node::start().await;
    let (broker, recorder) = (node.root().clone(), Recorder::answering(0));
    let running = Running::start(&node.url(), vec![Route::new(&recorder)]);
    is_up(&recorder).await;
    publish(&broker, &orders(0..4)).await;
    has(&recorder, 4, IN_TIME).await;
    node.set_memory_alarm(true).await;
    let event = order_event("o-4");
    let published = publish_once(&self::broker(&node.url()), "orders", "k", &event).await;
    assert!(matches!(published, Err(PublishError::Ambiguous(_))), "{published:?}");
    recorder.answers.add_permits(Semaphore::MAX_PERMITS >> 1);
    is_empty(&broker).await;
    node.set_memory_alarm(false).await;
    publish_once(&self::broker(&node.url()), "orders", "k", &event).await.expect("taken");
    has(&recorder, 5, RESUMES).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b2_a_broker_that_answers_nothing_is_hung_up_on_and_tried_again() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("amqp://guest:guest@{}/", silent.local_addr().expect("bound"));
    let recorder = Recorder::new();
    let running = Running::start(&url, vec![Route::new(&recorder)]);
    for _ in 0..2 {
        let accepted = timeout(Duration::from_secs(20), silent.accept()).await;
        let (mut peer, _) = accepted.expect("it tries").expect("a connection");
        // The library's thread waits on this socket: only its end lets the thread go.
        let mut said = Vec::new();
        let hung_up = timeout(Duration::from_secs(20), peer.read_to_end(&mut said)).await;
        hung_up.expect("it hangs up").expect("and does so politely");
        assert_eq!(said, b"AMQP\x00\x00\x09\x01");
    }
    assert!(!running.state.connected());
    assert!(!recorder.up());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b15_a_wrong_password_does_not_keep_it_from_stopping() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let url = broker.url().replace("guest:guest", "guest:wrong");
    let running = Running::start(&url, vec![Route::new(&recorder)]);
    let state = Arc::clone(&running.state);
    running.stop().await;
    assert!(!state.connected());
    let published = publish_once(&self::broker(&url), "orders", "k", &order_event("o-1")).await;
    let error = published.expect_err("refused").to_string();
    assert!(error.contains("ACCESS_REFUSED"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_a_route_that_rabbitmq_refuses_leaves_its_neighbours_alone() {
    let broker = vhost().await;
    let (good, refused, missing) = (Recorder::new(), Recorder::new(), Recorder::new());
    let (connection, channel) = channel(&broker).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("classic".into(), durable, FieldTable::default()).await.expect("a queue");
    let routes = vec![
        Route::named("good", "q", &good),
        Route::named("refused", "classic", &refused),
        Route::with("missing", json!({ "queue": "none", "declare": false }), &missing),
    ];
    let running = Running::start(&broker.url(), routes);
    is_up(&good).await;
    publish(&broker, &orders(0..100)).await;
    has(&good, 100, IN_TIME).await;
    assert!(!refused.up() && !missing.up());
    // What was wrong is put right, and they come by themselves.
    broker.delete_queue("classic").await;
    channel.queue_declare("none".into(), durable, FieldTable::default()).await.expect("a queue");
    is_up(&refused).await;
    is_up(&missing).await;
    publish(&broker, &orders(100..200)).await;
    has(&good, 200, IN_TIME).await;
    has(&refused, 100, IN_TIME).await;
    running.stop().await;
    drop(connection);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_another_kind_is_used_as_it_is() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let (connection, channel) = channel(&broker).await;
    let options = ExchangeDeclareOptions::default();
    let arguments = FieldTable::default();
    let declared =
        channel.exchange_declare("orders".into(), ExchangeKind::Fanout, options, arguments);
    declared.await.expect("an exchange");
    let running = Running::start(&broker.url(), vec![Route::new(&recorder)]);
    is_up(&recorder).await;
    publish(&broker, &orders(0..10)).await;
    has(&recorder, 10, IN_TIME).await;
    running.stop().await;
    drop(connection);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordered_queue_serves_one_of_two_gateways_and_then_the_other() {
    let broker = vhost().await;
    let (first, second) = (Recorder::new(), Recorder::new());
    let one = Running::start(&broker.url(), vec![Route::new(&first).ordered()]);
    is_up(&first).await;
    let other = Running::start(&broker.url(), vec![Route::new(&second).ordered()]);
    is_up(&second).await;
    publish(&broker, &orders(0..500)).await;
    has(&first, 500, IN_TIME).await;
    is_empty(&broker).await;
    assert_eq!(second.count(), 0);
    let active: Vec<bool> =
        broker.consumer_list("q").await.iter().map(|consumer| consumer.active).collect();
    assert_eq!(active.iter().filter(|active| **active).count(), 1, "{active:?}");
    one.stop().await;
    publish(&broker, &orders(500..600)).await;
    has(&second, 100, IN_TIME).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b22_large_messages_lower_the_prefetch_and_small_ones_raise_it() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let running = Running::start(&broker.url(), vec![Route::new(&recorder)]);
    is_up(&recorder).await;
    let prefetch = async |expected: std::ops::RangeInclusive<u64>| {
        eventually("the prefetch follows", IN_TIME, || async {
            let consumers = broker.consumer_list("q").await;
            let [consumer] = consumers.as_slice() else { return None };
            expected.contains(&consumer.prefetch).then_some(())
        })
        .await;
    };
    prefetch(4..=4).await; // 64 MiB of the largest allowed
    publish(&broker, &orders(0..1500)).await;
    has(&recorder, 1500, IN_TIME).await;
    prefetch(1000..=1000).await;
    let large = "x".repeat(4 << 20);
    let large: Vec<_> = (0..8).map(|n| Message::order(&format!("l-{n}"), &json!(large))).collect();
    publish(&broker, &large).await;
    has(&recorder, 1508, IN_TIME).await;
    prefetch(1..=16).await;
    is_empty(&broker).await;
    assert_eq!(recorder.count(), 1508, "no change of the prefetch made one come twice");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_or_too_large_is_handed_over_as_such_and_acked() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let config = json!({
        "bind": [{"exchange": "orders", "key": "#"}],
        "max_message": "1KiB",
    });
    let running = Running::start(&broker.url(), vec![Route::with("r", config, &recorder)]);
    is_up(&recorder).await;
    let message = |body: Vec<u8>| Message {
        key: "order.confirmed".to_owned(),
        content_type: "application/cloudevents+json",
        body,
    };
    publish(&broker, &[message(b"{".to_vec()), message(vec![b' '; 2000])]).await;
    eventually("both are there", IN_TIME, || async { (recorder.count() == 2).then_some(()) }).await;
    is_empty(&broker).await;
    let arrivals = recorder.arrivals.lock().clone();
    assert!(arrivals[0].is_err());
    let why = arrivals[1].as_ref().expect_err("too large");
    assert!(why.contains("2000") && why.contains("max_message"), "{why}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_is_published_or_the_reason_why_not_is_told() {
    let (broker, recorder) = (vhost().await, Recorder::new());
    let config = self::broker(&broker.url());
    let event = order_event("o-1");
    let missing = publish_once(&config, "orders", "order.confirmed", &event).await;
    let error = missing.expect_err("no exchange").to_string();
    assert!(error.contains("no exchange 'orders'"), "{error}");
    let bind = json!({ "bind": [{"exchange": "orders", "key": "order.#"}] });
    let running = Running::start(&broker.url(), vec![Route::with("r", bind, &recorder)]);
    is_up(&recorder).await;
    publish_once(&config, "orders", "order.confirmed", &event).await.expect("taken");
    has(&recorder, 1, IN_TIME).await;
    let arrived = recorder.arrivals.lock()[0].clone().expect("an event");
    assert_eq!(
        (arrived.id, arrived.kind, arrived.data),
        (event.id.clone(), event.kind.clone(), event.data.clone())
    );
    let unbound = publish_once(&config, "orders", "other", &event).await;
    assert!(matches!(unbound, Err(PublishError::Unroutable)), "{unbound:?}");
    let long = publish_once(&config, "orders", &"k".repeat(256), &event).await;
    assert!(long.expect_err("too long").to_string().contains("255"));
    running.stop().await;
}

/// Publishes on a connection of its own, as a gateway that does nothing else would.
async fn publish_once(
    config: &BrokerConfig,
    exchange: &str,
    key: &str,
    event: &Event,
) -> Result<(), PublishError> {
    let publisher = rabbitmq::Publisher::new(&Server::new(Broker::new(config).expect("a broker")));
    let (handle, stop) = (publisher.handle(), CancellationToken::new());
    let running = tokio::spawn(publisher.run(stop.clone()));
    let published = handle.publish(exchange, key, event.clone()).await;
    stop.cancel();
    running.await.expect("it stops");
    published
}

fn order_event(id: &str) -> Event {
    Event {
        id: id.to_owned(),
        source: "/orders".to_owned(),
        kind: "order.confirmed.v1".to_owned(),
        subject: None,
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: Data::Json(r#"{"total":12.50}"#.into()),
    }
}

async fn channel(broker: &Vhost) -> (Connection, lapin::Channel) {
    let url = broker.url();
    let connection = Connection::connect(&url, ConnectionProperties::default());
    let connection = connection.await.expect("the test's own node");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}
