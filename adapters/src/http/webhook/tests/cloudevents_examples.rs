//! The examples of the HTTP binding 1.0.2, their omissions filled in; then what is wrong.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

use super::*;

const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";

const HEADERS: [(&str, &str); 6] = [
    ("ce-specversion", "1.0"),
    ("ce-type", "com.example.someevent"),
    ("ce-time", "2018-04-05T03:56:24Z"),
    ("ce-id", "1234-1234-1234"),
    ("ce-source", "/mycontext/subcontext"),
    ("content-type", "application/json; charset=utf-8"),
];

fn binary(change: &[(&'static str, Option<&'static str>)]) -> Received {
    let mut headers = HEADERS.to_vec();
    for (name, value) in change {
        headers.retain(|(other, _)| other != name);
        headers.extend(value.map(|value| (*name, value)));
    }
    request(&headers, r#"{ "appinfoA" : 12.50 }"#)
}

fn structured(id: &str, members: &str) -> String {
    format!(
        r#"{{
    "specversion" : "1.0",
    "type" : "com.example.someevent",
    "source" : "/mycontext", "id" : "{id}"{members}
}}"#
    )
}

/// §3.1.4.
#[test]
fn the_binary_example_is_read() {
    let reading = read_as(&unmapped(), &binary(&[]), &with_id("msg_1"));
    assert!(reading.arrivals[0].own_id);
    let expected = Event {
        id: "1234-1234-1234".to_owned(),
        source: "/mycontext/subcontext".to_owned(),
        kind: "com.example.someevent".to_owned(),
        subject: None,
        time: Some("2018-04-05T03:56:24Z".to_owned()),
        datacontenttype: Some("application/json; charset=utf-8".to_owned()),
        dataschema: None,
        extensions: BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: json_data(r#"{ "appinfoA" : 12.50 }"#),
    };
    assert_eq!(reading.arrivals[0].event.as_ref().unwrap(), &expected);
    assert_eq!(answered(reading).2, r#"{"id":"1234-1234-1234"}"#);
}

/// §3.1.3.2.
#[test]
fn header_values_are_percent_decoded() {
    let change = [
        ("ce-subject", Some("Euro%20%E2%82%AC%20%F0%9F%98%80")),
        ("ce-tenant", Some("\"a \\\"b\\\"\"")),
        ("ce-traceparent", Some(TRACEPARENT)),
    ];
    let event = event(&unmapped(), &binary(&change));
    assert_eq!(event.subject.as_deref(), Some("Euro € 😀"));
    assert_eq!(event.extensions["tenant"], json!("a \"b\""));
    assert_eq!(event.traceparent, TraceContext::parse(TRACEPARENT));
}

/// §3.2.4.
#[test]
fn the_structured_example_is_read() {
    let body = structured("C234", r#", "data" : { "a":1.0, "a" : 2 }"#);
    let request = request(&[("content-type", STRUCTURED), ("ce-id", "a copy")], body);
    let reading = read(&unmapped(), &Received { method: Method::PUT, ..request });
    assert!(reading.arrivals[0].own_id);
    let event = reading.arrivals[0].event.clone().unwrap();
    assert_eq!((&*event.id, &*event.source), ("C234", "/mycontext"));
    assert_eq!((event.time, event.data), (None, json_data(r#"{ "a":1.0, "a" : 2 }"#)));
    assert_eq!(answered(reading).2, r#"{"id":"C234"}"#);
}

/// §3.3.3.
#[test]
fn the_batch_example_is_read() {
    let other = structured("2", r#","datacontenttype":"text/xml","data":"<a/>""#);
    let body = format!("[{},{other}]", structured("1", r#","data": 1.50"#));
    let reading = read(&unmapped(), &typed(BATCH, body));
    let data = |arrival: &Arrival| arrival.event.as_ref().unwrap().data.clone();
    let expected = [json_data("1.50"), binary_data(b"<a/>")];
    assert_eq!(reading.arrivals.iter().map(data).collect::<Vec<_>>(), expected);
    assert!(reading.arrivals.iter().all(|arrival| arrival.own_id));
    assert_eq!(answered(reading), (202, JSON.to_owned(), r#"{"ids":["1","2"]}"#.to_owned()));
}

#[test]
fn n16_a_batch_may_be_empty_and_has_a_thousand_events_at_most() {
    let reading = read(&unmapped(), &typed(BATCH, " [ ] "));
    assert!(reading.arrivals.is_empty());
    assert_eq!(answered(reading).2, r#"{"ids":[]}"#);
    let many = |count: usize| {
        let events: Vec<String> = (0..count).map(|id| structured(&id.to_string(), "")).collect();
        typed(BATCH, format!("[{}]", events.join(",")))
    };
    assert_eq!(events(&unmapped(), &many(EVENTS_MAX)).len(), EVENTS_MAX);
    let why = malformed(&unmapped(), &many(EVENTS_MAX + 1)).why;
    assert!(why.contains("1001 events; at most 1000"), "{why}");
}

#[test]
fn the_mapping_wins_over_a_cloud_event_field_by_field() {
    let mut mapped = unmapped();
    mapped.event.source = template("/{.headers[\"ce-type\"]}");
    mapped.event.subject = template("{.body.nothing}");
    let event = event(&mapped, &binary(&[("ce-source", None), ("ce-subject", Some("s"))]));
    assert_eq!((&*event.source, &*event.id), ("/com.example.someevent", "1234-1234-1234"));
    assert_eq!(event.subject.as_deref(), Some("s"), "a null leaves the envelope's in place");
    let mut mapped = unmapped();
    mapped.event.subject = template("{.index}:{.item.data}");
    let body = format!("[{},{}]", structured("1", ""), structured("2", r#","data":"x""#));
    let arrivals = read(&mapped, &typed(BATCH, body)).arrivals;
    let why = &arrivals[0].event.as_ref().unwrap_err().why;
    assert!(why.contains("`.item.data` is null"), "{why}");
    assert_eq!(arrivals[1].event.as_ref().unwrap().subject.as_deref(), Some("1:x"));
}

#[test]
fn n16_what_a_cloud_event_lacks_or_has_wrong_is_a_400_that_names_it() {
    let table = [
        (("ce-id", None), "`id` is missing"),
        (("ce-source", None), "`source` is missing"),
        (("ce-type", None), "`type` is missing"),
        (("ce-specversion", None), "`specversion` is missing"),
        (("ce-specversion", Some("0.3")), "`specversion` is not 1.0"),
        (("ce-id", Some("")), "`id` is empty"),
        (("ce-time", Some("noon")), "`time` is not RFC 3339"),
        (("ce-subject", Some("%C0%A0")), "`subject` is not UTF-8"),
        (("ce-subject", Some("a%0Ab")), "`subject` has control characters"),
        (("ce-a_b", Some("1")), "`a_b` is no attribute name"),
        (("ce-data", Some("1")), "`data` belongs into the body"),
    ];
    for (change, word) in table {
        let Malformed { status, why } = malformed(&unmapped(), &binary(&[change]));
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(why.contains(word), "{change:?}: {why}");
    }
    let doubled = request(&[&HEADERS[..], &[("ce-id", "2")]].concat(), "1");
    assert!(malformed(&unmapped(), &doubled).why.contains("`id` is there twice"));
    let table = [
        (STRUCTURED, "{".to_owned(), "not JSON"),
        (STRUCTURED, String::new(), "not JSON"),
        (STRUCTURED, "[1]".to_owned(), "JSON object"),
        (STRUCTURED, r#"{"specversion":"1.0","id":"1","source":"/"}"#.to_owned(), "`type`"),
        (STRUCTURED, structured("", ""), "`id` is empty"),
        (BATCH, structured("1", ""), "JSON array"),
        (BATCH, format!("[{},1]", structured("1", "")), "event 1 of the batch"),
        (BATCH, r#"[{"specversion":"1.0","id":"1"}]"#.to_owned(), "event 0 of the batch"),
        (BATCH, format!("[{0},{0}]", structured("1", "")), "two events of this request"),
    ];
    for (content_type, body, word) in table {
        let Malformed { status, why } = malformed(&unmapped(), &typed(content_type, body.clone()));
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(why.contains(word), "{body}: {why}");
    }
}

#[test]
fn headers_that_are_not_an_events_are_nobodys_business() {
    let event = event(&config(), &request(&[("ce-id", "1"), ("ce-type", "x")], "1"));
    assert_eq!((&*event.kind, &*event.source), ("t", "/loyalty-webhooks"));
}

#[test]
fn events_of_one_id_and_two_sources_are_two() {
    let other = structured("1", "").replace("/mycontext", "/other");
    let body = format!("[{},{other}]", structured("1", ""));
    assert_eq!(events(&unmapped(), &typed(BATCH, body)).len(), 2);
}

#[test]
fn a_binary_events_form_stays_as_it_is() {
    let request =
        Received { raw: Bytes::from_static(b"a=1&b=2"), ..binary(&[("content-type", Some(FORM))]) };
    let mut mapped = unmapped();
    mapped.event.subject = template("{.body.b}");
    let event = event(&mapped, &request);
    assert_eq!((event.data, event.subject.as_deref()), (binary_data(b"a=1&b=2"), Some("2")));
    assert_eq!(event.datacontenttype.as_deref(), Some(FORM));
    let broken = Received { raw: Bytes::from_static(b"a=%"), ..request };
    malformed(&unmapped(), &broken);
}
