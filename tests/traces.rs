//! Traces: one id from the message that comes in to the API, the event and the collector.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tidegate_tests::{
    Api, Collector, Gateway,
    amqp::{Message, Publisher, Subscriber},
    eventually,
    gateway::client,
    rabbitmq::Node,
};
use tokio::time::Instant;

const IN_TIME: Duration = Duration::from_secs(60);

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SENDER: &str = "b7ad6b7169203331";

/// In the upstream's query, in a header, and in the sender's query.
const SECRET: &str = "s3cr3t-of-some-length";

fn yaml(broker: &str, api: &str, collector: &str, sample: &str) -> String {
    format!(
        "\
broker: {{ rabbitmq: {{ url: '{broker}' }} }}
telemetry: {{ otlp: '{collector}', sample: {sample} }}
shutdown: {{ drain: 10s }}
upstreams:
  loyalty:
    url: {api}/v2
    egress: {{ allow: [127.0.0.0/8] }}
    auth: {{ bearer: {SECRET}, query: {{ api_key: {SECRET}-too }} }}
    retry: {{ initial_delay: 50ms }}
routes:
  award-points:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to:
      http:
        upstream: loyalty
        path: '/members/{{.data.customerId}}/points'
        query: {{ of: '{{.data.customerId}}' }}
    reply: {{ exchange: replies, event: {{ type: points.awarded }} }}
  hooks:
    from: {{ webhook: {{ path: /hooks/x, verify: {{ none: {{}} }}, event: {{ type: hooked }} }} }}
    to: {{ rabbitmq: {{ exchange: hooked, key: '{{.type}}' }} }}
"
    )
}

/// The span of `kind` in `trace` whose attribute `name` is `value`.
fn find<'a>(
    spans: &'a [Value],
    trace: &str,
    kind: &str,
    name: &str,
    value: Value,
) -> Option<&'a Value> {
    spans.iter().find(|span| {
        span["trace"] == trace && span["kind"] == kind && span["attributes"][name] == value
    })
}

async fn bound(broker: &tidegate_tests::rabbitmq::Vhost) {
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
}

