//! That a wrong expectation fails, and that what is played is what would happen.

use super::*;
use crate::config::{Environment, load};

const ENDS: &str = "\
server: { public_url: 'https://hooks.example/in' }
upstreams:
  api:
    url: https://api.example/base
    timeout: 10s
    headers: { X-Tenant: '{.data.tenant}' }
    rate_limit: [{ limit: 9, key: '{.data.tenant | ascii_upcase}' }]
    retry: { attempts: 3 }
    egress: { allow: [] }
  inside: { url: 'http://127.0.0.1:1' }
  guarded:
    url: https://guarded.example
    auth: { hmac: { header: X-Sign, secret: key, signed: '{timestamp}.{raw}',
                    timestamp_header: X-Time } }
routes:
  out:
    from: { rabbitmq: { bind: [{ exchange: orders, key: '#' }] } }
    order_by: .data.tenant
    to: { http: { upstream: api, path: '/t/{.data.n}', query: { at: '{now}' } } }
    reply: { on: [delivered, dead], exchange: said, event: { type: 'said.{.outcome}' } }
  inside:
    from: { rabbitmq: { event: { type: plain, data: .body.inner } } }
    to: { http: { upstream: inside } }
  guarded:
    from: { rabbitmq: {} }
    to: { http: { upstream: guarded } }
    retry: { within: 15s, initial_delay: 4s, factor: 1, attempts: unlimited }
  in:
    from:
      webhook:
        path: /hook
        verify: { twilio: { secrets: [a, b] } }
        split: .body.n
        event: { type: 'got.{.item}', data: '{n: .item}' }
    when: .data.n != \"0\"
    to: { rabbitmq: { exchange: got, envelope: metadata-data, on_unroutable: dead } }
";

fn configured(test: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.yaml");
    std::fs::write(&path, format!("{ENDS}tests:\n  t: {{ {test} }}\n")).unwrap();
    let loaded = load(&[path], &Environment::default());
    loaded.unwrap_or_else(|report| panic!("{test}:\n{report}")).config
}

/// What differs, as a person reads it; nothing when the test passes.
async fn told(test: &str) -> String {
    let config = configured(test);
    let played = play(&config, "t", &config.tests["t"]).await;
    let mut told = String::new();
    for difference in &played.differences {
        told.push_str(&format!("{}\n", difference.what));
        for line in unified(&difference.expected, &difference.got) {
            told.push_str(&match line {
                Line::Both(line) => format!("  {line}\n"),
                Line::Expected(line) => format!("- {line}\n"),
                Line::Got(line) => format!("+ {line}\n"),
                Line::Alike(lines) => format!("({lines} lines)\n"),
            });
        }
    }
    if !played.differences.is_empty() {
        played.notes.iter().for_each(|note| told.push_str(&format!("note: {note}\n")));
    }
    told
}

#[track_caller]
fn is(told: String, expected: &str) {
    assert_eq!(told, expected, "\n{told}");
}

const EVENT: &str = "given: { event: { type: t, id: e, data: { tenant: acme, n: 7 } } }";

#[tokio::test]
async fn what_is_as_expected_passes() {
    let test = format!(
        "route: out, {EVENT}, now: '2026-01-01T00:00:01Z', expect: {{ key: acme, waits: [],
         requests: [{{ method: POST, path: '/base/t/7?at=1767225601.0',
                       headers: {{ X-Tenant: acme, Accept: '*', X-None: null }},
                       body: {{ tenant: '*', n: 7.0 }} }}],
         published: [{{ exchange: said, key: said.delivered, content_type: '*',
                        event: {{ type: said.delivered, source: /out, subject: null }} }}] }}"
    );
    is(told(&test).await, "");
}

#[tokio::test]
async fn every_part_that_is_wrong_is_told() {
    let test = format!(
        "route: out, {EVENT}, expect: {{ outcome: filtered, key: other, waits: [1s],
         requests: [{{ method: PUT, path: '*', body: {{ n: 8 }},
                       headers: {{ X-Tenant: b, X-Want: '*', Accept: null }} }}],
         published: [] }}"
    );
    let expected = "\
outcome
- filtered
+ delivered
key
- other
+ acme
requests
- PUT /base/t/7?at=1767225600.0
- X-Tenant: b
- X-Want: *
+ POST /base/t/7?at=1767225600.0
+ Accept: application/json
+ X-Tenant: acme
  {
-   \"n\": 8
+   \"n\": 7,
+   \"tenant\": \"acme\"
  }
published
+ exchange: said
+ key: said.delivered
+ {
+   \"data\": {
+     \"event\": {
+       \"id\": \"e\",
+       \"source\": \"/test\",
+       \"type\": \"t\"
+     },
+     \"outcome\": \"delivered\",
+     \"reason\": null
+   },
+   \"datacontenttype\": \"application/json\",
+   \"id\": \"ID\",
+   \"source\": \"/out\",
+   \"specversion\": \"1.0\",
+   \"time\": \"2026-01-01T00:00:00Z\",
+   \"type\": \"said.delivered\"
+ }
waits
- 1s
";
    let told = told(&test).await;
    let id = told.split("\"id\": \"").nth(2).and_then(|rest| rest.split('"').next()).unwrap();
    is(told.replace(id, "ID"), expected);
}

