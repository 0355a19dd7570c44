//! The HTTP target with expressions and templates: what a route's own programs do to requests, and
//! to the reading of answers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    BodyConfig, Encode, HttpRequest, HttpTargetConfig,
    testing::{
        Seen, Server, answer, api, api_config, attempt, delivery_of, event, prepare, target,
        target_config, write,
    },
};
use crate::{
    AttemptResult, Data, DeadReason, Failure, Health, Throttle, Verdict,
    expression::{Expression, Template},
};

const REJECTED: Verdict = Verdict::Dead(DeadReason::Rejected);
const RETRY: Verdict = Verdict::Retry { after: None };

fn templates(pairs: &[(&str, &str)]) -> BTreeMap<String, Template> {
    let compiled =
        pairs.iter().map(|(name, source)| ((*name).to_owned(), Template::compile(source).unwrap()));
    compiled.collect()
}

fn expression(source: &str) -> Option<Expression> {
    Some(Expression::compile(source).unwrap())
}

fn rendered(config: &HttpTargetConfig, data: &'static str) -> Result<HttpRequest, Failure> {
    let mut api_config = api_config("https://api.example/v2?version=1");
    api_config.headers = templates(&[("Accept-Language", "en"), ("X-Both", "upstream")]);
    let api = api(&api_config);
    let event = event(Data::Json(Bytes::from_static(data.as_bytes())));
    prepare(&target(config, &api), &delivery_of(event))
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(|value| value.to_str().unwrap())
}

