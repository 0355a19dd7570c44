//! Replies, and routes that join both directions: any source with any target.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use tidegate_tests::{
    Api, Gateway,
    amqp::{Message, Publisher, Subscriber},
    eventually,
    gateway::client,
    rabbitmq::Node,
};

const IN_TIME: Duration = Duration::from_secs(60);

const REPLY: &str = "
    reply:
      on: [delivered, dead]
      exchange: loyalty
      event:
        type: 'loyalty.points-{.outcome}.v1'
        subject: '{.event.data.customerId}'
        data: '{order: .event.id, reason, status: .response.status, job: .response.body.job}'
";

fn yaml(broker: &str, api: &str, reply: &str) -> String {
    format!(
        "\
broker: {{ rabbitmq: {{ url: '{broker}' }} }}
upstreams:
  loyalty:
    url: {api}
    egress: {{ allow: [127.0.0.0/8] }}
    retry: {{ attempts: 2, initial_delay: 50ms }}
routes:
  award-points:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to: {{ http: {{ upstream: loyalty, path: '/{{.data.customerId}}' }} }}
{reply}"
    )
}

fn order(n: u64, customer: &str) -> Message {
    Message::order(&format!("order-{n}"), &json!({ "customerId": customer, "total": 1 }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_of_a_call_is_an_event_once_for_each_end() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "replies", "loyalty", "loyalty.#").await;
    let taken = |status: u16, body: &str| {
        let mut answer = tidegate::mock::AnswerConfig::status(status);
        answer.body = body.to_owned();
        answer
    };
    let api = Api::with(|api| {
        api.script = vec![taken(202, r#"{"job": 7.50}"#), taken(404, "{}"), taken(500, "{}")];
        api.answer = taken(503, "{}");
    })
    .await;
    let mut gateway = Gateway::start(&yaml(&broker.url(), &api.url(), REPLY)).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let publisher = Publisher::connect(&broker.url()).await;
    for n in 0..3 {
        publisher.publish("orders", &[order(n, "c")]).await;
        eventually("its reply has arrived", IN_TIME, || async {
            (subscriber.count() == n + 1).then_some(())
        })
        .await;
    }
    let replies: Vec<_> = subscriber.taken().iter().map(|message| message.json()).collect();
    let expected = [
        ("delivered", json!({ "order": "order-0", "reason": null, "status": 202, "job": 7.5 })),
        ("dead", json!({ "order": "order-1", "reason": "rejected", "status": 404, "job": null })),
        ("dead", json!({ "order": "order-2", "reason": "exhausted", "status": 503, "job": null })),
    ];
    for ((outcome, data), reply) in expected.iter().zip(&replies) {
        assert_eq!(reply["type"], format!("loyalty.points-{outcome}.v1"), "{reply}");
        assert_eq!(reply["source"], "/award-points");
        assert_eq!(reply["subject"], "c");
        assert_eq!(reply["data"], *data);
    }
    // As a route of its own it can be looked at.
    eventually("all three are settled", IN_TIME, || async {
        gateway.count("award-points/reply", "delivered").await.eq(&3).then_some(())
    })
    .await;
    let status = gateway.get("/api/v1/routes/award-points/reply").await;
    assert_eq!(status["from"]["reply"]["of"], "award-points", "{status}");
    gateway.kill().await;
    gateway.run().await;
    assert_eq!(subscriber.count(), 3, "a restart settles nothing anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_fails_is_dead_and_holds_up_nothing() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let reply = "
    reply: { exchange: loyalty, event: { type: '{.response.body.none}' } }
";
    let gateway = Gateway::start(&yaml(&broker.url(), &api.url(), reply)).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let messages: Vec<_> = (0..20).map(|n| order(n, "c")).collect();
    Publisher::connect(&broker.url()).await.publish("orders", &messages).await;
    eventually("all are delivered", IN_TIME, || async {
        (gateway.count("award-points", "delivered").await == 20).then_some(())
    })
    .await;
    assert_eq!(gateway.count("award-points/reply", "dead").await, 20);
    let dead = gateway.get("/api/v1/deliveries?route=award-points/reply&state=dead").await;
    assert_eq!(dead["deliveries"][0]["reason"], "expression", "{dead}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_becomes_a_call_and_an_event_another_event() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "copies", "copies", "#").await;
    let api = Api::start().await;
    let yaml = format!(
        "\
broker: {{ rabbitmq: {{ url: '{}' }} }}
upstreams:
  api: {{ url: {}, egress: {{ allow: [127.0.0.0/8] }} }}
routes:
  hook-to-api:
    from: {{ webhook: {{ path: /in, verify: {{ none: {{}} }}, event: {{ type: t }} }} }}
    to: {{ http: {{ upstream: api, path: /out }} }}
  event-to-event:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to:
      rabbitmq: {{ exchange: copies, key: 'copy.{{.type}}', headers: {{ x-of: '{{.id}}' }} }}
",
        broker.url(),
        api.url()
    );
    let gateway = Gateway::start(&yaml).await;
    let url = format!("{}/in", gateway.webhooks().await);
    let body = r#"{ "n": 12.50, "n": 1 }"#;
    let request = client().post(url).header("Content-Type", "application/json").body(body);
    assert_eq!(request.send().await.expect("an answer").status(), StatusCode::ACCEPTED);
    eventually("the call has arrived", IN_TIME, || async { (api.count() == 1).then_some(()) })
        .await;
    assert_eq!(api.requests()[0].body, body, "byte for byte");
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.event-to-event").await.eq(&1).then_some(())
    })
    .await;
    Publisher::connect(&broker.url()).await.publish("orders", &[order(1, "c")]).await;
    eventually("the copy has arrived", IN_TIME, || async {
        (subscriber.count() == 1).then_some(())
    })
    .await;
    let copy = &subscriber.taken()[0];
    assert_eq!((&*copy.key, copy.id()), ("copy.order.confirmed.v1", "order-1"));
    assert_eq!(copy.header("x-of").as_deref(), Some("order-1"));
    assert_eq!(copy.json()["source"], "/orders");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_is_bound_for_waits_or_dies_or_is_dropped_as_the_route_says() {
    let broker = Node::shared().await.vhost().await;
    let route = |name: &str| {
        format!(
            "  {name}:
    from: {{ webhook: {{ path: /{name}, verify: {{ none: {{}} }}, event: {{ type: t }} }} }}
    to: {{ rabbitmq: {{ exchange: nobody, on_unroutable: {name} }} }}
"
        )
    };
    let yaml = format!(
        "broker: {{ rabbitmq: {{ url: '{}' }} }}\nroutes:\n{}{}{}",
        broker.url(),
        route("retry"),
        route("dead"),
        route("drop")
    );
    let gateway = Gateway::start(&yaml).await;
    let base = gateway.webhooks().await;
    for name in ["retry", "dead", "drop"] {
        let request = client().post(format!("{base}/{name}")).header("Content-Type", "text/plain");
        let answer = request.body("hello").send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
    }
    eventually("each has come to its end", IN_TIME, || async {
        let ends = gateway.count("dead", "dead").await == 1
            && gateway.count("drop", "delivered").await == 1;
        ends.then_some(())
    })
    .await;
    let dead = gateway.get("/api/v1/deliveries?route=dead").await;
    assert_eq!(dead["deliveries"][0]["reason"], "unroutable");
    eventually("the third was told so", IN_TIME, || async {
        let metrics = gateway.text("/metrics").await;
        let told = "route=\"retry\",upstream=\"\",result=\"unroutable\"";
        metrics.contains(told).then_some(())
    })
    .await;
    let subscriber = Subscriber::start(&broker.url(), "nobody", "nobody", "#").await;
    eventually("it has arrived once somebody is there", IN_TIME, || async {
        (subscriber.count() == 1).then_some(())
    })
    .await;
}
