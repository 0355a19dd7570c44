//! What the history costs: throughput with it at its cap, where each delivery that is done with
//! pushes out an older one, by throughput on a fresh queue.

use tidegate_tests::{Gateway, rabbitmq::Node};
use tokio::time::Instant;

use crate::{
    drive::{self, Beside},
    fill, show, size,
    table::{Bound, Table},
};

pub(crate) async fn run(node: &Node, table: &mut Table) {
    // The cap of the history is a quarter of the queue's.
    let max_size = 4 * size::history();
    let mut held = Gateway::new("");
    let path = held.folder().join("queue/tidegate.db");
    let began = Instant::now();
    let deliveries = fill::history(&path, max_size << 20, "bench").await;
    let took = began.elapsed();
    show(&format!(
        "history at its cap of {} MiB: {deliveries} deliveries, filled in {took:.0?}",
        size::history()
    ));
    let settings = format!("queue: {{ max_size: {max_size}MiB }}\n");
    let beside = Beside { settings, ..Beside::default() };
    let ratio = drive::compare(node, &mut held, &beside, "history at its cap").await.ratio();
    table.add("throughput with history at its cap / none", ratio, "", Bound::least(0.8, 0.95));
}
