//! `make bench`: what Tidegate costs and how fast it is, each figure a ratio within this run or a
//! time on this machine, beside the bound it must keep; it fails when one is not kept. `bench
//! SECTION...` measures only those.
//!
//! A section is a module; what it measured goes into the [`table`] that is printed at the end.
//! `bench scale` and `bench operate` are other things, see [`scale`] and [`operate`].

mod arrivals;
mod baseline;
mod cpu;
mod drive;
mod fill;
mod history;
mod hung;
mod latency;
mod memory;
mod operate;
mod pending;
mod rate;
mod routes;
mod scale;
mod sink;
mod size;
mod table;
mod throughput;
mod webhooks;

use std::process::ExitCode;

use table::Table;
use tidegate_tests::rabbitmq::Node;

/// What is measured, in this order: the queues of `routes` stay on the RabbitMQ node.
const SECTIONS: &[&str] =
    &["throughput", "webhooks", "latency", "rate", "hung", "pending", "history", "routes"];

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let first = arguments.first().map_or("", String::as_str);
    if first == webhooks::BARE {
        webhooks::bare_server().await;
        return ExitCode::SUCCESS;
    }
    if first == operate::OPERATE {
        let rows = arguments.get(1).map_or(Ok(10_000_000), |rows| rows.parse());
        operate::run(rows.expect("a number of rows"), show).await;
        return ExitCode::SUCCESS;
    }
    // Built now, or the first start that is measured would build it.
    let _built = tidegate_tests::gateway::binary();
    if first == scale::SCALE {
        scale::run().await;
        return ExitCode::SUCCESS;
    }
    let unknown = arguments.iter().find(|section| !SECTIONS.contains(&section.as_str()));
    assert!(unknown.is_none(), "no section {unknown:?}; there are {SECTIONS:?}");
    let node = Node::start().await;
    let mut table = Table::default();
    let wanted = |section: &&&str| arguments.is_empty() || arguments.iter().any(|a| a == **section);
    for section in SECTIONS.iter().filter(wanted) {
        show(&format!("\n# {section}"));
        match *section {
            "throughput" => throughput::run(&node, &mut table).await,
            "webhooks" => webhooks::run(&node, &mut table).await,
            "latency" => latency::run(&node, &mut table).await,
            "pending" => pending::run(&node, &mut table).await,
            "history" => history::run(&node, &mut table).await,
            "routes" => routes::run(&node, &mut table).await,
            "rate" => rate::run(&node, &mut table).await,
            "hung" => hung::run(&node, &mut table).await,
            other => unreachable!("{other} is listed and not measured"),
        }
    }
    show(&format!("\n{}\n{table}", table::machine()));
    if table.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub(crate) fn show(text: &str) {
    use std::io::Write as _;
    // With nobody reading there is nothing to measure for.
    let _ = writeln!(std::io::stdout(), "{text}");
}
