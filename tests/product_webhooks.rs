//! The webhooks of the products that we ship configurations for, signed as their pages say.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use reqwest::StatusCode;
use serde_json::json;
use sha1::Sha1;
use sha2::Sha256;
use tidegate_tests::{
    Gateway,
    amqp::Subscriber,
    eventually,
    gateway::client,
    product::shipped,
    rabbitmq::{Node, Vhost},
};

const IN_TIME: Duration = Duration::from_secs(60);

async fn run(broker: &Vhost, product: &str, variables: &[(&str, &str)]) -> Gateway {
    let mut gateway = Gateway::new(&shipped(product));
    gateway.set("TIDEGATE_RABBITMQ_URL", broker.url());
    for (name, value) in variables {
        gateway.set(name, *value);
    }
    gateway.run().await;
    gateway
}

fn hmac_sha256(key: &str, signed: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
    mac.update(signed);
    mac.finalize().into_bytes().to_vec()
}

async fn one(subscriber: &Subscriber) -> serde_json::Value {
    eventually("its event has arrived", IN_TIME, || async {
        (subscriber.count() == 1).then_some(())
    })
    .await;
    subscriber.taken()[0].json()
}

/// <https://www.twilio.com/docs/usage/webhooks/webhooks-security>: the address, then the form's
/// names and values in the order of the names, by HMAC-SHA1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twilios_callbacks_say_what_became_of_a_message() {
    const TOKEN: &str = "canary-auth-token";
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "twilio", "twilio", "#").await;
    let variables = [
        ("TWILIO_ACCOUNT_SID", "AC1"),
        ("TWILIO_API_KEY_SID", "SK1"),
        ("TWILIO_API_KEY_SECRET", "canary-secret"),
        ("TWILIO_AUTH_TOKEN", TOKEN),
        ("TWILIO_PUBLIC_URL", "https://hooks.example.com"),
    ];
    let gateway = run(&broker, "twilio", &variables).await;
    let url = format!("{}/hooks/twilio", gateway.webhooks().await);
    let signed = "https://hooks.example.com/hooks/twilioMessageSidSM1MessageStatusdelivered";
    let mut mac = Hmac::<Sha1>::new_from_slice(TOKEN.as_bytes()).expect("any length");
    mac.update(signed.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    for (status, expected) in [("failed", StatusCode::UNAUTHORIZED), ("delivered", StatusCode::OK)]
    {
        let request = client().post(&url).header("X-Twilio-Signature", &signature);
        let request = request.header("Content-Type", "application/x-www-form-urlencoded");
        let answer = request.body(format!("MessageStatus={status}&MessageSid=SM1"));
        assert_eq!(answer.send().await.expect("an answer").status(), expected, "{status}");
    }
    let event = one(&subscriber).await;
    assert_eq!(event["type"], "twilio.message-delivered.v1");
    assert_eq!(event["subject"], "SM1");
    assert_eq!(event["data"]["MessageStatus"], "delivered");
}

/// <https://shopify.dev/docs/apps/build/webhooks/verify-deliveries>: the body by HMAC-SHA256, as
/// Base64; sent again, it has the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shopifys_webhooks_are_events_once_with_their_bytes() {
    const SECRET: &str = "canary-client-secret";
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "shopify", "shopify", "#").await;
    let variables = [
        ("SHOPIFY_URL", "https://shop.example"),
        ("SHOPIFY_ACCESS_TOKEN", "canary-shopify"),
        ("SHOPIFY_CLIENT_SECRET", SECRET),
    ];
    let gateway = run(&broker, "shopify", &variables).await;
    let url = format!("{}/hooks/shopify", gateway.webhooks().await);
    let body = r#"{"id": 820982911946154508, "total_price": "403.00"}"#;
    let signature = STANDARD.encode(hmac_sha256(SECRET, body.as_bytes()));
    for repeat in [false, true] {
        let request = client()
            .post(&url)
            .header("X-Shopify-Topic", "orders/create")
            .header("X-Shopify-Hmac-Sha256", &signature)
            .header("X-Shopify-Shop-Domain", "shop.example")
            .header("X-Shopify-Webhook-Id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043")
            .header("Content-Type", "application/json");
        let answer = request.body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers().contains_key("tidegate-duplicate"), repeat);
    }
    let event = one(&subscriber).await;
    assert_eq!(event["id"], "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043");
    assert_eq!(event["type"], "shopify.orders.create");
    assert_eq!(event["source"], "/shop.example");
    let published = String::from_utf8_lossy(&subscriber.taken()[0].body).into_owned();
    assert!(published.contains(body), "the bytes that came: {published}");
}

/// <https://api.slack.com/docs/verifying-requests-from-slack>: `v0:`, the timestamp, `:` and the
/// body, by HMAC-SHA256; and the challenge of a new request URL.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slacks_challenge_is_answered_and_its_events_come_in() {
    const SECRET: &str = "canary-signing-secret";
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "slack", "slack", "#").await;
    let variables = [
        ("SLACK_URL", "https://slack.example"),
        ("SLACK_BOT_TOKEN", "xoxb-canary-slack"),
        ("SLACK_SIGNING_SECRET", SECRET),
    ];
    let gateway = run(&broker, "slack", &variables).await;
    let url = format!("{}/hooks/slack", gateway.webhooks().await);
    let send = async |body: serde_json::Value| {
        let (body, now) = (body.to_string(), tidegate_tests::clients::now_s());
        let mac = hmac_sha256(SECRET, format!("v0:{now}:{body}").as_bytes());
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let request = client()
            .post(&url)
            .header("X-Slack-Request-Timestamp", now.to_string())
            .header("X-Slack-Signature", format!("v0={hex}"))
            .header("Content-Type", "application/json");
        let answer = request.body(body).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        answer.text().await.expect("a body")
    };
    let challenge = json!({ "type": "url_verification", "challenge": "3eZbrw1aB", "token": "x" });
    assert_eq!(send(challenge).await, "3eZbrw1aB");
    let mention = json!({
        "type": "event_callback", "event_id": "Ev0PV52K25", "team_id": "T1",
        "event": { "type": "app_mention", "channel": "C1", "text": "<@U1> pizza?" },
    });
    send(mention).await;
    let event = one(&subscriber).await;
    assert_eq!(event["id"], "Ev0PV52K25");
    assert_eq!(event["type"], "slack.app_mention");
    assert_eq!((&event["source"], &event["subject"]), (&json!("/slack/T1"), &json!("C1")));
    assert_eq!(event["data"]["text"], "<@U1> pizza?");
    assert_eq!(subscriber.count(), 1, "the challenge is no event");
}
