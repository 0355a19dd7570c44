//! Rate limit, isolation, breaker and secrets, as the upstream sees them.

use std::{collections::HashMap, ops::Range, time::Duration};

use serde_json::Value;
use tidegate::mock::{AnswerConfig, Recorded};
use tidegate_tests::{
    Api, Gateway, Load,
    amqp::{Message, Publisher},
    eventually,
    proxy::Proxy,
    rabbitmq::Node,
};
use tokio::time::Instant;

use crate::events_to_apis::{one_route, order};

const IN_TIME: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_limit_holds_in_every_window_and_is_used() {
    const EVENTS: u64 = 900;
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let upstream = "    rate_limit: { limit: 100, period: 1s, burst: 5 }\n";
    let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), upstream, "")).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let messages: Vec<Message> = (0..EVENTS).map(|n| order(n, 10)).collect();
    Publisher::connect(&broker.url()).await.publish("orders", &messages).await;
    eventually("all have arrived", IN_TIME, || async { (api.count() == EVENTS).then_some(()) })
        .await;
    let times: Vec<u64> = api.requests().iter().map(|request| request.at_ms).collect();
    // 50 ms of jitter are allowed between token and socket: what lies within 950 ms was sent within
    // a half-open second whatever the jitter. The bound holds in windows of any length.
    for (length, most) in [(100, 14), (500, 54), (1_000, 104), (2_000, 204), (5_000, 504)] {
        for (n, from) in times.iter().enumerate() {
            let window = times[n..].iter().take_while(|at| **at < from + length - 50).count();
            assert!(window <= most, "{window} requests within {length} ms from {from} ms");
        }
    }
    let took_ms = times[times.len() - 1] - times[0];
    let allowed = 100 * took_ms / 1000;
    let used = EVENTS as f64 / allowed as f64;
    assert!(used >= 0.97, "only {used:.3} of the limit was used: {EVENTS} in {took_ms} ms");
    drop(gateway);
}

/// Calm and a hang by turns, at one rate, so that whatever else the machine does meets both alike.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u19_an_upstream_that_hangs_slows_no_other() {
    const TURNS: usize = 4;
    const RATE: u32 = 250;
    const EVENTS: u64 = 400;
    let broker = Node::shared().await.vhost().await;
    let (epoch, well) = (Instant::now(), Api::start().await);
    let other = Api::start().await;
    let proxy = Proxy::to(&other.url()).await;
    let gateway = Gateway::start(&two_routes(&broker.url(), &well.url(), &proxy.url())).await;
    eventually("both queues are bound", IN_TIME, || async {
        let ours = broker.consumers("tidegate.award-points").await;
        (ours == 1 && broker.consumers("tidegate.hanging").await == 1).then_some(())
    })
    .await;
    let mut load = Load::start(&broker.url(), "orders", RATE, |n| order(n, 10));
    let waiting = async || gateway.count("hanging", "pending").await;
    let mut phases = Vec::new();
    for hangs in [false, true].repeat(TURNS) {
        proxy.set_hangs(hangs);
        eventually("all its slots are taken, or its backlog is gone", IN_TIME, || async {
            let pending = waiting().await;
            (if hangs { pending >= 64 } else { pending < 64 }).then_some(())
        })
        .await;
        let first = load.published();
        eventually("a phase", IN_TIME, || async {
            (load.published() >= first + EVENTS).then_some(())
        })
        .await;
        assert!(!hangs || waiting().await > EVENTS / 2, "it does hang");
        phases.push((hangs, first..load.published()));
    }
    proxy.set_hangs(false);
    let published = load.stop().await;
    eventually("all have arrived", IN_TIME, || async {
        (well.accepted().0 == published && other.accepted().0 == published).then_some(())
    })
    .await;

    let lags = lags(&well, epoch, &load.sent());
    let p95 = |hanging: bool| {
        let of_phase =
            |events: &Range<u64>| percentile(events.clone().map(|n| lags[&n]).collect(), 0.95);
        let phases = phases.iter().filter(|(hangs, _)| *hangs == hanging);
        // The median of its phases, or one hiccup of the machine would decide.
        percentile(phases.map(|(_, events)| of_phase(events)).collect(), 0.5)
    };
    let (calm, hang) = (p95(false), p95(true));
    assert!(
        hang <= (calm * 1.5).max(calm + 50.0),
        "p95 of the lag: {calm} ms, {hang} ms in a hang"
    );
}

/// [`one_route`], and another of the same events, whose upstream is at `hanging`. That one has no
/// breaker: all its slots are taken while it hangs, by attempts that time out and come again.
fn two_routes(broker: &str, well: &str, hanging: &str) -> String {
    let upstream = format!(
        "  hanging:
    url: {hanging}
    egress: {{ allow: [127.0.0.0/8] }}
    timeout: 1s
    breaker: off
    retry: {{ initial_delay: 200ms, max_delay: 500ms }}
"
    );
    let route = "  hanging:
    from: { rabbitmq: { bind: [{ exchange: orders, key: 'order.confirmed.#' }] } }
    to: { http: { upstream: hanging } }
";
    format!("{}{route}", one_route(broker, well, &upstream, ""))
}

