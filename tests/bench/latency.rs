//! How long an event takes on an idle system: from just before it is published until the API has
//! read the request. And how much of that RabbitMQ takes by itself: the same until a consumer has
//! it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions},
    types::FieldTable,
};
use parking_lot::Mutex;
use tidegate_tests::{Gateway, amqp::Publisher, eventually, rabbitmq::Node};
use tokio::time::{Instant, sleep};

use crate::{
    arrivals::{Arrivals, percentile},
    baseline,
    drive::{self, Beside, PATIENCE},
    show,
    table::{Bound, Table},
};

/// Events looked at, after those that warm up.
const EVENTS: u64 = 500;
const WARM_UP: u64 = 50;

/// About as long after one follows the next.
const APART: Duration = Duration::from_millis(20);

pub(crate) async fn run(node: &Node, table: &mut Table) {
    let (plain_p50, plain_p99) = plain(node).await;
    show(&format!("RabbitMQ to a plain consumer  p50 {plain_p50:.2} ms, p99 {plain_p99:.2} ms"));
    let (p50, p99) = through_gateway(node).await;
    show(&format!("RabbitMQ to the API's request p50 {p50:.2} ms, p99 {p99:.2} ms"));
    show(&format!("of the p50 {:.2} ms are Tidegate's: queue, fsync, HTTP", p50 - plain_p50));
    table.add("event to HTTP request, idle, p50", p50, "ms", Bound::most(2.0, 1.0));
    table.add("event to HTTP request, idle, p99", p99, "ms", Bound::most(10.0, 5.0));
}

/// By a consumer that does nothing.
async fn plain(node: &Node) -> (f64, f64) {
    let url = node.vhost().await.url();
    baseline::declare(&url, "plain").await;
    let connection = Connection::connect(&url, ConnectionProperties::default());
    let connection = connection.await.expect("the bench's own RabbitMQ node is up");
    let channel = connection.create_channel().await.expect("a channel");
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume("plain".into(), "".into(), options, FieldTable::default());
    let mut messages = consumer.await.expect("a consumer");
    let arrived = Arc::<Mutex<HashMap<u64, Instant>>>::default();
    let arriving = Arc::clone(&arrived);
    let task = tokio::spawn(async move {
        while let Some(Ok(message)) = messages.next().await {
            let at = Instant::now();
            let event: serde_json::Value = serde_json::from_slice(&message.data).expect("JSON");
            let n = event["id"].as_str().and_then(|id| id.parse().ok()).expect("its number");
            arriving.lock().insert(n, at);
            message.acker.ack(BasicAckOptions::default()).await.expect("acked");
        }
    });
    let sent = publish(&url).await;
    eventually("all arrived", PATIENCE, || async {
        (arrived.lock().len() as u64 == EVENTS + WARM_UP).then_some(())
    })
    .await;
    task.abort();
    let arrived = arrived.lock();
    percentiles(&sent, &arrived)
}

async fn through_gateway(node: &Node) -> (f64, f64) {
    let (url, api) = (node.vhost().await.url(), Arrivals::start().await);
    baseline::declare(&url, "tidegate.bench").await;
    let mut gateway = Gateway::new("");
    let route = "  bench:
    from: { rabbitmq: { bind: [{ exchange: orders, key: '#' }] } }
    to: { http: { upstream: sink, path: '/members/{.data.customerId}/{.id}' } }
";
    drive::configure(&gateway, &url, &api.url(), route, &Beside::default());
    gateway.run().await;
    let sent = publish(&url).await;
    eventually("all arrived", PATIENCE, || async {
        (api.count() >= EVENTS + WARM_UP).then_some(())
    })
    .await;
    percentiles(&sent, &api.by_number())
}

/// One after the other, with time between: when each was published.
async fn publish(url: &str) -> Vec<Instant> {
    let publisher = Publisher::connect(url).await;
    let mut sent = Vec::new();
    for n in 0..EVENTS + WARM_UP {
        // Not in step with anything that ticks.
        sleep(APART - Duration::from_micros(2500) + Duration::from_micros(n * 7919 % 5000)).await;
        let message = [drive::numbered("order.confirmed.v1", n, 512)];
        sent.push(Instant::now());
        publisher.publish("orders", &message).await;
    }
    sent
}

/// The median and the 99th percentile, in milliseconds.
fn percentiles(sent: &[Instant], arrived: &HashMap<u64, Instant>) -> (f64, f64) {
    let took = |n: u64| (arrived[&n] - sent[n as usize]).as_secs_f64() * 1e3;
    let took: Vec<f64> = (WARM_UP..EVENTS + WARM_UP).map(took).collect();
    (percentile(took.clone(), 0.5), percentile(took, 0.99))
}
