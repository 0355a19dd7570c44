//! CloudEvents, structured and binary: the specifications' own examples, then what is wrong.

use super::*;

fn structured(members: &str) -> Message {
    message(Some(STRUCTURED), with_required(members))
}

fn with_required(members: &str) -> String {
    let separator = if members.is_empty() { "" } else { "," };
    let required = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;
    format!("{{{required}{separator}{members}}}")
}

/// JSON event format 1.0.2, §3.2.
#[test]
fn the_example_of_the_json_format_is_read() {
    let example = r#"{
        "specversion" : "1.0",
        "type" : "com.example.someevent",
        "source" : "/mycontext",
        "subject": null,
        "id" : "C234-1234-1234",
        "time" : "2018-04-05T17:31:00Z",
        "comexampleextension1" : "value",
        "comexampleothervalue" : 5,
        "datacontenttype" : "application/json",
        "data" : {
            "appinfoA" : "abc",
            "appinfoB" : 123,
            "appinfoC" : true
        }
    }"#;
    let arrival = arrival(&message(Some("application/cloudevents+json; charset=UTF-8"), example));
    assert!(arrival.own_id);
    let event = arrival.event.unwrap();
    assert_eq!(event.kind, "com.example.someevent");
    assert_eq!(event.source, "/mycontext");
    assert_eq!(event.id, "C234-1234-1234");
    assert_eq!(event.subject, None);
    assert_eq!(event.time.as_deref(), Some("2018-04-05T17:31:00Z"));
    let extensions = [("comexampleextension1", json!("value")), ("comexampleothervalue", json!(5))];
    assert_eq!(event.extensions, extensions.map(|(k, v)| (k.to_owned(), v)).into());
    let start = example.find("{\n            \"appinfoA\"").unwrap();
    let end = example.rfind('}').unwrap();
    assert_eq!(event.data_bytes(), example[start..end].trim_end(), "byte for byte");
}

