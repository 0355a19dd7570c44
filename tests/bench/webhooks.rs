//! Webhook intake: requests per second with signature, mapping, dedupe and fsync, as a ratio to a
//! bare hyper server answering 202; and the p99 at 70 % of that.
//!
//! Both servers are processes of their own. Requests are signed beforehand and written as bytes, so
//! that the load costs little of the two cores that all share.

use std::{
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    cpu::Cpu,
    show,
    table::{Bound, Table},
};
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use tidegate_tests::{Gateway, rabbitmq::Node};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// Requests in each closed-loop run.
const REQUESTS: usize = 40_000;

const CONNECTIONS: usize = 64;

const ROUNDS: usize = 3;

/// How much of the rate of the closed loop the open loop asks for.
const OF_IT: f64 = 0.7;

/// How long the open loop lasts.
const OPEN: Duration = Duration::from_secs(10);

const SECRET: &str = "bench-secret";

/// Where the bare server says its address, when this binary is started as one.
pub(crate) const BARE: &str = "bare-server";

/// Measures and shows.
///
/// The row is about taking webhooks, so the route is paused: what is published meanwhile is
/// RabbitMQ's and the consumers' to pay for, and shown beside it.
pub(crate) async fn run(node: &Node, table: &mut Table) {
    let (mut bare, mut ours, mut p99) = (0.0_f64, 0.0_f64, f64::INFINITY);
    for round in 1..=ROUNDS {
        let (server, address) = start_bare().await;
        let plain = closed(address, &requests(REQUESTS, round)).await;
        drop(server);
        let taken = take(node, round, true).await;
        let meanwhile = take(node, round + ROUNDS, false).await;
        show(&format!(
            "round {round}: bare {plain:.0}/s\n  tidegate {taken}\n  published {meanwhile}"
        ));
        (bare, ours, p99) = (bare.max(plain), ours.max(taken.rate), p99.min(taken.p99));
    }
    show(&format!(
        "webhooks of 512 bytes, {CONNECTIONS} connections\n\
         bare hyper server answering 202      {bare:8.0} requests/s\n\
         tidegate (HMAC, mapping, dedupe)     {ours:8.0} requests/s"
    ));
    table.add("webhook to 202, requests / bare server", ours / bare, "", Bound::least(0.30, 0.40));
    table.add("webhook, p99 at 70 % of that", p99, "ms", Bound::most(10.0, 5.0));
}

/// What one gateway did.
struct Taken {
    rate: f64,
    p99: f64,
    cost: String,
}

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rate, p99, cost } = self;
        write!(f, "{rate:6.0}/s, p99 at {:.0}/s {p99:.1} ms; {cost}", rate * OF_IT)
    }
}

async fn take(node: &Node, round: usize, paused: bool) -> Taken {
    let broker = node.vhost().await;
    tidegate_tests::amqp::bind(&broker.url(), "bench", "bench", "#").await;
    let gateway = Gateway::start(&yaml(&broker.url())).await;
    if paused {
        let (status, said) =
            gateway.post("/api/v1/routes/bench/pause", &serde_json::json!({})).await;
        assert_eq!(status, 200, "{said}");
    }
    let url = gateway.webhooks().await;
    let address = url.trim_start_matches("http://").parse().expect("an address");
    let cpu = Cpu::start(&[("load", std::process::id()), ("tidegate", gateway.pid())]);
    let rate = closed(address, &requests(REQUESTS, round)).await;
    let cost = cpu.per(REQUESTS as u64);
    let p99 = open(address, rate * OF_IT, round).await;
    Taken { rate, p99, cost }
}

