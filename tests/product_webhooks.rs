//! The configurations we ship for real products, the way in: each product's requests, signed as its
//! page says, become events in RabbitMQ.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::Sha256;
use tidegate_tests::{
    Gateway,
    amqp::{Subscriber, Taken},
    eventually,
    gateway::client,
    rabbitmq::Node,
};

use crate::products::{IN_TIME, now, run, settled, shopify, slack, twilio};

/// Nobody's address: what comes in calls nobody.
const NOBODY: &str = "http://127.0.0.1:9";

/// What the gateway answered.
struct Answered {
    status: u16,
    repeat: bool,
    body: String,
}

/// Sends `body` to `path` of the public listener, as a product does.
async fn send(gateway: &Gateway, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
    let mut request = client().post(format!("{}{path}", gateway.webhooks().await));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(body.to_owned()).send().await.expect("an answer");
    let status = answer.status().as_u16();
    let repeat = answer.headers().get("tidegate-duplicate").is_some();
    Answered { status, repeat, body: answer.text().await.expect("a body") }
}

/// Waits for so many messages, and gives them in their order.
async fn taken(subscriber: &Subscriber, count: u64) -> Vec<Taken> {
    eventually("all have arrived", IN_TIME, || async {
        (subscriber.count() >= count).then_some(())
    })
    .await;
    subscriber.taken()
}

fn sha1(secret: &str, text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn sha256(secret: &str, text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// <https://www.twilio.com/docs/usage/webhooks/webhooks-security>: the URL as Twilio calls it, then
/// each parameter's name and value, sorted by name; HMAC-SHA1 with the auth token, in Base64.
/// <https://www.twilio.com/docs/messaging/guides/track-outbound-message-status>: one callback for
/// each status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twilios_status_callbacks_become_events_in_their_order() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "twilio", "twilio", "twilio.#").await;
    let gateway = run(&broker, "twilio", &twilio(NOBODY), "twilio-messages").await;
    let callback = async |status: &str, token: &str| {
        let fields = BTreeMap::from([
            ("MessageSid", "SM0123456789abcdef0123456789abcdef"),
            ("MessageStatus", status),
            ("AccountSid", "ACtest"),
            ("To", "+14155552671"),
            ("From", "Größe & Co"),
        ]);
        let mut signed = "https://hooks.example.com/hooks/twilio".to_owned();
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in &fields {
            signed.push_str(name);
            signed.push_str(value);
            form.append_pair(name, value);
        }
        let signature = STANDARD.encode(sha1(token, &signed));
        let headers = [
            ("X-Twilio-Signature", &*signature),
            ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
        ];
        send(&gateway, "/hooks/twilio", &headers, &form.finish()).await
    };
    assert_eq!(callback("delivered", "another-auth-token").await.status, 401);
    for status in ["queued", "sent", "delivered"] {
        let answered = callback(status, "canary-auth-token").await;
        assert_eq!((answered.status, answered.repeat), (200, false), "{}", answered.body);
        assert!(answered.body.contains("<Response"), "TwiML that says nothing: {}", answered.body);
    }
    let again = callback("delivered", "canary-auth-token").await;
    assert_eq!((again.status, again.repeat), (200, true));
    let taken = taken(&subscriber, 3).await;
    settled(&gateway, "twilio-callbacks", 3, 0).await;
    let keys: Vec<&str> = taken.iter().map(|message| &*message.key).collect();
    let expected = ["queued", "sent", "delivered"].map(|s| format!("twilio.message-{s}.v1"));
    assert_eq!(keys, expected);
    let event = taken[2].json();
    assert_eq!(event["id"], "SM0123456789abcdef0123456789abcdef/delivered");
    assert_eq!(event["source"], "/twilio");
    assert_eq!(event["subject"], "SM0123456789abcdef0123456789abcdef");
    assert_eq!(event["data"]["To"], "+14155552671");
    assert_eq!(event["data"]["From"], "Größe & Co");
    assert!(!gateway.log().contains("canary"), "no secret in the log");
}

/// <https://shopify.dev/docs/apps/build/webhooks/verify-deliveries>: HMAC-SHA256 over the raw body
/// with the app's client secret, in Base64; a delivery that is repeated keeps its
/// `X-Shopify-Webhook-Id`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shopifys_webhooks_become_events_by_topic_with_their_bytes() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "shopify", "shopify", "shopify.#").await;
    let gateway = run(&broker, "shopify", &shopify(NOBODY), "shopify-notes").await;
    let body = r#"{"id":820982911946154508, "total_price":"409.94","weight":1.50,"note":null}"#;
    let webhook = async |topic: &str, id: &str, secret: &str| {
        let signature = STANDARD.encode(sha256(secret, body));
        let headers = [
            ("X-Shopify-Hmac-SHA256", &*signature),
            ("X-Shopify-Topic", topic),
            ("X-Shopify-Shop-Domain", "example.myshopify.com"),
            ("X-Shopify-Webhook-Id", id),
            // One action of a merchant's: all its topics share this one.
            ("X-Shopify-Event-Id", "98880550-7158-44d4-b7cd-2c97c8a091b5"),
            ("X-Shopify-API-Version", "2026-04"),
            ("Content-Type", "application/json"),
        ];
        send(&gateway, "/hooks/shopify", &headers, body).await
    };
    assert_eq!(webhook("orders/create", "w-1", "another-secret").await.status, 401);
    for (topic, id, repeat) in [
        ("orders/create", "w-1", false),
        ("orders/create", "w-1", true),
        ("orders/paid", "w-2", false),
    ] {
        let answered = webhook(topic, id, "canary-client-secret").await;
        assert_eq!((answered.status, answered.repeat), (200, repeat), "{}", answered.body);
    }
    let mut taken = taken(&subscriber, 2).await;
    settled(&gateway, "shopify-webhooks", 2, 0).await;
    taken.sort_by(|a, b| a.key.cmp(&b.key));
    let keys: Vec<&str> = taken.iter().map(|message| &*message.key).collect();
    assert_eq!(keys, ["shopify.orders.create", "shopify.orders.paid"]);
    let event = taken[0].json();
    assert_eq!(event["id"], "w-1");
    assert_eq!(event["source"], "/example.myshopify.com");
    let text = String::from_utf8_lossy(&taken[0].body).into_owned();
    assert!(text.contains(body), "byte for byte: {text}");
    assert!(!gateway.log().contains("canary"), "no secret in the log");
}