fn order() -> Message {
    Message::order("order-1", &json!({ "customerId": "c-7", "total": 1 }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_goes_from_the_message_to_the_api_the_reply_and_the_collector() {
    let broker = Node::shared().await.vhost().await;
    let replies = Subscriber::start(&broker.url(), "replies", "replies", "#").await;
    let collector = Collector::start().await;
    let api = Api::with(|api| {
        api.script = vec![tidegate::mock::AnswerConfig::status(503)];
    })
    .await;
    // Nothing that begins here is recorded; what its sender records is.
    let gateway = Gateway::start(&yaml(&broker.url(), &api.url(), collector.url(), "0")).await;
    bound(&broker).await;
    let parent = format!("00-{TRACE}-{SENDER}-01");
    let headers = [("traceparent", &*parent), ("tracestate", "vendor=1")];
    Publisher::connect(&broker.url()).await.publish_with("orders", &order(), &headers).await;
    eventually("the reply has arrived", IN_TIME, || async { (replies.count() == 1).then_some(()) })
        .await;
    let spans = eventually("all spans have arrived", IN_TIME, || async {
        let spans = collector.spans();
        (spans.len() >= 4).then_some(spans)
    })
    .await;
    assert_eq!(spans.len(), 4, "intake, two attempts, the reply: {spans:#?}");
    assert!(spans.iter().all(|span| span["trace"] == TRACE), "{spans:#?}");
    assert!(spans.iter().all(|span| span["resource"]["service.name"] == "tidegate"));
    assert!(spans.iter().all(|span| span["end"].as_u64() >= span["start"].as_u64()));

    let queue = json!("tidegate.award-points");
    let intake = find(&spans, TRACE, "CONSUMER", "messaging.destination.name", queue).unwrap();
    assert_eq!(intake["parent"], SENDER, "{intake:#}");
    assert_eq!(intake["name"], "process tidegate.award-points");
    assert_eq!(intake["state"], "vendor=1");
    let attributes = &intake["attributes"];
    assert_eq!(attributes["messaging.system"], "rabbitmq");
    assert_eq!(attributes["cloudevents.event_id"], "order-1");
    assert_eq!(attributes["tidegate.outcome"], "pending");

    let calls = api.requests();
    let first = find(&spans, TRACE, "CLIENT", "http.response.status_code", json!(503)).unwrap();
    let second = find(&spans, TRACE, "CLIENT", "http.response.status_code", json!(200)).unwrap();
    for (call, span) in calls.iter().zip([first, second]) {
        assert_eq!(span["parent"], intake["span"], "{span:#}");
        assert_eq!(span["name"], "POST /v2/members/{.data.customerId}/points");
        assert_eq!(span["attributes"]["server.address"], "127.0.0.1");
        let carried = format!("00-{TRACE}-{}-01", span["span"].as_str().unwrap());
        assert_eq!(call.headers["traceparent"], carried);
        assert_eq!(call.headers["tracestate"], "vendor=1");
    }
    assert_eq!(first["attributes"]["error.type"], "5xx");
    assert_eq!((&first["failed"], &second["failed"]), (&json!(true), &json!(false)));
    assert_eq!(first["attributes"]["http.request.resend_count"], Value::Null);
    assert_eq!(second["attributes"]["http.request.resend_count"], 1);
    assert_eq!(second["attributes"]["tidegate.outcome"], "delivered");

    let published =
        find(&spans, TRACE, "PRODUCER", "messaging.destination.name", json!("replies")).unwrap();
    assert_eq!(published["parent"], second["span"], "what came of that attempt");
    let carried = format!("00-{TRACE}-{}-01", published["span"].as_str().unwrap());
    let reply = &replies.taken()[0];
    assert_eq!(reply.header("traceparent"), Some(carried));
    assert_eq!(reply.header("tracestate").as_deref(), Some("vendor=1"));

    let said = Value::from(spans).to_string();
    for hidden in [SECRET, "c-7", "api_key", "customerId=", "total"] {
        assert!(!said.contains(hidden), "{hidden}: {said}");
    }
    let metrics = gateway.text("/metrics").await;
    assert!(metrics.contains("tidegate_spans_total{result=\"exported\"} 4"), "{metrics}");
    assert!(metrics.contains("tidegate_spans_total{result=\"dropped\"} 0"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_and_the_event_made_of_it_are_one_trace_that_begins_here_or_before() {
    let broker = Node::shared().await.vhost().await;
    let hooked = Subscriber::start(&broker.url(), "hooked", "hooked", "#").await;
    let collector = Collector::start().await;
    let api = Api::start().await;
    let gateway = Gateway::start(&yaml(&broker.url(), &api.url(), collector.url(), "1")).await;
    let url = format!("{}/hooks/x?token={SECRET}", gateway.webhooks().await);
    let parent = format!("00-{TRACE}-{SENDER}-01");
    for (n, parent) in [Some(&parent), None].into_iter().enumerate() {
        let mut request = client().post(&url).header("Content-Type", "application/json").body("1");
        if let Some(parent) = parent {
            request = request.header("traceparent", parent);
        }
        assert_eq!(request.send().await.expect("an answer").status(), StatusCode::ACCEPTED);
        let spans = eventually("its spans have arrived", IN_TIME, || async {
            let spans = collector.spans();
            (spans.len() == 2 * (n + 1) && hooked.taken().len() == n + 1).then_some(spans)
        })
        .await;
        // Which of the two ends first is a matter of luck.
        let of_kind = |kind: &str| spans[2 * n..].iter().find(|span| span["kind"] == kind);
        let [server, producer] = ["SERVER", "PRODUCER"].map(|kind| of_kind(kind).unwrap());
        assert_eq!(server["name"], "POST /hooks/x");
        let attributes = &server["attributes"];
        assert_eq!(attributes["http.route"], "/hooks/x");
        assert_eq!(attributes["url.path"], "/hooks/x");
        assert_eq!(attributes["http.response.status_code"], 202);
        assert_eq!(attributes["cloudevents.event_type"], "hooked");
        assert_eq!(server["parent"], if parent.is_some() { SENDER } else { "" });
        assert_eq!(producer["name"], "send hooked");
        assert_eq!(producer["attributes"]["messaging.rabbitmq.destination.routing_key"], "hooked");
        assert_eq!(producer["attributes"]["tidegate.route"], "hooks");
        assert_eq!(producer["parent"], server["span"]);
        assert_eq!(producer["trace"], server["trace"]);
        assert_eq!(parent.is_some(), server["trace"] == TRACE);
        let [trace, span] = ["trace", "span"].map(|name| producer[name].as_str().unwrap());
        let carried = format!("00-{trace}-{span}-01");
        assert_eq!(hooked.taken()[n].header("traceparent"), Some(carried));
    }
    assert!(!Value::from(collector.spans()).to_string().contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_hangs_or_is_not_there_slows_nothing() {
    // It takes connections and never says a word.
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let silent = format!("http://{}", hanging.local_addr().expect("bound"));
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let absent = format!("http://{}", free.local_addr().expect("bound"));
    drop(free);
    for url in [silent, absent] {
        let broker = Node::shared().await.vhost().await;
        let api = Api::start().await;
        let mut gateway = Gateway::start(&yaml(&broker.url(), &api.url(), &url, "1")).await;
        bound(&broker).await;
        let publisher = Publisher::connect(&broker.url()).await;
        let orders: Vec<_> = (0..3000)
            .map(|n| Message::order(&format!("o-{n}"), &json!({ "customerId": "c" })))
            .collect();
        // Three spans each, and room for so many less: some are dropped.
        publisher.publish("orders", &orders).await;
        eventually("all are delivered", IN_TIME, || async {
            (gateway.count("award-points", "delivered").await == 3000).then_some(())
        })
        .await;
        eventually("what has no room is dropped and counted", IN_TIME, || async {
            let metrics = gateway.text("/metrics").await;
            let dropped = metrics.lines().find(|line| line.contains("result=\"dropped\""))?;
            (!dropped.ends_with(" 0")).then_some(())
        })
        .await;
        let stopping = Instant::now();
        assert!(gateway.stop().await.success());
        assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
        let log = gateway.log();
        let told = log.matches("cannot export spans").count();
        assert!(told <= 1, "{told} times:\n{log}");
        assert!(log.contains("spans were dropped"), "{log}");
    }
}
