//! The second direction, end to end: webhooks → queue → RabbitMQ, on the real binary and a real
//! RabbitMQ node. The mirror of `events_to_apis.rs`: the same names in the same order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tidegate_tests::{
    Gateway,
    amqp::{Subscriber, Taken, bind},
    eventually,
    gateway::client,
    rabbitmq::Node,
};
use tokio::task::JoinSet;

const IN_TIME: Duration = Duration::from_secs(60);
const KEY: &str = "canary-api-key-77";

/// One route from the path `/hooks/loyalty` to the exchange `loyalty`, with further keys of webhook
/// and route.
pub(crate) fn one_webhook(broker: &str, webhook: &str, route: &str) -> String {
    format!(
        "\
broker: {{ rabbitmq: {{ url: '{broker}' }} }}
routes:
  loyalty-webhooks:
    from:
      webhook:
        path: /hooks/loyalty
        verify: {{ api_key: {{ header: X-Api-Key, keys: [{KEY}] }} }}
        event:
          id: '{{.body.id}}'
          source: /loyalty
          type: 'loyalty.{{.body.type}}.v1'
          subject: '{{.body.customer}}'
          data: .body.data
{webhook}
{route}
    to:
      rabbitmq:
        exchange: loyalty
"
    )
}

/// Webhook number `n`, of customer `n % customers`.
pub(crate) fn points(n: u64, customers: u64) -> Value {
    json!({
        "id": format!("msg-{n}"),
        "type": "points-awarded",
        "customer": format!("customer-{}", n % customers),
        "data": { "n": n, "points": 12.50 },
    })
}

/// Sends one webhook; its status and body.
pub(crate) async fn send(base: &str, body: &Value) -> reqwest::Result<(StatusCode, Value)> {
    let request = client().post(format!("{base}/hooks/loyalty"));
    let answer = request
        .header("X-Api-Key", KEY)
        .header("Content-Type", "application/json")
        // As the provider writes it: numbers in its own words.
        .body(body.to_string().replace("12.5", "12.50"))
        .send()
        .await?;
    let status = answer.status();
    let text = answer.text().await?;
    Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
}

/// Sends all, `at_once` at a time, as a provider does: until each is answered 2xx. What the gateway
/// says about its address is asked anew each time, for it may have been started again.
async fn send_all(gateway: &tokio::sync::RwLock<Gateway>, events: u64, at_once: usize) {
    futures_util::StreamExt::for_each_concurrent(
        futures_util::stream::iter(0..events),
        at_once,
        |n| async move {
            eventually("the webhook is taken", IN_TIME, || async {
                let base = gateway.read().await.webhooks().await;
                let answer = send(&base, &points(n, 97)).await;
                answer.is_ok_and(|(status, _)| status.is_success()).then_some(())
            })
            .await;
        },
    )
    .await;
}

