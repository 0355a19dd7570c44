//! What a backlog costs others: with millions of deliveries pending of a route whose API is down,
//! the throughput of another, the memory, and the time from start to ready.

use std::path::Path;

use tidegate_tests::{Gateway, rabbitmq::Node};
use tokio::{net::TcpSocket, process::Command, time::Instant};

use crate::{
    drive::{self, Beside},
    fill, show, size,
    table::{Bound, Table},
};

/// The route that has the backlog.
pub(crate) const PARKED: &str = "parked";

pub(crate) async fn run(node: &Node, table: &mut Table) {
    let (rows, down) = (size::rows(), Down::new());
    let mut held = Gateway::new("");
    let path = held.folder().join("queue/tidegate.db");
    let began = Instant::now();
    fill::pending(&path, PARKED, 0..rows, |n| fill::small(n, None)).await;
    let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
    let rows = size::short(rows);
    let took = began.elapsed();
    show(&format!("{rows} deliveries pending, {} MiB, filled in {took:.0?}", bytes >> 20));
    // The first start reads from the disk what later ones find in memory.
    forget(&path).await;
    let compared = drive::compare(node, &mut held, &down.beside(), "with the backlog").await;
    let ratio = compared.ratio();
    table.add(format!("throughput with {rows} pending / none"), ratio, "", Bound::least(0.8, 0.95));
    let memory = format!("resident memory with {rows} pending, at most, under load");
    table.add(memory, compared.peak, "MiB", Bound::most(150.0, 80.0));
    let start = format!("start to ready with {rows} pending, the slowest");
    table.add(start, compared.start, "s", Bound::most(5.0, 1.0));
}

/// An API that is down: its port is taken, and nobody listens.
pub(crate) struct Down {
    socket: TcpSocket,
}

impl Down {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        Self { socket }
    }

    /// The route [`PARKED`] that calls it, and a queue that holds any backlog.
    pub(crate) fn beside(&self) -> Beside {
        let address = self.socket.local_addr().expect("bound");
        Beside {
            settings: "queue: { max_size: 100GiB, max_route_share: 1.0 }\n".to_owned(),
            upstreams: format!(
                "  down: {{ url: 'http://{address}', egress: {{ allow: [127.0.0.0/8] }} }}\n"
            ),
            routes: format!(
                "  {PARKED}:
    from: {{ rabbitmq: {{ bind: [{{ exchange: elsewhere, key: '#' }}] }} }}
    to: {{ http: {{ upstream: down }} }}
"
            ),
        }
    }
}

/// Makes the system forget what it keeps in memory of a file.
async fn forget(path: &Path) {
    let mut input = std::ffi::OsString::from("if=");
    input.push(path);
    let mut dd = Command::new("dd");
    dd.arg(input).args(["iflag=nocache", "count=0", "status=none"]);
    assert!(dd.status().await.expect("dd(1)").success());
}
