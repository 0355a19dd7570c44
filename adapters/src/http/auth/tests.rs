use super::*;
use crate::http::{
    BasicConfig, HmacConfig, StandardWebhooksConfig,
    testing::{api_config, now},
};

fn tls() -> Arc<ClientConfig> {
    Arc::new(crate::http::tls::client_config_without_authorities().unwrap())
}

fn problem(change: impl FnOnce(&mut ApiConfig)) -> String {
    let mut config = api_config("https://api.example/v2");
    change(&mut config);
    let guard = Guard::new(&config.egress);
    let built = Auth::new(&config, &tls(), &guard, &Mask::default(), now);
    built.err().expect("this configuration cannot work").to_string()
}

fn hmac() -> HmacConfig {
    HmacConfig {
        header: "X-Signature".into(),
        algorithm: Default::default(),
        encoding: Default::default(),
        prefix: String::new(),
        secret: Secret::new("key"),
        signed: "{raw}".into(),
        timestamp_header: None,
    }
}

#[test]
fn credentials_that_contradict_each_other_are_refused() {
    let twice = "auth: is given twice";
    let basic = BasicConfig { username: "ann".into(), password: Secret::new("p") };
    let cases: [(String, &str); 7] = [
        (
            problem(|config| {
                config.auth.bearer = Some(Secret::new("t"));
                config.auth.basic = Some(basic.clone());
            }),
            twice,
        ),
        (
            problem(|config| {
                config.url = "https://ann:p@api.example/".parse().unwrap();
                config.auth.bearer = Some(Secret::new("t"));
            }),
            twice,
        ),
        (
            problem(|config| {
                let secret = Secret::new("whsec_a2V5");
                config.auth.standard_webhooks = Some(StandardWebhooksConfig { secret });
                config.auth.hmac = Some(hmac());
            }),
            "auth: has both standard_webhooks and hmac",
        ),
        (
            problem(|config| {
                config.auth.hmac = Some(hmac());
                config.auth.headers.insert("x-signature".into(), Secret::new("v"));
            }),
            "auth: sets the header `x-signature` twice",
        ),
        (
            problem(|config| {
                config.auth.headers.insert("X-Token".into(), Secret::new("v"));
                config.auth.headers.insert("x-token".into(), Secret::new("w"));
            }),
            "auth: sets the header `x-token` twice",
        ),
        (
            problem(|config| {
                config.auth.bearer = Some(Secret::new("t"));
                config.auth.headers.insert("authorization".into(), Secret::new("v"));
            }),
            "auth: sets the header `authorization` twice",
        ),
        (
            problem(|config| {
                let password = Secret::new("p");
                config.auth.basic = Some(BasicConfig { username: "a:b".into(), password });
            }),
            "auth.basic.username: must not hold a colon",
        ),
    ];
    for (problem, expected) in cases {
        assert!(problem.starts_with(expected), "{problem}");
    }
}

#[test]
fn values_that_cannot_be_sent_are_refused_without_being_shown() {
    let cases = [
        (problem(|c| c.auth.bearer = Some(Secret::new(""))), "auth.bearer: is empty"),
        (
            problem(|c| c.auth.bearer = Some(Secret::new("top\nsecret"))),
            "auth.bearer: does not fit into a header",
        ),
        (
            problem(|c| {
                c.auth.headers.insert("X-Token".into(), Secret::new(""));
            }),
            "auth.headers.X-Token: is empty",
        ),
        (
            problem(|c| {
                c.auth.query.insert("key".into(), Secret::new(""));
            }),
            "auth.query.key: is empty",
        ),
        (
            problem(|c| {
                c.auth.headers.insert("Host".into(), Secret::new("v"));
            }),
            "auth.headers.Host: `Host` is set by the HTTP client",
        ),
        (
            problem(|c| {
                c.auth.headers.insert("no name".into(), Secret::new("v"));
            }),
            "auth.headers.no name: `no name` is not a header name",
        ),
    ];
    for (problem, expected) in cases {
        assert!(problem.starts_with(expected), "{problem}");
        assert!(!problem.contains("secret\n") && !problem.contains("top"), "{problem}");
    }
}

#[test]
fn what_was_derived_from_a_secret_is_masked_like_it() {
    let mut config = api_config("https://api.example/");
    let password = Secret::new("open sesame");
    config.auth.basic = Some(BasicConfig { username: "Aladdin".into(), password });
    let mask = Mask::default();
    Auth::new(&config, &tls(), &Guard::new(&config.egress), &mask, now).unwrap();
    let echo = "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==, open sesame, open%20sesame";
    assert_eq!(mask.apply(echo), "Authorization: Basic ***, ***, ***");
}
