//! The first direction, end to end: RabbitMQ → queue → third-party API, on the real binary and a
//! real RabbitMQ node.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use serde_json::{Value, json};
use tidegate::mock::Recorded;
use tidegate_tests::{
    Api, Gateway,
    amqp::{Message, Publisher},
    eventually,
    rabbitmq::Node,
};

const IN_TIME: Duration = Duration::from_secs(60);

/// One route from the exchange `orders` to `api`, with further keys of upstream and route.
pub(crate) fn one_route(broker: &str, api: &str, upstream: &str, route: &str) -> String {
    format!(
        "\
broker: {{ rabbitmq: {{ url: '{broker}' }} }}
upstreams:
  loyalty:
    url: {api}/v2
    egress: {{ allow: [127.0.0.0/8] }}
{upstream}
routes:
  award-points:
    from:
      rabbitmq:
        bind: [{{ exchange: orders, key: 'order.confirmed.#' }}]
{route}
    to:
      http:
        upstream: loyalty
        path: '/members/{{.data.customerId}}/points'
        body: '{{points: (.data.total | floor), reference: .id, n: .data.n}}'
"
    )
}

/// Order number `n` of customer `n % customers`.
pub(crate) fn order(n: u64, customers: u64) -> Message {
    let customer = format!("customer-{}", n % customers);
    let data = json!({ "customerId": customer, "total": 12.5, "n": n });
    Message::order(&format!("order-{n}"), &data)
}

