//! Clients written by others agree with us: providers' own libraries sign what we verify, verify
//! what we sign, and parse what we publish.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tidegate_tests::{
    Api, Gateway,
    amqp::{Publisher, Subscriber},
    clients, eventually,
    gateway::client,
    rabbitmq::Node,
};

use crate::events_to_apis::{one_route, order};

const IN_TIME: Duration = Duration::from_secs(60);
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const STRIPE_SECRET: &str = "whsec_stripe_takes_this_as_it_is";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_libraries_of_standard_webhooks_svix_and_stripe_sign_is_accepted() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "all", "hooks", "#").await;
    let yaml = format!(
        "\
broker: {{ rabbitmq: {{ url: '{}' }} }}
routes:
  standard:
    from:
      webhook:
        path: /hooks/standard
        verify: {{ standard_webhooks: {{ secrets: [whsec_{}, {SECRET}] }} }}
        event: {{ type: '{{.body.type}}' }}
    to: {{ rabbitmq: {{ exchange: hooks }} }}
  stripe:
    from:
      webhook:
        path: /hooks/stripe
        verify: {{ stripe: {{ secrets: [{STRIPE_SECRET}] }} }}
        event: {{ type: '{{.body.type}}' }}
    to: {{ rabbitmq: {{ exchange: hooks }} }}
",
        broker.url(),
        "A".repeat(32),
    );
    let gateway = Gateway::start(&yaml).await;
    let base = gateway.webhooks().await;
    let body = r#"{"id": "evt_1", "object": "event", "type": "charge.succeeded", "n": 12.50}"#;
    let cases = [
        ("standardwebhooks", "standard", SECRET),
        ("svix", "standard", SECRET),
        ("stripe", "stripe", STRIPE_SECRET),
    ];
    for (library, path, secret) in cases {
        let id = format!("msg_{library}");
        let headers = clients::sign(library, secret, &id, body).await;
        for (tampered, expected) in
            [(true, StatusCode::UNAUTHORIZED), (false, StatusCode::ACCEPTED)]
        {
            let sent = if tampered { body.replace("12.50", "12.51") } else { body.to_owned() };
            let mut request = client().post(format!("{base}/hooks/{path}"));
            request = request.header("Content-Type", "application/json");
            for (name, value) in &headers {
                request = request.header(name, value);
            }
            let answer = request.body(sent).send().await.expect("an answer");
            let (status, text) = (answer.status(), answer.text().await.expect("a body"));
            assert_eq!(status, expected, "{library}, tampered {tampered}: {text}");
        }
    }
    eventually("all three have arrived", IN_TIME, || async {
        (subscriber.count() == 3).then_some(())
    })
    .await;
    let mut ids: Vec<String> = subscriber.taken().iter().map(|m| m.id().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, ["evt_1", "msg_standardwebhooks", "msg_svix"], "the schemes' own ids");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_standard_webhooks_signature_verifies_with_their_libraries() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let upstream = format!("    auth: {{ standard_webhooks: {{ secret: {SECRET} }} }}\n");
    let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), &upstream, "")).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    Publisher::connect(&broker.url()).await.publish("orders", &[order(1, 10)]).await;
    eventually("it has arrived", IN_TIME, || async { (api.count() == 1).then_some(()) }).await;
    let sent = &api.requests()[0];
    let headers = json!(sent.headers);
    // Svix's library takes both names of the headers.
    for library in ["standardwebhooks", "svix"] {
        assert_eq!(clients::verify(library, SECRET, &headers, &sent.body).await, "ok", "{library}");
        let tampered = clients::verify(library, SECRET, &headers, &format!("{} ", sent.body)).await;
        assert_ne!(tampered, "ok", "{library} takes anything");
    }
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cloudevents_sdk_parses_every_envelope_we_publish() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "all", "hooks", "#").await;
    let route = |envelope: &str| {
        format!(
            "  {envelope}:
    from:
      webhook:
        path: /hooks/{envelope}
        verify: {{ none: {{}} }}
        event:
          source: /shop
          type: '{{.headers.kind}}'
          subject: '{{.query.n}}'
          extensions: {{ tenant: acme }}
    to: {{ rabbitmq: {{ exchange: hooks, key: {envelope}, envelope: {envelope} }} }}
"
        )
    };
    let yaml = format!(
        "broker: {{ rabbitmq: {{ url: '{}' }} }}\nroutes:\n{}{}{}",
        broker.url(),
        route("cloudevents"),
        route("cloudevents-binary"),
        route("metadata-data"),
    );
    let gateway = Gateway::start(&yaml).await;
    let base = gateway.webhooks().await;
    let data = json!({ "order": "Größe", "total": 12.5, "nested": { "list": [1, null, true] } });
    for envelope in ["cloudevents", "cloudevents-binary", "metadata-data"] {
        for (content_type, body) in
            [("application/json", data.to_string().into_bytes()), ("image/png", vec![0xff, 0, 1])]
        {
            let request = client().post(format!("{base}/hooks/{envelope}?n=7"));
            let request = request.header("Content-Type", content_type).header("Kind", "shop.sold");
            let answer = request.body(body).send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::ACCEPTED);
        }
    }
    eventually("all six have arrived", IN_TIME, || async {
        (subscriber.count() == 6).then_some(())
    })
    .await;
    for message in subscriber.taken() {
        let binary = !String::from_utf8_lossy(&message.body).contains("order");
        if message.key == "metadata-data" {
            let envelope = message.json();
            assert_eq!(envelope["metadata"]["eventId"], message.id());
            assert_eq!(envelope["metadata"]["eventType"], "shop.sold");
            if !binary {
                assert_eq!(envelope["data"], data);
            }
            continue;
        }
        let headers = message.properties.headers().clone().unwrap_or_default();
        let headers: serde_json::Map<String, Value> = headers
            .inner()
            .keys()
            .map(|name| (name.to_string(), message.header(name.as_str()).into()))
            .collect();
        let event = clients::parse(&message, &headers.into()).await;
        let attributes = &event["attributes"];
        assert_eq!(attributes["id"], message.id(), "{event}");
        assert_eq!(attributes["source"], "/shop");
        assert_eq!(attributes["type"], "shop.sold");
        assert_eq!(attributes["subject"], "7");
        assert_eq!(attributes["tenant"], "acme");
        match binary {
            false => assert_eq!(event["data"], data, "{}", message.key),
            true => assert_eq!(event["data"]["base64"], "/wAB", "{}", message.key),
        }
    }
}
