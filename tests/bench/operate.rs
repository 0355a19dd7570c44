//! `bench operate [ROWS]`: what an operator does beside live traffic, and on a large queue.
//!
//! - 100,000 dead deliveries are replayed while others are delivered: how much later those arrive.
//! - Lists over ROWS deliveries (10 million if not said): how long a page takes, whatever the
//!   filter; and how long the gateway takes to be ready, and how much memory.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::json;
use tidegate::queue::{Append, Content};
use tidegate_adapters::DeadReason;
use tidegate_tests::{
    Gateway, Load, Product,
    amqp::{Message, Publisher},
    eventually,
    product::answer,
    rabbitmq::Node,
};
use tokio::time::Instant;

use crate::fill;

const PATIENCE: Duration = Duration::from_secs(600);

/// Dead deliveries to be replayed.
const DEAD: u64 = 100_000;

/// Live events a second, and for how long they are looked at alone.
const LIVE: u32 = 500;
const ALONE: Duration = Duration::from_secs(10);

/// Pages followed of each list.
const PAGES: usize = 100;

/// The argument that asks for this.
pub(crate) const OPERATE: &str = "operate";

pub(crate) async fn run(rows: u64, show: fn(&str)) {
    replay_beside_live_traffic(show).await;
    lists_of_many(rows, show).await;
}

async fn replay_beside_live_traffic(show: fn(&str)) {
    let node = Node::start().await;
    let broker = node.vhost().await;
    let refuses = Arc::new(AtomicBool::new(true));
    let arrived = Arc::<Mutex<HashMap<u64, Instant>>>::default();
    let (refused, seen) = (Arc::clone(&refuses), Arc::clone(&arrived));
    let api = Product::start(move |request| {
        if let Some(n) = request.path.strip_prefix("/live-").and_then(|n| n.parse().ok()) {
            seen.lock().entry(n).or_insert_with(Instant::now);
            return answer(200, &json!({}));
        }
        answer(if refused.load(Ordering::Relaxed) { 400 } else { 200 }, &json!({}))
    })
    .await;
    let gateway = Gateway::start(&format!(
        "\
broker: {{ rabbitmq: {{ url: '{}' }} }}
upstreams:
  api: {{ url: '{}', egress: {{ allow: [127.0.0.0/8] }} }}
routes:
  r:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to: {{ http: {{ upstream: api, path: '/{{.id}}' }} }}
",
        broker.url(),
        api.url()
    ))
    .await;
    eventually("it consumes", PATIENCE, || async {
        broker.consumers("tidegate.r").await.eq(&1).then_some(())
    })
    .await;
    let dead: Vec<Message> =
        (0..DEAD).map(|n| Message::order(&format!("dead-{n}"), &json!({}))).collect();
    Publisher::connect(&broker.url()).await.publish("orders", &dead).await;
    eventually("all are dead", PATIENCE, || async {
        gateway.count("r", "dead").await.eq(&DEAD).then_some(())
    })
    .await;
    refuses.store(false, Ordering::Relaxed);
    let live = |n| Message::order(&format!("live-{n}"), &json!({}));
    let load = Load::start(&broker.url(), "orders", LIVE, live);
    tokio::time::sleep(ALONE).await;
    let alone = load.published();
    let began = Instant::now();
    let filter = json!({ "filter": { "route": "r", "state": "dead" }, "dry_run": false });
    let (status, said) = gateway.post_slowly("/api/v1/deliveries/replay", &filter).await;
    assert_eq!((status, said["replayed"].as_u64()), (200, Some(DEAD)), "{said}");
    let replayed = began.elapsed();
    let during = load.published();
    eventually("all is delivered", PATIENCE, || async {
        gateway.count("r", "pending").await.le(&100).then_some(())
    })
    .await;
    let drained = began.elapsed();
    let (sent, arrived) = (load.sent(), arrived.lock().clone());
    let late = |range: std::ops::Range<u64>| {
        let took = range.filter_map(|n| arrived.get(&n).map(|at| *at - sent[n as usize]));
        let mut took: Vec<f64> = took.map(|took| took.as_secs_f64() * 1e3).collect();
        took.sort_by(f64::total_cmp);
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        (at(0.5), at(0.99))
    };
    // The first second is the gateway's and RabbitMQ's own.
    let ((p50, p99), (p50_beside, p99_beside)) =
        (late(u64::from(LIVE)..alone), late(alone..during));
    show(&format!(
        "{DEAD} dead ones replayed in {replayed:.1?}, delivered {drained:.1?} after the word; live \
         traffic of {LIVE}/s on the same route, published to arrived:\n\
         alone                      p50 {p50:6.1} ms  p99 {p99:6.1} ms\n\
         while they were replayed   p50 {p50_beside:6.1} ms  p99 {p99_beside:6.1} ms\n\
         ratio of the p99           {:6.2}",
        p99_beside / p99
    ));
}

