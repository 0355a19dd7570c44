//! Throughput from RabbitMQ to an HTTP API, as a ratio to a hand-written consumer, both against one
//! RabbitMQ node and one HTTP server.
//!
//! The baseline is what a team would write by hand: lapin with a prefetch of 128, one POST a
//! message with reqwest, 64 at once, an ack each after the 2xx. No queue, no limit, nothing
//! durable.

use std::time::Duration;

use tidegate_tests::{
    Gateway,
    amqp::{Message, Publisher},
    eventually,
    rabbitmq::{Node, Vhost},
};

use crate::{
    baseline,
    cpu::Cpu,
    show,
    sink::Sink,
    table::{Bound, Table},
};

/// Events in each run.
const EVENTS: u64 = 50_000;

/// Runs of each, alternating; the best of each counts, since whatever else the machine does only
/// ever slows one down.
const ROUNDS: usize = 3;

/// A run that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

const QUEUE: &str = "tidegate.bench";

pub(crate) async fn run(node: &Node, table: &mut Table) {
    let (mut by_hand, mut gateway) = (0.0_f64, 0.0_f64);
    for round in 1..=ROUNDS {
        let (hand, cost) = run_baseline(node).await;
        show(&format!("round {round}: by hand  {hand:7.0}/s; {cost}"));
        let (ours, cost) = run_gateway(node).await;
        show(&format!("         tidegate {ours:7.0}/s; {cost}"));
        by_hand = by_hand.max(hand);
        gateway = gateway.max(ours);
    }
    show(&format!(
        "{EVENTS} CloudEvents of 512 bytes, quorum queue, concurrency 64\n\
         by hand (nothing durable)            {by_hand:8.0} events/s\n\
         tidegate (fsync, dedupe, template)   {gateway:8.0} events/s"
    ));
    let ratio = gateway / by_hand;
    table.add("RabbitMQ to HTTP, throughput / by hand", ratio, "", Bound::least(1.25, 1.6));
}

/// Events per second, from the first request to the last.
async fn run_baseline(node: &Node) -> (f64, String) {
    let broker = node.vhost().await;
    let sink = Sink::start().await;
    baseline::declare(&broker.url(), QUEUE).await;
    fill(&broker).await;
    let cpu = Cpu::start(&[("this", std::process::id()), ("rabbitmq", node.pid().await)]);
    let consumer = tokio::spawn(baseline::run(broker.url(), QUEUE, sink.url()));
    let rate = rate(&sink).await;
    consumer.abort();
    (rate, cpu.per(EVENTS))
}

async fn run_gateway(node: &Node) -> (f64, String) {
    let broker = node.vhost().await;
    let sink = Sink::start().await;
    baseline::declare(&broker.url(), QUEUE).await;
    fill(&broker).await;
    let yaml = format!(
        "\
broker: {{ rabbitmq: {{ url: '{}' }} }}
upstreams:
  sink: {{ url: '{}', concurrency: 64, egress: {{ allow: [127.0.0.0/8] }} }}
routes:
  bench:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to: {{ http: {{ upstream: sink, path: '/members/{{.data.customerId}}/points' }} }}
",
        broker.url(),
        sink.url()
    );
    let mut gateway = Gateway::new(&yaml);
    gateway.spawn();
    let rabbitmq = node.pid().await;
    let processes =
        [("sink", std::process::id()), ("rabbitmq", rabbitmq), ("tidegate", gateway.pid())];
    let cpu = Cpu::start(&processes);
    let rate = rate(&sink).await;
    let cost = format!("{}; {}", cpu.per(EVENTS), commits(&gateway).await);
    gateway.kill().await;
    (rate, cost)
}

/// How often the queue committed, and how long that took, in words.
async fn commits(gateway: &Gateway) -> String {
    let metrics = gateway.text("/metrics").await;
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(f64::NAN)
    };
    let (count, sum) =
        (value("tidegate_queue_commit_seconds_count"), value("tidegate_queue_commit_seconds_sum"));
    let io = std::fs::read_to_string(format!("/proc/{}/io", gateway.pid())).unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    let written = written.and_then(|bytes| bytes.parse::<f64>().ok()).unwrap_or(f64::NAN);
    let each = written / EVENTS as f64 / 1024.0;
    format!("{count} commits of {:.1} ms, {each:.1} KiB written each", sum / count * 1e3)
}

async fn rate(sink: &Sink) -> f64 {
    eventually("all events arrived", PATIENCE, || async { (sink.count() >= EVENTS).then_some(()) })
        .await;
    EVENTS as f64 / sink.took().as_secs_f64()
}

async fn fill(broker: &Vhost) {
    let publisher = Publisher::connect(&broker.url()).await;
    let messages: Vec<Message> = (0..EVENTS).map(event).collect();
    publisher.publish("orders", &messages).await;
}

/// A structured CloudEvent of 512 bytes.
fn event(n: u64) -> Message {
    let data = |filler: &str| {
        serde_json::json!({
            "customerId": format!("customer-{}", n % 1000), "total": 12.5, "filler": filler,
        })
    };
    let id = format!("bench-{n:08}");
    let bare = Message::order(&id, &data("")).body.len();
    Message::order(&id, &data(&"x".repeat(512_usize.saturating_sub(bare))))
}
