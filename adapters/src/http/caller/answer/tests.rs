//! What needs no expression; those are tested in `crate::http::expressions`.

use super::*;

fn answer(kind: Option<&'static str>, body: &'static str) -> Answer {
    let mut headers = HeaderMap::new();
    if let Some(kind) = kind {
        headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    }
    headers.append("X-Tag", http::HeaderValue::from_static("a"));
    headers.append("x-tag", http::HeaderValue::from_static("b \"c\""));
    let body = Bytes::from_static(body.as_bytes());
    Answer { status: StatusCode::OK, headers, body, cut: None }
}

fn body_seen(kind: Option<&'static str>, body: &'static str) -> String {
    let text = input_json(&answer(kind, body));
    let parsed: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed["status"], 200);
    assert_eq!(parsed["headers"]["x-tag"], "a, b \"c\"");
    let (_, body) = text.split_once(",\"body\":").unwrap();
    body.strip_suffix('}').unwrap().to_owned()
}

#[test]
fn json_bodies_are_parsed_and_others_are_text() {
    let json = Some("application/json");
    assert_eq!(body_seen(json, r#"{"n": 12.50}"#), r#"{"n": 12.50}"#);
    assert_eq!(body_seen(Some("application/problem+JSON; charset=utf-8"), " [1] "), "[1]");
    assert_eq!(body_seen(None, "true"), "true");
    assert_eq!(body_seen(Some("text/plain"), "true"), "\"true\"");
    assert_eq!(body_seen(json, "{\"cut\": "), "\"{\\\"cut\\\": \"");
    assert_eq!(body_seen(json, "{} {}"), "\"{} {}\"");
    assert_eq!(body_seen(json, ""), "null");
}

#[test]
fn a_body_nested_beyond_any_stack_is_no_danger_here() {
    let deep = Box::leak("[".repeat(200_000).into_boxed_str());
    assert!(body_seen(Some("application/json"), deep).starts_with("\"[["));
    let closed = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let closed: &'static str = Box::leak(closed.into_boxed_str());
    assert!(input_json(&answer(None, closed)).len() > 400_000);
}
