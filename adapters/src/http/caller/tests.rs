//! Faults are written out as bytes on real sockets; names in brackets are rows of the failure
//! catalogue they stand for.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::{io::AsyncReadExt as _, sync::mpsc};

use super::*;
use crate::{
    DeadReason, Throttle,
    http::{
        BasicConfig, RetryOn, StandardWebhooksConfig, StatusPattern,
        testing::{
            DATA, Gates, Seen, Server, answer, api, api_config, api_with, attempt, delivery,
            prepare, reset, send, target, target_config, write,
        },
    },
    secret::{Mask, Secret},
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// The kind of failure, its verdict and what it says of the upstream.
fn gist(failure: &Failure) -> (AttemptResult, Verdict, Health) {
    (failure.result.unwrap(), failure.verdict, failure.health)
}

const RETRY: Verdict = Verdict::Retry { after: None };
const REJECTED: Verdict = Verdict::Dead(DeadReason::Rejected);

#[tokio::test]
async fn a_request_arrives_byte_for_byte_with_the_headers_of_the_contract() {
    let (requests, mut seen) = mpsc::channel(1);
    let server = Server::answering(move |request| {
        requests.try_send(request.clone()).unwrap();
        answer("201 Created", "x-ref: 9\r\n", "{\"ok\":true}")
    })
    .await;
    let api = api(&api_config(&format!("{}/v2", server.url())));
    let receipt = attempt(&api, &target_config()).await.unwrap();
    assert_eq!((receipt.result, receipt.health), (AttemptResult::Success, Health::Good));
    let seen = seen.recv().await.unwrap();
    assert_eq!(seen.line(), "POST /v2 HTTP/1.1");
    assert_eq!(seen.body, DATA);
    let key = delivery().idempotency_key().to_string();
    assert_eq!(seen.header("idempotency-key"), Some(key.as_str()));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    let agent = format!("tidegate/{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(seen.header("user-agent"), Some(agent.as_str()));
    assert_eq!(seen.header("host"), Some(server.address.to_string().as_str()));
    let trace = seen.header("traceparent").unwrap();
    assert_eq!(trace.len(), 55);
    for unasked in ["accept-encoding", "referer", "cookie", "transfer-encoding"] {
        assert_eq!(seen.header(unasked), None, "{unasked}");
    }
    let request = receipt.exchange.request;
    assert!(request.starts_with("POST /v2\nhost: 127.0.0.1:"), "{request}");
    assert!(request.ends_with(std::str::from_utf8(DATA).unwrap()), "{request}");
    assert_eq!(receipt.exchange.status, Some(201));
    let response = "201 Created\ncontent-length: 11\nx-ref: 9\n\n{\"ok\":true}";
    assert_eq!(receipt.exchange.response, response);
}

#[tokio::test]
async fn s4_the_environments_proxies_are_ignored() {
    let proxy = Server::answering(|_| OK.to_owned()).await;
    let name = "a_request_arrives_byte_for_byte_with_the_headers_of_the_contract";
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("http::caller::tests::{name}")]);
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(name, proxy.url());
    }
    let output = child.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(proxy.connections(), 0);
}

#[tokio::test]
async fn a_configured_proxy_is_used_and_may_be_private_itself() {
    let (requests, mut seen) = mpsc::channel(1);
    let proxy = Server::answering(move |request| {
        requests.try_send(request.clone()).unwrap();
        OK.to_owned()
    })
    .await;
    let mut config = api_config("http://api.example/v2");
    config.egress.allow.clear();
    config.proxy = Some(format!("http://ann:s3cret-word@{}", proxy.address).parse().unwrap());
    let mask = Mask::default();
    attempt(&api_with(&config, &mask), &target_config()).await.unwrap();
    let seen = seen.recv().await.unwrap();
    assert_eq!(seen.line(), "POST http://api.example/v2 HTTP/1.1");
    assert_eq!(seen.header("proxy-authorization"), Some("Basic YW5uOnMzY3JldC13b3Jk"));
    assert_eq!(mask.apply("s3cret-word"), "***");
    assert!(!format!("{config:?}").contains("s3cret-word"));
}

