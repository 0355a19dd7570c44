//! From requests to arrivals and answers, by tables; then arbitrary requests.

use std::collections::BTreeMap;

use http::HeaderValue;
use serde_json::{Value, json};

use super::*;
use crate::{
    Data, DeliveryId, Event, Invalid, TraceContext, event::message::RAW_MAX, expression::Template,
};

mod answers;
mod arbitrary;
mod cloudevents_examples;
mod split;

const NOW: Timestamp = Timestamp(1_769_860_800_500);
const NOW_TEXT: &str = "2026-01-31T12:00:00.5Z";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

fn template(text: &str) -> Option<Template> {
    Some(Template::compile(text).unwrap())
}

fn expression(text: &str) -> Option<Expression> {
    Some(Expression::compile(text).unwrap())
}

/// A route whose events have the type `t`.
fn config() -> WebhookConfig {
    WebhookConfig {
        path: "/hooks/loyalty".to_owned(),
        verify: VerifyConfig::None(NoVerifyConfig {}),
        rate_limit: None,
        dedupe: None,
        respond: None,
        split: None,
        event: EventMapping { kind: template("t"), ..EventMapping::default() },
    }
}

fn unmapped() -> WebhookConfig {
    WebhookConfig { event: EventMapping::default(), ..config() }
}

fn hook(config: &WebhookConfig) -> Hook {
    Hook::new("loyalty-webhooks".into(), config).unwrap()
}

