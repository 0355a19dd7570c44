//! Many routes that have nothing to do, each with an upstream of its own: memory, and the time from
//! start to ready.

use std::{fmt::Write as _, time::Duration};

use tidegate_tests::{Gateway, eventually, rabbitmq::Node};
use tokio::time::{Instant, sleep};

use crate::{
    drive::{self, Beside, PATIENCE},
    memory, show, size,
    table::{Bound, Table},
};

/// How long they do nothing.
const IDLE: Duration = Duration::from_secs(5);

pub(crate) async fn run(node: &Node, table: &mut Table) {
    let count = size::routes();
    let url = node.vhost().await.url();
    let mut gateway = Gateway::new("");
    let (routes, beside) = many(count, count, "http://127.0.0.1:9", "");
    drive::configure(&gateway, &url, "http://127.0.0.1:9", &routes, &beside);
    // The first start declares their queues, the second finds them.
    let (mut start, mut peak) = (0.0_f64, 0.0_f64);
    for queues in ["declared", "found"] {
        let began = Instant::now();
        let ready = drive::start(&mut gateway).await;
        all_consume(&gateway, count).await;
        let consuming = began.elapsed();
        sleep(IDLE).await;
        show(&format!(
            "{count} routes ready after {:.0} ms, all queues {queues} and consumed after \
             {consuming:.1?}; {:.0} MiB, at most {:.0} MiB",
            ready * 1e3,
            memory::resident(gateway.pid()),
            memory::peak(gateway.pid())
        ));
        start = start.max(ready);
        peak = peak.max(memory::peak(gateway.pid()));
        if queues == "declared" {
            assert!(gateway.stop().await.success(), "{}", gateway.log());
        }
    }
    let count = size::short(count);
    let memory = format!("resident memory, {count} routes idle, at most");
    table.add(memory, peak, "MiB", Bound::most(150.0, 80.0));
    table.add(format!("start to ready, {count} routes"), start, "s", Bound::most(5.0, 1.0));
}

/// Waits until so many consume.
pub(crate) async fn all_consume(gateway: &Gateway, routes: u64) {
    eventually("all queues are consumed", PATIENCE, || async {
        let metrics = gateway.text("/metrics").await;
        let up = |line: &&str| line.starts_with("tidegate_source_up{") && line.ends_with(" 1");
        (metrics.lines().filter(up).count() as u64 >= routes).then_some(())
    })
    .await;
}

/// Routes `r-0` and so on, each by its name as the key, and upstreams that they take by turns, at
/// `url`, with `more` settings.
pub(crate) fn many(routes: u64, upstreams: u64, url: &str, more: &str) -> (String, Beside) {
    let (mut yaml, mut beside) = (String::new(), Beside::default());
    for n in 0..upstreams {
        let _ = writeln!(
            beside.upstreams,
            "  u-{n}: {{ url: '{url}', {more}egress: {{ allow: [127.0.0.0/8] }} }}"
        );
    }
    for n in 0..routes {
        let _ = writeln!(
            yaml,
            "  r-{n}:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: r-{n} }}] }} }}
    to: {{ http: {{ upstream: u-{}, path: '/orders/{{.id}}' }} }}",
            n % upstreams
        );
    }
    (yaml, beside)
}
