//! Limit, isolation, bounds and secrets, as senders of webhooks see them. The mirror of
//! `protections.rs`.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use tidegate_tests::{Gateway, amqp::Subscriber, eventually, gateway::client, rabbitmq::Node};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::apis_to_events::{one_webhook, points, send};

const IN_TIME: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_limit_holds_in_every_window_and_is_used() {
    let broker = Node::shared().await.vhost().await;
    let _subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let limit = "        rate_limit: { limit: 100, period: 1s, burst: 5 }\n";
    let gateway = Gateway::start(&one_webhook(&broker.url(), limit, "")).await;
    let base = gateway.webhooks().await;
    let began = Instant::now();
    let mut senders = JoinSet::new();
    for sender in 0..4_u64 {
        let base = base.clone();
        senders.spawn(async move {
            let (mut taken, mut refused) = (Vec::new(), 0_u64);
            let mut n = sender;
            while began.elapsed() < Duration::from_secs(4) {
                let request = client().post(format!("{base}/hooks/loyalty"));
                let request = request.header("X-Api-Key", "canary-api-key-77");
                let request = request.header("Content-Type", "application/json");
                // Between these two it was decided.
                let sent = began.elapsed();
                let answer = request.body(points(n, 10).to_string()).send().await;
                let answer = answer.expect("an answer");
                match answer.status() {
                    StatusCode::ACCEPTED => {
                        taken.push((sent, began.elapsed()));
                        n += 4;
                    }
                    StatusCode::TOO_MANY_REQUESTS => {
                        let wait = answer.headers()["retry-after"].to_str().expect("text");
                        assert!(wait.parse::<u64>().expect("seconds") >= 1);
                        refused += 1;
                    }
                    other => panic!("{other}"),
                }
            }
            (taken, refused)
        });
    }
    let (mut taken, mut refused) = (Vec::new(), 0);
    for (times, more) in senders.join_all().await {
        taken.extend(times);
        refused += more;
    }
    assert!(refused > 0, "nobody was limited");
    // A window of a second that holds both the sending and the answer of each.
    for (from, _) in &taken {
        let within = |(sent, answered): &&(Duration, Duration)| {
            sent >= from && *answered < *from + Duration::from_secs(1)
        };
        let window = taken.iter().filter(within).count();
        assert!(window <= 104, "{window} taken within a second from {from:?}");
    }
    let allowed = 100.0 * 4.0;
    let used = taken.len() as f64 / allowed;
    assert!(used >= 0.9, "only {used:.2} of the limit was used, by senders that never pause");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n8_a_thousand_senders_that_hang_slow_no_other() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let gateway = Gateway::start(&one_webhook(&broker.url(), "", "")).await;
    let base = gateway.webhooks().await;
    let address = base.trim_start_matches("http://");
    let mut hanging = Vec::new();
    for n in 0..1_000 {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // Some say nothing, some stop in the head, some in the body.
        let said: &[u8] = match n % 3 {
            0 => b"",
            1 => b"POST /hooks/loyalty HTTP/1.1\r\nhost: x\r\n",
            _ => {
                b"POST /hooks/loyalty HTTP/1.1\r\nhost: x\r\nx-api-key: canary-api-key-77\r\n\
                  content-type: application/json\r\ncontent-length: 100\r\n\r\n{\"id\""
            }
        };
        stream.write_all(said).await.expect("written");
        hanging.push(stream);
    }
    for n in 0..20 {
        let began = Instant::now();
        let (status, answer) = send(&base, &points(n, 10)).await.expect("an answer");
        assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
    eventually("they have arrived", IN_TIME, || async { (subscriber.count() == 20).then_some(()) })
        .await;
    drop(hanging);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n7_a_body_without_end_costs_constant_memory() {
    const CHUNK: usize = 1 << 20;
    let broker = Node::shared().await.vhost().await;
    let gateway = Gateway::start(&one_webhook(&broker.url(), "", "")).await;
    let base = gateway.webhooks().await;
    send(&base, &points(1, 10)).await.expect("an answer");
    let before = gateway.peak_memory();
    let mut stream = TcpStream::connect(base.trim_start_matches("http://")).await.expect("it");
    let head = "POST /hooks/loyalty HTTP/1.1\r\nhost: x\r\nx-api-key: canary-api-key-77\r\n\
                content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    let chunk = [format!("{CHUNK:x}\r\n").into_bytes(), vec![b' '; CHUNK], b"\r\n".to_vec()];
    let chunk = chunk.concat();
    let (mut reading, mut writing) = stream.into_split();
    let writer = tokio::spawn(async move {
        let mut written = 0_u64;
        // 1 GB, or as much as is let in.
        while written < 1 << 30 {
            match timeout(IN_TIME, writing.write_all(&chunk)).await {
                Ok(Ok(())) => written += CHUNK as u64,
                Ok(Err(_)) => break,
                Err(_) => panic!("neither read nor hung up on"),
            }
        }
        written
    });
    let mut answer = Vec::new();
    let read = timeout(IN_TIME, reading.read_to_end(&mut answer)).await.expect("in time");
    // Hung up on while it still writes, a sender may lose the answer to a reset.
    if read.is_ok() || !answer.is_empty() {
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    let written = writer.await.expect("it ended");
    assert!(written < 64 << 20, "{written} bytes were let in");
    let grown = gateway.peak_memory().saturating_sub(before);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
    let (status, _) = send(&base, &points(2, 10)).await.expect("an answer");
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n9_shapes_that_two_servers_could_read_differently_are_refused() {
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
    let gateway = Gateway::start(&one_webhook(&broker.url(), "", "")).await;
    let base = gateway.webhooks().await;
    let body = points(1, 10).to_string();
    let length = body.len();
    let chunked = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let shapes = [
        (
            "both lengths",
            format!("content-length: {length}\r\ntransfer-encoding: chunked"),
            &chunked,
        ),
        ("two lengths", format!("content-length: {length}\r\ncontent-length: 1"), &body),
        ("a length list", format!("content-length: {length}, 1"), &body),
        ("a signed length", format!("content-length: +{length}"), &body),
        ("a bad chunk", "transfer-encoding: chunked".to_owned(), &format!("zz\r\n{body}")),
        ("a chunk too large", "transfer-encoding: chunked".to_owned(), &"f".repeat(40)),
        ("another coding", "transfer-encoding: identity".to_owned(), &body),
        ("a space before the colon", format!("content-length : {length}"), &body),
        ("a folded header", format!("x-a: b\r\n c: d\r\ncontent-length: {length}"), &body),
    ];
    for (shape, headers, body) in shapes {
        let mut stream = TcpStream::connect(base.trim_start_matches("http://")).await.expect("it");
        let request = format!(
            "POST /hooks/loyalty HTTP/1.1\r\nhost: x\r\nx-api-key: canary-api-key-77\r\n\
             content-type: application/json\r\n{headers}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        let read = timeout(IN_TIME, stream.read_to_end(&mut answer)).await;
        // Reset is refused, too.
        let _ = read.unwrap_or_else(|_| panic!("{shape}: the connection was left open"));
        let answer = String::from_utf8_lossy(&answer);
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{shape}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() < 2, "{shape}: read as two: {answer}");
    }
    let (status, _) = send(&base, &points(2, 10)).await.expect("an answer");
    assert_eq!(status, StatusCode::ACCEPTED);
    eventually("the good one arrives", IN_TIME, || async {
        (subscriber.count() == 1).then_some(())
    })
    .await;
    assert_eq!(gateway.count("loyalty-webhooks", "delivered").await, 1, "nothing else got in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_shows_in_log_api_or_error() {
    const SECRET: &str = "canary-hmac-secret-5e1f";
    const KEY: &str = "canary-api-key-77";
    const PASSWORD: &str = "canary-basic-password-9c";
    let broker = Node::shared().await.vhost().await;
    let subscriber = Subscriber::start(&broker.url(), "all", "hooks", "#").await;
    let route = |name: &str, verify: String| {
        format!(
            "  {name}:
    from: {{ webhook: {{ path: /{name}, verify: {verify}, event: {{ type: t }} }} }}
    to: {{ rabbitmq: {{ exchange: hooks }} }}
"
        )
    };
    let yaml = format!(
        "broker: {{ rabbitmq: {{ url: '{}' }} }}\nroutes:\n{}{}{}",
        broker.url(),
        route("hmac", "{ hmac: { header: X-Signature, secrets: ['${SECRET}'] } }".to_owned()),
        route("key", "{ api_key: { header: X-Key, keys: ['${KEY}'] } }".to_owned()),
        route("basic", "{ basic: { username: u, password: '${PASSWORD}' } }".to_owned()),
    );
    let mut gateway = Gateway::new(&yaml);
    gateway.set("SECRET", SECRET);
    gateway.set("KEY", KEY);
    gateway.set("PASSWORD", PASSWORD);
    gateway.set("TIDEGATE__LOG__LEVEL", "trace");
    gateway.run().await;
    let base = gateway.webhooks().await;
    // Senders that know the secrets, and echo them in the wrong places.
    let echo = json!({ "secret": SECRET, "key": KEY, "password": PASSWORD }).to_string();
    let mut answers = Vec::new();
    for (path, good) in [("hmac", false), ("key", true), ("basic", true), ("key", false)] {
        let mut request = client().post(format!("{base}/{path}?key={KEY}"));
        request = request.header("Content-Type", "application/json");
        request = match path {
            "hmac" => request.header("X-Signature", SECRET),
            "key" if good => request.header("X-Key", KEY),
            "key" => request.header("X-Key", format!("{KEY}x")),
            _ => request.basic_auth("u", Some(PASSWORD)),
        };
        let answer = request.body(echo.clone()).send().await.expect("an answer");
        let status = answer.status();
        let expected = if good { StatusCode::ACCEPTED } else { StatusCode::UNAUTHORIZED };
        assert_eq!(status, expected, "{path}");
        answers.push(answer.text().await.expect("a body"));
    }
    eventually("two have arrived", IN_TIME, || async { (subscriber.count() == 2).then_some(()) })
        .await;
    let list = gateway.get("/api/v1/deliveries").await;
    let mut seen = vec![
        gateway.log(),
        list.to_string(),
        gateway.text("/api/v1/routes").await,
        gateway.text("/metrics").await,
        gateway.text("/readyz").await,
    ];
    for delivery in list["deliveries"].as_array().expect("a list") {
        let id = delivery["id"].as_str().expect("an id");
        seen.push(gateway.text(&format!("/api/v1/deliveries/{id}")).await);
    }
    seen.extend(answers);
    for text in &seen {
        for secret in [SECRET, KEY, PASSWORD] {
            assert!(!text.contains(secret), "`{secret}` shows in {text}");
        }
    }
}