fn request(headers: &[(&'static str, &str)], raw: impl Into<Bytes>) -> Received {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    Received {
        method: Method::POST,
        url: "https://hooks.example.com/hooks/loyalty?a=1&b=x%20y&a=2".to_owned(),
        path: "/hooks/loyalty".to_owned(),
        query: "a=1&b=x%20y&a=2".to_owned(),
        headers: all,
        raw: raw.into(),
    }
}

fn typed(content_type: &str, raw: impl Into<Bytes>) -> Received {
    request(&[("content-type", content_type)], raw)
}

fn with_id(id: &str) -> Verified {
    Verified { id: Some(id.to_owned()), handshake: None }
}

fn read_as(config: &WebhookConfig, request: &Received, verified: &Verified) -> Reading {
    hook(config).read(request, verified, NOW).unwrap_or_else(|malformed| panic!("{malformed}"))
}

fn read(config: &WebhookConfig, request: &Received) -> Reading {
    read_as(config, request, &Verified::default())
}

fn event(config: &WebhookConfig, request: &Received) -> Event {
    let [arrival] = <[Arrival; 1]>::try_from(read(config, request).arrivals).unwrap();
    arrival.event.unwrap_or_else(|invalid| panic!("{}", invalid.why))
}

fn events(config: &WebhookConfig, request: &Received) -> Vec<Event> {
    let arrivals = read(config, request).arrivals.into_iter();
    let event =
        |arrival: Arrival| arrival.event.unwrap_or_else(|invalid| panic!("{}", invalid.why));
    arrivals.map(event).collect()
}

fn invalid(config: &WebhookConfig, request: &Received) -> Invalid {
    let [arrival] = <[Arrival; 1]>::try_from(read(config, request).arrivals).unwrap();
    assert!(!arrival.own_id, "an invalid event spends no id");
    arrival.event.unwrap_err()
}

fn malformed(config: &WebhookConfig, request: &Received) -> Malformed {
    hook(config).read(request, &Verified::default(), NOW).unwrap_err()
}

fn pending(count: usize) -> Vec<Accepted> {
    vec![Accepted::Pending(DeliveryId(1)); count]
}

/// The answer as text, when everything was enqueued.
fn answered(reading: Reading) -> (u16, String, String) {
    let accepted = pending(reading.arrivals.len());
    let answer = reading.reply.answer(&accepted);
    let content_type = answer.headers.get("content-type");
    let content_type = content_type.map_or("", |value| value.to_str().unwrap()).to_owned();
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    (answer.status.as_u16(), content_type, body)
}

fn json_data(text: &'static str) -> Data {
    Data::Json(Bytes::from_static(text.as_bytes()))
}

fn binary_data(bytes: &'static [u8]) -> Data {
    Data::Binary(Bytes::from_static(bytes))
}

// ===== defaults =====

#[test]
fn a_request_has_the_defaults_of_the_contract() {
    let body = r#"{ "total": 12.50, "big": 12345678901234567890, "a": 1, "a": 2 }"#;
    let reading = read(&config(), &typed(JSON, body));
    assert!(!reading.arrivals[0].own_id, "a fresh id is never taken for a repeat");
    let event = reading.arrivals[0].event.clone().unwrap();
    assert_eq!(uuid::Uuid::parse_str(&event.id).unwrap().get_version_num(), 4);
    assert_eq!((&*event.source, &*event.kind), ("/loyalty-webhooks", "t"));
    assert_eq!(event.time.as_deref(), Some(NOW_TEXT));
    assert_eq!(event.datacontenttype.as_deref(), Some(JSON));
    assert_eq!(event.data, json_data(body));
    assert_eq!((event.subject, event.traceparent, event.hops), (None, None, 0));
    let expected = (202, JSON.to_owned(), json!({ "id": event.id }).to_string());
    assert_eq!(answered(reading), expected);
}

#[test]
fn the_id_of_the_scheme_is_the_events_own() {
    let reading = read_as(&config(), &typed(JSON, "1"), &with_id("msg_1"));
    assert!(reading.arrivals[0].own_id);
    assert_eq!(reading.arrivals[0].event.as_ref().unwrap().id, "msg_1");
    assert_eq!(answered(reading).2, r#"{"id":"msg_1"}"#);
    let mut mapped = config();
    mapped.event.id = template("{.body.no}");
    let reading = read_as(&mapped, &typed(JSON, r#"{"no": 7}"#), &with_id("msg_1"));
    assert_eq!(answered(reading).2, r#"{"id":"7"}"#, "`event.id` wins");
    let reading = read_as(&config(), &typed(JSON, "1"), &with_id(""));
    assert!(!reading.arrivals[0].own_id, "an empty id is none");
}

#[test]
fn a_body_is_data_by_its_content_type() {
    let octets = Some("application/octet-stream");
    let table = [
        (Some(JSON), &b" [1, 2.0 ]\n"[..], json_data(" [1, 2.0 ]\n"), Some(JSON)),
        (Some("text/json; v=1"), b"1", json_data("1"), Some("text/json; v=1")),
        (Some("a/b+json"), b"null", json_data("null"), Some("a/b+json")),
        (None, b"{\"a\":1,\"a\":2}", json_data("{\"a\":1,\"a\":2}"), None),
        (Some(""), b"{}", json_data("{}"), None),
        (None, b"plain text", binary_data(b"plain text"), octets),
        (None, b"\xff\xfe", binary_data(b"\xff\xfe"), octets),
        (Some("text/plain"), b"{}", binary_data(b"{}"), Some("text/plain")),
        (Some("application/xml"), b"<a/>", binary_data(b"<a/>"), Some("application/xml")),
        (Some("image/png"), b"\x89PNG", binary_data(b"\x89PNG"), Some("image/png")),
        (Some(JSON), b"", Data::Absent, Some(JSON)),
        (Some(FORM), b"", Data::Absent, Some(FORM)),
        (None, b"", Data::Absent, None),
        (Some(FORM), b"a=1&b=x+y&a=%C3%A9", json_data(r#"{"a":["1","é"],"b":"x y"}"#), Some(JSON)),
    ];
    for (content_type, body, data, datacontenttype) in table {
        let headers: Vec<_> =
            content_type.map(|value| ("content-type", value)).into_iter().collect();
        let event = event(&config(), &request(&headers, body));
        assert_eq!(event.data, data, "{content_type:?} {body:?}");
        assert_eq!(event.datacontenttype.as_deref(), datacontenttype);
    }
}

#[test]
fn a_trace_is_taken_from_the_header_when_it_has_the_right_shape() {
    let traced = |value| event(&config(), &request(&[("traceparent", value)], "1")).traceparent;
    assert_eq!(traced(TRACEPARENT), TraceContext::parse(TRACEPARENT));
    let states = [("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2, c=3")];
    let carried = event(&config(), &request(&states, "1")).traceparent.unwrap();
    assert_eq!(carried.state(), Some("a=1,b=2, c=3"));
    assert_eq!(traced("00-what"), None);
}

// ===== malformed =====

#[test]
fn n1_a_body_that_is_not_what_it_says_is_a_400_that_says_why() {
    let deep = "[".repeat(100_000);
    let table = [
        (Some(JSON), &b"{\"a\":}"[..], "not JSON, as Content-Type application/json says"),
        (Some(JSON), b" ", "not JSON"),
        (Some(JSON), b"{} {}", "not JSON"),
        (Some(JSON), b"\"\xff\"", "not JSON"),
        (Some(JSON), b"\xef\xbb\xbf{}", "byte order mark"),
        (Some("a/b+json; x=y"), b"{", "as Content-Type a/b+json says"),
        (Some(JSON), deep.as_bytes(), "deeper than 128"),
        (Some("application/cloudevents+json"), deep.as_bytes(), "deeper than 128"),
        (Some("application/cloudevents-batch+json"), deep.as_bytes(), "deeper than 128"),
        (None, deep.as_bytes(), "deeper than 128"),
        (Some(FORM), b"a=%4", "the form has a `%`"),
        (Some(FORM), b"a=%ff", "the form is not UTF-8"),
        (Some(FORM), b"a=\xff", "the form is not UTF-8"),
        (Some("text/\u{e9}"), b"", "Content-Type is not printable ASCII"),
    ];
    for (content_type, body, word) in table {
        let headers: Vec<_> =
            content_type.map(|value| ("content-type", value)).into_iter().collect();
        let Malformed { status, why } = malformed(&config(), &request(&headers, body.to_vec()));
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(why.contains(word), "{content_type:?}: {why}");
    }
    let twice = request(&[("content-type", JSON), ("content-type", "text/plain")], "1");
    assert!(malformed(&config(), &twice).why.contains("more than one Content-Type"));
}

#[test]
fn what_is_as_deep_as_allowed_is_taken() {
    // One level is the event's own.
    let body = format!("{}1{}", "[".repeat(127), "]".repeat(127));
    let mut mapped = config();
    mapped.event.subject = template("{.body | flatten | .[0]}");
    let event = event(&mapped, &typed(JSON, body.clone()));
    assert_eq!((event.subject.as_deref(), event.data_bytes()), (Some("1"), body.into()));
}

#[test]
fn a_body_in_a_form_that_is_not_read_is_a_415() {
    for coding in ["gzip", "GZIP, identity", "br", "identity, deflate"] {
        let request = request(&[("content-encoding", coding)], "1");
        let Malformed { status, why } = malformed(&config(), &request);
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{coding}");
        assert!(why.contains("Content-Encoding"), "{why}");
    }
    for coding in ["", "identity", "Identity, identity"] {
        event(&config(), &request(&[("content-encoding", coding)], "1"));
    }
    let Malformed { status, why } =
        malformed(&config(), &typed("application/cloudevents+avro", "1"));
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(why.contains("`application/cloudevents+avro` is not read"), "{why}");
}

// ===== mapping =====

#[test]
fn every_field_can_be_mapped() {
    let body = r#"{"type": "points.earned", "no": 7, "at": "2026-01-31T11:00:00Z",
        "customer": {"id": 9}, "data": {"total": 12.50, "n": 1, "n": 2}}"#;
    let mapped = WebhookConfig {
        event: EventMapping {
            id: template("{.headers[\"x-id\"]}"),
            source: template("{.path}"),
            kind: template("loyalty.{.body.type}.v1"),
            subject: template("{.body.customer.id}"),
            time: template("{.body.at}"),
            extensions: BTreeMap::from([("tenant".to_owned(), template("{.query.b}").unwrap())]),
            data: expression(".body.data"),
        },
        ..config()
    };
    let request = request(&[("content-type", JSON), ("x-id", "i-1")], body);
    let reading = read(&mapped, &request);
    assert!(reading.arrivals[0].own_id, "a mapped id is the event's own");
    let expected = Event {
        id: "i-1".to_owned(),
        source: "/hooks/loyalty".to_owned(),
        kind: "loyalty.points.earned.v1".to_owned(),
        subject: Some("9".to_owned()),
        time: Some("2026-01-31T11:00:00Z".to_owned()),
        datacontenttype: Some(JSON.to_owned()),
        dataschema: None,
        extensions: BTreeMap::from([("tenant".to_owned(), json!("x y"))]),
        traceparent: None,
        hops: 0,
        data: json_data(r#"{"total": 12.50, "n": 1, "n": 2}"#),
    };
    assert_eq!(reading.arrivals[0].event.as_ref().unwrap(), &expected);
}

#[test]
fn expressions_see_the_request_as_it_came() {
    let see = |code: &str, request: &Received| {
        let mut mapped = config();
        mapped.event.data = expression(code);
        String::from_utf8(event(&mapped, request).data_bytes().to_vec()).unwrap()
    };
    let headers = [
        ("content-type", JSON),
        ("x-tag", "a"),
        ("x-tag", "b"),
        ("x-u", "é"),
        ("authorization", "Bearer secret-token"),
    ];
    let posted = request(&headers, r#"{"n": 12.50, "m": 1}"#);
    let table = [
        (".method", r#""POST""#),
        (".url", r#""https://hooks.example.com/hooks/loyalty?a=1&b=x%20y&a=2""#),
        (".path", r#""/hooks/loyalty""#),
        (".query", r#"{"a":["1","2"],"b":"x y"}"#),
        (".headers", r#"{"content-type":"application/json","x-tag":"a, b","x-u":"é"}"#),
        (".raw", r#""{\"n\": 12.50, \"m\": 1}""#),
        (".body", r#"{"n": 12.50, "m": 1}"#),
        ("[.body.n, (.raw | length)]", "[12.50,20]"),
        ("[$route, $event, $attempt]", r#"["loyalty-webhooks",null,null]"#),
        ("keys", r#"["body","headers","method","path","query","raw","url"]"#),
    ];
    for (code, expected) in table {
        assert_eq!(see(code, &posted), expected, "{code}");
    }
    assert_eq!(see("[.body, .raw]", &typed("text/csv", "a,\"b\"\n")), r#"[null,"a,\"b\"\n"]"#);
    let bytes = typed("text/csv", &b"\xff\xfe"[..]);
    assert_eq!(see("[.body, .raw, .raw_base64]", &bytes), r#"[null,null,"//4="]"#);
    assert_eq!(see(".body.a", &typed(FORM, "a=1+2")), r#""1 2""#);
    assert_eq!(see("[.body, .raw]", &typed(JSON, "")), r#"[null,""]"#);
    assert_eq!(see(".body", &typed(FORM, "")), "{}");
}

#[test]
fn the_header_of_an_api_key_is_not_seen_either() {
    let verify = VerifyConfig::ApiKey(ApiKeyConfig {
        header: "X-Api-Key".to_owned(),
        keys: vec![crate::secret::Secret::new("k-1234567890")],
    });
    let hidden = input::credentials(&verify);
    assert_eq!(hidden, ["authorization", "proxy-authorization", "x-api-key"]);
}

#[test]
fn a_verified_request_whose_mapping_fails_is_kept_dead_and_answered() {
    let mapped = |event: EventMapping| WebhookConfig { event, ..config() };
    let kind = template("t");
    let table = [
        (EventMapping { kind: template("{.path.x}"), ..Default::default() }, "cannot index"),
        (EventMapping { kind: kind.clone(), time: template("noon"), ..Default::default() }, "RFC"),
        (
            EventMapping { kind, data: expression("error(\"no\")"), ..Default::default() },
            "error(\"no\")",
        ),
        (EventMapping::default(), "set `event.type`"),
    ];
    for (event, word) in table {
        let headers = [
            ("content-type", JSON),
            ("authorization", "Bearer secret-token"),
            ("webhook-signature", "v1,secret"),
        ];
        let request =
            request(&headers, vec![b' '; RAW_MAX].into_iter().chain(*b"[1]").collect::<Vec<_>>());
        let reading = read_as(&mapped(event), &request, &with_id("msg_1"));
        let arrival = &reading.arrivals[0];
        let invalid = arrival.event.as_ref().unwrap_err();
        assert!(!arrival.own_id && invalid.why.contains(word), "{}", invalid.why);
        assert_eq!(invalid.raw.len(), RAW_MAX);
        let about = json!({
            "method": "POST", "path": "/hooks/loyalty", "content_type": JSON, "id": "msg_1",
            "size": RAW_MAX + 3,
        });
        assert_eq!(Value::from(invalid.about.clone()), about);
        assert_eq!(answered(reading), (202, JSON.to_owned(), r#"{"id":"msg_1"}"#.to_owned()));
    }
}

#[test]
fn json_within_a_form_or_a_text_is_read_by_an_expression_and_no_deeper_than_any() {
    let mut mapped = config();
    mapped.event.data = expression(".body.payload | fromjson | .n");
    let form = |payload: &str| typed(FORM, format!("payload={payload}"));
    assert_eq!(event(&mapped, &form("%7B%22n%22:12.50%7D")).data, json_data("12.50"));
    let invalid = invalid(&mapped, &form(&"[".repeat(100_000)));
    assert!(invalid.why.len() < 1000, "{}", invalid.why.len());
}
