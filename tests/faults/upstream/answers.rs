//! Answers that say no, or somewhere else, or nothing that is HTTP.

use std::collections::BTreeSet;

use serde_json::json;
use tidegate_tests::{Act, RawHttp, raw_http::OK};

use super::{AT_ONCE, Cases, emit, results, settled, shown};

/// What is no HTTP/1.1 answer, and what of it.
const GARBAGE: [&[u8]; 9] = [
    b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    b"<html>HTTP 0.9 says hello</html>",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
    b"\x16\x03\x01\x00\x05hello\r\n\r\n",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u12_what_is_refused_for_good_is_dead_at_once_and_the_next_flows() {
    const REFUSALS: [&str; 6] = [
        "400 Bad Request",
        "403 Forbidden",
        "404 Not Found",
        "410 Gone",
        "413 Content Too Large",
        "422 Unprocessable Content",
    ];
    let refusal = |status: &str| {
        format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
    };
    let mut scripts: Vec<_> = REFUSALS.iter().map(|s| Act::answer(&refusal(s))).collect();
    scripts.push(Act::well());
    let api = RawHttp::start(scripts).await;
    let gateway = Cases::default().add("refusing", &api.url(), "concurrency: 1", "").start().await;
    for n in 0..REFUSALS.len() {
        emit(&gateway, "refusing", &format!("bad-{n}")).await;
        settled(&gateway, "refusing", "dead", n as u64 + 1).await;
        let dead = shown(&gateway, "refusing").await;
        assert_eq!(dead["reason"], "rejected", "{dead}");
        assert_eq!(results(&dead), ["4xx"], "{dead}");
    }
    emit(&gateway, "refusing", "good").await;
    settled(&gateway, "refusing", "delivered", 1).await;
    assert_eq!(api.count(), REFUSALS.len() + 1, "none was tried twice");
    let upstream = gateway.get("/api/v1/upstreams/refusing").await;
    assert_eq!(upstream["breaker"]["state"], "closed", "no health matter: {upstream}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u13_a_redirect_to_the_inside_is_followed_by_nobody() {
    let inside = RawHttp::start(vec![Act::well()]).await;
    let mut cases = Cases::default();
    let statuses = [301, 302, 303, 307, 308];
    let mut apis = Vec::new();
    for status in statuses {
        let location = format!("location: {}/latest/meta-data\r\n", inside.url());
        let api = RawHttp::start(vec![Act::answer(&format!(
            "HTTP/1.1 {status} Moved\r\n{location}content-length: 0\r\n\r\n"
        ))])
        .await;
        cases.add(&format!("to-{status}"), &api.url(), "", "");
        apis.push(api);
    }
    let gateway = cases.start().await;
    for (status, api) in statuses.iter().zip(&apis) {
        let name = format!("to-{status}");
        emit(&gateway, &name, "1").await;
        settled(&gateway, &name, "dead", 1).await;
        let dead = shown(&gateway, &name).await;
        assert_eq!((results(&dead), &dead["reason"]), (vec!["3xx"], &json!("rejected")), "{dead}");
        assert_eq!(api.count(), 1);
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u20_whatever_is_not_http_is_tried_again_on_a_new_connection() {
    let garbage = |bytes: &&[u8]| {
        let broken = vec![Act::Read, Act::Write(bytes.to_vec())];
        let well = vec![Act::Read, Act::say(OK), Act::Silence];
        vec![broken, well]
    };
    let mut apis = Vec::new();
    let mut cases = Cases::default();
    for (n, bytes) in GARBAGE.iter().enumerate() {
        let api = RawHttp::start(garbage(bytes)).await;
        cases.add(&format!("garbage-{n}"), &api.url(), AT_ONCE, "");
        apis.push(api);
    }
    let gateway = cases.start().await;
    for n in 0..GARBAGE.len() {
        emit(&gateway, &format!("garbage-{n}"), "1").await;
    }
    for (n, api) in apis.iter().enumerate() {
        let (name, text) = (format!("garbage-{n}"), String::from_utf8_lossy(GARBAGE[n]));
        settled(&gateway, &name, "delivered", 1).await;
        let delivered = shown(&gateway, &name).await;
        let results = results(&delivered);
        assert_eq!(results.len(), 2, "{text}: {delivered}");
        assert!(["protocol", "reset"].contains(&results[0]), "{text}: {delivered}");
        assert_eq!((api.count(), api.connections()), (2, 2), "{text}");
        let keys: BTreeSet<String> = api.got().iter().map(|got| got.key().to_owned()).collect();
        assert_eq!(keys.len(), 1, "{text}: the same key again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u20_interim_answers_and_heads_of_bare_newlines_are_answers_all_the_same() {
    const ANSWERS: [&str; 3] = [
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.0 200 OK\r\n\r\n{}",
        "HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n",
    ];
    let mut apis = Vec::new();
    let mut cases = Cases::default();
    for (n, text) in ANSWERS.iter().enumerate() {
        let api = RawHttp::start(vec![Act::answer(text)]).await;
        cases.add(&format!("odd-{n}"), &api.url(), AT_ONCE, "");
        apis.push(api);
    }
    let gateway = cases.start().await;
    for (n, api) in apis.iter().enumerate() {
        let name = format!("odd-{n}");
        emit(&gateway, &name, "1").await;
        settled(&gateway, &name, "delivered", 1).await;
        assert_eq!(results(&shown(&gateway, &name).await), ["2xx"], "{}", ANSWERS[n]);
        assert_eq!(api.count(), 1, "{}", ANSWERS[n]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u21_a_body_refused_while_it_is_sent_is_dead_with_the_status_it_got() {
    let early = "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    // It reads on, or unread bytes would turn its end into a reset that destroys the answer; and
    // one that does not, as careless servers.
    let kind = vec![Act::ReadHead, Act::say(early), Act::Silence];
    let rude = vec![Act::ReadHead, Act::say(early), Act::Reset];
    let (kind, rude) = (RawHttp::start(vec![kind]).await, RawHttp::start(vec![rude]).await);
    let mut cases = Cases::default();
    let bounded = "breaker: off, retry: { initial_delay: 10ms, attempts: 3 }";
    cases.add("kind", &kind.url(), bounded, "").add("rude", &rude.url(), bounded, "");
    let gateway = cases.start().await;
    // More than any socket's buffers hold: it is still being sent when the answer comes.
    let data = json!({ "n": 1, "text": "x".repeat(3 << 20) });
    for name in ["kind", "rude"] {
        super::emit_data(&gateway, name, "1", &data).await;
        settled(&gateway, name, "dead", 1).await;
    }
    let dead = shown(&gateway, "kind").await;
    assert_eq!((results(&dead), &dead["reason"]), (vec!["4xx"], &json!("rejected")), "{dead}");
    assert_eq!(kind.count(), 1);
    // What a reset destroyed nobody can heed: it is tried again, and not for ever.
    assert!((1..=3).contains(&rude.count()), "{}", rude.count());
}