/// The server without any of it, as a process.
pub(crate) async fn bare_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut stdout = tokio::io::stdout();
    stdout.write_all(format!("{address}\n").as_bytes()).await.expect("the parent reads");
    stdout.flush().await.expect("the parent reads");
    while let Ok((stream, _)) = listener.accept().await {
        // As the gateway does.
        let _ = stream.set_nodelay(true);
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| async move {
                let _ = request.into_body().collect().await?;
                let mut answer = Response::new(Full::new(Bytes::from_static(b"{\"id\":\"bare\"}")));
                *answer.status_mut() = StatusCode::ACCEPTED;
                Ok::<_, hyper::Error>(answer)
            });
            let builder = hyper::server::conn::http1::Builder::new();
            // A peer that goes away is the end of it.
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn start_bare() -> (tokio::process::Child, SocketAddr) {
    let mut child = Command::new(std::env::current_exe().expect("our own path"))
        .arg(BARE)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("ourselves");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("piped above");
    BufReader::new(stdout).read_line(&mut line).await.expect("it says its address");
    (child, line.trim().parse().expect("an address"))
}

fn yaml(broker: &str) -> String {
    format!(
        "\
broker: {{ rabbitmq: {{ url: '{broker}' }} }}
log: {{ level: info }}
routes:
  bench:
    from:
      webhook:
        path: /hooks/bench
        verify: {{ hmac: {{ header: X-Signature, prefix: 'sha256=', secrets: [{SECRET}] }} }}
        event:
          id: '{{.body.id}}'
          type: 'bench.{{.body.type}}.v1'
          subject: '{{.body.customer}}'
          data: .body.data
    to: {{ rabbitmq: {{ exchange: bench }} }}
"
    )
}

/// `count` different signed requests, as bytes.
fn requests(count: usize, round: usize) -> Arc<Vec<Vec<u8>>> {
    let request = |n: usize| {
        let body = |filler: &str| {
            format!(
                "{{\"id\":\"{round}-{n:08}\",\"type\":\"sold\",\"customer\":\"customer-{}\",\
                 \"data\":{{\"total\":12.50,\"filler\":\"{filler}\"}}}}",
                n % 1000
            )
        };
        let body = body(&"x".repeat(512_usize.saturating_sub(body("").len())));
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
        mac.update(body.as_bytes());
        let signature = mac.finalize().into_bytes();
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "POST /hooks/bench HTTP/1.1\r\nhost: bench.example\r\n\
             content-type: application/json\r\n\
             x-signature: sha256={hex}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    };
    Arc::new((0..count).map(request).collect())
}

/// Each connection sends its next request when the last is answered: requests per second.
async fn closed(address: SocketAddr, requests: &Arc<Vec<Vec<u8>>>) -> f64 {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (next, requests) = (Arc::clone(&next), Arc::clone(requests));
        connections.spawn(async move {
            let mut connection = Connection::open(address).await;
            while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                connection.exchange(request).await;
            }
        });
    }
    connections.join_all().await;
    requests.len() as f64 / began.elapsed().as_secs_f64()
}

/// Requests at fixed times whatever the answers take: the 99th percentile, from the time a request
/// was due, in milliseconds.
async fn open(address: SocketAddr, per_second: f64, round: usize) -> f64 {
    let count = (per_second * OPEN.as_secs_f64()) as usize;
    let requests = requests(count, round + 1000);
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (next, requests) = (Arc::clone(&next), Arc::clone(&requests));
        connections.spawn(async move {
            let mut connection = Connection::open(address).await;
            let mut took = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some(request) = requests.get(n) else { return took };
                let due = began + Duration::from_secs_f64(n as f64 / per_second);
                sleep_until(due).await;
                connection.exchange(request).await;
                took.push(due.elapsed());
            }
        });
    }
    let mut took: Vec<Duration> = connections.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    took[took.len() * 99 / 100].as_secs_f64() * 1000.0
}

/// One keep-alive connection.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        // Small requests must not wait for more to send.
        let _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    async fn exchange(&mut self, request: &[u8]) {
        self.stream.write_all(request).await.expect("the connection lives");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
            if complete(&self.buffer) {
                break;
            }
        }
        let status = self.buffer.get(9..12);
        let text = String::from_utf8_lossy(&self.buffer);
        assert_eq!(status, Some(&b"202"[..]), "{text}");
    }
}

/// Whether the whole answer is there.
fn complete(buffer: &[u8]) -> bool {
    let Some(head) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
    buffer.len() >= head + 4 + length
}
