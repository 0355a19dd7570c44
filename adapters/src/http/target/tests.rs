//! Rendering without expressions; what runs them is tested in `super::super::expressions`.

use super::*;
use crate::{
    TraceContext,
    http::{
        HmacConfig, StandardWebhooksConfig,
        testing::{DATA, api, api_config, delivery_of, event, prepare, target, target_config},
    },
    secret::Secret,
};

fn rendered(config: &HttpTargetConfig, event: Event) -> Result<HttpRequest, Failure> {
    let api = api(&api_config("https://api.example/v2/"));
    prepare(&target(config, &api), &delivery_of(event))
}

fn header<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(|value| value.to_str().unwrap())
}

fn json(text: &'static str) -> Data {
    Data::Json(Bytes::from_static(text.as_bytes()))
}

#[test]
fn data_passes_through_under_the_type_it_came_with() {
    let config = target_config();
    type Case = (Data, Option<&'static str>, Option<&'static str>, &'static [u8]);
    let cases: [Case; 5] = [
        (Data::Json(Bytes::from_static(DATA)), None, Some("application/json"), DATA),
        (json("1"), Some("application/vnd.x+json"), Some("application/vnd.x+json"), b"1"),
        (Data::Binary("\u{0}".into()), None, Some("application/octet-stream"), b"\0"),
        (Data::Binary("<a/>".into()), Some("text/xml"), Some("text/xml"), b"<a/>"),
        (Data::Absent, Some("text/xml"), None, b""),
    ];
    for (data, said, kind, body) in cases {
        let mut event = event(data);
        event.datacontenttype = said.map(str::to_owned);
        let request = rendered(&config, event).unwrap();
        assert_eq!(header(&request, "content-type"), kind);
        assert_eq!(request.body, body);
        assert_eq!(request.url.as_str(), "https://api.example/v2/");
    }
}

#[test]
fn a_datacontenttype_that_is_no_header_is_a_dead_expression_and_no_attempt() {
    let mut event = event(json("1"));
    event.datacontenttype = Some("text/plain\r\nx-injected: 1".into());
    let failure = rendered(&target_config(), event).unwrap_err();
    assert_eq!(failure.result, None);
    assert_eq!(failure.verdict, Verdict::Dead(DeadReason::Expression));
    assert_eq!(failure.health, Health::Silent);
    assert_eq!(failure.throttle, None);
}

#[test]
fn methods_that_say_it_all_with_their_url_have_no_body() {
    let mut config = target_config();
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        config.method = method.parse().unwrap();
        let request = rendered(&config, event(json("1"))).unwrap();
        assert!(request.body.is_empty() && header(&request, "content-type").is_none(), "{method}");
    }
    for method in ["POST", "PUT", "PATCH", "PURGE"] {
        config.method = method.parse().unwrap();
        assert_eq!(rendered(&config, event(json("1"))).unwrap().body, "1", "{method}");
    }
    config.body = BodyConfig::Empty;
    let request = rendered(&config, event(json("1"))).unwrap();
    assert!(request.body.is_empty() && header(&request, "content-type").is_none());
}

