//! Against a token endpoint and an API on one fake server, on loopback.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex as Lock;
use tokio::sync::Semaphore;

use super::*;
use crate::{
    Failure, Health, Receipt, Verdict,
    http::{
        caller::Api,
        testing::{
            Gates, Seen, Server, answer, api_config, api_with, delivery, now, prepare, send,
            target, target_config, write,
        },
    },
    secret::Secret,
};

/// What the fake endpoint does next, and what it saw.
#[derive(Clone)]
struct Endpoint {
    /// Status line, headers and body of the n-th token answer; the last one repeats.
    answers: Arc<Vec<(String, String, String)>>,
    fetched: Arc<AtomicUsize>,
    token_requests: Arc<Lock<Vec<Seen>>>,
    /// One permit lets one token request be answered.
    turns: Arc<Semaphore>,
    /// The tokens the API takes.
    good: Arc<Lock<Vec<String>>>,
    /// `Authorization` of every API request.
    shown: Arc<Lock<Vec<String>>>,
}

impl Endpoint {
    fn new(answers: &[(&str, &str, String)]) -> Self {
        let answers = answers.iter().map(|(s, h, b)| ((*s).into(), (*h).into(), b.clone()));
        Self {
            answers: Arc::new(answers.collect()),
            fetched: Arc::default(),
            token_requests: Arc::default(),
            turns: Arc::new(Semaphore::new(1000)),
            good: Arc::default(),
            shown: Arc::default(),
        }
    }

    /// Grants `token-number-1`, `token-number-2` …, each for `expires_in`.
    fn granting(expires_in: &str) -> Self {
        let answers = (1..=9).map(|number| {
            let token = format!("token-number-{number}");
            let body =
                format!(r#"{{"access_token": "{token}", "token_type": "Bearer"{expires_in}}}"#);
            ("200 OK", "", body)
        });
        let endpoint = Self::new(&answers.collect::<Vec<_>>());
        endpoint.good.lock().extend((1..=9).map(|number| format!("Bearer token-number-{number}")));
        endpoint
    }

    async fn start(&self) -> Server {
        let endpoint = self.clone();
        Server::start(move |_, mut stream| {
            let endpoint = endpoint.clone();
            async move {
                while let Some(seen) = Seen::read(&mut stream).await {
                    let bytes = endpoint.answer(seen).await;
                    write(&mut stream, bytes).await;
                }
            }
        })
        .await
    }

    async fn answer(&self, seen: Seen) -> String {
        if seen.line().starts_with("POST /token ") {
            self.token_requests.lock().push(seen);
            self.turns.acquire().await.unwrap().forget();
            let number = self.fetched.fetch_add(1, Ordering::SeqCst);
            let (status, headers, body) = &self.answers[number.min(self.answers.len() - 1)];
            return answer(status, headers, body);
        }
        let shown = seen.header("authorization").unwrap_or("none").to_owned();
        let good = self.good.lock().contains(&shown);
        self.shown.lock().push(shown);
        answer(if good { "200 OK" } else { "401 Unauthorized" }, "", "")
    }

    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::SeqCst)
    }
}

fn config(server: &Server) -> OAuth2Config {
    OAuth2Config {
        token_url: format!("{}/token", server.url()).parse().unwrap(),
        client_id: "client:1".into(),
        client_secret: Secret::new("client secret"),
        scopes: vec!["points".into(), "members".into()],
        client_auth: ClientAuth::Basic,
        params: BTreeMap::from([("audience".into(), "https://api.example".into())]),
        lifetime: Duration::from_secs(3000),
    }
}

fn api_of(server: &Server, oauth2: OAuth2Config, mask: &Mask) -> Arc<Api> {
    let mut config = api_config(&server.url());
    config.auth.oauth2 = Some(oauth2);
    api_with(&config, mask)
}

