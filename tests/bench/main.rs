//! `make bench`: throughput of the gateway as a ratio to a hand-written consumer, both in one run,
//! on one machine, against one RabbitMQ node and one HTTP server; then the other direction, see
//! [`webhooks`]. `bench operate` is another thing, see [`operate`].
//!
//! The baseline is what a team would write by hand: lapin with a prefetch of 128, one POST a
//! message with reqwest, 64 at once, an ack each after the 2xx. No queue, no limit, nothing
//! durable.

mod baseline;
mod operate;
mod sink;
mod webhooks;

use std::time::Duration;

use tidegate_tests::{
    Gateway,
    amqp::{Message, Publisher},
    eventually,
    rabbitmq::{Node, Vhost},
};

use sink::Sink;

/// Events in each run.
const EVENTS: u64 = 20_000;

/// Runs of each, alternating; the best of each counts, since whatever else the machine does only
/// ever slows one down.
const ROUNDS: usize = 3;

/// A run that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

const QUEUE: &str = "tidegate.bench";

#[tokio::main]
async fn main() {
    if std::env::args().nth(1).as_deref() == Some(webhooks::BARE) {
        return webhooks::bare_server().await;
    }
    if std::env::args().nth(1).as_deref() == Some(operate::OPERATE) {
        let rows = std::env::args().nth(2).map_or(Ok(10_000_000), |rows| rows.parse());
        return operate::run(rows.expect("a number of rows"), show).await;
    }
    let node = Node::start().await;
    let (mut by_hand, mut gateway) = (0.0_f64, 0.0_f64);
    for round in 1..=ROUNDS {
        let hand = run_baseline(&node.vhost().await).await;
        let ours = run_gateway(&node.vhost().await).await;
        show(&format!("round {round}: by hand {hand:.0}/s, tidegate {ours:.0}/s"));
        by_hand = by_hand.max(hand);
        gateway = gateway.max(ours);
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    show(&format!(
        "{EVENTS} CloudEvents of 512 bytes, quorum queue, concurrency 64, {cores} cores\n\
         by hand (nothing durable)            {by_hand:8.0} events/s\n\
         tidegate (fsync, dedupe, template)   {gateway:8.0} events/s\n\
         ratio                                {:8.2}",
        gateway / by_hand
    ));
    webhooks::run(&node, ROUNDS, show).await;
}

/// Events per second, from the first request to the last.
async fn run_baseline(broker: &Vhost) -> f64 {
    let sink = Sink::start().await;
    baseline::declare(&broker.url(), QUEUE).await;
    fill(broker).await;
    let consumer = tokio::spawn(baseline::run(broker.url(), QUEUE, sink.url()));
    let rate = rate(&sink).await;
    consumer.abort();
    rate
}

async fn run_gateway(broker: &Vhost) -> f64 {
    let sink = Sink::start().await;
    baseline::declare(&broker.url(), QUEUE).await;
    fill(broker).await;
    let yaml = format!(
        "\
broker: {{ rabbitmq: {{ url: '{}' }} }}
log: {{ level: warn }}
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
    let rate = rate(&sink).await;
    gateway.kill().await;
    rate
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

fn show(text: &str) {
    use std::io::Write as _;
    // With nobody reading there is nothing to measure for.
    let _ = writeln!(std::io::stdout(), "{text}");
}
