//! What an API that hangs costs those that do not: the p99 from publishing to arrival at 19 of 20
//! upstreams while the last one hangs, by the p99 before.
//!
//! Calm and a hang by turns, at one rate, so that whatever else the machine does meets both alike.

use std::{collections::HashMap, fmt::Write as _, ops::Range, time::Duration};

use tidegate_tests::{Gateway, Load, amqp::Message, eventually, proxy::Proxy, rabbitmq::Node};
use tokio::time::{Instant, sleep};

use crate::{
    arrivals::{Arrivals, percentile},
    drive::{self, Beside, PATIENCE},
    show, size,
    table::{Bound, Table},
};

const UPSTREAMS: u64 = 20;

/// Events a second, all upstreams together.
const RATE: u32 = 400;

pub(crate) async fn run(node: &Node, table: &mut Table) {
    let broker = node.vhost().await;
    let api = Arrivals::start().await;
    let last = Arrivals::start().await;
    let proxy = Proxy::to(&last.url()).await;
    let mut gateway = Gateway::new("");
    let (routes, beside) = routes(&api.url(), &proxy.url());
    drive::configure(&gateway, &broker.url(), &api.url(), &routes, &beside);
    gateway.run().await;
    for n in 0..UPSTREAMS {
        let queue = format!("tidegate.api-{n}");
        eventually("the queue is bound", PATIENCE, || async {
            (broker.consumers(&queue).await == 1).then_some(())
        })
        .await;
    }
    let mut load = Load::start(&broker.url(), "orders", RATE, event);
    // The first second is the gateway's and RabbitMQ's own.
    sleep(Duration::from_secs(1)).await;
    let mut phases = Vec::new();
    for _ in 0..size::rounds() + 2 {
        for hangs in [false, true] {
            phases.push(phase(&gateway, &proxy, &load, hangs).await);
        }
    }
    proxy.set_hangs(false);
    let published = load.stop().await;
    eventually("all arrived", PATIENCE, || async {
        let arrived = api.by_number().len() + last.by_number().len();
        (arrived as u64 == published).then_some(())
    })
    .await;
    judge(&phases, &load.sent(), &api.by_number(), table);
}

/// Calm, or a hang: the events published in it.
async fn phase(gateway: &Gateway, proxy: &Proxy, load: &Load, hangs: bool) -> Range<u64> {
    proxy.set_hangs(hangs);
    // All its slots are taken, or its backlog is gone.
    eventually("the phase has begun", PATIENCE, || async {
        let waiting = gateway.count("api-0", "pending").await;
        (if hangs { waiting >= 64 } else { waiting < 8 }).then_some(())
    })
    .await;
    let first = load.published();
    sleep(Duration::from_secs(size::seconds().div_ceil(5))).await;
    first..load.published()
}

fn judge(
    phases: &[Range<u64>],
    sent: &[Instant],
    arrived: &HashMap<u64, Instant>,
    table: &mut Table,
) {
    let lags = |events: &Range<u64>| -> Vec<f64> {
        // Those of the one that hangs are elsewhere.
        let lag = |n| arrived.get(&n).map(|at| (*at - sent[n as usize]).as_secs_f64() * 1e3);
        events.clone().filter_map(lag).collect()
    };
    let p99: Vec<f64> = phases.iter().map(|phase| percentile(lags(phase), 0.99)).collect();
    let ratios: Vec<f64> = p99.chunks(2).map(|turn| turn[1] / turn[0]).collect();
    for (turn, ratio) in p99.chunks(2).zip(&ratios) {
        show(&format!("p99 {:6.1} ms, {:6.1} ms while one hangs: {ratio:.2}", turn[0], turn[1]));
    }
    // The median of the turns, or one hiccup of the machine would decide.
    let ratio = percentile(ratios, 0.5);
    show(&format!(
        "{RATE} events/s to {UPSTREAMS} upstreams, published to arrived at the {} that are well",
        UPSTREAMS - 1
    ));
    let what = "one upstream of 20 hangs, p99 of the others / before";
    table.add(what, ratio, "", Bound::most(1.3, 1.1));
}

fn event(n: u64) -> Message {
    drive::numbered(&format!("api-{}", n % UPSTREAMS), n, 512)
}

/// A route and an upstream each. The first has no breaker: all its slots are taken while it hangs,
/// by attempts that time out and come again.
fn routes(well: &str, hanging: &str) -> (String, Beside) {
    let (mut routes, mut beside) = (String::new(), Beside::default());
    for n in 0..UPSTREAMS {
        let (url, more) = match n {
            0 => (
                hanging,
                "timeout: 1s, breaker: off, retry: { initial_delay: 200ms, max_delay: 500ms }, ",
            ),
            _ => (well, ""),
        };
        let _ = writeln!(
            beside.upstreams,
            "  api-{n}: {{ url: '{url}', {more}egress: {{ allow: [127.0.0.0/8] }} }}"
        );
        let _ = writeln!(
            routes,
            "  api-{n}:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: api-{n} }}] }} }}
    to: {{ http: {{ upstream: api-{n}, path: '/orders/{{.id}}' }} }}"
        );
    }
    (routes, beside)
}