async fn lists_of_many(rows: u64, show: fn(&str)) {
    let mut gateway = Gateway::new(
        "\
broker: { embedded: {} }
queue: { max_size: 100GiB, max_route_share: 1.0 }
routes:
  other:
    from: { rabbitmq: { bind: [{ exchange: orders, key: '#' }] } }
    to: { rabbitmq: { exchange: nowhere, key: x } }
",
    );
    let began = Instant::now();
    fill::pending(&gateway.folder().join("queue/tidegate.db"), "many", 0..rows, append).await;
    show(&format!(
        "{rows} deliveries pending, 1 of 10,000 dead, filled in {:.0?}",
        began.elapsed()
    ));
    let began = Instant::now();
    gateway.run().await;
    show(&format!(
        "ready after {:.0} ms, {} MiB at most",
        began.elapsed().as_secs_f64() * 1e3,
        gateway.peak_memory() >> 20
    ));
    show("filter                          first ms   mean ms    max ms   pages     found");
    let half = rows / 2;
    for filter in [
        String::new(),
        "state=pending".to_owned(),
        "state=dead".to_owned(),
        "state=dead&reason=expired".to_owned(),
        "route=many&state=pending".to_owned(),
        "route=other".to_owned(),
        format!("event=e-{half}"),
        "event=nobody".to_owned(),
        "key=k-17".to_owned(),
        "type=rare".to_owned(),
        "since=1h".to_owned(),
    ] {
        let (mut cursor, mut took, mut found) = (None::<String>, Vec::new(), 0);
        while took.len() < PAGES {
            let onwards = cursor.as_ref().map_or(String::new(), |next| format!("&cursor={next}"));
            let began = Instant::now();
            let page = gateway.get(&format!("/api/v1/deliveries?{filter}{onwards}")).await;
            took.push(began.elapsed().as_secs_f64() * 1e3);
            found += page["deliveries"].as_array().map_or(0, Vec::len);
            cursor = page["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        let (pages, most) = (took.len(), took.iter().copied().fold(0.0, f64::max));
        let mean = took.iter().sum::<f64>() / pages as f64;
        show(&format!("{filter:30} {:9.1} {mean:9.1} {most:9.1} {pages:7} {found:9}", took[0]));
    }
}

/// Pending, of a route that nobody delivers; a few dead.
fn append(n: u64) -> Append {
    let kind = if n.is_multiple_of(1_000_003) { "rare" } else { "order.confirmed.v1" };
    let data = &br#"{"customerId":"c","total":12.5}"#[..];
    let event = Arc::new(fill::event(&format!("e-{n}"), kind, data));
    let content = match n % 10_000 {
        0 => Content::Dead(event, DeadReason::Rejected, "status 400".to_owned()),
        _ => Content::Pending(event),
    };
    // A few have keys, each its own but for those of every thousandth.
    let key = (n % 1_000 == 17).then(|| format!("k-{}", n / 1_000 % 1_000).into());
    Append { content, key, dedupe: false }
}
