//! One table per envelope, then arbitrary messages.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Data;

mod arbitrary;
mod cloudevents_examples;
mod mapping_with_expressions;

const NOW: Timestamp = Timestamp(1_769_860_800_500);
const NOW_TEXT: &str = "2026-01-31T12:00:00.5Z";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const JSON: Option<&str> = Some("application/json");

fn message(content_type: Option<&str>, body: impl Into<Bytes>) -> Message {
    Message {
        body: body.into(),
        content_type: content_type.map(str::to_owned),
        routing_key: "order.confirmed".to_owned(),
        exchange: "orders".to_owned(),
        ..Message::default()
    }
}

fn with_headers(message: Message, headers: Value) -> Message {
    Message { headers: object(headers), ..message }
}

fn with_properties(message: Message, properties: Value) -> Message {
    Message { properties: object(properties), ..message }
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("not an object: {value}") };
    map
}

fn arrival(message: &Message) -> Arrival {
    read(message, "award-points", &EventMapping::default(), NOW)
}

fn event(message: &Message) -> Event {
    arrival(message).event.unwrap_or_else(|invalid| panic!("{}", invalid.why))
}

fn why(message: &Message) -> String {
    let arrival = arrival(message);
    assert!(!arrival.own_id);
    arrival.event.expect_err("not an event").why
}

fn json_data(text: &'static str) -> Data {
    Data::Json(Bytes::from_static(text.as_bytes()))
}

fn binary_data(bytes: &'static [u8]) -> Data {
    Data::Binary(Bytes::from_static(bytes))
}

// ===== plain =====

