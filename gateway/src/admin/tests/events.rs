//! Publishing through the listener.

use tidegate_adapters::Data;

use super::world::{Listening, Said, open};
use crate::app::PublishError;

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json; charset=utf-8");
const EVENT: &str =
    r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.confirmed","data":{"n":1.50}}"#;

async fn post(admin: &Listening, query: &str, headers: &[(&str, &str)], body: &str) -> Said {
    admin.ask("POST", &format!("/api/v1/events?{query}"), headers, body).await
}

#[tokio::test]
async fn a_structured_event_is_published_as_it_is() {
    let admin = open().await;
    let said = post(&admin, "exchange=orders&key=a.b", &[STRUCTURED], EVENT).await;
    assert_eq!((said.status, said.json()["id"].as_str()), (200, Some("1")));
    let published = admin.world.published.lock();
    let (exchange, key, event) = &published[0];
    assert_eq!((exchange.as_str(), key.as_str()), ("orders", "a.b"));
    assert_eq!((event.kind.as_str(), event.source.as_str()), ("order.confirmed", "/s"));
    assert_eq!(event.data, Data::Json(r#"{"n":1.50}"#.into()));
}

#[tokio::test]
async fn a_binary_event_is_published_with_its_headers_as_attributes() {
    let admin = open().await;
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "7"),
        ("ce-source", "/shop"),
        ("ce-type", "order.confirmed"),
        ("ce-subject", "caf%C3%A9"),
        ("ce-tenant", "a"),
    ];
    let said = post(&admin, "exchange=orders", &headers, r#"{"n":1}"#).await;
    assert_eq!(said.status, 200, "{said:?}");
    let published = admin.world.published.lock();
    let (_, key, event) = &published[0];
    assert_eq!(key, "order.confirmed", "the type, when no key is given");
    assert_eq!(event.subject.as_deref(), Some("café"));
    assert_eq!(event.extensions["tenant"], "a");
    assert_eq!(event.data, Data::Json(r#"{"n":1}"#.into()));
}

#[tokio::test]
async fn a_binary_event_may_be_without_data() {
    let admin = open().await;
    let headers =
        [("ce-specversion", "1.0"), ("ce-id", "7"), ("ce-source", "/shop"), ("ce-type", "t")];
    let said = post(&admin, "exchange=orders", &headers, "").await;
    assert_eq!(said.status, 200, "{said:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_and_nothing_published() {
    let admin = open().await;
    let json = ("content-type", "application/json");
    let deep = "[".repeat(10_000);
    let deep = EVENT.replace(r#"{"n":1.50}"#, &deep);
    for (query, header, body, says) in [
        ("key=k", STRUCTURED, EVENT, "`exchange` is missing"),
        ("exchange=e&rooting_key=k", STRUCTURED, EVENT, "`rooting_key` is no parameter"),
        ("exchange=e", json, EVENT, "not a CloudEvent"),
        ("exchange=e", STRUCTURED, "{", "JSON"),
        ("exchange=e", STRUCTURED, r#"{"specversion":"1.0","source":"/s","type":"t"}"#, "`id`"),
        ("exchange=e", STRUCTURED, &deep, "128"),
    ] {
        let said = post(&admin, query, &[header], body).await;
        assert_eq!(said.status, 400, "{query} {body}");
        assert!(said.json()["detail"].as_str().unwrap().contains(says), "{says}: {said:?}");
    }
    assert!(admin.world.published.lock().is_empty());
}

#[tokio::test]
async fn what_the_broker_does_not_take_is_said_in_its_words() {
    let admin = open().await;
    let unroutable = PublishError::Unroutable { exchange: "orders".into(), key: "x".into() };
    for (error, status, says) in [
        (unroutable, 422, "nothing is bound to exchange `orders` for key `x`"),
        (PublishError::Impossible("the key is too long".into()), 422, "too long"),
        (PublishError::Unavailable("no connection".into()), 503, "no connection"),
    ] {
        *admin.world.publish_error.lock() = Some(error);
        let said = post(&admin, "exchange=orders&key=x", &[STRUCTURED], EVENT).await;
        assert_eq!(said.status, status);
        assert!(said.json()["detail"].as_str().unwrap().contains(says), "{said:?}");
    }
}