#[test]
fn data_is_encoded_when_an_encoding_is_asked_for() {
    let mut config = target_config();
    config.encode = Encode::Form;
    let request = rendered(&config, event(json(r#"{"total": 12.50, "who": "ä b"}"#))).unwrap();
    assert_eq!(request.body, "total=12.50&who=%C3%A4+b");
    assert_eq!(header(&request, "content-type"), Some("application/x-www-form-urlencoded"));
    config.encode = Encode::Text;
    let request = rendered(&config, event(json(r#""hello\n""#))).unwrap();
    assert_eq!(request.body, "hello\n");
    assert_eq!(header(&request, "content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(rendered(&config, event(Data::Binary("plain".into()))).unwrap().body, "plain");
    for (encode, data) in [
        (Encode::Form, json("[1]")),
        (Encode::Form, Data::Binary("a=b".into())),
        (Encode::Text, json("{}")),
        (Encode::Text, Data::Binary(Bytes::from_static(b"\xff"))),
    ] {
        config.encode = encode;
        let failure = rendered(&config, event(data)).unwrap_err();
        assert!(failure.detail.starts_with("body: "), "{}", failure.detail);
        assert_eq!(failure.verdict, Verdict::Dead(DeadReason::Expression));
    }
}

#[test]
fn every_attempt_carries_the_same_key() {
    let mut config = target_config();
    let [first, second] = [(); 2].map(|()| rendered(&config, event(json("1"))).unwrap());
    assert_eq!(header(&first, "idempotency-key"), header(&second, "idempotency-key"));
    config.idempotency_header = None;
    let request = rendered(&config, event(json("1"))).unwrap();
    assert_eq!(header(&request, "idempotency-key"), None);
}

#[test]
fn a_request_carries_the_trace_it_is_sent_in_unless_the_route_names_another() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let trace = TraceContext::carried(parent, Some("vendor=1")).unwrap();
    let mut config = target_config();
    let mut request = rendered(&config, event(json("1"))).unwrap();
    request.carry(&trace);
    assert_eq!(header(&request, "traceparent"), Some(parent));
    assert_eq!(header(&request, "tracestate"), Some("vendor=1"));
    config.headers.insert("Traceparent".to_owned(), Template::compile("own").unwrap());
    let mut request = rendered(&config, event(json("1"))).unwrap();
    request.carry(&trace);
    assert_eq!(header(&request, "traceparent"), Some("own"));
    assert_eq!(header(&request, "tracestate"), None);
}

#[test]
fn a_target_that_cannot_work_is_refused_when_the_configuration_loads() {
    let plain = api(&api_config("https://api.example/"));
    let mut signing = api_config("https://api.example/");
    let secret = Secret::new("whsec_a2V5");
    signing.auth.standard_webhooks = Some(StandardWebhooksConfig { secret });
    let signing = api(&signing);
    let problem = |api: &Arc<Api>, change: fn(&mut HttpTargetConfig)| {
        let mut config = target_config();
        change(&mut config);
        let built = HttpTarget::new(&config, Arc::clone(api), Duration::ZERO);
        built.unwrap_err().to_string()
    };
    let cases = [
        (problem(&plain, |c| c.method = Method::CONNECT), "method: CONNECT is not"),
        (problem(&plain, |c| c.method = Method::TRACE), "method: TRACE is not"),
        (
            problem(&plain, |c| c.idempotency_header = Some("Content-Length".into())),
            "idempotency_header: `Content-Length` is set by the HTTP client",
        ),
        (
            problem(&plain, |c| c.idempotency_header = Some("no name".into())),
            "idempotency_header: `no name` is not a header name",
        ),
        (
            problem(&signing, |c| c.idempotency_header = Some("webhook-id".into())),
            "idempotency_header: `webhook-id` is set elsewhere too",
        ),
    ];
    for (problem, expected) in cases {
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[test]
fn an_upstream_that_cannot_work_is_refused_when_the_configuration_loads() {
    let problem = |url: &str, change: fn(&mut crate::http::ApiConfig)| {
        let mut config = api_config(url);
        change(&mut config);
        let now = crate::http::testing::now;
        Api::new(&config, 1, crate::secret::Mask::default(), now).unwrap_err().to_string()
    };
    let good = "https://api.example/";
    let cases = [
        (problem("ftp://api.example/", |_| {}), "url: must begin with https:// or http://"),
        (problem("mailto:a@b.example", |_| {}), "url: must begin with"),
        (problem("https://api.example/#top", |_| {}), "url: holds a fragment"),
        (
            problem(good, |c| c.proxy = Some("socks5://proxy.example/".parse().unwrap())),
            "proxy: must begin with",
        ),
        (
            problem(good, |c| {
                c.tls = Some(crate::http::TlsConfig {
                    ca: Some("/nowhere/ca.pem".into()),
                    ..Default::default()
                });
            }),
            "tls: tls.ca: /nowhere/ca.pem",
        ),
        (
            problem(good, |c| {
                c.auth.hmac = Some(HmacConfig {
                    header: "Date Of".into(),
                    algorithm: Default::default(),
                    encoding: Default::default(),
                    prefix: String::new(),
                    secret: Secret::new("k"),
                    signed: "{raw}".into(),
                    timestamp_header: None,
                });
            }),
            "auth.hmac.header: `Date Of` is not a header name",
        ),
    ];
    for (problem, expected) in cases {
        assert!(problem.starts_with(expected), "{problem}");
    }
}