#[test]
fn a_plain_message_has_the_defaults_of_the_contract() {
    let arrival = arrival(&message(JSON, r#"{ "total": 12.50 }"#));
    assert!(!arrival.own_id, "a fresh id is never taken for a repeat");
    let event = arrival.event.unwrap();
    assert_eq!(event.kind, "order.confirmed");
    assert_eq!(event.source, "/award-points");
    assert_eq!(event.time.as_deref(), Some(NOW_TEXT));
    assert_eq!(event.datacontenttype.as_deref(), JSON);
    assert_eq!(event.data, json_data(r#"{ "total": 12.50 }"#));
    assert_eq!(uuid::Uuid::parse_str(&event.id).unwrap().get_version_num(), 4);
    assert_eq!(event.subject, None);
    assert!(event.extensions.is_empty());
}

#[test]
fn a_plain_message_takes_id_and_time_from_its_properties() {
    let properties = json!({ "message_id": "m-1", "timestamp": 1_522_949_460, "type": "ignored" });
    let arrival = arrival(&with_properties(message(JSON, "1"), properties));
    assert!(arrival.own_id);
    let event = arrival.event.unwrap();
    assert_eq!(event.id, "m-1");
    assert_eq!(event.time.as_deref(), Some("2018-04-05T17:31:00Z"));
    assert_eq!(event.kind, "order.confirmed");
}

#[test]
fn properties_that_say_nothing_are_as_good_as_none() {
    let properties = json!({ "message_id": "", "timestamp": 0 });
    let arrival = arrival(&with_properties(message(JSON, "1"), properties));
    assert!(!arrival.own_id);
    assert_eq!(arrival.event.unwrap().time.as_deref(), Some(NOW_TEXT));
    let beyond = json!({ "timestamp": i64::MAX });
    let event = event(&with_properties(message(JSON, "1"), beyond));
    assert_eq!(event.time.as_deref(), Some(NOW_TEXT));
}

#[test]
fn a_body_is_json_where_it_says_so_or_says_nothing_and_is() {
    let table = [
        (JSON, &b" [1, 2 ]\n"[..], json_data(" [1, 2 ]\n"), JSON),
        (Some("text/json; v=1"), b"1", json_data("1"), Some("text/json; v=1")),
        (None, b"{\"a\":1,\"a\":2}", json_data("{\"a\":1,\"a\":2}"), None),
        (None, b"null", json_data("null"), None),
        (None, b"plain text", binary_data(b"plain text"), Some("application/octet-stream")),
        (None, b"\xef\xbb\xbf{}", binary_data(b"\xef\xbb\xbf{}"), Some("application/octet-stream")),
        (Some("text/plain"), b"{}", binary_data(b"{}"), Some("text/plain")),
        (Some("application/xml"), b"<a/>", binary_data(b"<a/>"), Some("application/xml")),
        (None, b"\xff\xfe", binary_data(b"\xff\xfe"), Some("application/octet-stream")),
        (JSON, b"", Data::Absent, JSON),
        (None, b"", Data::Absent, None),
    ];
    for (content_type, body, data, datacontenttype) in table {
        let event = event(&message(content_type, body));
        assert_eq!(event.data, data);
        assert_eq!(event.datacontenttype.as_deref(), datacontenttype);
    }
}

#[test]
fn data_shares_the_bytes_of_the_message() {
    let metadata = r#"{"metadata":{"eventId":"1"},"data":{"a":1}}"#;
    for (content_type, body, start) in [(JSON, "[1,2]", 0), (JSON, metadata, 35)] {
        let message = message(content_type, body);
        let Data::Json(data) = event(&message).data else { panic!("not JSON") };
        assert_eq!(data.as_ptr(), message.body[start..].as_ptr(), "not a copy");
    }
}

#[test]
fn a_compressed_body_is_never_looked_into() {
    let zipped = Message {
        content_encoding: Some("gzip".to_owned()),
        ..message(JSON, &b"\x1f\x8b\x08"[..])
    };
    let event = event(&zipped);
    assert_eq!(event.data, binary_data(b"\x1f\x8b\x08"));
    assert_eq!(event.datacontenttype.as_deref(), JSON);
    assert_eq!(event.extensions, BTreeMap::from([("contentencoding".to_owned(), json!("gzip"))]));
    let structured = Message { content_type: Some(STRUCTURED.to_owned()), ..zipped };
    assert!(why(&structured).contains("`gzip` body is not read"), "{}", why(&structured));
    for none in ["", "identity", "Identity"] {
        let message = Message { content_encoding: Some(none.to_owned()), ..message(JSON, "{}") };
        assert_eq!(self::event(&message).data, json_data("{}"));
    }
}

const STRUCTURED: &str = "application/cloudevents+json";

#[test]
fn n1_what_is_no_event_says_why_and_keeps_its_first_64_kib() {
    let big = vec![b'x'; RAW_MAX + 1];
    let message = with_properties(message(JSON, big), json!({ "message_id": "m-1" }));
    let arrival = arrival(&message);
    assert!(!arrival.own_id, "an invalid event spends no id");
    let invalid = arrival.event.unwrap_err();
    assert_eq!(invalid.raw.len(), RAW_MAX);
    assert_eq!(invalid.why, "not JSON: expected value at line 1 column 1");
    let about = json!({
        "exchange": "orders", "routing_key": "order.confirmed",
        "content_type": "application/json", "message_id": "m-1", "size": RAW_MAX + 1,
    });
    assert_eq!(Value::Object(invalid.about), about);
}

fn keyed(key: &str, body: &str) -> Message {
    Message { routing_key: key.to_owned(), ..message(JSON, body.to_owned()) }
}

#[test]
fn what_cannot_become_an_event_is_invalid_with_a_remedy() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let keyless = |body: &str| keyed("", body);
    let id = |id: &str| with_properties(message(JSON, "1"), json!({ "message_id": id }));
    let table = [
        (message(JSON, deep.clone()), "nested deeper than 128 levels"),
        (message(None, deep.clone()), "nested deeper than 128 levels"),
        (message(Some(STRUCTURED), deep), "nested deeper than 128 levels"),
        (message(JSON, "{\"a\": "), "not JSON: EOF while parsing a value at line 1 column 6"),
        (message(JSON, &b"\"\xff\""[..]), "not JSON: invalid utf-8"),
        (message(JSON, "\u{feff}{}"), "byte order mark"),
        (keyless("1"), "`type` is missing: the message has no routing key; set `event.type`"),
        (keyless(r#"{"metadata":{"eventId":"1"}}"#), "set `event.type`"),
        (keyed("a\r\nb", "1"), "`type` has control characters"),
        (id("a\0b"), "`id` has control characters"),
        (message(Some("application/cloudevents-batch+json"), "[]"), "a CloudEvents batch"),
    ];
    for (message, words) in table {
        let why = why(&message);
        assert!(why.contains(words), "{why} does not say: {words}");
    }
}

// ===== metadata-data =====

#[test]
fn the_metadata_data_envelope_is_read_in_camel_and_in_snake_case() {
    let camel = r#"{"metadata": {"eventId": "42", "eventType": "order.paid", "eventVersion": "v1",
        "eventTime": "2026-01-31T11:00:00+01:00", "source": "/orders", "subject": "7",
        "correlationId": "c", "causationId": "d", "tenant": 5, "test": false, "nested": {"a": 1}},
        "data": {"total": 12.50, "n": 1, "n": 2}}"#;
    let snake = r#"{"data": {"total": 12.50, "n": 1, "n": 2},
        "metadata": {"event_id": "42", "event_type": "order.paid", "event_version": "v1",
        "occurred_at": "2026-01-31T11:00:00+01:00", "event_source": "/orders",
        "event_subject": "7", "correlation_id": "c", "causation_id": "d", "tenant": 5,
        "test": false, "lines": "a\nb", "nothing": null, "list": []}}"#;
    for body in [camel, snake] {
        for content_type in [JSON, None] {
            let arrival = arrival(&message(content_type, body));
            assert!(arrival.own_id);
            let expected = Event {
                id: "42".to_owned(),
                source: "/orders".to_owned(),
                kind: "order.paid".to_owned(),
                subject: Some("7".to_owned()),
                time: Some("2026-01-31T11:00:00+01:00".to_owned()),
                datacontenttype: None,
                dataschema: None,
                extensions: BTreeMap::from([
                    ("causationid".to_owned(), json!("d")),
                    ("correlationid".to_owned(), json!("c")),
                    ("tenant".to_owned(), json!(5)),
                    ("test".to_owned(), json!(false)),
                    ("version".to_owned(), json!("v1")),
                ]),
                traceparent: None,
                hops: 0,
                data: json_data(r#"{"total": 12.50, "n": 1, "n": 2}"#),
            };
            assert_eq!(arrival.event.unwrap(), expected);
        }
    }
}

#[test]
fn what_the_metadata_leaves_out_comes_from_the_message() {
    let body = r#"{"metadata": {"id": null, "type": "order.paid", "time": ""}, "data": null}"#;
    let properties = json!({ "message_id": "m-1", "timestamp": 1_522_949_460 });
    let message = with_properties(message(None, body), properties);
    let event = event(&message);
    assert_eq!((&*event.id, &*event.kind, &*event.source), ("m-1", "order.paid", "/award-points"));
    assert_eq!(event.time.as_deref(), Some("2018-04-05T17:31:00Z"));
    assert_eq!(event.data, json_data("null"));
    let untyped = Message { body: r#"{"metadata": {"id": 7}}"#.into(), ..message };
    let untyped = self::event(&untyped);
    assert_eq!((&*untyped.id, &*untyped.kind), ("7", "order.confirmed"));
    assert_eq!(untyped.data, Data::Absent);
}

#[test]
fn metadata_times_may_count_from_the_epoch() {
    for (time, expected) in
        [("1522949460", "2018-04-05T17:31:00Z"), ("1522949460123", "2018-04-05T17:31:00.123Z")]
    {
        let body = format!(r#"{{"metadata": {{"eventId": "1", "timestamp": {time}}}}}"#);
        assert_eq!(event(&message(None, body)).time.as_deref(), Some(expected));
    }
}

#[test]
fn an_object_that_is_not_quite_the_envelope_is_a_plain_message() {
    let plain = [
        r#"{"metadata": {"eventId": "1"}, "data": 1, "more": 2}"#,
        r#"{"metadata": {"colour": "red"}, "data": 1}"#,
        r#"{"metadata": [], "data": 1}"#,
        r#"{"metadata": "eventId", "data": 1}"#,
        r#"{"data": 1}"#,
        r#"{"metadata": {"eventId": "1"}, "data": 1, "data": 2}"#,
        r#"[{"metadata": {"eventId": "1"}, "data": 1}]"#,
        r#"{"metadata": {"eventId": "", "eventType": null}, "data": 1}"#,
    ];
    for body in plain {
        let event = event(&message(JSON, body));
        assert_eq!(event.data, json_data(body));
        assert_eq!(event.kind, "order.confirmed");
    }
    let text = r#"{"metadata": {"eventId": "1"}, "data": 1}"#;
    let event = event(&message(Some("text/plain"), text));
    assert_eq!(event.data, binary_data(text.as_bytes()), "it says that it is not JSON");
}

#[test]
fn wrong_metadata_is_named() {
    let large = format!(r#"{{"metadata": {{"eventId": "1", "x": "{}"}}}}"#, "x".repeat(64 << 10));
    let table = [
        (r#"{"metadata": {"eventId": ["1"]}, "data": 1}"#.to_owned(), "`metadata.eventId` is"),
        (r#"{"metadata": {"id": "1", "version": {}}}"#.to_owned(), "`metadata.eventVersion` is"),
        (r#"{"metadata": {"id": "1", "time": "noon"}}"#.to_owned(), "`time` is not RFC 3339"),
        (r#"{"metadata": {"id": "1", "time": true}}"#.to_owned(), "`metadata.time` is neither"),
        (large, "`metadata` is larger than 64 KiB"),
    ];
    for (body, words) in table {
        let why = why(&message(JSON, body));
        assert!(why.contains(words), "{why} does not say: {words}");
    }
}

// ===== trace context =====

#[test]
fn the_trace_comes_from_the_header_else_from_the_extension_else_from_nowhere() {
    let other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    let structured = |traceparent: &str| {
        let event = json!({
            "specversion": "1.0", "id": "1", "source": "/s", "type": "t",
            "traceparent": traceparent,
        });
        message(Some(STRUCTURED), event.to_string())
    };
    let table = [
        (json!({ "traceparent": TRACEPARENT }), other, Some(TRACEPARENT)),
        (json!({ "traceparent": "00-bad" }), other, Some(other)),
        (json!({ "traceparent": 5 }), other, Some(other)),
        (json!({}), other, Some(other)),
        (json!({}), "00-bad", None),
        (json!({ "traceparent": TRACEPARENT }), "00-bad", Some(TRACEPARENT)),
    ];
    for (headers, extension, expected) in table {
        let event = event(&with_headers(structured(extension), headers));
        assert_eq!(event.traceparent, expected.and_then(TraceContext::parse));
        assert_eq!(event.extensions["traceparent"], extension, "the event stays what it is");
    }
    let plain = with_headers(message(JSON, "1"), json!({ "traceparent": TRACEPARENT }));
    assert_eq!(event(&plain).traceparent, TraceContext::parse(TRACEPARENT));
    let state = json!({ "traceparent": TRACEPARENT, "tracestate": "vendor=1" });
    let carried = event(&with_headers(message(JSON, "1"), state)).traceparent.unwrap();
    assert_eq!(carried.state(), Some("vendor=1"));
    let other = json!({ "traceparent": "00-bad", "tracestate": "vendor=1" });
    let of_extension = event(&with_headers(structured(TRACEPARENT), other)).traceparent.unwrap();
    assert_eq!(of_extension.state(), None, "a state belongs to the parent beside it");
}