/// For each subject, the numbers it got, in the order it got them.
fn numbers_by_subject(taken: &[Taken]) -> BTreeMap<String, Vec<u64>> {
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for message in taken {
        let event = message.json();
        let subject = event["subject"].as_str().expect("a subject").to_owned();
        numbers.entry(subject).or_default().push(event["data"]["n"].as_u64().expect("its number"));
    }
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_events_arrive_once_each_mapped_and_in_order_per_key() {
    const EVENTS: u64 = 10_000;
    const CUSTOMERS: u64 = 16;
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let yaml = one_webhook(&broker.url(), "", "    order_by: .subject\n");
    let mut gateway = Gateway::start(&yaml).await;
    let base = gateway.webhooks().await;
    // One sender a customer, each waiting for its answer: that is the order we say yes in.
    let mut senders = JoinSet::new();
    for customer in 0..CUSTOMERS {
        let base = base.clone();
        senders.spawn(async move {
            for n in (customer..EVENTS).step_by(CUSTOMERS as usize) {
                let (status, answer) = send(&base, &points(n, CUSTOMERS)).await.expect("an answer");
                assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
                assert_eq!(answer, json!({ "id": format!("msg-{n}") }));
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.expect("all were answered 202");
    }
    eventually("all have arrived", IN_TIME, || async {
        (subscriber.count() >= EVENTS).then_some(())
    })
    .await;
    eventually("nothing waits any more", IN_TIME, || async {
        (gateway.count("loyalty-webhooks", "pending").await == 0).then_some(())
    })
    .await;
    let taken = subscriber.taken();
    assert_eq!(taken.len() as u64, EVENTS, "each exactly once");
    let ids: HashSet<_> = taken.iter().map(Taken::id).collect();
    assert_eq!(ids.len() as u64, EVENTS, "each with an id of its own");
    for (subject, numbers) in numbers_by_subject(&taken) {
        assert!(numbers.is_sorted(), "{subject}: {numbers:?}");
        for n in numbers {
            assert_eq!(subject, format!("customer-{}", n % CUSTOMERS));
        }
    }
    let first = &taken[0];
    assert_eq!(first.key, "loyalty.points-awarded.v1");
    let properties = &first.properties;
    let content_type = properties.content_type().as_ref().map(ToString::to_string);
    assert_eq!(content_type.as_deref(), Some("application/cloudevents+json"));
    assert_eq!(*properties.delivery_mode(), Some(2), "persistent");
    let kind = properties.kind().as_ref().map(ToString::to_string);
    assert_eq!(kind.as_deref(), Some("loyalty.points-awarded.v1"));
    assert!(properties.timestamp().is_some());
    let text = String::from_utf8_lossy(&first.body).into_owned();
    assert!(text.contains("\"points\":12.50"), "numbers keep their text: {text}");
    let event = first.json();
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["source"], "/loyalty");
    assert_eq!(event["id"], first.id());
    assert!(gateway.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_killed_six_times_nothing_is_lost_and_repeats_are_few() {
    const EVENTS: u64 = 6_000;
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let gateway = Gateway::start(&one_webhook(&broker.url(), "", "")).await;
    let gateway = std::sync::Arc::new(tokio::sync::RwLock::new(gateway));
    let shared = std::sync::Arc::clone(&gateway);
    let sending = tokio::spawn(async move { send_all(&shared, EVENTS, 32).await });
    for kill in 1..=6 {
        eventually("some have arrived since the last kill", IN_TIME, || async {
            (subscriber.different() >= kill * 800).then_some(())
        })
        .await;
        let mut gateway = gateway.write().await;
        gateway.kill().await;
        gateway.run().await;
    }
    sending.await.expect("all were answered 202");
    eventually("all have arrived", IN_TIME, || async {
        (subscriber.different() >= EVENTS).then_some(())
    })
    .await;
    eventually("nothing waits any more", IN_TIME, || async {
        let gateway = gateway.read().await;
        (gateway.count("loyalty-webhooks", "pending").await == 0).then_some(())
    })
    .await;
    let mut by_id: HashMap<String, HashSet<Vec<u8>>> = HashMap::new();
    for message in subscriber.taken() {
        by_id.entry(message.id().to_owned()).or_default().insert(message.body);
    }
    assert_eq!(by_id.len() as u64, EVENTS, "none lost");
    assert!(by_id.values().all(|bodies| bodies.len() == 1), "an id means one event");
    let again = subscriber.count() - EVENTS;
    assert!(again <= 6 * 1024, "{again} repeats over six kills: more than were under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_waits_while_the_broker_is_down_and_drains_when_it_is_back() {
    const EVENTS: u64 = 1_000;
    let mut node = Node::start().await;
    bind(&node.url(), "points", "loyalty", "loyalty.#").await;
    node.kill().await;
    let gateway = Gateway::start(&one_webhook(&node.url(), "", "")).await;
    let gateway = tokio::sync::RwLock::new(gateway);
    send_all(&gateway, EVENTS, 32).await;
    let mut gateway = gateway.into_inner();
    assert_eq!(gateway.count("loyalty-webhooks", "pending").await, EVENTS);
    // Nor does it need the broker to start.
    gateway.kill().await;
    gateway.run().await;
    assert_eq!(gateway.count("loyalty-webhooks", "pending").await, EVENTS);
    let metrics = gateway.text("/metrics").await;
    let attempts = "tidegate_attempts_total{route=\"loyalty-webhooks\"";
    let tried = metrics.lines().filter(|line| line.starts_with(attempts) && !line.ends_with(" 0"));
    assert_eq!(tried.count(), 0, "waiting for the broker is no attempt: {metrics}");
    node.restart().await;
    eventually("all are there", Duration::from_secs(10), || async {
        (node.messages("points").await >= EVENTS).then_some(())
    })
    .await;
    let subscriber = Subscriber::start(&node.url(), "points", "loyalty", "loyalty.#").await;
    eventually("all have arrived", IN_TIME, || async {
        (subscriber.different() == EVENTS).then_some(())
    })
    .await;
    assert_eq!(subscriber.count(), EVENTS, "none came twice");
    assert_eq!(gateway.count("loyalty-webhooks", "dead").await, 0, "nothing dies of waiting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d11_what_cannot_be_delivered_is_dead_with_a_reason_and_the_next_one_flows() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let yaml = one_webhook(&broker.url(), "", "    when: .data.points > 0\n");
    let gateway = Gateway::start(&yaml).await;
    let base = gateway.webhooks().await;
    let raw = async |body: Vec<u8>, key: &str| {
        let request = client().post(format!("{base}/hooks/loyalty"));
        let request = request.header("X-Api-Key", key).header("Content-Type", "application/json");
        request.body(body).send().await.expect("an answer").status().as_u16()
    };
    // Not what its content type says it is: the sender is told, and nothing is kept.
    assert_eq!(raw(b"{\"id\": ".to_vec(), KEY).await, 400);
    assert_eq!(raw(vec![b'['; 100_000], KEY).await, 400);
    assert_eq!(raw(vec![b' '; 2 << 20], KEY).await, 413);
    assert_eq!(raw(points(1, 10).to_string().into_bytes(), "another").await, 401);
    // Genuine, and no event: sending it again would fail again.
    let (status, _) = send(&base, &json!({ "id": "no-type" })).await.expect("an answer");
    assert_eq!(status, StatusCode::ACCEPTED);
    let unwanted = json!({ "id": "u", "type": "t", "customer": "c", "data": { "points": 0 } });
    assert_eq!(send(&base, &unwanted).await.expect("an answer").0, StatusCode::ACCEPTED);
    let failing = json!({ "id": "f", "type": "t", "customer": "c", "data": 7 });
    assert_eq!(send(&base, &failing).await.expect("an answer").0, StatusCode::ACCEPTED);
    assert_eq!(send(&base, &points(7, 10)).await.expect("an answer").0, StatusCode::ACCEPTED);
    eventually("the good one arrives", IN_TIME, || async {
        (subscriber.count() == 1).then_some(())
    })
    .await;
    eventually("the others are dead", IN_TIME, || async {
        (gateway.count("loyalty-webhooks", "dead").await == 2).then_some(())
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
    assert_eq!(reasons, ["expression", "invalid"]);
    let metrics = gateway.text("/metrics").await;
    for line in [
        r#"tidegate_deliveries_total{route="loyalty-webhooks",outcome="filtered",reason=""} 1"#,
        r#"tidegate_events_rejected_total{route="loyalty-webhooks",reason="malformed"} 2"#,
        r#"tidegate_events_rejected_total{route="loyalty-webhooks",reason="unauthorized"} 1"#,
        r#"tidegate_events_rejected_total{route="loyalty-webhooks",reason="too_large"} 1"#,
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    assert_eq!(subscriber.count(), 1, "nothing malformed is published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_event_is_enqueued_once() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let mut gateway = Gateway::start(&one_webhook(&broker.url(), "", "")).await;
    let mut duplicates = 0;
    for n in [1, 1, 2, 1, 3] {
        let request = client().post(format!("{}/hooks/loyalty", gateway.webhooks().await));
        let request = request.header("X-Api-Key", KEY).header("Content-Type", "application/json");
        let answer = request.body(points(n, 10).to_string()).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        duplicates += u64::from(
            answer.headers().get("tidegate-duplicate").is_some_and(|value| value == "true"),
        );
        let answer = answer.text().await.expect("a body");
        assert_eq!(answer, format!("{{\"id\":\"msg-{n}\"}}"), "a repeat is answered alike");
    }
    assert_eq!(duplicates, 2);
    eventually("three have arrived", IN_TIME, || async { (subscriber.count() == 3).then_some(()) })
        .await;
    let repeats = r#"tidegate_events_duplicate_total{route="loyalty-webhooks"} 2"#;
    assert!(gateway.text("/metrics").await.contains(repeats));
    gateway.kill().await;
    gateway.run().await;
    let base = gateway.webhooks().await;
    send(&base, &points(1, 10)).await.expect("an answer");
    send(&base, &points(4, 10)).await.expect("an answer");
    eventually("the fourth has arrived", IN_TIME, || async {
        (subscriber.different() == 4).then_some(())
    })
    .await;
    assert_eq!(subscriber.count(), 4, "the window outlives a crash");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asked_to_stop_under_load_it_ends_with_0_and_repeats_nothing() {
    const EVENTS: u64 = 2_000;
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let gateway = Gateway::start(&one_webhook(&broker.url(), "", "")).await;
    let gateway = std::sync::Arc::new(tokio::sync::RwLock::new(gateway));
    let shared = std::sync::Arc::clone(&gateway);
    let sending = tokio::spawn(async move { send_all(&shared, EVENTS, 16).await });
    eventually("it is in full swing", IN_TIME, || async {
        (subscriber.count() > 100).then_some(())
    })
    .await;
    {
        let mut gateway = gateway.write().await;
        assert!(gateway.stop().await.success());
        gateway.run().await;
    }
    sending.await.expect("all were answered 202");
    eventually("all have arrived", IN_TIME, || async {
        (subscriber.different() == EVENTS).then_some(())
    })
    .await;
    assert_eq!(subscriber.count(), EVENTS, "none twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d1_on_a_full_disk_intake_pauses_deliveries_go_on_and_it_heals() {
    const EVENTS: u64 = 160;
    let mut node = Node::start().await;
    bind(&node.url(), "points", "loyalty", "loyalty.#").await;
    node.kill().await;
    let mut gateway = Gateway::new(&one_webhook(&node.url(), "", ""));
    gateway.set_disk("40m");
    gateway.run().await;
    let base = gateway.webhooks().await;
    // 40 MiB of events for a disk of 40 MiB, of which much is taken up already.
    let filler = "x".repeat(256 << 10);
    let large = |n: u64| {
        let mut body = points(n, 10);
        body["data"]["filler"] = filler.clone().into();
        body
    };
    let mut taken = 0;
    while taken < EVENTS {
        let request = client().post(format!("{base}/hooks/loyalty")).header("X-Api-Key", KEY);
        let request = request.header("Content-Type", "application/json");
        let answer = request.body(large(taken).to_string()).send().await.expect("an answer");
        match answer.status() {
            StatusCode::ACCEPTED => taken += 1,
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(answer.headers().contains_key("retry-after"), "it says when to come again");
                break;
            }
            other => panic!("{other}"),
        }
    }
    assert!(taken < EVENTS, "all {EVENTS} fitted: the disk is not full");
    // It tries by itself whether there is room again, so that readiness may say so by now.
    assert!(gateway.log().contains("the disk is full"), "it says why");
    assert!(gateway.text("/readyz").await.contains("\"ready\":true"), "it is alive and ready");
    node.restart().await;
    let all = taken + 20;
    for n in taken..all {
        eventually("it is taken again", IN_TIME, || async {
            let answer = send(&base, &large(n)).await;
            answer.is_ok_and(|(status, _)| status.is_success()).then_some(())
        })
        .await;
    }
    eventually("everything has arrived by itself", IN_TIME, || async {
        (node.messages("points").await == all).then_some(())
    })
    .await;
    assert_eq!(gateway.count("loyalty-webhooks", "dead").await, 0);
}
