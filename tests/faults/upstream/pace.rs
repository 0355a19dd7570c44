//! How often, and how soon, an API that is not well is asked again.

use std::{collections::BTreeMap, time::Duration};

use tidegate::mock::AnswerConfig;
use tidegate_tests::{Act, Api, RawHttp, eventually, raw_http::OK};

use super::{AT_ONCE, Cases, IN_TIME, emit, settled, waits};

fn overloaded(headers: &str) -> Vec<Act> {
    let head = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n";
    Act::answer(&format!("{head}{headers}\r\n"))
}

fn well() -> Vec<Act> {
    Act::answer(&OK.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u8_u9_an_overloaded_upstream_is_left_alone_by_every_delivery() {
    // By an API's clock that is years behind, in two seconds.
    let dated = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
                 retry-after: Sun, 06 Nov 1994 08:49:39 GMT\r\n";
    let seconds = RawHttp::start(vec![overloaded("retry-after: 2\r\n"), well()]).await;
    let date = RawHttp::start(vec![overloaded(dated), well()]).await;
    let other = RawHttp::start(vec![Act::well()]).await;
    let mut cases = Cases::default();
    let one = format!("concurrency: 1, {AT_ONCE}");
    cases.add("seconds", &seconds.url(), &one, "").add("date", &date.url(), &one, "").add(
        "other",
        &other.url(),
        "",
        "",
    );
    let gateway = cases.start().await;
    for name in ["seconds", "date"] {
        for id in ["1", "2", "3", "4"] {
            emit(&gateway, name, id).await;
        }
    }
    emit(&gateway, "other", "1").await;
    settled(&gateway, "other", "delivered", 1).await;
    for (name, api) in [("seconds", &seconds), ("date", &date)] {
        settled(&gateway, name, "delivered", 4).await;
        let got = api.got();
        assert_eq!(got.len(), 5, "{name}: one was refused");
        let wait = got[1].at - got[0].at;
        // The clock that counts here is ours; the head was read a moment after it was sent.
        assert!(wait >= Duration::from_millis(1_900), "{name}: asked again after {wait:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u9_u10_no_retry_after_causes_a_burst_or_an_end() {
    const FOR_LONG: [(&str, &str); 6] = [
        ("huge", "retry-after: 9223372037\r\n"),
        ("float", "retry-after: 1e30\r\n"),
        ("integer", "retry-after: 99999999999999999999999999999\r\n"),
        ("longest", "retry-after: 1\r\nretry-after: 86400\r\n"),
        ("reverse", "retry-after: 86400\r\nretry-after: 1\r\n"),
        ("future", "retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n"),
    ];
    const NONSENSE: [(&str, &str); 6] = [
        ("negative", "retry-after: -1\r\n"),
        ("nan", "retry-after: NaN\r\n"),
        ("letter", "retry-after: x\r\n"),
        ("empty", "retry-after:\r\n"),
        ("past", "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
        ("two", "retry-after: x\r\nretry-after: -5\r\n"),
    ];
    let mut cases = Cases::default();
    let mut apis = BTreeMap::new();
    for (name, headers) in FOR_LONG.iter().chain(&NONSENSE) {
        let api = RawHttp::start(vec![overloaded(headers), well()]).await;
        cases.add(name, &api.url(), AT_ONCE, "");
        apis.insert(*name, api);
    }
    let gateway = cases.start().await;
    for name in apis.keys() {
        emit(&gateway, name, "1").await;
    }
    for (name, headers) in NONSENSE {
        settled(&gateway, name, "delivered", 1).await;
        let got = apis[name].got();
        assert_eq!(got.len(), 2, "{headers}");
        let wait = got[1].at - got[0].at;
        assert!(wait >= Duration::from_millis(700), "{headers}: asked again after {wait:?}");
    }
    for (name, headers) in FOR_LONG {
        let path = format!("/api/v1/upstreams/{name}");
        eventually(&format!("{name} is paused"), IN_TIME, || async {
            gateway.get(&path).await["paused_until"].is_string().then_some(())
        })
        .await;
        assert_eq!(apis[name].count(), 1, "{headers}: left alone");
        waits(&gateway, name, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u11_every_other_answer_a_503_costs_one_more_request_each_and_none_dies() {
    const EVENTS: u64 = 100;
    let api = Api::with(|api| {
        api.script = [503, 200].repeat(200).into_iter().map(AnswerConfig::status).collect();
    })
    .await;
    let upstream = "concurrency: 4, retry: { initial_delay: 20ms, max_delay: 50ms }, \
                    breaker: { failures: 5, open: 100ms, open_max: 200ms }";
    let gateway = Cases::default().add("flapping", &api.url(), upstream, "").start().await;
    for n in 0..EVENTS {
        emit(&gateway, "flapping", &n.to_string()).await;
    }
    settled(&gateway, "flapping", "delivered", EVENTS).await;
    assert_eq!(gateway.count("flapping", "dead").await, 0);
    assert_eq!(api.accepted(), (EVENTS, 0));
    // Half of the requests fail: one more for each event, and not one besides.
    assert!(api.count() <= 2 * EVENTS, "{} requests", api.count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u22_after_a_kill_while_the_breaker_is_open_a_handful_finds_out_again() {
    const EVENTS: u64 = 60;
    const CONCURRENCY: u64 = 4;
    const FAILURES: u64 = 5;
    let api = Api::start().await;
    api.set_down(true);
    let upstream = format!(
        "concurrency: {CONCURRENCY}, retry: {{ initial_delay: 10ms, max_delay: 20ms }}, \
         breaker: {{ failures: {FAILURES}, open: 5m }}"
    );
    let mut gateway = Cases::default().add("down", &api.url(), &upstream, "").start().await;
    for n in 0..EVENTS {
        emit(&gateway, "down", &n.to_string()).await;
    }
    let most = FAILURES + CONCURRENCY - 1;
    for _ in 0..2 {
        eventually("the breaker is open and nothing is under way", IN_TIME, || async {
            let upstream = gateway.get("/api/v1/upstreams/down").await;
            (upstream["breaker"]["state"] == "open" && upstream["in_flight"] == 0).then_some(())
        })
        .await;
        let asked = api.count();
        gateway.kill().await;
        gateway.run().await;
        eventually("it has found out again", IN_TIME, || async {
            let upstream = gateway.get("/api/v1/upstreams/down").await;
            (upstream["breaker"]["state"] == "open" && upstream["in_flight"] == 0).then_some(())
        })
        .await;
        let again = api.count() - asked;
        assert!((FAILURES..=most).contains(&again), "{again} requests after the restart");
    }
    waits(&gateway, "down", EVENTS).await;
    api.set_down(false);
    gateway.verb(&["upstreams", "reset", "down"]).await;
    settled(&gateway, "down", "delivered", EVENTS).await;
    assert_eq!(api.accepted(), (EVENTS, 0));
}