/// JSON event format 1.0.2, §3.1.1.
#[test]
fn data_is_what_the_json_format_says() {
    let table = [
        (r#""data": 1.50"#, json_data("1.50")),
        (r#""data": "\u0061""#, json_data(r#""\u0061""#)),
        (r#""data": null"#, json_data("null")),
        (r#""data": {"a":1, "a":2}"#, json_data(r#"{"a":1, "a":2}"#)),
        (r#""datacontenttype":"text/json","data":"x""#, json_data(r#""x""#)),
        // Text of another media type is a JSON string.
        (r#""datacontenttype":"text/xml","data":"<a b=\"c\"/>""#, binary_data(b"<a b=\"c\"/>")),
        (r#""datacontenttype":"text/xml","data":{"a":1}"#, json_data(r#"{"a":1}"#)),
        (r#""data_base64":"Q2xvdWRFdmVudHM=""#, binary_data(b"CloudEvents")),
        (r#""datacontenttype":"text/json","data_base64":"e30=""#, binary_data(b"{}")),
        (r#""data_base64":"Q2xvdWRFdmVudHM""#, binary_data(b"CloudEvents")),
        (r#""data_base64":null"#, Data::Absent),
        ("", Data::Absent),
    ];
    for (members, data) in table {
        assert_eq!(event(&structured(members)).data, data, "{members}");
    }
}

#[test]
fn a_cloudevent_says_all_of_it_itself() {
    let properties = json!({ "message_id": "m-1", "timestamp": 1_522_949_460 });
    let event = event(&with_properties(structured(""), properties));
    assert_eq!(event.id, "1");
    assert_eq!(event.time, None, "nothing is added to an event");
    assert_eq!(event.datacontenttype, None);
}

#[test]
fn what_harms_nobody_is_tolerated() {
    let lenient = structured(
        r#""partitionKey":"p","subject":"","time":"","dataSchema":"https://s.example",
        "samplingrate":0.50,"big":18446744073709551615,"gone":null,"DataContentType":"text/json",
        "Data":[1]"#,
    );
    let event = event(&lenient);
    assert_eq!((event.subject, event.time), (None, None));
    assert_eq!(event.dataschema.as_deref(), Some("https://s.example"));
    assert_eq!(event.datacontenttype.as_deref(), Some("text/json"));
    let expected =
        [("partitionkey", json!("p")), ("samplingrate", json!("0.50")), ("big", json!(u64::MAX))];
    assert_eq!(event.extensions, expected.map(|(k, v)| (k.to_owned(), v)).into());
    assert_eq!(event.data, json_data("[1]"));
}

#[test]
fn a_wrong_structured_event_is_told_what_is_wrong() {
    let many: Vec<String> = (0..300).map(|n| format!(r#""x{n}":1"#)).collect();
    let table = [
        (String::new(), "not JSON: EOF"),
        ("[]".to_owned(), "is a JSON object; the body is something else"),
        ("\"text".to_owned(), "not JSON: EOF"),
        ("{}".to_owned(), "`specversion` is missing"),
        (r#"{"specversion":1.0}"#.to_owned(), "`specversion` is not a string"),
        (r#"{"specversion":"0.3","id":"1"}"#.to_owned(), "`specversion` is not 1.0, the only one"),
        (r#"{"specversion":"1.0","id":"1","type":"t"}"#.to_owned(), "`source` is missing: the"),
        (r#"{"specversion":"1.0","source":"/s","type":"t"}"#.to_owned(), "`id` is missing"),
        (r#"{"specversion":"1.0","source":"/s","id":"1"}"#.to_owned(), "`type` is missing: the"),
        (r#"{"specversion":"1.0","id":"","source":"/","type":"t"}"#.to_owned(), "`id` is empty"),
        (with_required(r#""time":"today""#), "`time` is not RFC 3339"),
        (with_required(r#""subject":5"#), "`subject` is not a string"),
        (with_required(r#""id":"2""#), "`id` is there twice"),
        (with_required(r#""x":1,"X":2"#), "`x` is there twice"),
        (with_required(r#""data":1,"data":2"#), "`data` is there twice"),
        (with_required(r#""data":null,"data_base64":"QQ==""#), "or beside `data_base64`"),
        (with_required(r#""data_base64":"*""#), "`data_base64` is not Base64"),
        (with_required(r#""data_base64":{}"#), "`data_base64` is not a string"),
        (with_required(r#""my_ext":1"#), "`my_ext` is no attribute name"),
        (with_required(r#""x":{}"#), "`x` is an array or object"),
        (with_required(r#""x":"a\u0000b""#), "`x` has control characters"),
        (with_required(r#""subject":"a\r\nb""#), "`subject` has control characters"),
        (with_required(r#""x":"\ud800""#), "not JSON"),
        (with_required(&many.join(",")), "more members than any event has"),
        (with_required("") + "{}", "not JSON: trailing characters"),
    ];
    for (body, words) in table {
        let why = why(&message(Some(STRUCTURED), body.clone()));
        assert!(why.contains(words), "{body}: {why} does not say: {words}");
    }
}

/// AMQP binding 1.0.2, §3.1.4, under each of the prefixes.
#[test]
fn the_example_of_the_amqp_binding_is_read() {
    for prefix in ["cloudEvents:", "cloudEvents_", "ce-", "CE-"] {
        let headers = [
            ("specversion", json!("1.0")),
            ("type", json!("com.example.someevent")),
            ("time", json!("2018-04-05T03:56:24Z")),
            ("id", json!("1234-1234-1234")),
            ("source", json!("/mycontext/subcontext")),
            ("sampled", json!(true)),
            ("sequence", json!(7)),
            ("ratio", json!(0.5)),
        ];
        let headers = headers.map(|(name, value)| (format!("{prefix}{name}"), value));
        let mut headers: Map<String, Value> = headers.into_iter().collect();
        headers.insert("x-death".to_owned(), json!([{ "count": 1 }]));
        let content_type = "application/json; charset=utf-8";
        let message = Message { headers, ..message(Some(content_type), r#"{ "a": 1 }"#) };
        let arrival = arrival(&message);
        assert!(arrival.own_id);
        let expected = Event {
            id: "1234-1234-1234".to_owned(),
            source: "/mycontext/subcontext".to_owned(),
            kind: "com.example.someevent".to_owned(),
            subject: None,
            time: Some("2018-04-05T03:56:24Z".to_owned()),
            datacontenttype: Some(content_type.to_owned()),
            dataschema: None,
            extensions: BTreeMap::from([
                ("ratio".to_owned(), json!("0.5")),
                ("sampled".to_owned(), json!(true)),
                ("sequence".to_owned(), json!(7)),
            ]),
            traceparent: None,
            hops: 0,
            data: json_data(r#"{ "a": 1 }"#),
        };
        assert_eq!(arrival.event.unwrap(), expected);
    }
}

fn binary(change: Value, content_type: Option<&str>, body: &'static str) -> Message {
    let mut headers = object(json!({
        "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t",
    }));
    headers.extend(object(change));
    Message { headers, ..message(content_type, body) }
}

#[test]
fn binary_data_is_what_its_content_type_says() {
    let xml = event(&binary(json!({}), Some("text/xml"), "<a/>"));
    assert_eq!(xml.data, binary_data(b"<a/>"));
    assert_eq!(xml.datacontenttype.as_deref(), Some("text/xml"));
    // The property is the one that counts; the header stands in where it is missing.
    let named = json!({ "ce-datacontenttype": "text/csv" });
    let csv = event(&binary(named.clone(), None, "1,2"));
    assert_eq!(csv.data, binary_data(b"1,2"));
    assert_eq!(csv.datacontenttype.as_deref(), Some("text/csv"));
    assert_eq!(event(&binary(named, JSON, "[1]")).datacontenttype.as_deref(), JSON);
    assert_eq!(event(&binary(json!({}), None, "[1]")).data, json_data("[1]"));
    assert_eq!(event(&binary(json!({}), JSON, "")).data, Data::Absent);
    // The body is the data, whatever it looks like.
    let envelope = r#"{"metadata":{"eventId":"2"},"data":1}"#;
    assert_eq!(event(&binary(json!({}), JSON, envelope)).data, json_data(envelope));
}

#[test]
fn an_amqp_timestamp_is_a_time() {
    let event = event(&binary(json!({ "ce-time": 1_522_949_460 }), JSON, "1"));
    assert_eq!(event.time.as_deref(), Some("2018-04-05T17:31:00Z"));
}

#[test]
fn headers_without_specversion_are_just_headers() {
    let headers = json!({ "ce-id": "1", "ce-type": "t" });
    let event = event(&with_headers(message(JSON, "1"), headers));
    assert_eq!(event.kind, "order.confirmed");
}

#[test]
fn a_wrong_binary_event_is_told_what_is_wrong() {
    let table = [
        (json!({ "ce-specversion": "0.3" }), "`specversion` is not 1.0"),
        (json!({ "ce-specversion": null }), "`specversion` is missing"),
        (json!({ "ce-id": 5 }), "`id` is not a string"),
        (json!({ "ce-id": null }), "`id` is missing"),
        (json!({ "ce-source": "" }), "`source` is empty"),
        (json!({ "cloudEvents:id": "2" }), "`id` is there twice"),
        (json!({ "ce-data": "x" }), "`data` belongs into the body"),
        (json!({ "ce-data_base64": "x" }), "`data_base64` belongs into the body"),
        (json!({ "ce-": "x" }), "`` is no attribute name"),
        (json!({ "ce-x": [1] }), "`x` is an array or object"),
        (json!({ "ce-time": true }), "`time` is not a string"),
        (json!({ "ce-time": i64::MAX }), "`time` is not a string"),
    ];
    for (headers, words) in table {
        let why = why(&binary(headers.clone(), JSON, "1"));
        assert!(why.contains(words), "{headers}: {why} does not say: {words}");
    }
    assert!(why(&binary(json!({}), JSON, "{")).contains("not JSON"));
}
