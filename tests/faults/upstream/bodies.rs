//! Answers that do not come, or come without an end.

use std::time::Duration;

use tidegate_tests::{Act, RawHttp, eventually};

use super::{AT_ONCE, Cases, IN_TIME, emit, results, settled, shown, waits};

/// An answer's head that promises more than ever comes.
const LONG: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n";

/// An expression that has to see the body.
const BY_BODY: &str = "outcome: 'if .body == {} then \"retry\" else null end'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u1_an_api_that_never_answers_gives_its_slot_back_and_the_breaker_opens() {
    let silent = RawHttp::start(vec![vec![Act::Read, Act::Silence]]).await;
    let upstream = "timeout: 200ms, concurrency: 1, breaker: { failures: 3, open: 5m }, \
                    retry: { initial_delay: 10ms, max_delay: 20ms }";
    let gateway = Cases::default().add("silent", &silent.url(), upstream, "").start().await;
    for id in ["1", "2", "3"] {
        emit(&gateway, "silent", id).await;
    }
    eventually("the breaker is open", IN_TIME, || async {
        let upstream = gateway.get("/api/v1/upstreams/silent").await;
        (upstream["breaker"]["state"] == "open").then_some(())
    })
    .await;
    // With one slot, three attempts mean that it was given back twice.
    assert!(silent.count() >= 3, "{}", silent.count());
    waits(&gateway, "silent", 3).await;
    let waiting = shown(&gateway, "silent").await;
    assert!(results(&waiting).iter().all(|result| *result == "timeout"), "{waiting}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u2_u3_u5_a_body_without_end_ends_with_the_attempt_or_the_head_decides() {
    let drip = |body: &str| {
        vec![Act::Read, Act::say(LONG), Act::Drip(body.into(), Duration::from_millis(100))]
    };
    let endless = drip(&"x".repeat(100_000));
    let well = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"ok\":true}";
    let dripping = RawHttp::start(vec![endless.clone()]).await;
    let read = RawHttp::start(vec![endless, Act::answer(well)]).await;
    let flood = vec![Act::Read, Act::say(LONG), Act::Endless(vec![b'0'; 16 << 10])];
    let flooding = RawHttp::start(vec![flood]).await;
    let cut = RawHttp::start(vec![vec![Act::Read, Act::say(LONG), Act::say("{\"ha")]]).await;
    let mut cases = Cases::default();
    let second = format!("timeout: 1s, {AT_ONCE}");
    cases
        // The head says delivered; nobody waits for the rest beyond a moment.
        .add("dripping", &dripping.url(), "", "")
        // The body decides: the whole attempt has its time, however steadily bytes come.
        .add("read", &read.url(), &second, BY_BODY)
        .add("flooding", &flooding.url(), "", "")
        .add("flooding-read", &flooding.url(), "", BY_BODY)
        .add("cut", &cut.url(), "", "");
    let gateway = cases.start().await;
    let names = ["dripping", "read", "flooding", "flooding-read", "cut"];
    for name in names {
        emit(&gateway, name, "1").await;
    }
    for name in names {
        settled(&gateway, name, "delivered", 1).await;
        let delivered = shown(&gateway, name).await;
        let expected: &[&str] = if name == "read" { &["timeout", "2xx"] } else { &["2xx"] };
        assert_eq!(results(&delivered), expected, "{delivered}");
        let response = delivered["attempts"][expected.len() - 1]["response"].as_str();
        let note = match name {
            "dripping" => "[body truncated: ",
            "flooding" | "flooding-read" => "[body truncated: longer than max_response]",
            "cut" => "[body truncated: the connection broke]",
            _ => "{\"ok\":true}",
        };
        assert!(response.is_some_and(|text| text.contains(note)), "{name}: {response:?}");
    }
    assert_eq!((dripping.count(), flooding.count(), cut.count()), (1, 2, 1), "once each");
    // 64 KiB are read; the rest is what sockets buffer.
    assert!(flooding.flood() < 64 << 20, "{} bytes were taken", flooding.flood());
    assert!(gateway.peak_memory() < 200 << 20, "{}", gateway.peak_memory());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u4_a_compressed_answer_is_not_unpacked() {
    // What begins as gzip does: whoever unpacked it would fail, or give something else.
    let bomb = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".as_slice(), &[0xff; 40_000]].concat();
    let mut cases = Cases::default();
    let mut apis = Vec::new();
    for encoding in ["gzip", "zstd", "br", "deflate"] {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
            bomb.len()
        );
        let api =
            RawHttp::start(vec![vec![Act::Read, Act::say(&head), Act::Write(bomb.clone())]]).await;
        cases.add(encoding, &api.url(), AT_ONCE, "");
        apis.push((encoding, api));
    }
    let gateway = cases.start().await;
    for (encoding, api) in &apis {
        emit(&gateway, encoding, "1").await;
        settled(&gateway, encoding, "delivered", 1).await;
        let asked = &api.got()[0];
        assert_eq!(asked.header("accept-encoding"), None, "never asked for: {}", asked.head);
        let delivered = shown(&gateway, encoding).await;
        let response = delivered["attempts"][0]["response"].as_str().expect("text");
        let note = format!("[{} bytes, not text; Base64] ", bomb.len());
        assert!(response.contains(&note), "as it came: {response}");
    }
    assert!(gateway.peak_memory() < 200 << 20, "{}", gateway.peak_memory());
}