/// By number: the milliseconds from publishing an event, `sent`, to its arrival at `api`, which was
/// started at `epoch`.
fn lags(api: &Api, epoch: Instant, sent: &[Instant]) -> HashMap<u64, f64> {
    let lag = |request: &Recorded| {
        let body: Value = serde_json::from_str(&request.body).expect("a mapped body");
        let n = body["n"].as_u64().expect("its number");
        let sent = sent[usize::try_from(n).expect("few")].duration_since(epoch);
        (n, request.at_ms as f64 - sent.as_secs_f64() * 1000.0)
    };
    api.requests().iter().map(lag).collect()
}

/// The value that `share` of them do not exceed.
fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values[rank.max(1) - 1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u11_an_api_that_answers_500_sees_only_probes_and_nothing_dies() {
    const EVENTS: u64 = 200;
    const FAILURES: usize = 5;
    const CONCURRENCY: usize = 4;
    const BAD: usize = 15;
    let broker = Node::shared().await.vhost().await;
    let api = Api::with(|api| api.script = vec![AnswerConfig::status(500); BAD]).await;
    let upstream = format!(
        "    concurrency: {CONCURRENCY}
    breaker: {{ failures: {FAILURES}, open: 1s, open_max: 1s }}
    retry: {{ initial_delay: 100ms, max_delay: 1s }}
"
    );
    let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), &upstream, "")).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let messages: Vec<Message> = (0..EVENTS).map(|n| order(n, 10)).collect();
    Publisher::connect(&broker.url()).await.publish("orders", &messages).await;
    eventually("all have arrived once it is well", IN_TIME, || async {
        (api.accepted().0 == EVENTS).then_some(())
    })
    .await;
    assert_eq!(api.count(), EVENTS + BAD as u64, "every other request was accepted");
    assert_eq!(gateway.count("award-points", "dead").await, 0, "nothing dies of waiting");

    let times: Vec<u64> = api.requests().iter().map(|request| request.at_ms).collect();
    // What failed, and what was under way when it opened; from then on one probe a second, to the
    // one that finds it well.
    let before = times.iter().filter(|at| **at < times[0] + 900).count();
    assert!((FAILURES..FAILURES + CONCURRENCY).contains(&before), "{before} before it opened");
    for probes in times[before - 1..=BAD].windows(2) {
        let apart = probes[1] - probes[0];
        assert!((950..3_000).contains(&apart), "{apart} ms between probes: {times:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s6_no_secret_shows_in_log_api_or_error() {
    const TOKEN: &str = "canary-bearer-7f3a9c";
    const KEY: &str = "canary-query-51bd02";
    let broker = Node::shared().await.vhost().await;
    // It echoes what it was sent, as careless APIs do.
    let api = Api::with(|api| {
        api.answer.status = 400;
        api.answer.body = format!("{{\"error\": \"bad token {TOKEN} for key {KEY}\"}}");
    })
    .await;
    let upstream = "    auth: { bearer: '${TOKEN}', query: { api_key: '${KEY}' } }\n";
    let mut gateway = Gateway::new(&one_route(&broker.url(), &api.url(), upstream, ""));
    gateway.set("TOKEN", TOKEN);
    gateway.set("KEY", KEY);
    gateway.set("TIDEGATE__LOG__LEVEL", "trace");
    gateway.run().await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    Publisher::connect(&broker.url()).await.publish("orders", &[order(1, 10)]).await;
    eventually("it is dead", IN_TIME, || async {
        (gateway.count("award-points", "dead").await == 1).then_some(())
    })
    .await;
    let sent = &api.requests()[0];
    assert_eq!(sent.headers["authorization"], format!("Bearer {TOKEN}"));
    assert!(sent.path.contains(KEY), "the API did get it: {}", sent.path);
    let list = gateway.get("/api/v1/deliveries").await;
    let id = list["deliveries"][0]["id"].as_str().expect("an id").to_owned();
    let seen = [
        gateway.log(),
        list.to_string(),
        gateway.text(&format!("/api/v1/deliveries/{id}")).await,
        gateway.text("/api/v1/upstreams").await,
        gateway.text("/api/v1/routes").await,
        gateway.text("/metrics").await,
        gateway.text("/readyz").await,
    ];
    assert!(seen[2].contains("bad token ***"), "the echo is shown, masked: {}", seen[2]);
    for text in &seen {
        for secret in [TOKEN, KEY] {
            assert!(!text.contains(secret), "`{secret}` shows in {text}");
        }
    }
    let store = std::fs::read(gateway.folder().join("queue/tidegate.db")).expect("the queue file");
    let wal = std::fs::read(gateway.folder().join("queue/tidegate.db-wal")).unwrap_or_default();
    for secret in [TOKEN, KEY] {
        let found = |bytes: &[u8]| bytes.windows(secret.len()).any(|at| at == secret.as_bytes());
        assert!(!found(&store) && !found(&wal), "`{secret}` is stored");
    }
}