async fn call(api: &Arc<Api>, gate: &Arc<Gates>) -> Result<Receipt, Failure> {
    let delivery = delivery();
    let request = prepare(&target(&target_config(), api), &delivery).unwrap();
    send(api, request, &delivery, Arc::clone(gate) as _).await
}

#[tokio::test]
async fn the_token_request_is_that_of_the_rfc() {
    let endpoint = Endpoint::granting("");
    let server = endpoint.start().await;
    let mask = Mask::default();
    let gate = Arc::new(Gates::default());
    call(&api_of(&server, config(&server), &mask), &gate).await.unwrap();
    let mut by_body = config(&server);
    by_body.client_auth = ClientAuth::Body;
    call(&api_of(&server, by_body, &mask), &gate).await.unwrap();
    let requests = endpoint.token_requests.lock();
    let form = "grant_type=client_credentials&scope=points+members\
                &audience=https%3A%2F%2Fapi.example";
    assert_eq!(String::from_utf8_lossy(&requests[0].body), form);
    // RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
    let credentials = STANDARD.encode("client%3A1:client+secret");
    let expected = format!("Basic {credentials}");
    assert_eq!(requests[0].header("authorization"), Some(expected.as_str()));
    assert_eq!(requests[0].header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(requests[0].header("accept"), Some("application/json"));
    assert_eq!(requests[1].header("authorization"), None);
    let with_client = format!("{form}&client_id=client%3A1&client_secret=client+secret");
    assert_eq!(String::from_utf8_lossy(&requests[1].body), with_client);
    let echo = format!("{credentials} token-number-1");
    assert_eq!(mask.apply(&echo), "*** ***");
}

#[tokio::test]
async fn fifty_calls_at_once_fetch_one_token() {
    let endpoint = Endpoint::granting(r#", "expires_in": 3600"#);
    let server = endpoint.start().await;
    let api = api_of(&server, config(&server), &Mask::default());
    let gate = Arc::new(Gates::default());
    let calls = (0..50).map(|_| call(&api, &gate));
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(endpoint.fetched(), 1);
    assert_eq!(endpoint.shown.lock().len(), 50);
    assert!(endpoint.shown.lock().iter().all(|shown| shown == "Bearer token-number-1"));
}

#[tokio::test]
async fn a_failed_fetch_fails_all_that_waited_for_it_and_is_tried_again_later() {
    let no = r#"{"error": "invalid_client", "error_description": "not client secret"}"#;
    let yes = r#"{"access_token": "token-number-1", "token_type": "bearer", "expires_in": "60"}"#;
    let endpoint = Endpoint::new(&[
        ("429 Too Many Requests", "retry-after: 7\r\n", no.to_owned()),
        ("200 OK", "", yes.to_owned()),
    ]);
    endpoint.good.lock().push("Bearer token-number-1".into());
    let server = endpoint.start().await;
    let mask = Mask::default();
    mask.add("client secret");
    let api = api_of(&server, config(&server), &mask);
    let gate = Arc::new(Gates::default());
    let calls = (0..20).map(|_| call(&api, &gate));
    for result in futures_util::future::join_all(calls).await {
        let failure = result.unwrap_err();
        assert_eq!(failure.result, Some(AttemptResult::Auth));
        assert_eq!(failure.health, Health::Bad);
        let after = Some(Duration::from_secs(7));
        assert_eq!(failure.verdict, Verdict::Retry { after });
        // The token endpoint's wish is not the upstream's.
        assert_eq!(failure.throttle, None);
        assert_eq!(
            failure.detail,
            "no OAuth2 token: the token endpoint answered 429 Too Many Requests: invalid_client, \
             not ***"
        );
    }
    assert_eq!(endpoint.fetched(), 1);
    assert!(gate.passed().is_empty(), "a token of the rate limit was spent on nothing");
    call(&api, &gate).await.unwrap();
    assert_eq!(endpoint.fetched(), 2);
}

#[tokio::test]
async fn a_call_dropped_while_fetching_hands_over_to_the_next() {
    let endpoint = Endpoint::granting("");
    endpoint.turns.forget_permits(1000);
    let server = endpoint.start().await;
    let api = api_of(&server, config(&server), &Mask::default());
    let gate = Arc::new(Gates::default());
    let mut first = Box::pin(call(&api, &gate));
    let second = call(&api, &gate);
    // The first one is at it when its request has arrived.
    let arrived = async {
        while endpoint.token_requests.lock().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = &mut first => panic!("no token can come"),
        () = arrived => {}
    }
    let dropped = async {
        tokio::task::yield_now().await;
        drop(first);
        endpoint.turns.add_permits(10);
    };
    let (second, ()) = tokio::join!(second, dropped);
    second.unwrap();
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end_by_one_call() {
    let endpoint = Endpoint::granting(r#", "expires_in": 100"#);
    let server = endpoint.start().await;
    let api = api_of(&server, config(&server), &Mask::default());
    let gate = Arc::new(Gates::default());
    call(&api, &gate).await.unwrap();
    pass(Duration::from_secs(79)).await;
    call(&api, &gate).await.unwrap();
    assert_eq!(endpoint.fetched(), 1);
    pass(Duration::from_secs(2)).await;
    let calls = (0..20).map(|_| call(&api, &gate));
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(endpoint.fetched(), 2);
    assert!(endpoint.shown.lock().contains(&"Bearer token-number-2".to_owned()));
}

#[tokio::test]
async fn a_renewal_that_fails_leaves_the_old_token_in_use_to_its_end() {
    let token = r#"{"access_token": "token-number-1", "expires_in": 100}"#;
    let endpoint = Endpoint::new(&[
        ("200 OK", "", token.to_owned()),
        ("503 Service Unavailable", "", String::new()),
    ]);
    endpoint.good.lock().push("Bearer token-number-1".into());
    let server = endpoint.start().await;
    let api = api_of(&server, config(&server), &Mask::default());
    let gate = Arc::new(Gates::default());
    call(&api, &gate).await.unwrap();
    pass(Duration::from_secs(81)).await;
    for _ in 0..5 {
        call(&api, &gate).await.unwrap();
    }
    // One try, and then a pause.
    assert_eq!(endpoint.fetched(), 2);
    pass(Duration::from_secs(20)).await;
    assert_eq!(call(&api, &gate).await.unwrap_err().result, Some(AttemptResult::Auth));
}

#[tokio::test]
async fn a_token_the_api_refuses_is_renewed_once_and_the_request_sent_again() {
    let endpoint = Endpoint::granting(r#", "expires_in": 3600"#);
    endpoint.good.lock().remove(0);
    let server = endpoint.start().await;
    let api = api_of(&server, config(&server), &Mask::default());
    let gate = Arc::new(Gates::default());
    call(&api, &gate).await.unwrap();
    assert_eq!(*endpoint.shown.lock(), ["Bearer token-number-1", "Bearer token-number-2"]);
    let passed = gate.passed();
    assert_eq!(passed.iter().filter(|passed| **passed == "again").count(), 1, "{passed:?}");

    endpoint.good.lock().clear();
    let failure = call(&api, &gate).await.unwrap_err();
    assert_eq!(failure.result, Some(AttemptResult::Auth));
    assert_eq!(failure.verdict, Verdict::Retry { after: None });
    assert_eq!(failure.exchange.status, Some(401));
    assert_eq!(endpoint.fetched(), 3);
    assert_eq!(endpoint.shown.lock().len(), 4);
    assert!(!format!("{failure:?}").contains("token-number"), "{failure:?}");
}

#[tokio::test]
async fn calls_refused_together_renew_their_token_together() {
    let endpoint = Endpoint::granting(r#", "expires_in": 3600"#);
    let server = endpoint.start().await;
    let api = api_of(&server, config(&server), &Mask::default());
    let gate = Arc::new(Gates::default());
    call(&api, &gate).await.unwrap();
    endpoint.good.lock().remove(0);
    let calls = (0..20).map(|_| call(&api, &gate));
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    assert_eq!(endpoint.fetched(), 2);
}

#[tokio::test]
async fn a_token_endpoint_out_of_reach_is_a_network_error() {
    let endpoint = Endpoint::granting("");
    let server = endpoint.start().await;
    let gone = Server::answering(|_| String::new()).await;
    let mut oauth2 = config(&gone);
    drop(gone);
    tokio::task::yield_now().await;
    let gate = Arc::new(Gates::default());
    let api = api_of(&server, oauth2.clone(), &Mask::default());
    let failure = call(&api, &gate).await.unwrap_err();
    assert_eq!(failure.result, Some(AttemptResult::Connect));
    assert_eq!(failure.verdict, Verdict::Retry { after: None });

    oauth2.token_url = "http://169.254.169.254/token".parse().unwrap();
    let api = api_of(&server, oauth2, &Mask::default());
    let failure = call(&api, &gate).await.unwrap_err();
    assert_eq!(failure.result, Some(AttemptResult::RefusedAddress));
    assert_eq!(failure.health, Health::Silent);
    assert!(endpoint.shown.lock().is_empty());
}

#[tokio::test]
async fn answers_that_are_no_token_say_what_is_wrong() {
    let cases = [
        ("302 Found", "{}", "answered 302 Found"),
        ("200 OK", "<html>", "holds no access_token"),
        ("200 OK", "{}", "holds no access_token"),
        ("200 OK", r#"{"access_token": ""}"#, "holds no access_token"),
        ("200 OK", r#"{"access_token": "a", "token_type": "mac"}"#, "token_type is not bearer"),
        ("200 OK", r#"{"access_token": "a\nb"}"#, "does not fit into a header"),
        ("200 OK", &"x".repeat(ANSWER_MAX + 1), "too long"),
    ];
    for (status, body, expected) in cases {
        let endpoint = Endpoint::new(&[(status, "", body.to_owned())]);
        let server = endpoint.start().await;
        let api = api_of(&server, config(&server), &Mask::default());
        let failure = call(&api, &Arc::new(Gates::default())).await.unwrap_err();
        assert_eq!(failure.result, Some(AttemptResult::Auth));
        assert!(failure.detail.contains(expected), "{}", failure.detail);
    }
}

#[test]
fn lives_are_read_however_they_are_written() {
    let oauth2 = OAuth2Config {
        token_url: "https://id.example/token".parse().unwrap(),
        client_id: "c".into(),
        client_secret: Secret::new("s"),
        scopes: Vec::new(),
        client_auth: ClientAuth::Basic,
        params: BTreeMap::new(),
        lifetime: Duration::from_secs(3000),
    };
    let guard = Guard::new(&Default::default());
    let tls = Arc::new(crate::http::tls::client_config_without_authorities().unwrap());
    let url = ("token_url", &oauth2.token_url);
    let client = Client::new(url, &tls, guard.clone(), None, &Mask::default(), 1).unwrap();
    let oauth2 = OAuth2::new(&oauth2, client, &guard, &Mask::default(), now).unwrap();
    let cases = [
        ("3600", 3600),
        ("\"3600\"", 3600),
        ("59.5", 59),
        ("null", 3000),
        ("0", 3000),
        ("-5", 3000),
        ("\"soon\"", 3000),
        ("1e300", LIFETIME_MAX.as_secs()),
    ];
    for (expires_in, seconds) in cases {
        let text = format!(r#"{{"access_token": "a", "expires_in": {expires_in}}}"#);
        let (_, life) = oauth2.read(serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(life.as_secs(), seconds, "{expires_in}");
    }
}

/// Lets time pass between requests, and only there: with the clock stopped a socket would be
/// slower than any deadline.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