/// For each path, the numbers it got, in the order it got them.
pub(crate) fn numbers_by_path(requests: &[Recorded]) -> BTreeMap<String, Vec<u64>> {
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in requests {
        let body: Value = serde_json::from_str(&request.body).expect("a mapped body");
        let n = body["n"].as_u64().expect("its number");
        numbers.entry(request.path.clone()).or_default().push(n);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_arrive_once_each_mapped_and_in_order_per_key() {
    const EVENTS: u64 = 10_000;
    const CUSTOMERS: u64 = 97;
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let yaml = one_route(&broker.url(), &api.url(), "", "    order_by: .data.customerId\n");
    let mut gateway = Gateway::start(&yaml).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    assert!(broker.is_quorum("tidegate.award-points").await);
    let messages: Vec<Message> = (0..EVENTS).map(|n| order(n, CUSTOMERS)).collect();
    Publisher::connect(&broker.url()).await.publish("orders", &messages).await;

    eventually("all have arrived", IN_TIME, || async { (api.count() >= EVENTS).then_some(()) })
        .await;
    eventually("nothing waits any more, here or in RabbitMQ", IN_TIME, || async {
        let ours = gateway.count("award-points", "pending").await;
        (ours == 0 && broker.messages("tidegate.award-points").await == 0).then_some(())
    })
    .await;
    assert!(gateway.stop().await.success());
    // The recorder keeps the last 10,000, so there is none besides.
    assert_eq!((api.count(), api.accepted()), (EVENTS, (EVENTS, 0)), "each exactly once");
    let requests = api.requests();
    for request in &requests {
        assert_eq!(request.method, "POST");
        assert_eq!(request.headers["content-type"], "application/json");
        let body: Value = serde_json::from_str(&request.body).expect("JSON");
        let n = body["n"].as_u64().expect("its number");
        assert_eq!(body, json!({ "points": 12, "reference": format!("order-{n}"), "n": n }));
        assert_eq!(request.path, format!("/v2/members/customer-{}/points", n % CUSTOMERS));
    }
    let by_path = numbers_by_path(&requests);
    assert_eq!(by_path.len() as u64, CUSTOMERS);
    for (path, numbers) in by_path {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{path}: {numbers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_killed_six_times_nothing_is_lost_and_repeats_are_few() {
    const EVENTS: u64 = 6_000;
    const CONCURRENCY: u64 = 16;
    let broker = Node::shared().await.vhost().await;
    let api = Api::with(|api| api.latency = Duration::from_millis(4)).await;
    let upstream = format!("    concurrency: {CONCURRENCY}\n");
    let yaml = one_route(&broker.url(), &api.url(), &upstream, "");
    let mut gateway = Gateway::start(&yaml).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let messages: Vec<Message> = (0..EVENTS).map(|n| order(n, 97)).collect();
    let url = broker.url();
    let publishing = tokio::spawn(async move {
        Publisher::connect(&url).await.publish("orders", &messages).await;
    });
    for kill in 1..=6 {
        eventually("some have arrived since the last kill", IN_TIME, || async {
            (api.accepted().0 >= kill * 800).then_some(())
        })
        .await;
        gateway.kill().await;
        let arrived = api.accepted().0;
        assert!(arrived < EVENTS, "it was killed in the middle");
        gateway.run().await;
        eventually("it goes on", IN_TIME, || async { (api.accepted().0 > arrived).then_some(()) })
            .await;
        let again = api.accepted().1;
        assert!(again <= kill * 2 * CONCURRENCY, "{again} repeats over {kill} kills");
    }
    publishing.await.expect("all were published");
    eventually("all have arrived", IN_TIME, || async {
        (api.accepted().0 >= EVENTS).then_some(())
    })
    .await;
    eventually("nothing waits any more", IN_TIME, || async {
        (gateway.count("award-points", "pending").await == 0).then_some(())
    })
    .await;
    let mut events: BTreeMap<u64, HashSet<String>> = BTreeMap::new();
    for request in api.requests() {
        let body: Value = serde_json::from_str(&request.body).expect("a mapped body");
        let n = body["n"].as_u64().expect("its number");
        let key = request.idempotency_key().expect("a key").to_owned();
        events.entry(n).or_default().insert(key);
    }
    assert!(events.keys().copied().eq(0..EVENTS), "none lost");
    assert!(events.values().all(|keys| keys.len() == 1), "a repeat has the key of the first");
    assert_eq!(api.accepted().0, EVENTS, "and a key means one event");
    let (_, again) = api.accepted();
    assert!(again <= 6 * 2 * CONCURRENCY, "{again} repeats over six kills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_waits_while_the_api_is_down_and_drains_when_it_is_back() {
    const EVENTS: u64 = 500;
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    api.set_down(true);
    let upstream = "    breaker: { failures: 5, open: 500ms, open_max: 500ms }\n    \
                    retry: { initial_delay: 200ms, max_delay: 500ms }\n";
    let yaml = one_route(&broker.url(), &api.url(), upstream, "");
    let gateway = Gateway::start(&yaml).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let messages: Vec<Message> = (0..EVENTS).map(|n| order(n, 10)).collect();
    Publisher::connect(&broker.url()).await.publish("orders", &messages).await;
    eventually("all are in our queue and RabbitMQ's is empty", IN_TIME, || async {
        let ours = gateway.count("award-points", "pending").await;
        (ours == EVENTS && broker.messages("tidegate.award-points").await == 0).then_some(())
    })
    .await;
    eventually("the breaker has opened", IN_TIME, || async {
        let status = gateway.get("/api/v1/upstreams/loyalty").await;
        (status["breaker"]["state"] != "closed").then_some(())
    })
    .await;
    api.set_down(false);
    eventually("all have arrived", IN_TIME, || async {
        (api.accepted().0 == EVENTS).then_some(())
    })
    .await;
    eventually("nothing waits and nothing died", IN_TIME, || async {
        (gateway.count("award-points", "pending").await == 0).then_some(())
    })
    .await;
    assert_eq!(gateway.count("award-points", "dead").await, 0, "nothing dies of waiting");
    assert_eq!(api.accepted().1, 0, "none was accepted twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b18_what_cannot_be_delivered_is_dead_with_a_reason_and_the_next_one_flows() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    // Harmless but for events that are made to have it double without end, or loop in loops.
    let when = "    when: |
      .data.total as $total
      | (reduce .data.double[]? as $x (\"xx\"; . + .)) as $text
      | [.data.loop[]? as $a | .data.loop[] as $b | .data.loop[] as $c | .data.loop[] as $d | 1]
      | $total > 0
";
    let yaml = one_route(&broker.url(), &api.url(), "", when);
    let gateway = Gateway::start(&yaml).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let publisher = Publisher::connect(&broker.url()).await;
    let many = vec![1; 500];
    let bad = |content_type, body: Vec<u8>| Message {
        key: "order.confirmed.v1".to_owned(),
        content_type,
        body,
    };
    let structured = "application/cloudevents+json";
    let open = vec![b'['; 10_000];
    let nested = [open.clone(), vec![b']'; 10_000]].concat();
    let messages = [
        bad(structured, b"{\"specversion\": \"1.0\"".to_vec()),
        bad(structured, open.clone()),
        bad(structured, nested.clone()),
        bad("application/json", open),
        bad("application/json", nested),
        bad("application/json", vec![b'x'; 20 << 20]),
        // No customer to put into the path, and one whose name would climb out of it.
        Message::order("no-customer", &json!({ "total": 1, "n": 1 })),
        Message::order("climber", &json!({ "customerId": "..", "total": 1, "n": 1 })),
        Message::order("doubling", &json!({ "customerId": "c", "total": 1, "double": many })),
        Message::order("looping", &json!({ "customerId": "c", "total": 1, "loop": many })),
        Message::order("unwanted", &json!({ "customerId": "c", "total": 0, "n": 1 })),
        order(7, 10),
    ];
    publisher.publish("orders", &messages).await;
    eventually("the good one arrives", IN_TIME, || async { (api.count() == 1).then_some(()) })
        .await;
    eventually("the others are dead", IN_TIME, || async {
        (gateway.count("award-points", "dead").await == 10).then_some(())
    })
    .await;
    eventually("all were acked", IN_TIME, || async {
        (broker.messages("tidegate.award-points").await == 0).then_some(())
    })
    .await;
    let dead = gateway.get("/api/v1/deliveries?state=dead").await;
    let mut reasons: Vec<&str> = dead["deliveries"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|delivery| delivery["reason"].as_str().expect("a reason"))
        .collect();
    reasons.sort_unstable();
    assert_eq!(reasons, [["expression"; 4].as_slice(), &["invalid"; 6]].concat());
    let metrics = gateway.text("/metrics").await;
    let filtered =
        r#"tidegate_deliveries_total{route="award-points",outcome="filtered",reason=""} 1"#;
    assert!(metrics.contains(filtered), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b22_d11_a_body_of_100_mb_is_dead_and_costs_no_more_than_itself() {
    const SIZE: usize = 100 << 20;
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), "", "")).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let publisher = Publisher::connect(&broker.url()).await;
    let mut body = vec![b'x'; SIZE];
    body[..4].copy_from_slice(b"head");
    let key = "order.confirmed.v1".to_owned();
    let huge = Message { key, content_type: "application/json", body };
    publisher.publish("orders", &[huge, order(7, 10)]).await;
    eventually("the next one arrives", IN_TIME, || async { (api.count() == 1).then_some(()) })
        .await;
    eventually("it was acked", IN_TIME, || async {
        (broker.messages("tidegate.award-points").await == 0).then_some(())
    })
    .await;
    let dead = gateway.get("/api/v1/deliveries?state=dead").await;
    let dead = dead["deliveries"].as_array().expect("a list");
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0]["reason"], "invalid");
    let id = dead[0]["id"].as_str().expect("an id");
    let shown = gateway.get(&format!("/api/v1/deliveries/{id}")).await;
    let kept = shown["raw_base64"].as_str().expect("the raw bytes");
    assert_eq!(kept.len(), (64_usize << 10).div_ceil(3) * 4, "64 KiB of it, as Base64");
    assert!(kept.starts_with("aGVhZHh4"), "its head: {}", &kept[..16]);
    assert_eq!(shown["about"]["size"], SIZE);
    // Once in memory, in a buffer of its own size, beside what the process takes anyway, which is
    // some 30 MiB. A second copy of it would not fit.
    let peak = gateway.peak_memory() >> 20;
    assert!(peak < 200, "{peak} MiB resident at most");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_event_is_enqueued_once() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), "", "")).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let publisher = Publisher::connect(&broker.url()).await;
    publisher.publish("orders", &[order(1, 10), order(1, 10), order(2, 10)]).await;
    publisher.publish("orders", &[order(1, 10), order(3, 10)]).await;
    eventually("three have arrived", IN_TIME, || async { (api.count() == 3).then_some(()) }).await;
    let repeats = r#"tidegate_events_duplicate_total{route="award-points"} 2"#;
    eventually("two were repeats", IN_TIME, || async {
        gateway.text("/metrics").await.contains(repeats).then_some(())
    })
    .await;
    assert_eq!(api.count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_stop_under_load_it_ends_with_0_and_repeats_nothing() {
    const EVENTS: u64 = 2_000;
    let broker = Node::shared().await.vhost().await;
    let api = Api::with(|api| api.latency = Duration::from_millis(10)).await;
    let yaml = one_route(&broker.url(), &api.url(), "    concurrency: 16\n", "");
    let mut gateway = Gateway::start(&yaml).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let messages: Vec<Message> = (0..EVENTS).map(|n| order(n, 10)).collect();
    Publisher::connect(&broker.url()).await.publish("orders", &messages).await;
    eventually("it is in full swing", IN_TIME, || async { (api.count() > 100).then_some(()) })
        .await;
    assert!(gateway.stop().await.success());
    let before = api.accepted().0;
    assert!(before < EVENTS, "it was stopped in the middle");
    gateway.run().await;
    eventually("all have arrived", IN_TIME, || async {
        (api.accepted().0 == EVENTS).then_some(())
    })
    .await;
    assert_eq!(api.accepted().1, 0, "none twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_on_a_full_disk_intake_pauses_deliveries_go_on_and_it_heals() {
    const EVENTS: u64 = 160;
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    api.set_down(true);
    let upstream = "    breaker: { failures: 5, open: 500ms, open_max: 500ms }\n    \
                    retry: { initial_delay: 200ms, max_delay: 500ms }\n";
    let mut gateway = Gateway::new(&one_route(&broker.url(), &api.url(), upstream, ""));
    gateway.set_disk("40m");
    gateway.run().await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    // 40 MiB of events for a disk of 40 MiB, of which much is taken up already.
    let filler = "x".repeat(256 << 10);
    let large = |n: u64| {
        let data = json!({ "customerId": "c", "total": 1, "n": n, "filler": filler });
        Message::order(&format!("large-{n}"), &data)
    };
    let messages: Vec<Message> = (0..EVENTS).map(large).collect();
    Publisher::connect(&broker.url()).await.publish("orders", &messages).await;
    eventually("it says that it is full", IN_TIME, || async {
        (gateway.get("/readyz").await["components"]["queue"] == "full").then_some(())
    })
    .await;
    let taken = gateway.count("award-points", "pending").await;
    assert!(taken < EVENTS, "all {EVENTS} fitted: the disk is not full");
    assert!(gateway.text("/readyz").await.contains("\"ready\":true"), "it is alive and ready");
    api.set_down(false);
    eventually("everything has arrived by itself", IN_TIME, || async {
        (api.accepted().0 == EVENTS).then_some(())
    })
    .await;
    assert_eq!(gateway.count("award-points", "dead").await, 0);
    assert_eq!(broker.messages("tidegate.award-points").await, 0);
}