#[tokio::test]
async fn requests_that_are_missing_or_too_many_are_numbered() {
    let expected = "\
requests
  #1
  POST /base/t/7?at=1767225600.0
- #2
- POST /other
";
    let two = format!(
        "route: out, {EVENT}, expect: {{ requests: [{{}}, {{ method: POST, path: /other }}] }}"
    );
    is(told(&two).await, expected);
    let one = format!(
        "route: out, {EVENT}, answers: [{{ status: 500 }}, {{}}],
         expect: {{ requests: [{{ raw: '{{\"n\":7,\"tenant\":\"acme\"}}' }}] }}"
    );
    let expected = "\
requests
  #1
  POST /base/t/7?at=1767225600.0
  {\"n\":7,\"tenant\":\"acme\"}
+ #2
+ POST /base/t/7?at=1767225601.0
+ {\"n\":7,\"tenant\":\"acme\"}
note: attempt 1: 5xx: answered 500 Internal Server Error
";
    is(told(&one).await, expected);
}

#[tokio::test]
async fn the_schedule_is_the_one_that_runs() {
    let used_up = "[{ status: 500 }, { fault: timeout }, { status: 503 }, { status: 200 }]";
    let test = format!(
        "route: out, {EVENT}, answers: {used_up},
         expect: {{ outcome: dead, reason: exhausted, waits: [1s, 2s] }}"
    );
    is(told(&test).await, "");
    // An attempt without an answer takes its time: 10 s each by default, and 15 s are all there is.
    let test = format!(
        "route: guarded, {EVENT}, answers: [{{ fault: timeout }}, {{ fault: timeout }}],
         expect: {{ outcome: dead, reason: expired, waits: [4s] }}"
    );
    is(told(&test).await, "");
    let test = format!(
        "route: out, {EVENT}, answers: [{{ status: 429 }}, {{ status: 429 }}],
         expect: {{ outcome: pending, waits: [1s, 2s] }}"
    );
    is(told(&test).await, "");
}

#[tokio::test]
async fn a_limits_key_that_fails_is_dead_as_in_earnest() {
    let test = "route: out, given: { event: { type: t, data: { tenant: 5, n: 1 } } },
        expect: { outcome: dead, reason: expression, requests: [] }";
    is(told(test).await, "");
}

#[tokio::test]
async fn requests_are_signed_by_the_clock_of_the_test() {
    let test = format!(
        "route: guarded, {EVENT}, now: '2026-01-01T00:00:05Z', answers: [{{ status: 500 }}, {{}}],
         expect: {{ requests: [{{ headers: {{ X-Time: 1767225605, X-Sign: '*' }} }},
                               {{ headers: {{ X-Time: 1767225609, X-Sign: '*' }} }}] }}"
    );
    is(told(&test).await, "");
}

#[tokio::test]
async fn an_address_that_may_not_be_called_is_not_called() {
    let message = "given: { message: { body: { inner: [1] } } }";
    let test = format!("route: inside, {message}, expect: {{ outcome: delivered, requests: [] }}");
    let told = told(&test).await;
    assert!(told.starts_with("outcome\n- delivered\n+ pending\nnote: attempt 1: refused_address"));
    assert!(!told.contains("requests"), "{told}");
}

#[tokio::test]
async fn a_webhook_is_verified_split_and_published_event_by_event() {
    let form =
        "given: { webhook: { query: a=b, form: { n: '1', MessageSid: M, MessageStatus: s } } }";
    let test = format!(
        "route: in, {form}, expect: {{ published: [{{
           exchange: got, key: got.1, event: {{ id: M/s/0, type: got.1 }},
           body: {{ metadata: {{ eventId: M/s/0, eventType: got.1, source: /in, eventTime: '*',
                                 dataContentType: '*' }},
                    data: {{ n: '1' }} }} }}],
           answer: {{ status: 200, headers: {{ Content-Type: text/xml; charset=utf-8 }} }} }}"
    );
    is(told(&test).await, "");
    let filtered = form.replace("n: '1'", "n: '0'");
    is(told(&format!("route: in, {filtered}, expect: {{ outcome: filtered }}")).await, "");
    let fault = "answers: [{ fault: unroutable }], expect: { outcome: dead, reason: unroutable }";
    is(told(&format!("route: in, {form}, {fault}")).await, "");
    let unsigned = form.replace("query: a=b", "sign: false");
    let expected = "\
outcome
- delivered
+ refused
answer
- 200
+ 401
note: answered 401 Unauthorized: header `x-twilio-signature` is missing
";
    let test = format!("route: in, {unsigned}, expect: {{ answer: {{ status: 200 }} }}");
    is(told(&test).await, expected);
}

#[tokio::test]
async fn a_message_that_is_no_event_is_dead() {
    let broken = "given: { message: { raw: '{', content_type: application/cloudevents+json } }";
    let test = format!("route: out, {broken}, expect: {{ outcome: dead, reason: invalid }}");
    is(told(&test).await, "");
    let test = format!("route: out, {broken}, expect: {{ outcome: dead }}");
    is(told(&test).await, "");
    let test = format!("route: out, {broken}, expect: {{ outcome: dead, reason: expired }}");
    assert!(told(&test).await.starts_with("outcome\n- dead: expired\n+ dead: invalid\nnote: "));
}

#[test]
fn routes_without_tests_are_told_by_name() {
    let config = configured(&format!("route: out, {EVENT}"));
    let untested: Vec<&str> = untested(&config).into_iter().map(|name| &**name).collect();
    assert_eq!(untested, ["guarded", "in", "inside"]);
}