#[tokio::test]
async fn u1_a_server_that_never_answers_is_an_ambiguous_timeout() {
    let (got, mut request_seen) = mpsc::channel(1);
    let server = Server::start(move |_, mut stream| {
        let got = got.clone();
        async move {
            let seen = Seen::read(&mut stream).await;
            got.send(seen).await.unwrap();
            std::future::pending().await
        }
    })
    .await;
    let api = api(&api_config(&server.url()));
    let delivery = delivery();
    let request = prepare(&target(&target_config(), &api), &delivery).unwrap();
    let gate = Arc::new(Gates::default());
    tokio::select! {
        _ = send(&api, request.clone(), &delivery, gate) => panic!("no answer can come"),
        seen = request_seen.recv() => drop(seen.unwrap()),
    }
    let failure = timed_out(&request, Duration::from_secs(10));
    assert_eq!(gist(&failure), (AttemptResult::Timeout, RETRY, Health::Bad));
    assert_eq!(failure.to_string(), "timeout: no complete answer within 10s");
    assert!(failure.exchange.request.starts_with("POST /\n"));
}

#[tokio::test]
async fn a_request_that_found_no_connection_in_time_was_not_sent() {
    let (accepted, mut handshaking) = mpsc::channel(1);
    let server = Server::start(move |_, stream| {
        let accepted = accepted.clone();
        async move {
            accepted.send(()).await.unwrap();
            std::future::pending::<()>().await;
            drop(stream);
        }
    })
    .await;
    let mut config = api_config(&format!("https://{}", server.address));
    let authority = crate::http::tls::tests::Authority::new();
    config.tls = Some(authority.trusted());
    let api = api(&config);
    let delivery = delivery();
    let mut rules = target_config();
    rules.retry_on = vec![RetryOn::Connect];
    let request = prepare(&target(&rules, &api), &delivery).unwrap();
    tokio::select! {
        _ = send(&api, request.clone(), &delivery, Arc::new(Gates::default())) => panic!("stalls"),
        _ = handshaking.recv() => {}
    }
    let failure = timed_out(&request, Duration::from_secs(1));
    assert_eq!(gist(&failure), (AttemptResult::Connect, RETRY, Health::Bad));
}

