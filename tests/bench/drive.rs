//! Events through a gateway as fast as they go: what all sections that compare throughput share.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tidegate_tests::{
    Gateway,
    amqp::{Message, Publisher},
    eventually,
    rabbitmq::Node,
};
use tokio::time::{Instant, timeout};

use crate::{baseline, memory, show, sink::Sink, size};

/// What takes longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What a gateway is configured with besides what is measured: YAML lines.
#[derive(Default)]
pub(crate) struct Beside {
    pub(crate) settings: String,
    pub(crate) upstreams: String,
    pub(crate) routes: String,
}

/// What one run came to.
#[derive(Clone, Copy)]
pub(crate) struct Driven {
    /// Events per second, from the first request to the last.
    pub(crate) rate: f64,
    /// Seconds from start to ready.
    pub(crate) start: f64,
    /// MiB resident at most.
    pub(crate) peak: f64,
}

/// The best of several runs on a fresh queue each, and of as many on the queue of `held`.
pub(crate) struct Compared {
    pub(crate) without: f64,
    pub(crate) with: f64,
    /// Of the latter: the slowest start, and the most memory.
    pub(crate) start: f64,
    pub(crate) peak: f64,
}

impl Compared {
    pub(crate) fn ratio(&self) -> f64 {
        self.with / self.without
    }
}

/// Runs on a fresh queue and on that of `held` by turns, configured alike; the best of each counts,
/// since whatever else the machine does only ever slows one down.
pub(crate) async fn compare(
    node: &Node,
    held: &mut Gateway,
    beside: &Beside,
    what: &str,
) -> Compared {
    let mut compared = Compared { without: 0.0, with: 0.0, start: 0.0, peak: 0.0 };
    for round in 1..=size::rounds() {
        let without = through(node, &mut Gateway::new(""), beside).await;
        let with = through(node, held, beside).await;
        for (name, driven) in [("without", without), (what, with)] {
            let Driven { rate, start, peak } = driven;
            show(&format!(
                "round {round}: {name:20} {rate:6.0}/s, ready after {:4.0} ms, \
                 at most {peak:.0} MiB",
                start * 1e3
            ));
        }
        compared.without = compared.without.max(without.rate);
        compared.with = compared.with.max(with.rate);
        compared.start = compared.start.max(with.start);
        compared.peak = compared.peak.max(with.peak);
    }
    compared
}

/// Events of 512 bytes that wait in RabbitMQ, through the route `bench` of `gateway`, which is
/// stopped before and after.
pub(crate) async fn through(node: &Node, gateway: &mut Gateway, beside: &Beside) -> Driven {
    of_bytes(node, gateway, beside, size::events(), 512).await
}

/// The same, of as many `bytes`.
pub(crate) async fn of_bytes(
    node: &Node,
    gateway: &mut Gateway,
    beside: &Beside,
    events: u64,
    bytes: usize,
) -> Driven {
    let (broker, sink) = (node.vhost().await, Sink::start().await);
    baseline::declare(&broker.url(), "tidegate.bench").await;
    let publisher = Publisher::connect(&broker.url()).await;
    // Made as they go: many large ones would be a lot of memory.
    let mut left = events;
    while left > 0 {
        let some = left.min((64 << 20) / bytes as u64).min(4096);
        let messages: Vec<Message> = (0..some).map(|_| message("#", bytes)).collect();
        publisher.publish("orders", &messages).await;
        left -= some;
    }
    drop(publisher);
    let route = "  bench:
    from: { rabbitmq: { bind: [{ exchange: orders, key: '#' }] } }
    to: { http: { upstream: sink, path: '/members/{.data.customerId}/points' } }
";
    configure(gateway, &broker.url(), &sink.url(), route, beside);
    finish(gateway, &sink, events).await
}

/// Starts `gateway`, waits until `sink` has seen so many events, and stops it.
pub(crate) async fn finish(gateway: &mut Gateway, sink: &Sink, events: u64) -> Driven {
    let start = start(gateway).await;
    let all = eventually("all events arrived", 2 * PATIENCE, || async {
        (sink.count() >= events).then_some(())
    });
    if timeout(PATIENCE, all).await.is_err() {
        // What it thinks it still has to do says more than that it does not do it.
        let routes = gateway.text("/api/v1/routes").await;
        panic!("{} of {events} arrived; {routes}\n{}", sink.count(), gateway.log());
    }
    let rate = events as f64 / sink.took().as_secs_f64();
    let peak = memory::peak(gateway.pid());
    assert!(gateway.stop().await.success(), "{}", gateway.log());
    Driven { rate, start, peak }
}

/// Starts it: seconds until it is ready.
pub(crate) async fn start(gateway: &mut Gateway) -> f64 {
    let began = Instant::now();
    gateway.run().await;
    began.elapsed().as_secs_f64()
}

/// Writes its configuration: the upstream `sink`, `routes`, and what is beside them.
pub(crate) fn configure(
    gateway: &Gateway,
    broker: &str,
    sink: &str,
    routes: &str,
    beside: &Beside,
) {
    let yaml = format!(
        "\
broker: {{ rabbitmq: {{ url: '{broker}' }} }}
{}upstreams:
  sink: {{ url: '{sink}', concurrency: 64, egress: {{ allow: [127.0.0.0/8] }} }}
{}routes:
{routes}{}",
        beside.settings, beside.upstreams, beside.routes
    );
    let file = gateway.folder().join("gateway.yaml");
    std::fs::write(file, yaml).expect("writable");
}

/// A structured CloudEvent of so many bytes. No two of a run of the bench have the same id: a queue
/// that is used again would know it.
pub(crate) fn message(key: &str, bytes: usize) -> Message {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    numbered(key, n, bytes)
}

/// The same, with the number for its id.
pub(crate) fn numbered(key: &str, n: u64, bytes: usize) -> Message {
    let data = |filler: &str| {
        serde_json::json!({
            "customerId": format!("customer-{}", n % 1000), "total": 12.5, "filler": filler,
        })
    };
    let id = n.to_string();
    let bare = Message::order(&id, &data("")).body.len();
    let filler = "x".repeat(bytes.saturating_sub(bare));
    Message { key: key.to_owned(), ..Message::order(&id, &data(&filler)) }
}
