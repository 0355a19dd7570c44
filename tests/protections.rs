//! Rate limit, isolation, breaker and secrets, as the upstream sees them.

use std::time::Duration;

use tidegate_tests::{
    Api, Gateway,
    amqp::{Message, Publisher},
    eventually,
    rabbitmq::Node,
};
use tokio::net::TcpListener;

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
    // The contract allows 50 ms between token and socket: what lies within 950 ms was sent within
    // a half-open second whatever the jitter.
    for (n, from) in times.iter().enumerate() {
        let window = times[n..].iter().take_while(|at| **at < from + 950).count();
        assert!(window <= 104, "{window} requests within a second from {from} ms");
    }
    let took_ms = times[times.len() - 1] - times[0];
    let allowed = 100 * took_ms / 1000;
    let used = EVENTS as f64 / allowed as f64;
    assert!(used >= 0.97, "only {used:.3} of the limit was used: {EVENTS} in {took_ms} ms");
    drop(gateway);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_hangs_slows_no_other() {
    const EVENTS: u64 = 300;
    let broker = Node::shared().await.vhost().await;
    let well = Api::start().await;
    // Accepts connections and never answers.
    let hangs = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let hangs_url = format!("http://{}", hangs.local_addr().expect("bound"));
    let sink = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = hangs.accept().await {
            held.push(stream);
        }
    });
    let yaml = format!(
        "{}  hanging:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: 'order.confirmed.#' }}] }} }}
    to: {{ http: {{ upstream: hanging }} }}
",
        one_route(&broker.url(), &well.url(), "", "").replace(
            "routes:",
            &format!(
                "  hanging:\n    url: {hangs_url}\n    egress: {{ allow: [127.0.0.0/8] }}\nroutes:"
            )
        )
    );
    let gateway = Gateway::start(&yaml).await;
    eventually("both queues are bound", IN_TIME, || async {
        let ours = broker.consumers("tidegate.award-points").await;
        (ours == 1 && broker.consumers("tidegate.hanging").await == 1).then_some(())
    })
    .await;
    let publisher = Publisher::connect(&broker.url()).await;
    let messages: Vec<Message> = (0..EVENTS).map(|n| order(n, 10)).collect();
    publisher.publish("orders", &messages).await;
    eventually("the other route has all", IN_TIME, || async {
        (well.count() == EVENTS).then_some(())
    })
    .await;
    eventually("the hanging route holds all of its own", IN_TIME, || async {
        let waiting = gateway.count("hanging", "pending").await;
        (waiting + gateway.count("hanging", "active").await == EVENTS).then_some(())
    })
    .await;
    // Its lag while the other hangs: the 95th percentile as its own histogram has it.
    let metrics = gateway.text("/metrics").await;
    let within = |le: &str| bucket(&metrics, "tidegate_delivery_lag_seconds", "award-points", le);
    assert!(within("5.0") as f64 >= 0.95 * EVENTS as f64, "{metrics}");
    sink.abort();
}

/// The cumulative count of a histogram's bucket for a route.
fn bucket(metrics: &str, name: &str, route: &str, le: &str) -> u64 {
    let line = metrics.lines().find(|line| {
        line.starts_with(&format!("{name}_bucket"))
            && line.contains(&format!("route=\"{route}\""))
            && line.contains(&format!("le=\"{le}\""))
    });
    let line = line.unwrap_or_else(|| panic!("no {name} of {route} up to {le} in {metrics}"));
    line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_answers_500_sees_only_probes_and_nothing_dies() {
    const EVENTS: u64 = 200;
    let broker = Node::shared().await.vhost().await;
    let api = Api::with(|api| api.answer.status = 500).await;
    let upstream = "    concurrency: 4\n    breaker: { failures: 5, open: 1s, open_max: 1s }\n";
    let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), upstream, "")).await;
    eventually("the queue is bound", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let messages: Vec<Message> = (0..EVENTS).map(|n| order(n, 10)).collect();
    Publisher::connect(&broker.url()).await.publish("orders", &messages).await;
    // Five failures and what was under way; from then on one probe a second.
    eventually("several probes have been", IN_TIME, || async {
        let last = api.requests().last().map_or(0, |request| request.at_ms);
        let opened = api.requests().get(4).map_or(u64::MAX, |request| request.at_ms);
        (last >= opened.saturating_add(5_500)).then_some(())
    })
    .await;
    let times: Vec<u64> = api.requests().iter().map(|request| request.at_ms).collect();
    let before = times.iter().filter(|at| **at < times[0] + 900).count();
    assert!(before <= 5 + 4, "{before} requests before it opened");
    let probes = times.len() - before;
    assert!((4..=7).contains(&probes), "{probes} probes in about 5.5 s: {times:?}");
    assert_eq!(gateway.count("award-points", "pending").await, EVENTS);
    assert_eq!(gateway.count("award-points", "dead").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_shows_in_log_api_or_error() {
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