#[tokio::test]
async fn u3_an_endless_body_is_read_to_the_limit_and_the_status_decides() {
    let (closed, mut cut_off) = mpsc::channel(1);
    let server = Server::start(move |_, mut stream| {
        let closed = closed.clone();
        async move {
            Seen::read(&mut stream).await.unwrap();
            write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n").await;
            let zeros = [b'0'; 16 << 10];
            while tokio::io::AsyncWriteExt::write_all(&mut stream, &zeros).await.is_ok() {}
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let receipt = attempt(&api(&api_config(&server.url())), &target_config()).await.unwrap();
    assert!(receipt.exchange.response.contains("[body truncated: longer than max_response]"));
    assert!(receipt.exchange.response.len() <= exchange::KEPT);
    cut_off.recv().await.unwrap();
}

#[tokio::test]
async fn a_body_of_just_the_limit_is_whole() {
    let server = Server::answering(|_| answer("200 OK", "", "12345678")).await;
    let mut config = target_config();
    config.max_response = 8;
    let api = api(&api_config(&server.url()));
    let receipt = attempt(&api, &config).await.unwrap();
    assert!(receipt.exchange.response.ends_with("\n\n12345678"));
    config.max_response = 7;
    let receipt = attempt(&api, &config).await.unwrap();
    assert!(receipt.exchange.response.ends_with("max_response]\n1234567"));
}

#[tokio::test]
async fn u5_a_body_that_breaks_off_after_a_good_head_is_delivered() {
    let server = Server::start(|_, mut stream| async move {
        Seen::read(&mut stream).await.unwrap();
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half").await;
    })
    .await;
    let receipt = attempt(&api(&api_config(&server.url())), &target_config()).await.unwrap();
    assert_eq!(receipt.result, AttemptResult::Success);
    let response = receipt.exchange.response;
    assert!(response.contains("[body truncated: the connection broke]"), "{response}");
    assert!(response.ends_with("{\"half"), "{response}");
}

#[tokio::test]
async fn u5_a_body_that_is_reset_after_a_good_head_is_delivered() {
    let server = Server::start(|_, mut stream| async move {
        Seen::read(&mut stream).await.unwrap();
        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half").await;
        reset(stream);
    })
    .await;
    // A reset may overtake the head, too; then there is no answer, and it is tried again.
    match attempt(&api(&api_config(&server.url())), &target_config()).await {
        Ok(receipt) => assert!(receipt.exchange.response.contains("the connection broke")),
        Err(failure) => {
            assert_eq!(gist(&failure), (AttemptResult::Reset, RETRY, Health::Bad));
        }
    }
}

#[tokio::test]
async fn u2_a_good_head_is_not_given_up_for_a_body_that_dribbles() {
    let (wrote, mut written) = mpsc::channel(1);
    let server = Server::start(move |_, mut stream| {
        let wrote = wrote.clone();
        async move {
            Seen::read(&mut stream).await.unwrap();
            write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half").await;
            wrote.send(()).await.unwrap();
            let _ = stream.read_u8().await;
        }
    })
    .await;
    let api = api(&api_config(&server.url()));
    let stop_the_clock = async {
        written.recv().await.unwrap();
        // From here on only time can pass.
        tokio::time::pause();
    };
    let config = target_config();
    let (receipt, ()) = tokio::join!(attempt(&api, &config), stop_the_clock);
    let response = receipt.unwrap().exchange.response;
    assert!(response.contains(Cut::Slow.note()), "{response}");
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered() {
    let authority = crate::http::tls::tests::Authority::new();
    let acceptor = authority.acceptor_for("localhost", None, b"h2");
    let server = Server::start(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let service = hyper::service::service_fn(|request: hyper::Request<_>| async move {
                let _: hyper::body::Incoming = request.into_body();
                let body = http_body_util::Full::new(Bytes::from_static(b"{}"));
                Ok::<_, std::convert::Infallible>(hyper::Response::new(body))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let executor = hyper_util::rt::TokioExecutor::new();
            let builder = hyper::server::conn::http2::Builder::new(executor);
            let _ = builder.serve_connection(io, service).await;
        }
    })
    .await;
    let mut config = api_config(&format!("https://localhost:{}/", server.address.port()));
    config.tls = Some(authority.trusted());
    let (api, rules) = (api(&config), target_config());
    attempt(&api, &rules).await.unwrap();
    let attempts = (0..20).map(|_| attempt(&api, &rules));
    for receipt in futures_util::future::join_all(attempts).await {
        assert_eq!(receipt.unwrap().exchange.status, Some(200));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn u6_a_connection_the_server_closed_while_idle_costs_nothing() {
    let (closed, mut was_closed) = mpsc::channel(1);
    let server = Server::start(move |_, mut stream| {
        let closed = closed.clone();
        async move {
            Seen::read(&mut stream).await.unwrap();
            write(&mut stream, OK).await;
            drop(stream);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let api = api(&api_config(&server.url()));
    for number in 1..=5 {
        attempt(&api, &target_config()).await.unwrap();
        was_closed.recv().await.unwrap();
        assert_eq!(server.connections(), number);
    }
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let server = Server::answering(|_| answer("200 OK", "", "{}")).await;
    let api = api(&api_config(&server.url()));
    for _ in 0..20 {
        attempt(&api, &target_config()).await.unwrap();
    }
    // One, or one more where the first was still being put back.
    assert!(server.connections() <= 3, "{}", server.connections());
}

#[tokio::test]
async fn u8_u10_an_overloaded_upstream_is_left_alone_for_as_long_as_it_asks() {
    let day = "retry-after: 86400\r\n";
    let cases = [
        ("429 Too Many Requests", "retry-after: 120\r\n", Some(120)),
        (
            "429 Too Many Requests",
            "retry-after: 5\r\nretry-after: x\r\nretry-after: 9\r\n",
            Some(9),
        ),
        ("429 Too Many Requests", day, Some(3600)),
        ("429 Too Many Requests", "retry-after: 1e30\r\n", Some(3600)),
        ("429 Too Many Requests", "retry-after: -1\r\n", None),
        ("429 Too Many Requests", "", None),
        ("503 Service Unavailable", "retry-after: 2\r\n", Some(2)),
    ];
    for (status, headers, seconds) in cases {
        let server = Server::answering(move |_| answer(status, headers, "")).await;
        let api = api(&api_config(&server.url()));
        let failure = attempt(&api, &target_config()).await.unwrap_err();
        let after = seconds.map(Duration::from_secs);
        assert_eq!(failure.throttle, Some(Throttle { after }), "{status} {headers}");
        assert_eq!(failure.verdict, Verdict::Retry { after }, "{status} {headers}");
        assert_eq!(failure.health, Health::Silent, "{status} {headers}");
    }
}

#[tokio::test]
async fn statuses_mean_what_the_contract_says() {
    use AttemptResult::{Auth, ClientError, Protocol, Redirect, ServerError};
    let cases = [
        ("302 Found", Redirect, REJECTED, Health::Good),
        ("304 Not Modified", Redirect, REJECTED, Health::Good),
        ("400 Bad Request", ClientError, REJECTED, Health::Good),
        ("401 Unauthorized", Auth, RETRY, Health::Bad),
        ("403 Forbidden", ClientError, REJECTED, Health::Good),
        ("404 Not Found", ClientError, REJECTED, Health::Good),
        ("407 Proxy Authentication Required", Auth, RETRY, Health::Bad),
        ("408 Request Timeout", ClientError, RETRY, Health::Good),
        ("410 Gone", ClientError, REJECTED, Health::Good),
        ("425 Too Early", ClientError, RETRY, Health::Good),
        ("500 Internal Server Error", ServerError, RETRY, Health::Bad),
        ("501 Not Implemented", ServerError, RETRY, Health::Bad),
        ("503 Service Unavailable", ServerError, RETRY, Health::Bad),
        ("599 Odd", ServerError, RETRY, Health::Bad),
        ("600 Odder", Protocol, RETRY, Health::Bad),
        ("999 Oddest", Protocol, RETRY, Health::Bad),
    ];
    for (status, result, verdict, health) in cases {
        let server = Server::answering(move |_| answer(status, "", "no")).await;
        let api = api(&api_config(&server.url()));
        let failure = attempt(&api, &target_config()).await.unwrap_err();
        assert_eq!(gist(&failure), (result, verdict, health), "{status}");
        assert_eq!(failure.throttle, None, "{status}");
        assert_eq!(failure.exchange.status.unwrap().to_string(), status[..3]);
    }
}

#[tokio::test]
async fn success_and_retry_on_are_the_routes_own() {
    let server = Server::answering(|_| answer("404 Not Found", "", "")).await;
    let api = api(&api_config(&server.url()));
    let mut config = target_config();
    config.success.push(StatusPattern::Code(404));
    let receipt = attempt(&api, &config).await.unwrap();
    assert_eq!((receipt.result, receipt.health), (AttemptResult::ClientError, Health::Good));
    config.success = vec![StatusPattern::Class(2)];
    config.retry_on = vec![RetryOn::Default, RetryOn::Status(StatusPattern::Code(404))];
    assert_eq!(attempt(&api, &config).await.unwrap_err().verdict, RETRY);
}

#[tokio::test]
async fn u13_redirects_are_never_followed() {
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        let server = Server::answering(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            answer(status, "location: /elsewhere\r\n", "")
        })
        .await;
        let api = api(&api_config(&server.url()));
        let failure = attempt(&api, &target_config()).await.unwrap_err();
        assert_eq!(gist(&failure), (AttemptResult::Redirect, REJECTED, Health::Good));
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn u17_a_refused_connection_was_not_sent() {
    let server = Server::answering(|_| OK.to_owned()).await;
    let url = server.url();
    drop(server);
    tokio::task::yield_now().await;
    let api = api(&api_config(&url));
    let failure = attempt(&api, &target_config()).await.unwrap_err();
    assert_eq!(gist(&failure), (AttemptResult::Connect, RETRY, Health::Bad));
    assert!(failure.detail.starts_with("no connection: "), "{}", failure.detail);
    let mut config = target_config();
    config.retry_on = vec![RetryOn::Ambiguous];
    assert_eq!(attempt(&api, &config).await.unwrap_err().verdict, REJECTED);
}

#[tokio::test]
async fn u14_a_name_that_does_not_resolve_is_retried() {
    // A label of 64 letters: refused by any resolver, asked of none.
    let name = "a".repeat(64);
    let api = api(&api_config(&format!("http://{name}.example/")));
    let failure = attempt(&api, &target_config()).await.unwrap_err();
    assert_eq!(gist(&failure), (AttemptResult::Dns, RETRY, Health::Bad));
}

#[tokio::test]
async fn u18_an_answer_lost_after_the_request_is_ambiguous_and_keeps_its_key() {
    let (requests, mut seen) = mpsc::channel(4);
    let server = Server::start(move |_, mut stream| {
        let requests = requests.clone();
        async move {
            requests.send(Seen::read(&mut stream).await.unwrap()).await.unwrap();
        }
    })
    .await;
    let api = api(&api_config(&server.url()));
    let mut config = target_config();
    let failure = attempt(&api, &config).await.unwrap_err();
    assert_eq!(gist(&failure), (AttemptResult::Reset, RETRY, Health::Bad));
    config.retry_on = vec![RetryOn::Connect];
    assert_eq!(attempt(&api, &config).await.unwrap_err().verdict, REJECTED);
    let (first, second) = (seen.recv().await.unwrap(), seen.recv().await.unwrap());
    assert!(first.header("idempotency-key").is_some());
    assert_eq!(first.header("idempotency-key"), second.header("idempotency-key"));
}

#[tokio::test]
async fn u20_what_is_not_http_is_a_protocol_error() {
    let garbage: [&[u8]; 6] = [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"<html>HTTP 0.9 says hello</html>\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
    ];
    for bytes in garbage {
        let server = Server::start(move |_, mut stream| async move {
            Seen::read(&mut stream).await.unwrap();
            write(&mut stream, bytes).await;
            let _ = stream.read_u8().await;
        })
        .await;
        let failure = attempt(&api(&api_config(&server.url())), &target_config()).await;
        let failure = failure.unwrap_err();
        let text = String::from_utf8_lossy(bytes);
        assert_eq!(gist(&failure), (AttemptResult::Protocol, RETRY, Health::Bad), "{text}");
    }
}

#[tokio::test]
async fn u20_interim_answers_do_not_end_an_attempt() {
    let server = Server::answering(|_| {
        let interim = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        format!("{interim}{OK}")
    })
    .await;
    attempt(&api(&api_config(&server.url())), &target_config()).await.unwrap();
    let server = Server::answering(|_| {
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_owned()
    })
    .await;
    let failure = attempt(&api(&api_config(&server.url())), &target_config()).await.unwrap_err();
    assert_eq!(failure.result, Some(AttemptResult::Protocol));
}

#[tokio::test]
async fn u21_a_body_refused_while_it_is_sent_is_refused() {
    let server = Server::start(|_, mut stream| async move {
        Seen::read_head(&mut stream).await.unwrap();
        write(&mut stream, answer("413 Too Large", "connection: close\r\n", "too large")).await;
        // Unread bytes would turn the close into a reset that may destroy the answer.
        while matches!(stream.read(&mut [0; 1 << 16]).await, Ok(1..)) {}
    })
    .await;
    let api = api(&api_config(&server.url()));
    let body = Bytes::from(vec![b'x'; 32 << 20]);
    let delivery =
        crate::http::testing::delivery_of(crate::http::testing::event(crate::Data::Binary(body)));
    let request = prepare(&target(&target_config(), &api), &delivery).unwrap();
    let failure = send(&api, request, &delivery, Arc::new(Gates::default())).await.unwrap_err();
    assert_eq!(gist(&failure), (AttemptResult::ClientError, REJECTED, Health::Good));
    assert!(failure.exchange.request.len() <= exchange::KEPT);
}

#[tokio::test]
async fn s1_private_addresses_are_refused_before_anything_is_sent() {
    let server = Server::answering(|_| OK.to_owned()).await;
    let port = server.address.port();
    let hosts = ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"];
    for host in hosts {
        let mut config = api_config(&format!("http://{host}:{port}/"));
        config.egress.allow.clear();
        let mut rules = target_config();
        rules.retry_on = vec![];
        let failure = attempt(&api(&config), &rules).await.unwrap_err();
        let expected = (AttemptResult::RefusedAddress, RETRY, Health::Silent);
        assert_eq!(gist(&failure), expected, "{host}");
        assert!(failure.detail.contains("is a loopback address"), "{}", failure.detail);
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_listed_network_may_be_called_by_name() {
    let server = Server::answering(|_| OK.to_owned()).await;
    let config = api_config(&format!("http://localhost:{}/", server.address.port()));
    attempt(&api(&config), &target_config()).await.unwrap();
}

#[tokio::test]
async fn s5_credentials_are_sent_and_shown_nowhere() {
    let (requests, mut seen) = mpsc::channel(1);
    let echo = "you sent bearer-token-1 and query%20secret%261 and header-secret-1";
    let server = Server::answering(move |request| {
        requests.try_send(request.clone()).unwrap();
        let header = "x-echo: header-secret-1\r\nset-cookie: s=1\r\n";
        answer("500 Internal Server Error", header, echo)
    })
    .await;
    let mut config = api_config(&format!("{}/v2?fixed=1", server.url()));
    config.auth.bearer = Some(Secret::new("bearer-token-1"));
    config.auth.headers.insert("X-App-Token".into(), Secret::new("header-secret-1"));
    config.auth.query.insert("api_key".into(), Secret::new("query secret&1"));
    config.auth.query.insert("k".into(), Secret::new("short"));
    let api = api(&config);
    let failure = attempt(&api, &target_config()).await.unwrap_err();
    let seen = seen.recv().await.unwrap();
    assert_eq!(seen.header("authorization"), Some("Bearer bearer-token-1"));
    assert_eq!(seen.header("x-app-token"), Some("header-secret-1"));
    assert_eq!(seen.line(), "POST /v2?fixed=1&api_key=query+secret%261&k=short HTTP/1.1");
    let request = &failure.exchange.request;
    assert!(request.starts_with("POST /v2?fixed=1&api_key=***&k=***\n"), "{request}");
    assert!(request.contains("authorization: ***\n") && request.contains("x-app-token: ***\n"));
    let response = &failure.exchange.response;
    assert!(response.contains("x-echo: ***\nset-cookie: ***\n"), "{response}");
    assert!(response.ends_with("you sent *** and *** and ***"), "{response}");
    for shown in [format!("{failure:?} {failure}"), format!("{api:?} {config:?}")] {
        for secret in ["bearer-token-1", "header-secret-1", "query secret", "short"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[tokio::test]
async fn s5_network_errors_hold_no_secrets() {
    let mut config = api_config("http://127.0.0.1:1/path-in-question");
    config.auth.query.insert("api_key".into(), Secret::new("query-secret-1"));
    config.url.set_username("user-name-1").unwrap();
    config.url.set_password(Some("user-secret-1")).unwrap();
    let api = api(&config);
    let failure = attempt(&api, &target_config()).await.unwrap_err();
    let shown = format!("{failure:?} {failure} {api:?} {config:?}");
    for secret in ["query-secret-1", "user-secret-1", "user-name-1"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(!failure.detail.contains("path-in-question"), "{failure}");
}

#[tokio::test]
async fn the_user_part_of_the_url_is_sent_as_basic_credentials() {
    let (requests, mut seen) = mpsc::channel(1);
    let server = Server::answering(move |request| {
        requests.try_send(request.clone()).unwrap();
        OK.to_owned()
    })
    .await;
    let url = format!("http://Aladdin:open%20sesame@{}/", server.address);
    attempt(&api(&api_config(&url)), &target_config()).await.unwrap();
    // RFC 7617 §2.
    let expected = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
    assert_eq!(seen.recv().await.unwrap().header("authorization"), Some(expected));
}

#[tokio::test]
async fn a_signed_request_carries_its_key_as_id_and_the_time_of_sending() {
    let (requests, mut seen) = mpsc::channel(1);
    let server = Server::answering(move |request| {
        requests.try_send(request.clone()).unwrap();
        OK.to_owned()
    })
    .await;
    let mut config = api_config(&server.url());
    config.auth.basic =
        Some(BasicConfig { username: "ann".into(), password: Secret::new("password-1") });
    let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    config.auth.standard_webhooks = Some(StandardWebhooksConfig { secret });
    attempt(&api(&config), &target_config()).await.unwrap();
    let seen = seen.recv().await.unwrap();
    assert_eq!(seen.header("webhook-id"), seen.header("idempotency-key"));
    assert_eq!(seen.header("webhook-timestamp"), Some("784111777"));
    assert!(seen.header("webhook-signature").unwrap().starts_with("v1,"));
}

#[tokio::test]
async fn requests_without_a_body_say_so_the_way_their_method_does() {
    let (requests, mut seen) = mpsc::channel(4);
    let server = Server::answering(move |request| {
        requests.try_send(request.clone()).unwrap();
        OK.to_owned()
    })
    .await;
    let api = api(&api_config(&server.url()));
    let mut config = target_config();
    for (method, length) in
        [("GET", None), ("DELETE", None), ("POST", Some("0")), ("PUT", Some("0"))]
    {
        config.method = method.parse().unwrap();
        config.body = crate::http::BodyConfig::Empty;
        attempt(&api, &config).await.unwrap();
        let seen = seen.recv().await.unwrap();
        assert_eq!(seen.header("content-length"), length, "{method}");
        assert_eq!(seen.header("content-type"), None, "{method}");
        assert_eq!(seen.header("transfer-encoding"), None, "{method}");
    }
}

#[tokio::test]
async fn a_large_body_goes_out_whole_and_with_its_length() {
    let (requests, mut seen) = mpsc::channel(1);
    let server = Server::answering(move |request| {
        requests.try_send(request.clone()).unwrap();
        OK.to_owned()
    })
    .await;
    let api = api(&api_config(&server.url()));
    let bytes = (0..5_000_000_u32).map(|n| ((n * 31) >> 3) as u8).collect::<Vec<_>>();
    let delivery = crate::http::testing::delivery_of(crate::http::testing::event(
        crate::Data::Binary(bytes.clone().into()),
    ));
    let request = prepare(&target(&target_config(), &api), &delivery).unwrap();
    let gate = Arc::new(Gates::default());
    let receipt = send(&api, request, &delivery, Arc::clone(&gate) as _).await.unwrap();
    let seen = seen.recv().await.unwrap();
    assert!(seen.body == bytes);
    assert_eq!(seen.header("content-type"), Some("application/octet-stream"));
    assert!(receipt.exchange.request.contains("[5000000 bytes, not text; Base64] "));
    // A connect on loopback is quick, but it is a connect: the gate was asked before and may have
    // been asked after it.
    assert!(matches!(gate.passed().as_slice(), ["pass"] | ["pass", "pass"]));
}

mod half_open;
