//! `bench scale`: how memory, start and throughput go with the size of what there is, as a picture
//! and a table beside this folder.
//!
//! Each point is one run: a gateway is started on what is already there, the events wait in
//! RabbitMQ or in its queue, and it is stopped when the last has arrived.

mod picture;

use std::{fmt::Write as _, path::Path};

use tidegate_tests::{
    Gateway,
    amqp::{Message, Publisher},
    rabbitmq::Node,
};

use crate::{
    drive::{self, Beside, Driven},
    fill,
    pending::{Down, PARKED},
    routes, show,
    sink::Sink,
    size, table,
};

/// The argument that asks for this.
pub(crate) const SCALE: &str = "scale";

/// How the figures go with one size.
struct Curve {
    title: &'static str,
    /// What is measured along it, in one sentence.
    about: String,
    points: Vec<Point>,
    /// Of the throughput.
    unit: &'static str,
}

struct Point {
    label: String,
    memory: f64,
    start_ms: f64,
    rate: f64,
}

impl Point {
    fn new(label: String, driven: Driven) -> Self {
        let Driven { rate, start, peak } = driven;
        show(&format!("{label:>10}  {peak:6.0} MiB  {:6.0} ms  {rate:8.0} /s", start * 1e3));
        Self { label, memory: peak, start_ms: start * 1e3, rate }
    }
}

pub(crate) async fn run() {
    let node = &Node::start().await;
    // Whatever is new to RabbitMQ and to the disk is not the first point's to pay for.
    drive::through(node, &mut Gateway::new(""), &Beside::default()).await;
    let curves = [
        pending(node).await,
        many(false).await,
        many(true).await,
        keys(node).await,
        bodies(node).await,
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::write(folder.join("scale.svg"), picture::draw(&curves)).expect("writable");
    let page = page(&curves);
    std::fs::write(folder.join("scale.md"), &page).expect("writable");
    show(&page);
}

async fn pending(node: &Node) -> Curve {
    show("\n# deliveries pending");
    let (most, down) = (size::rows(), Down::new());
    let mut gateway = Gateway::new("");
    let path = gateway.folder().join("queue/tidegate.db");
    let (mut filled, mut points) = (0, Vec::new());
    for rows in [most / 100, most / 10, most] {
        fill::pending(&path, PARKED, filled..rows, |n| fill::small(n, None)).await;
        filled = rows;
        let driven = drive::through(node, &mut gateway, &down.beside()).await;
        points.push(Point::new(size::short(rows), driven));
    }
    let about = "of a route whose API is down, while another takes events of 512 bytes".to_owned();
    Curve { title: "deliveries pending", about, points, unit: "events/s" }
}

/// Routes that share an upstream, or have one each.
async fn many(upstreams: bool) -> Curve {
    let title = if upstreams { "upstreams" } else { "routes" };
    show(&format!("\n# {title}"));
    let mut points = Vec::new();
    for count in [size::routes() / 100, size::routes() / 10, size::routes()] {
        // A node each: the queues of one point would slow the next.
        let (node, sink) = (Node::start().await, Sink::start().await);
        let url = node.url();
        let (routes, beside) = match upstreams {
            false => routes::many(count, 1, &sink.url(), "concurrency: 64, "),
            true => routes::many(count, count, &sink.url(), "concurrency: 4, "),
        };
        let mut gateway = Gateway::new("");
        drive::configure(&gateway, &url, &sink.url(), &routes, &beside);
        // It declares its queues.
        drive::start(&mut gateway).await;
        routes::all_consume(&gateway, count).await;
        assert!(gateway.stop().await.success(), "{}", gateway.log());
        let message = |n: u64| drive::message(&format!("r-{}", n % count), 512);
        let messages: Vec<Message> = (0..size::events()).map(message).collect();
        Publisher::connect(&url).await.publish("orders", &messages).await;
        let driven = drive::finish(&mut gateway, &sink, size::events()).await;
        points.push(Point::new(size::short(count), driven));
    }
    let about = match upstreams {
        false => "from a RabbitMQ queue each, to one upstream with concurrency 64",
        true => "with concurrency 4 and a route from a RabbitMQ queue each",
    };
    Curve { title, about: about.to_owned(), points, unit: "events/s" }
}

async fn keys(node: &Node) -> Curve {
    show("\n# order keys");
    let rows = size::events() * 10;
    let mut points = Vec::new();
    for keys in [rows / 200, rows / 20, rows / 2] {
        let (url, sink) = (node.vhost().await.url(), Sink::start().await);
        let mut gateway = Gateway::new("");
        let path = gateway.folder().join("queue/tidegate.db");
        let append = |n: u64| {
            fill::plain(&format!("k-{n:08}"), Some(format!("customer-{}", n % keys).into()))
        };
        fill::pending(&path, "bench", 0..rows, append).await;
        let route = "  bench:
    from: { rabbitmq: { bind: [{ exchange: orders, key: '#' }] } }
    order_by: .data.customerId
    to: { http: { upstream: sink, path: '/members/{.data.customerId}/points' } }
";
        drive::configure(&gateway, &url, &sink.url(), route, &Beside::default());
        let driven = drive::finish(&mut gateway, &sink, rows).await;
        points.push(Point::new(size::short(keys), driven));
    }
    let about = format!("of {} deliveries pending, drained in order", size::short(rows));
    Curve { title: "order keys", about, points, unit: "events/s" }
}

async fn bodies(node: &Node) -> Curve {
    show("\n# body size");
    let mut points = Vec::new();
    for (label, bytes, share) in
        [("512 B", 512, 1), ("64 KiB", 64 << 10, 10), ("1 MiB", 1 << 20, 100)]
    {
        let (mut gateway, events) = (Gateway::new(""), (size::events() / share).max(10));
        let beside = Beside::default();
        let mut driven = drive::of_bytes(node, &mut gateway, &beside, events, bytes).await;
        driven.rate *= bytes as f64 / f64::from(1 << 20);
        points.push(Point::new(label.to_owned(), driven));
    }
    let about = "of one event, from RabbitMQ to the API's request".to_owned();
    Curve { title: "body size", about, points, unit: "MiB/s" }
}

/// What was measured, for people.
fn page(curves: &[Curve]) -> String {
    let trial = if cfg!(debug_assertions) { "**A debug build, to try it out.** " } else { "" };
    let mut page = format!(
        "# How it scales\n\n\
         {trial}By `bench scale`, on {}; the queue file is fsynced. \
         Memory: resident at most, under load. Start: until ready.\n\n\
         ![memory, start and throughput by size](scale.svg)\n",
        table::machine()
    );
    for Curve { title, about, points, unit } in curves {
        let _ = write!(
            page,
            "\n**{title}**, {about}:\n\n\
             | {title} | memory, MiB | start, ms | {unit} |\n|---:|---:|---:|---:|\n"
        );
        for Point { label, memory, start_ms, rate } in points {
            let _ = writeln!(
                page,
                "| {label} | {} | {} | {} |",
                figure(*memory),
                figure(*start_ms),
                figure(*rate)
            );
        }
    }
    page
}

/// `12345.6` as `12,346`, and `1.23` as `1.2`.
fn figure(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