#[test]
fn path_query_headers_and_body_are_rendered() {
    let mut config = target_config();
    config.path = Some(Template::compile("/members/{.data.customerId}/points").unwrap());
    config.query = templates(&[("source", "{.source}"), ("none", "{.data.none}")]);
    config.headers = templates(&[
        ("X-Order", "{.data.orderId}/{$attempt}"),
        ("x-both", "route"),
        ("X-None", "{.data.none}"),
        ("User-Agent", "ours"),
        ("X-Key", "{$idempotency_key}"),
    ]);
    let body = Expression::compile("{points: .data.total, reference: .id}").unwrap();
    config.body = BodyConfig::Expression(body);
    let data = r#"{"customerId": "a/b ?#%", "orderId": 9, "total": 12.50}"#;
    let request = rendered(&config, data).unwrap();
    let expected =
        "https://api.example/v2/members/a%2Fb%20%3F%23%25/points?version=1&source=%2Forders";
    assert_eq!(request.url.as_str(), expected);
    assert_eq!(header(&request, "x-order"), Some("9/1"));
    assert_eq!(header(&request, "x-both"), Some("route"));
    assert_eq!(header(&request, "accept-language"), Some("en"));
    assert_eq!(header(&request, "x-none"), None);
    assert_eq!(header(&request, "user-agent"), Some("ours"));
    assert_eq!(header(&request, "x-key"), header(&request, "idempotency-key"));
    assert_eq!(request.body, r#"{"points":12.50,"reference":"1"}"#);
    assert_eq!(header(&request, "content-type"), Some("application/json"));
}

#[test]
fn a_body_asked_for_is_sent_with_any_method() {
    let mut config = target_config();
    config.method = http::Method::DELETE;
    config.body = BodyConfig::Expression(Expression::compile(".data").unwrap());
    let data = r#"{ "a": 1.0, "a":2 }"#;
    assert_eq!(rendered(&config, data).unwrap().body, data);
    config.encode = Encode::Form;
    config.body = BodyConfig::Expression(Expression::compile("{b: .data.a, c: [1]}").unwrap());
    assert_eq!(rendered(&config, r#"{"a": "x"}"#).unwrap().body, "b=x&c=1");
}

#[test]
fn what_fails_on_this_event_is_dead_and_no_attempt() {
    let change: [fn(&mut HttpTargetConfig); 5] = [
        |c| c.path = Some(Template::compile("/members/{.data.none}").unwrap()),
        |c| c.path = Some(Template::compile("/members/{.data.dots}").unwrap()),
        |c| c.headers = templates(&[("X-Order", "{.data.lines}")]),
        |c| c.query = templates(&[("q", "{.data.object}")]),
        |c| c.body = BodyConfig::Expression(Expression::compile("error(\"no\")").unwrap()),
    ];
    for (change, key) in change.iter().zip(["path", "path", "headers.x-order", "query.q", "body"]) {
        let mut config = target_config();
        change(&mut config);
        let data = r#"{"dots": "..", "lines": "a\r\nb", "object": {}}"#;
        let failure = rendered(&config, data).unwrap_err();
        assert_eq!(failure.result, None);
        assert_eq!(failure.verdict, Verdict::Dead(DeadReason::Expression));
        assert_eq!(failure.health, Health::Silent);
        assert!(failure.detail.starts_with(&format!("{key}: ")), "{}", failure.detail);
    }
}

#[test]
fn headers_that_frame_the_request_or_hold_credentials_are_not_a_routes() {
    let mut upstream = api_config("https://api.example/");
    upstream.auth.bearer = Some(crate::secret::Secret::new("bearer-token-1"));
    let api = api(&upstream);
    let cases = [
        ("Host", "headers.Host: `Host` is set by the HTTP client"),
        ("content-length", "headers.content-length: "),
        ("Transfer-Encoding", "headers.Transfer-Encoding: "),
        ("Connection", "headers.Connection: "),
        ("Authorization", "headers.Authorization: is set by the upstream's `auth:` too"),
        ("no name", "headers.no name: `no name` is not a header name"),
    ];
    for (name, expected) in cases {
        let mut config = target_config();
        config.headers = templates(&[(name, "x")]);
        let hour = Duration::from_secs(3600);
        let built = super::target::HttpTarget::new(&config, Arc::clone(&api), hour);
        let problem = built.unwrap_err().to_string();
        assert!(problem.starts_with(expected), "{problem}");
    }
    let mut config = target_config();
    config.headers = templates(&[("X-A", "1"), ("x-a", "2")]);
    let built = super::target::HttpTarget::new(&config, Arc::clone(&api), Duration::ZERO);
    assert!(built.unwrap_err().to_string().contains("written twice"));
    config.headers.clear();
    config.path = Some(Template::compile("/search?q={.data.q?}").unwrap());
    let built = super::target::HttpTarget::new(&config, api, Duration::ZERO);
    assert!(built.unwrap_err().to_string().starts_with("path: holds a `?`"));
}

async fn outcome_of(outcome: &str, status: &'static str, body: &'static str) -> Said {
    let server = Server::answering(move |_| {
        answer(status, "content-type: application/json\r\nx-state: late\r\n", body)
    })
    .await;
    let mut config = target_config();
    config.outcome = expression(outcome);
    match attempt(&api(&api_config(&server.url())), &config).await {
        Ok(receipt) => (Ok(receipt.result), receipt.health, String::new()),
        Err(failure) => (Err((failure.result, failure.verdict)), failure.health, failure.detail),
    }
}

type Said = (Result<AttemptResult, (Option<AttemptResult>, Verdict)>, Health, String);

#[tokio::test]
async fn outcome_has_the_first_word() {
    use AttemptResult::{Auth, ClientError, ServerError, Success};
    let by_body = r#"if .body.success == false then "retry" else null end"#;
    let cases = [
        (by_body, "200 OK", r#"{"success": false}"#, Err((Some(Success), RETRY)), Health::Good),
        (by_body, "200 OK", r#"{"success": true}"#, Ok(Success), Health::Good),
        (by_body, "404 No", "{}", Err((Some(ClientError), REJECTED)), Health::Good),
        (r#""delivered""#, "500 No", "", Ok(ServerError), Health::Bad),
        (r#""dead""#, "503 No", "", Err((Some(ServerError), REJECTED)), Health::Bad),
        (r#""dead""#, "401 No", "", Err((Some(Auth), REJECTED)), Health::Bad),
        (
            r#"if .headers["x-state"] == "late" and .status == 409 then "delivered" else null end"#,
            "409 Conflict",
            "",
            Ok(ClientError),
            Health::Good,
        ),
    ];
    for (outcome, status, body, expected, health) in cases {
        let (said, healthy, _) = outcome_of(outcome, status, body).await;
        assert_eq!((said, healthy), (expected, health), "{outcome} {status} {body}");
    }
}

#[tokio::test]
async fn an_outcome_that_makes_no_sense_is_a_retry_that_says_why() {
    for (outcome, word) in [
        (r#"error("oops")"#, "outcome failed"),
        (r#""maybe""#, "outcome gave \"maybe\""),
        ("1", "outcome gave 1"),
        (".body.a.b", "outcome failed"),
    ] {
        let (said, _, detail) = outcome_of(outcome, "200 OK", r#"{"a": 1}"#).await;
        assert_eq!(said, Err((Some(AttemptResult::Success), RETRY)), "{outcome}");
        assert!(detail.contains(word), "{outcome}: {detail}");
    }
}

#[tokio::test]
async fn an_outcome_that_needs_the_body_is_not_asked_about_half_of_one() {
    let server = Server::start(|_, mut stream| async move {
        Seen::read(&mut stream).await.unwrap();
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half").await;
    })
    .await;
    let api = api(&api_config(&server.url()));
    let mut config = target_config();
    config.outcome = expression(r#"if .body.ok then "delivered" else "dead" end"#);
    let failure = attempt(&api, &config).await.unwrap_err();
    assert_eq!((failure.result, failure.verdict), (Some(AttemptResult::Reset), RETRY));
    config.outcome = expression(r#"if .status == 200 then "delivered" else "dead" end"#);
    attempt(&api, &config).await.unwrap();
}

#[tokio::test]
async fn retry_after_by_expression_stands_in_for_the_header() {
    let reset = "x-reset: 30\r\n";
    let both = "x-reset: 30\r\nretry-after: 5\r\n";
    let cases = [
        ("429 Too Many", reset, Some(30), true),
        ("429 Too Many", both, Some(5), true),
        ("429 Too Many", "x-reset: -3\r\n", None, true),
        ("429 Too Many", "x-reset: 1e300\r\n", Some(3600), true),
        ("429 Too Many", "", None, true),
        ("500 Oops", reset, Some(30), false),
        ("503 Busy", reset, Some(30), false),
    ];
    for (status, headers, seconds, throttled) in cases {
        let server = Server::answering(move |_| answer(status, headers, "")).await;
        let mut upstream = api_config(&server.url());
        upstream.retry_after = expression(r#".headers["x-reset"] | tonumber"#);
        let failure = attempt(&api(&upstream), &target_config()).await.unwrap_err();
        let after = seconds.map(Duration::from_secs);
        assert_eq!(failure.verdict, Verdict::Retry { after }, "{status} {headers}");
        let throttle = throttled.then_some(Throttle { after });
        assert_eq!(failure.throttle, throttle, "{status} {headers}");
    }
}

#[tokio::test]
async fn the_signature_is_over_the_body_as_rendered() {
    let (requests, mut seen) = mpsc::channel(1);
    let server = Server::answering(move |request| {
        requests.try_send(request.clone()).unwrap();
        answer("200 OK", "", "")
    })
    .await;
    let mut upstream = api_config(&server.url());
    let secret = crate::secret::Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    upstream.auth.standard_webhooks = Some(super::StandardWebhooksConfig { secret });
    let mut config = target_config();
    config.body = BodyConfig::Expression(Expression::compile("{n: .data.total}").unwrap());
    attempt(&api(&upstream), &config).await.unwrap();
    let seen = seen.recv().await.unwrap();
    assert_eq!(seen.body, br#"{"n":12.50}"#);
    let signer = super::auth::sign::Signer::standard_webhooks(
        upstream.auth.standard_webhooks.as_ref().unwrap(),
    )
    .unwrap();
    let mut headers = http::HeaderMap::new();
    let id = seen.header("webhook-id").unwrap();
    let parts =
        super::auth::sign::Parts { id, timestamp_s: 784_111_777, url: "unused", raw: &seen.body };
    signer.sign(&parts, &mut headers);
    assert_eq!(headers["webhook-signature"].to_str().ok(), seen.header("webhook-signature"));
}