/// <https://api.slack.com/docs/verifying-requests-from-slack>: `v0=` and the HMAC-SHA256 of
/// `v0:timestamp:body`; <https://api.slack.com/events/url_verification>: the challenge, and the
/// answer to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slacks_challenge_is_answered_and_its_events_are_taken_once() {
    const SECRET: &str = "canary-signing-secret";
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "slack", "slack", "slack.#").await;
    let gateway = run(&broker, "slack", &slack(NOBODY), "slack-messages").await;
    let request = async |body: &Value, secret: &str, age_s: u64, retry: Option<&str>| {
        let (body, at) = (body.to_string(), (now().as_secs() - age_s).to_string());
        let digest = sha256(secret, &format!("v0:{at}:{body}"));
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let signature = format!("v0={hex}");
        let mut headers = vec![
            ("X-Slack-Signature", &*signature),
            ("X-Slack-Request-Timestamp", &*at),
            ("Content-Type", "application/json"),
        ];
        headers.extend(retry.map(|retry| ("X-Slack-Retry-Num", retry)));
        send(&gateway, "/hooks/slack", &headers, &body).await
    };
    let challenge =
        json!({ "token": "t", "challenge": "3eZbrw1aBm2r", "type": "url_verification" });
    assert_eq!(request(&challenge, "another", 0, None).await.status, 401);
    let answered = request(&challenge, SECRET, 0, None).await;
    assert_eq!(answered.status, 200);
    assert!(answered.body.contains("3eZbrw1aBm2r"), "{}", answered.body);

    let mention = json!({
        "token": "t", "team_id": "T1", "api_app_id": "A1", "type": "event_callback",
        "event_id": "Ev1", "event_time": 1_700_000_000,
        "event": { "type": "app_mention", "user": "U1", "channel": "C1", "text": "hello" },
    });
    let captured = request(&mention, SECRET, 3_600, None).await;
    assert_eq!(captured.status, 401, "an hour old: somebody sends it again");
    let first = request(&mention, SECRET, 0, None).await;
    assert_eq!((first.status, first.repeat), (200, false), "{}", first.body);
    let retry = request(&mention, SECRET, 0, Some("1")).await;
    assert_eq!((retry.status, retry.repeat), (200, true));
    let taken = taken(&subscriber, 1).await;
    settled(&gateway, "slack-events", 1, 0).await;
    assert_eq!(taken[0].key, "slack.app_mention");
    let event = taken[0].json();
    assert_eq!((&event["id"], &event["source"]), (&json!("Ev1"), &json!("/slack/T1")));
    assert_eq!(event["subject"], "C1");
    assert_eq!(event["data"], mention["event"]);
    assert_eq!(subscriber.count(), 1, "the challenge is no event, the retry no second one");
    assert!(!gateway.log().contains("canary"), "no secret in the log");
}
