//! What `event:` makes of a message. Everything here runs expressions.

use super::*;
use crate::expression::{Expression, Template};

fn template(text: &str) -> Option<Template> {
    Some(Template::compile(text).unwrap())
}

fn expression(text: &str) -> Option<Expression> {
    Some(Expression::compile(text).unwrap())
}

fn mapped(message: &Message, mapping: &EventMapping) -> Arrival {
    read(message, "award-points", mapping, NOW)
}

#[test]
fn every_field_can_be_mapped() {
    let body = r#"{"order": {"total": 12.50, "n": 1, "n": 2},
        "no": 7, "at": "2026-01-31T11:00:00Z"}"#;
    let message = Message {
        headers: object(json!({ "tenant": "acme" })),
        properties: object(json!({ "app_id": "shop" })),
        ..message(JSON, body)
    };
    let mapping = EventMapping {
        id: template("order-{.body.no}"),
        source: template("/{.properties.app_id}/{.exchange}"),
        kind: template("{.routing_key}.v1"),
        subject: template("{.body.no}"),
        time: template("{.body.at}"),
        extensions: [("tenant".to_owned(), template("{.headers.tenant}").unwrap())].into(),
        data: expression(".body.order"),
    };
    let arrival = mapped(&message, &mapping);
    assert!(arrival.own_id, "a mapped id is the event's own");
    let expected = Event {
        id: "order-7".to_owned(),
        source: "/shop/orders".to_owned(),
        kind: "order.confirmed.v1".to_owned(),
        subject: Some("7".to_owned()),
        time: Some("2026-01-31T11:00:00Z".to_owned()),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: BTreeMap::from([("tenant".to_owned(), json!("acme"))]),
        traceparent: None,
        hops: 0,
        data: json_data(r#"{"total": 12.50, "n": 1, "n": 2}"#),
    };
    assert_eq!(arrival.event.unwrap(), expected);
}

#[test]
fn the_mapping_wins_over_an_envelope_field_by_field() {
    let body = r#"{"specversion":"1.0","id":"1","type":"t","subject":"s","data":{"a":1.0}}"#;
    let message = message(Some(STRUCTURED), body);
    assert!(why(&message).contains("`source` is missing"));
    let mapping = EventMapping {
        source: template("/{.exchange}"),
        subject: template("{.body.nothing}"),
        ..EventMapping::default()
    };
    let event = mapped(&message, &mapping).event.unwrap();
    assert_eq!((&*event.id, &*event.source, &*event.kind), ("1", "/orders", "t"));
    assert_eq!(event.subject.as_deref(), Some("s"), "a null leaves the envelope's in place");
    assert_eq!(event.data, json_data(r#"{"a":1.0}"#));
}

#[test]
fn a_body_that_is_not_json_is_text_and_else_base64() {
    let data = |message: &Message, text: &str| {
        let mapping = EventMapping { data: expression(text), ..EventMapping::default() };
        let event = mapped(message, &mapping).event;
        let event = event.unwrap_or_else(|invalid| panic!("{}", invalid.why));
        serde_json::from_slice::<Value>(&event.data_bytes()).unwrap()
    };
    let text = message(Some("text/csv"), "a,\"b\"\n");
    assert_eq!(data(&text, ".body"), json!("a,\"b\"\n"));
    let bytes = message(None, &b"\xff\xfe"[..]);
    assert_eq!(data(&bytes, "[.body, .body_base64]"), json!([null, "//4="]));
    let zipped = Message { content_encoding: Some("gzip".to_owned()), ..message(JSON, "{}") };
    assert_eq!(data(&zipped, "[.body, .body_base64]"), json!([null, "e30="]));
    assert_eq!(data(&message(JSON, ""), ".body"), json!(null));
    let all = "[.headers, .properties, .routing_key, .exchange]";
    assert_eq!(data(&text, all), json!([{}, {}, "order.confirmed", "orders"]));
}

#[test]
fn a_mapping_that_fails_makes_the_message_invalid() {
    let message = message(JSON, r#"{"total": 1}"#);
    let table = [
        EventMapping { kind: template("{.body.missing}"), ..EventMapping::default() },
        EventMapping { id: template("{.body}"), ..EventMapping::default() },
        EventMapping { data: expression("error(\"no\")"), ..EventMapping::default() },
        EventMapping { time: template("noon"), ..EventMapping::default() },
        EventMapping {
            extensions: [("Not-Allowed".to_owned(), template("x").unwrap())].into(),
            ..EventMapping::default()
        },
    ];
    for mapping in table {
        let arrival = mapped(&message, &mapping);
        let invalid = arrival.event.expect_err("not an event");
        assert!(!arrival.own_id && !invalid.why.is_empty(), "{mapping:?}");
    }
}
