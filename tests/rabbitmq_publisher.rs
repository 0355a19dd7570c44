//! RabbitMQ as a target, alone: a real node and a real publisher. The mirror of
//! `rabbitmq_consumer.rs`.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    StreamExt as _,
    future::{BoxFuture, join_all},
    stream,
};
use lapin::{
    Connection, ConnectionProperties, ExchangeKind,
    options::{
        ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
        QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tidegate_adapters::{
    AttemptResult, Call, Data, DeadReason, Delivery, DeliveryId, Event, Failure, Gate, Receipt,
    Request, Timestamp, Verdict,
    expression::Input,
    rabbitmq::{
        Broker, BrokerConfig, ConnectionState, PublishHandle, PublishService, PublishTarget,
        Publisher, Server,
    },
    secret::Mask,
};
use tidegate_tests::{
    amqp::{Subscriber, Taken, bind},
    eventually,
    rabbitmq::{Node, Vhost},
};
use tokio::{
    io::AsyncReadExt as _, net::TcpListener, sync::watch, task::JoinHandle, time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const IN_TIME: Duration = Duration::from_secs(60);
const RESUMES: Duration = Duration::from_secs(10);
const RETRY: Verdict = Verdict::Retry { after: None };
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A publisher that runs until dropped or stopped.
struct Running {
    service: PublishService,
    handle: PublishHandle,
    state: Arc<ConnectionState>,
    flowing: watch::Receiver<bool>,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Running {
    fn start(url: &str) -> Self {
        let broker = json!({ "url": url, "heartbeat": "10s" });
        let broker: BrokerConfig = serde_json::from_value(broker).expect("a broker");
        let publisher =
            Publisher::new(&Server::new(Broker::new(&broker).expect("a good configuration")));
        let (service, handle) = (publisher.service(), publisher.handle());
        let (state, flowing) = (publisher.state(), publisher.flowing());
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(publisher.run(stop.clone())));
        Self { service, handle, state, flowing, stop, task }
    }

    async fn connected(url: &str) -> Self {
        let running = Self::start(url);
        running.flows(true, IN_TIME).await;
        running
    }

    async fn flows(&self, flows: bool, within: Duration) {
        let mut flowing = self.flowing.clone();
        let told = timeout(within, flowing.wait_for(|flowing| *flowing == flows)).await;
        told.expect("it is told in time").expect("the publisher runs");
    }

    fn publish(&self, event: Event, to: &Value) -> Publishing {
        let call = call(event, to).expect("it can be rendered");
        Box::pin(self.service.clone().oneshot(call))
    }

    /// Publishes as the gateway does: again until it is taken. Says how often it took.
    async fn insist(&self, event: Event, to: &Value) -> u32 {
        let mut tries = 0;
        eventually("it is taken", IN_TIME, || {
            tries += 1;
            let publishing = self.publish(event.clone(), to);
            async move { publishing.await.ok().map(drop) }
        })
        .await;
        tries
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

type Publishing = BoxFuture<'static, Result<Receipt, Failure>>;

/// Limits nothing.
#[derive(Debug)]
struct Open;

impl Gate for Open {
    fn pass(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn pass_again(&self) -> BoxFuture<'_, ()> {
        self.pass()
    }

    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

/// One attempt for `event`, rendered by a target with `changes` to the defaults.
fn call(event: Event, changes: &Value) -> Result<Call, Failure> {
    let mut config = json!({
        "exchange": "loyalty",
        "key": "{.type}",
        "envelope": "cloudevents",
        "on_unroutable": "retry",
    });
    for (key, value) in changes.as_object().expect("a map") {
        config[key] = value.clone();
    }
    let config = serde_json::from_value(config).expect("a target's configuration");
    let target = PublishTarget::new(&config, Mask::default()).expect("a good configuration");
    let event = Arc::new(event);
    let delivery = Arc::new(Delivery {
        id: DeliveryId(1),
        route: "r".into(),
        event: Arc::clone(&event),
        key: None,
        accepted_at: Timestamp(0),
        due_at: Timestamp(0),
        attempts: 0,
        tries: 0,
        first_attempt_at: None,
    });
    let request = target.prepare(&delivery, 1, &Input::event(event))?;
    let request = Request::Rabbitmq(request);
    Ok(Call { delivery, attempt: 1, request, gate: Arc::new(Open) })
}

fn event(id: &str) -> Event {
    Event {
        id: id.to_owned(),
        source: "/loyalty".to_owned(),
        kind: "loyalty.points".to_owned(),
        subject: None,
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: BTreeMap::new(),
        traceparent: tidegate_adapters::TraceContext::parse(TRACEPARENT),
        hops: 0,
        data: Data::Json(r#"{"total":12.50}"#.into()),
    }
}

fn events(numbers: std::ops::Range<usize>) -> impl Iterator<Item = Event> {
    numbers.map(|n| event(&format!("e-{n}")))
}

fn verdict(answer: Result<Receipt, Failure>) -> (Option<AttemptResult>, Option<Verdict>) {
    match answer {
        Ok(receipt) => (Some(receipt.result), None),
        Err(failure) => (failure.result, Some(failure.verdict)),
    }
}

async fn vhost() -> Vhost {
    Node::shared().await.vhost().await
}

async fn channel(broker: &Vhost) -> (Connection, lapin::Channel) {
    let url = broker.url();
    let connection = Connection::connect(&url, ConnectionProperties::default());
    let connection = connection.await.expect("the test's own node");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}

/// A durable exchange of any kind that nobody but RabbitMQ itself may publish to.
async fn internal_exchange(channel: &lapin::Channel, name: &str) {
    let options = ExchangeDeclareOptions { durable: true, internal: true, ..Default::default() };
    let declared =
        channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default());
    declared.await.expect("an exchange");
}

async fn arrived(subscriber: &Subscriber, different: u64) {
    eventually("all have arrived", IN_TIME, || async {
        (subscriber.different() == different).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_messages_arrive_once_each_with_their_properties() {
    const EVENTS: usize = 10_000;
    let broker = vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let running = Running::connected(&broker.url()).await;
    assert!(running.state.connected() && !running.state.blocked());
    let to = json!({ "headers": { "x-total": "{.data.total}", "x-none": "{.data.none}" } });
    let answers = stream::iter(events(0..EVENTS)).map(|event| running.publish(event, &to));
    let answers: Vec<_> = answers.buffer_unordered(1024).collect().await;
    for answer in answers {
        assert_eq!(verdict(answer), (Some(AttemptResult::Success), None));
    }
    arrived(&subscriber, EVENTS as u64).await;
    let taken = subscriber.taken();
    assert_eq!(taken.len(), EVENTS, "each exactly once");
    let first = &taken[0];
    let properties = &first.properties;
    assert_eq!(first.key, "loyalty.points");
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    assert_eq!(
        properties.content_type().as_ref().unwrap().as_str(),
        "application/cloudevents+json"
    );
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "loyalty.points");
    assert!(properties.timestamp().is_some());
    assert_eq!(first.header("traceparent").unwrap(), TRACEPARENT);
    assert_eq!(first.header("x-total").unwrap(), "12.50");
    assert_eq!(first.header("x-none"), None);
    assert_eq!(first.json()["id"], first.id());
    assert!(String::from_utf8_lossy(&first.body).contains(r#""data":{"total":12.50}"#));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b8_each_message_is_answered_for_itself_when_others_are_unroutable() {
    let broker = vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let running = Running::connected(&broker.url()).await;
    let (bound, unbound) = (json!({}), json!({ "key": "nobody.{.id}" }));
    let answers = stream::iter(events(0..3000).enumerate())
        .map(|(n, event)| {
            let publishing = running.publish(event, if n % 3 == 0 { &unbound } else { &bound });
            async move { (n, publishing.await) }
        })
        .buffer_unordered(600);
    let answers: Vec<_> = answers.collect().await;
    for (n, answer) in answers {
        let expected = match n % 3 {
            0 => (Some(AttemptResult::Unroutable), Some(RETRY)),
            _ => (Some(AttemptResult::Success), None),
        };
        assert_eq!(verdict(answer), expected, "number {n}");
    }
    arrived(&subscriber, 2000).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b8_what_nothing_is_bound_for_is_retried_or_dead_or_dropped() {
    let broker = vhost().await;
    let running = Running::connected(&broker.url()).await;
    let cases = [
        ("retry", Some(RETRY)),
        ("dead", Some(Verdict::Dead(DeadReason::Unroutable))),
        ("drop", None),
    ];
    for (on_unroutable, expected) in cases {
        let to = json!({ "on_unroutable": on_unroutable });
        let answer = running.publish(event("e-1"), &to).await;
        let unroutable = Some(AttemptResult::Unroutable);
        assert_eq!(verdict(answer), (unroutable, expected), "{on_unroutable}");
    }
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let receipt = running.publish(event("e-1"), &json!({})).await.expect("something is bound now");
    let record = receipt.exchange.request;
    assert!(record.starts_with("PUBLISH loyalty loyalty.points\nmessage_id: e-1\n"), "{record}");
    arrived(&subscriber, 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_what_a_full_queue_refuses_is_taken_once_there_is_room() {
    let broker = vhost().await;
    let (connection, channel) = channel(&broker).await;
    let running = Running::connected(&broker.url()).await;
    let answer = running.publish(event("e-0"), &json!({ "on_unroutable": "drop" })).await;
    answer.expect("it declares the exchange");
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("small".into(), durable, arguments).await.expect("a queue");
    let none = FieldTable::default();
    let bound = channel.queue_bind(
        "small".into(),
        "loyalty".into(),
        "#".into(),
        QueueBindOptions::default(),
        none,
    );
    bound.await.expect("bound");
    running.publish(event("e-1"), &json!({})).await.expect("there is room for one");
    let full = running.publish(event("e-2"), &json!({})).await;
    assert_eq!(verdict(full), (Some(AttemptResult::Nack), Some(RETRY)));
    channel.queue_purge("small".into(), QueuePurgeOptions::default()).await.expect("purged");
    running.publish(event("e-2"), &json!({})).await.expect("there is room again");
    running.stop().await;
    drop(connection);
}

#[tokio::test]
async fn two_messages_of_one_id_are_both_answered_though_nothing_follows() {
    let broker = vhost().await;
    bind(&broker.url(), "points", "loyalty", "loyalty.points").await;
    let running = Running::connected(&broker.url()).await;
    // Two routes publish the same event, one of them for nobody; all are there before the first
    // goes out, since this runtime does one thing at a time.
    let (bound, unbound) = (json!({}), json!({ "key": "nobody" }));
    for _ in 0..5 {
        let targets = [&bound, &unbound, &bound, &unbound];
        let calls = join_all(targets.map(|to| running.publish(event("e-1"), to)));
        let answers = timeout(Duration::from_secs(15), calls).await.expect("all are answered");
        let results: Vec<_> = answers.into_iter().map(|answer| verdict(answer).0).collect();
        let (taken, returned) = (Some(AttemptResult::Success), Some(AttemptResult::Unroutable));
        assert_eq!(results, [taken, returned, taken, returned]);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b3_connections_closed_under_way_lose_nothing() {
    const EVENTS: usize = 5_000;
    let broker = vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let running = Running::connected(&broker.url()).await;
    let to = json!({});
    let publishing = stream::iter(events(0..EVENTS))
        .map(|event| running.insist(event, &to))
        .buffer_unordered(64)
        .collect::<Vec<_>>();
    let closing = async {
        for share in 1..=4 {
            eventually("some were answered", IN_TIME, || async {
                (broker.messages("points").await + subscriber.count() >= share * 500).then_some(())
            })
            .await;
            broker.close_connections().await;
        }
    };
    let (tries, ()) = tokio::join!(publishing, closing);
    assert_eq!(tries.len(), EVENTS);
    // The test's own connection was closed as well.
    let again = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    eventually("none is lost", IN_TIME, || async {
        let taken = [subscriber.taken(), again.taken()].concat();
        let ids: HashSet<_> = taken.iter().map(Taken::id).collect();
        (ids.len() == EVENTS).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b4_an_alarm_makes_publishing_wait_and_costs_no_attempt() {
    let node = Node::start().await;
    bind(&node.url(), "points", "loyalty", "loyalty.#").await;
    let running = Running::connected(&node.url()).await;
    running.publish(event("e-0"), &json!({})).await.expect("taken");
    node.set_memory_alarm(true).await;
    let waiting = tokio::spawn(running.publish(event("e-1"), &json!({})));
    running.flows(false, IN_TIME).await;
    assert!(running.state.connected() && running.state.blocked());
    let told = running.handle.publish("loyalty", "loyalty.points", event("e-2")).await;
    let told = told.expect_err("it is blocked").to_string();
    assert!(told.contains("alarm"), "{told}");
    assert!(!waiting.is_finished(), "waiting is no failure");
    node.set_memory_alarm(false).await;
    running.flows(true, RESUMES).await;
    let answer = timeout(RESUMES, waiting).await.expect("in time").expect("no panic");
    assert_eq!(verdict(answer), (Some(AttemptResult::Success), None));
    assert_eq!(node.messages("points").await, 2, "each once");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b9_an_exchange_that_is_deleted_under_way_is_declared_again() {
    let broker = vhost().await;
    let running = Running::connected(&broker.url()).await;
    let to = json!({ "on_unroutable": "drop" });
    running.publish(event("e-1"), &to).await.expect("it is declared when missing");
    let (connection, channel) = channel(&broker).await;
    let options = ExchangeDeleteOptions::default();
    channel.exchange_delete("loyalty".into(), options).await.expect("deleted");
    running.insist(event("e-2"), &to).await;
    running.publish(event("e-3"), &to).await.expect("it is there again");
    running.stop().await;
    drop(connection);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_of_another_kind_is_used_as_it_is() {
    let broker = vhost().await;
    let (connection, channel) = channel(&broker).await;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let none = FieldTable::default;
    let fanout = channel.exchange_declare("all".into(), ExchangeKind::Fanout, durable, none());
    fanout.await.expect("an exchange");
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare("points".into(), durable, none()).await.expect("a queue");
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind("points".into(), "all".into(), "".into(), options, none());
    bound.await.expect("bound");
    let running = Running::connected(&broker.url()).await;
    let answer = running.publish(event("e-1"), &json!({ "exchange": "all", "key": "any" })).await;
    assert_eq!(verdict(answer), (Some(AttemptResult::Success), None));
    running.stop().await;
    drop(connection);
}

#[tokio::test]
async fn b9_a_route_that_rabbitmq_refuses_leaves_its_neighbours_alone() {
    let broker = vhost().await;
    bind(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let (connection, channel) = channel(&broker).await;
    internal_exchange(&channel, "internal").await;
    let running = Running::connected(&broker.url()).await;
    let (good, refused) = (json!({}), json!({ "exchange": "internal" }));
    for round in 0..5 {
        let calls = events(round * 100..(round + 1) * 100).enumerate().map(|(n, event)| {
            let publishing = running.publish(event, if n % 10 == 0 { &refused } else { &good });
            async move { (n, publishing.await) }
        });
        for (n, answer) in join_all(calls).await {
            let (result, verdict) = verdict(answer);
            match n % 10 {
                0 => assert_eq!(verdict, Some(RETRY), "it may be allowed one day"),
                _ => assert_eq!(result, Some(AttemptResult::Success), "number {n}"),
            }
        }
    }
    assert_eq!(broker.messages("points").await, 450, "each once");
    running.stop().await;
    drop(connection);
}

#[tokio::test]
async fn a_message_that_is_too_large_for_rabbitmq_is_dead_and_the_next_ones_flow() {
    let node = Node::start().await;
    node.eval("application:set_env(rabbit, max_message_size, 100000).").await;
    bind(&node.url(), "points", "loyalty", "loyalty.#").await;
    let running = Running::connected(&node.url()).await;
    let mut large = event("large");
    large.data = Data::Json(json!("x".repeat(200_000)).to_string().into());
    let to = json!({});
    let (answer, small) =
        tokio::join!(running.publish(large, &to), running.insist(event("e-1"), &to));
    let failure = answer.expect_err("too large");
    assert_eq!(failure.result, Some(AttemptResult::Oversize), "{}", failure.detail);
    assert_eq!(failure.verdict, Verdict::Dead(DeadReason::Rejected));
    assert!(failure.detail.contains("100000"), "{}", failure.detail);
    assert!(small <= 2, "it shared a window with it once at most");
    running.publish(event("e-2"), &to).await.expect("it flows");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b16_headers_that_no_frame_holds_are_dead_and_never_sent() {
    let broker = vhost().await;
    bind(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let running = Running::connected(&broker.url()).await;
    let mut large = event("large");
    for name in ["one", "two", "three"] {
        large.extensions.insert(name.to_owned(), "x".repeat(60_000).into());
    }
    let binary = json!({ "envelope": "cloudevents-binary" });
    let cases = [(large.clone(), binary), (large, json!({ "headers": { "x-all": "{tojson}" } }))];
    for (event, to) in cases {
        // It may be told when it is rendered or when it is written.
        let failure = match call(event, &to) {
            Ok(call) => running.service.clone().oneshot(call).await.expect_err("too large"),
            Err(failure) => failure,
        };
        assert_eq!(failure.result, None, "{}", failure.detail);
        assert_eq!(failure.verdict, Verdict::Dead(DeadReason::Expression));
        assert!(failure.detail.contains("headers"), "{}", failure.detail);
    }
    assert!(running.state.connected(), "the connection was not asked to carry them");
    running.publish(event("e-1"), &json!({})).await.expect("it flows");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b2_a_broker_that_answers_nothing_is_hung_up_on_and_tried_again() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("amqp://guest:guest@{}/", silent.local_addr().expect("bound"));
    let running = Running::start(&url);
    for _ in 0..2 {
        let accepted = timeout(Duration::from_secs(20), silent.accept()).await;
        let (mut peer, _) = accepted.expect("it tries").expect("a connection");
        let mut said = Vec::new();
        let hung_up = timeout(Duration::from_secs(20), peer.read_to_end(&mut said)).await;
        hung_up.expect("it hangs up").expect("and does so politely");
        assert_eq!(said, b"AMQP\x00\x00\x09\x01");
    }
    assert!(!running.state.connected() && !*running.flowing.borrow());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_under_way() {
    let broker = vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let running = Running::connected(&broker.url()).await;
    let to = json!({});
    let calls: Vec<_> =
        events(0..2000).map(|event| tokio::spawn(running.publish(event, &to))).collect();
    eventually("some are there", IN_TIME, || async { (subscriber.count() > 0).then_some(()) })
        .await;
    running.stop().await;
    let mut taken = 0;
    for call in calls {
        match verdict(call.await.expect("no panic")) {
            (Some(AttemptResult::Success), None) => taken += 1,
            // What was not sent is no attempt.
            (None, Some(RETRY)) => {}
            other => panic!("{other:?}"),
        }
    }
    arrived(&subscriber, taken).await;
    assert_eq!(subscriber.count(), taken, "what was answered, and nothing else");
}
