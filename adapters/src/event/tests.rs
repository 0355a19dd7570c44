mod round_trips;

use proptest::prelude::*;
use serde_json::json;

use super::{attribute::*, *};
use crate::Timestamp;

fn order() -> Event {
    Event {
        id: "A234-1234-1234".to_owned(),
        source: "/orders".to_owned(),
        kind: "order.confirmed.v1".to_owned(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: Data::Absent,
    }
}

fn full() -> Event {
    Event {
        subject: Some("orders/7 \"seven\"".to_owned()),
        time: Some("2018-04-05T17:31:00Z".to_owned()),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: Some("https://schemas.example/order".to_owned()),
        extensions: BTreeMap::from([
            ("comexampleextension1".to_owned(), json!("value")),
            ("comexampleothervalue".to_owned(), json!(5)),
            ("sampled".to_owned(), json!(true)),
        ]),
        traceparent: TraceContext::carried(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            Some("vendor=1"),
        ),
        hops: 0,
        data: Data::Json(Bytes::from_static(br#"{ "total": 12.50, "n": 1, "n": 2 }"#)),
        ..order()
    }
}

#[test]
fn n3_n5_json_data_is_spliced_in_byte_for_byte() {
    let json = full().to_json();
    let text = std::str::from_utf8(&json).unwrap();
    assert_eq!(
        text,
        "{\"specversion\":\"1.0\",\"id\":\"A234-1234-1234\",\"source\":\"/orders\",\
         \"type\":\"order.confirmed.v1\",\"subject\":\"orders/7 \\\"seven\\\"\",\
         \"time\":\"2018-04-05T17:31:00Z\",\"datacontenttype\":\"application/json\",\
         \"dataschema\":\"https://schemas.example/order\",\"comexampleextension1\":\"value\",\
         \"comexampleothervalue\":5,\"sampled\":true,\
         \"data\":{ \"total\": 12.50, \"n\": 1, \"n\": 2 }}",
    );
}

/// JSON format 1.0.2, §3.1.
#[test]
fn other_data_travels_as_base64_and_none_not_at_all() {
    let binary = Event { data: Data::Binary(Bytes::from_static(&[0, 255, 254])), ..order() };
    let json: Value = serde_json::from_slice(&binary.to_json()).unwrap();
    assert_eq!(json["data_base64"], "AP/+");
    assert_eq!(json.get("data"), None);
    let json: Value = serde_json::from_slice(&order().to_json()).unwrap();
    let expected = json!({
        "specversion": "1.0", "id": "A234-1234-1234", "source": "/orders",
        "type": "order.confirmed.v1",
    });
    assert_eq!(json, expected);
}

#[test]
fn the_stored_form_is_read_back_as_it_was() {
    let binary = Event { data: Data::Binary(Bytes::from_static(b"\x00\xff")), ..full() };
    let empty = Event { data: Data::Binary(Bytes::new()), ..full() };
    for event in [order(), full(), binary, empty] {
        let attributes = event.encode_attributes();
        assert_eq!(Event::decode(&attributes, event.data_bytes()), Ok(event));
    }
}

#[test]
fn the_stored_form_of_a_small_event_is_small() {
    let event = Event { data: Data::Json(Bytes::from_static(b"{}")), ..order() };
    let stored = r#"{"id":"A234-1234-1234","source":"/orders","type":"order.confirmed.v1"}"#;
    assert_eq!(event.encode_attributes(), stored.as_bytes());
}

#[test]
fn attributes_alone_are_an_event_without_data() {
    let listed = Event::decode(&full().encode_attributes(), Bytes::new()).unwrap();
    assert_eq!(listed, Event { data: Data::Absent, ..full() });
    assert!(serde_json::from_slice::<Value>(&listed.to_json()).is_ok());
}

#[test]
fn a_damaged_store_is_an_error() {
    let damaged: [&[u8]; 8] = [
        b"",
        b"{",
        b"[]",
        b"{}",
        br#"{"id":"1","source":"/s"}"#,
        br#"{"id":1,"source":"/s","type":"t"}"#,
        br#"{"id":"1","source":"/s","type":"t","$data":"xml"}"#,
        br#"{"id":"1","source":"/s","type":"t","$later":true}"#,
    ];
    for bytes in damaged {
        let decoded = Event::decode(bytes, Bytes::new());
        assert!(decoded.is_err(), "{}: {decoded:?}", String::from_utf8_lossy(bytes));
    }
    let mut longer = order().encode_attributes();
    longer.extend_from_slice(b"{}");
    assert!(Event::decode(&longer, Bytes::new()).is_err());
}

#[test]
fn depth_is_counted_outside_of_strings() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert_eq!(check_json(nested(DEPTH_MAX).as_bytes()), Ok(()));
    assert_eq!(check_json(nested(DEPTH_MAX + 1).as_bytes()), Err(EventError::TooDeep));
    let objects = r#"{"a":"#.repeat(DEPTH_MAX) + "1" + &"}".repeat(DEPTH_MAX);
    assert_eq!(check_json(objects.as_bytes()), Ok(()));
    assert_eq!(check_json(format!("[{objects}]").as_bytes()), Err(EventError::TooDeep));
    // Beside each other is not inside each other.
    let beside = format!("[{}]", vec![nested(100); 100].join(","));
    assert_eq!(check_json(beside.as_bytes()), Ok(()));
    let quoted = format!(r#"["\"{}", "\\", {}]"#, "[{".repeat(500), nested(100));
    assert_eq!(check_json(quoted.as_bytes()), Ok(()));
    // A guard before parsers: what is no JSON is as deep as it looks.
    assert_eq!(check_depth("[".repeat(100_000).as_bytes()), Err(EventError::TooDeep));
    assert_eq!(check_depth(br#"]]]]"\"#), Ok(()));
}

#[test]
fn only_one_whole_json_text_is_json() {
    for text in ["{}", " [1, 2]\n", "null", "\"\\ud83d\\ude00\"", "-0.0e-10", "\"é\""] {
        assert_eq!(check_json(text.as_bytes()), Ok(()), "{text}");
    }
    let wrong: [&[u8]; 15] = [
        b"",
        b" ",
        b"{} {}",
        b"{'a': 1}",
        b"{\"a\" 1}",
        b"[1,]",
        b"01",
        b"+1",
        b".5",
        b"NaN",
        b"nul",
        b"\"\t\"",
        b"\"\\x\"",
        b"\"\xff\"",
        b"\"\xed\xa0\x80\"",
    ];
    for text in wrong {
        let checked = check_json(text);
        assert!(matches!(checked, Err(EventError::NotJson(_))), "{text:?}: {checked:?}");
    }
    let marked = check_json(b"\xef\xbb\xbf{}").unwrap_err().to_string();
    assert!(marked.contains("byte order mark"), "{marked}");
}

#[test]
fn the_parsers_words_never_show_what_stood_there() {
    let problem = check_json(br#"{"token": "s3cret" s3cret}"#).unwrap_err().to_string();
    assert!(problem.contains("line 1 column"), "{problem}");
    assert!(!problem.contains("s3cret"), "{problem}");
}

#[test]
fn attributes_that_cloudevents_does_not_allow_are_refused_by_name() {
    let extension = |name: &str, value: Value| Event {
        extensions: BTreeMap::from([(name.to_owned(), value)]),
        ..order()
    };
    let text = |text: &str| text.to_owned();
    let table = [
        (Event { id: text(""), ..order() }, "`id` is empty"),
        (Event { source: text("a\0b"), ..order() }, "`source` has control characters"),
        (Event { kind: text("a\r\nX-Evil: 1"), ..order() }, "`type` has control characters"),
        (Event { subject: Some(text("\u{85}")), ..order() }, "`subject` has control characters"),
        (Event { id: "x".repeat(TEXT_MAX + 1), ..order() }, "`id` is longer than 64 KiB"),
        (Event { time: Some(text("yesterday")), ..order() }, "`time` is not RFC 3339"),
        (Event { time: Some(text("2026-01-31T12:00:00")), ..order() }, "`time` is not RFC 3339"),
        (extension("data", json!("x")), "`data` is CloudEvents' own"),
        (extension("id", json!("x")), "`id` is CloudEvents' own"),
        (extension("Upper", json!("x")), "`Upper` is no attribute name"),
        (extension("", json!("x")), "`` is no attribute name"),
        (extension("$data", json!("x")), "`$data` is no attribute name"),
        (extension("a\nb", json!("x")), "`a\\nb` is no attribute name"),
        (extension("fraction", json!(0.5)), "`fraction` is neither"),
        (extension("list", json!([])), "`list` is neither"),
        (extension("line", json!("a\nb")), "`line` has control characters"),
    ];
    for (event, problem) in table {
        let refused = event.check().unwrap_err().to_string();
        assert!(refused.contains(problem), "{refused} is not about: {problem}");
    }
    assert_eq!(full().check(), Ok(()));
}

#[test]
fn json_media_types_are_known_by_name_and_suffix() {
    let json = [
        "application/json",
        "Application/JSON; charset=utf-8",
        "text/json",
        "application/problem+json",
        "application/vnd.order.v1+JSON ; v=1",
    ];
    for content_type in json {
        assert!(is_json(content_type), "{content_type}");
    }
    let other =
        ["", "json", "+jso", "application/jsonl", "text/plain", "application/json-seq", "é+jsön"];
    for content_type in other {
        assert!(!is_json(content_type), "{content_type}");
    }
}

#[test]
fn times_are_written_as_rfc_3339() {
    assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00Z");
    assert_eq!(rfc3339(Timestamp(1_522_949_460_123)), "2018-04-05T17:31:00.123Z");
    assert_eq!(rfc3339(Timestamp(i64::MAX)), "1970-01-01T00:00:00Z", "beyond all calendars");
    assert_eq!(unix_time(1_522_949_460).as_deref(), Some("2018-04-05T17:31:00Z"));
    assert_eq!(unix_time(1_522_949_460_123).as_deref(), Some("2018-04-05T17:31:00.123Z"));
    assert_eq!(unix_time(-1).as_deref(), Some("1969-12-31T23:59:59Z"));
    assert_eq!(unix_time(i64::MAX), None);
    assert_eq!(unix_time(i64::MIN), None);
}

/// Depth as a parser would find it that keeps a stack.
fn reference_depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut at) = (0_usize, 0, 0);
    while at < json.len() {
        match json[at] {
            b'"' => {
                at += 1;
                while at < json.len() && json[at] != b'"' {
                    at += if json[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    deepest
}

fn depth_of(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth_of).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC*|[\\[\\]{}\"\\\\]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[\"\\\\\\[{a-c]{0,3}", inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_data() -> impl Strategy<Value = Data> {
    prop_oneof![
        Just(Data::Absent),
        any_json().prop_map(|json| Data::Json(json.to_string().into())),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Data::Binary(bytes.into())),
    ]
}

fn any_extension() -> impl Strategy<Value = (String, Value)> {
    let value = prop_oneof![
        "\\PC{0,12}".prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
    ];
    let name = "[a-z0-9]{1,9}".prop_filter("free", |name| is_extension_name(name));
    (name, value)
}

prop_compose! {
    fn any_event()(
        required in ("\\PC{1,20}", "\\PC{1,20}", "\\PC{1,20}"),
        optional in prop::array::uniform3(prop::option::of("\\PC{1,20}")),
        trace in prop::option::of(any::<bool>()),
        ms in prop::option::of(-60_000_000_000_000..200_000_000_000_000_i64),
        extensions in prop::collection::vec(any_extension(), 0..4),
        data in any_data(),
    ) -> Event {
        let [subject, datacontenttype, dataschema] = optional;
        let traceparent = trace.map(TraceContext::root);
        Event {
            id: required.0,
            source: required.1,
            kind: required.2,
            subject,
            time: ms.map(|ms| rfc3339(Timestamp(ms))),
            datacontenttype,
            dataschema,
            extensions: extensions.into_iter().collect(),
            traceparent,
            hops: 0,
            data,
        }
    }
}

proptest! {
    #[test]
    fn any_event_is_read_back_as_it_was_stored(event in any_event()) {
        let attributes = event.encode_attributes();
        prop_assert_eq!(Event::decode(&attributes, event.data_bytes()), Ok(event.clone()));
        prop_assert!(event.size_hint() >= attributes.len() + event.data_bytes().len() - 64);
    }

    #[test]
    fn any_event_is_one_json_object_with_its_data_in_it(event in any_event()) {
        let json = event.to_json();
        prop_assert_eq!(check_json(&json), Ok(()));
        let json: Value = serde_json::from_slice(&json).unwrap();
        prop_assert_eq!(json["type"].as_str(), Some(&*event.kind));
        prop_assert_eq!(json.get("data").is_some(), matches!(event.data, Data::Json(_)));
        if let Data::Json(data) = &event.data {
            prop_assert_eq!(&json["data"], &serde_json::from_slice::<Value>(data).unwrap());
        }
    }

    #[test]
    fn decoding_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Event::decode(&bytes, Bytes::new());
    }

    #[test]
    fn depth_agrees_with_a_plain_count(
        bytes in "[\\[\\]{}\"\\\\a]{0,60}",
        times in 1_usize..20,
    ) {
        let text = bytes.repeat(times);
        let deep = reference_depth(text.as_bytes()) > DEPTH_MAX;
        prop_assert_eq!(check_depth(text.as_bytes()).is_err(), deep, "{}", text);
    }

    #[test]
    fn depth_agrees_with_the_parser(value in any_json(), around in 110_usize..140) {
        let text = "[".repeat(around) + &value.to_string() + &"]".repeat(around);
        let deep = around + depth_of(&value) > DEPTH_MAX;
        prop_assert_eq!(check_json(text.as_bytes()).is_err(), deep);
    }

    #[test]
    fn what_is_called_json_is_what_the_parser_takes(bytes in "[\\[\\]{}\":,0-9eE+.\\\\tn-]{0,12}") {
        // Values may lie outside of what a tree can hold, so only what the parser takes is told.
        let parsed = serde_json::from_str::<Value>(&bytes).is_ok();
        prop_assert!(!parsed || check_json(bytes.as_bytes()).is_ok());
    }
}
