//! A rate limit, as the API sees it: whether any window holds more than it allows, and how much of
//! what it allows is used while there is always more to send.

use std::time::Duration;

use tidegate_tests::{Gateway, amqp::Publisher, eventually, rabbitmq::Node};
use tokio::time::Instant;

use crate::{
    arrivals::Arrivals,
    baseline,
    drive::{self, Beside, PATIENCE},
    show, size,
    table::{Bound, Table},
};

/// Requests a second, and how many may go at once.
const LIMIT: u64 = 1000;
const BURST: u64 = 1;

/// Between a permit and the API's reading of the request may be so much, more for one request
/// than for the next.
const JITTER: Duration = Duration::from_millis(50);

pub(crate) async fn run(node: &Node, table: &mut Table) {
    let lasts = Duration::from_secs(size::seconds());
    // There must be some left at the end.
    let events = LIMIT * (size::seconds() + 1);
    let (url, api) = (node.vhost().await.url(), Arrivals::start().await);
    baseline::declare(&url, "tidegate.limited").await;
    let messages: Vec<_> = (0..events).map(|n| drive::numbered("#", n, 512)).collect();
    Publisher::connect(&url).await.publish("orders", &messages).await;
    let beside = Beside {
        upstreams: format!(
            "  limited:
    url: '{}'
    rate_limit: {{ limit: {LIMIT}, period: 1s, burst: {BURST} }}
    egress: {{ allow: [127.0.0.0/8] }}
",
            api.url()
        ),
        ..Beside::default()
    };
    let route = "  limited:
    from: { rabbitmq: { bind: [{ exchange: orders, key: '#' }] } }
    to: { http: { upstream: limited, path: '/orders/{.id}' } }
";
    let mut gateway = Gateway::new("");
    drive::configure(&gateway, &url, &api.url(), route, &beside);
    gateway.run().await;
    eventually("all events arrived", PATIENCE, || async { (api.count() >= events).then_some(()) })
        .await;
    let times = api.times();
    let used = times.partition_point(|at| *at < times[0] + lasts) as f64
        / (LIMIT as f64 * lasts.as_secs_f64());
    let mut above = 0;
    for length in [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5)] {
        let most = BURST + (LIMIT as f64 * length.as_secs_f64()).ceil() as u64 - 1;
        let fullest = windows(&times, length).max().unwrap_or(0);
        let held = windows(&times, length - JITTER).filter(|held| *held > most).count();
        show(&format!(
            "{most} allowed in {length:?}: the fullest held {fullest}; less {JITTER:?} of jitter, \
             {held} of {events} held more"
        ));
        // Shorter ones say more about the jitter of a busy machine.
        if length >= Duration::from_secs(1) {
            above += held;
        }
    }
    show(&format!("{LIMIT}/s with a burst of {BURST} for {lasts:?}: {:.1} % used", used * 100.0));
    let what = format!("rate limit {LIMIT}/s for {} s", size::seconds());
    let windows = format!("{what}: windows above the bound");
    table.add(windows, above as f64, "", Bound::most(0.0, 0.0));
    table.add(format!("{what}: share used"), used, "", Bound::least(0.97, 0.99));
}

/// How many each half-open window of that `length` holds that begins with a request.
fn windows(times: &[Instant], length: Duration) -> impl Iterator<Item = u64> {
    let mut end = 0;
    times.iter().enumerate().map(move |(first, from)| {
        while times.get(end).is_some_and(|at| *at < *from + length) {
            end += 1;
        }
        (end - first) as u64
    })
}
