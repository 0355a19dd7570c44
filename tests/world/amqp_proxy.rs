//! The way to RabbitMQ, frame by frame, on which each of them can meet its own fault.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::{Notify, watch},
    task::JoinHandle,
};

/// What a client says before its first frame.
const GREETING: usize = 8;
/// Kind, channel, size; the payload follows, and an end byte.
const HEAD: usize = 7;
const METHOD: u8 = 1;

/// Who sent a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Whoever connected to the proxy.
    Client,
    /// RabbitMQ.
    Broker,
}

/// One frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Who sent it.
    pub from: Side,
    /// All of it, head and end byte included.
    pub bytes: Vec<u8>,
}

/// What becomes of a frame.
#[derive(Debug)]
pub enum Then {
    /// It passes.
    Pass,
    /// These bytes pass in its place; none, and it is lost.
    Instead(Vec<u8>),
    /// So many bytes of it pass, then both sides are reset.
    Cut(usize),
}

type Rule = Box<dyn FnMut(&Frame) -> Then + Send>;

/// Passes on what is said either way, as its rule has it. Ends when dropped.
pub struct AmqpProxy {
    url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    node: String,
    rule: Mutex<Rule>,
    passing: watch::Sender<bool>,
    accepted: AtomicUsize,
}

impl Frame {
    /// 1 a method, 2 a content header, 3 a piece of a body, 8 a heartbeat.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.bytes[0]
    }

    /// The class and id of a method.
    #[must_use]
    pub fn method(&self) -> Option<(u16, u16)> {
        let number = |at: usize| u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        (self.kind() == METHOD).then(|| (number(HEAD), number(HEAD + 2)))
    }

    /// Whether `from` sent it, and it is method `class.id`.
    #[must_use]
    pub fn is(&self, from: Side, class: u16, id: u16) -> bool {
        self.from == from && self.method() == Some((class, id))
    }

    /// The arguments of a method.
    #[must_use]
    pub fn arguments(&self) -> &[u8] {
        &self.bytes[HEAD + 4..self.bytes.len() - 1]
    }

    /// The same method with other arguments of the same size.
    #[must_use]
    pub fn with_arguments(&self, arguments: &[u8]) -> Vec<u8> {
        assert_eq!(arguments.len(), self.arguments().len());
        [&self.bytes[..HEAD + 4], arguments, &self.bytes[self.bytes.len() - 1..]].concat()
    }
}

impl AmqpProxy {
    /// One in front of the RabbitMQ at `url`, `amqp://guest:guest@host:port/vhost`.
    pub async fn to(url: &str) -> Self {
        let (credentials, rest) = url.split_once('@').expect("a URL with credentials");
        let (node, vhost) = rest.split_once('/').expect("a URL with a virtual host");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address: SocketAddr = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            node: node.to_owned(),
            rule: Mutex::new(Box::new(|_| Then::Pass)),
            passing: watch::Sender::new(true),
            accepted: AtomicUsize::new(0),
        });
        let passing = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                passing.accepted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(pass(client, Arc::clone(&passing)));
            }
        });
        Self { url: format!("{credentials}@{address}/{vhost}"), shared, task }
    }

    /// Where clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on each frame is asked for by `rule`.
    pub fn set_rule(&self, rule: impl FnMut(&Frame) -> Then + Send + 'static) {
        *self.shared.rule.lock() = Box::new(rule);
    }

    /// Passes nothing any more, either way, while connections are taken as before; or passes on
    /// what it withheld.
    pub fn set_passing(&self, passing: bool) {
        self.shared.passing.send_replace(passing);
    }

    /// How many connections it has taken.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for AmqpProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Until either side has gone, or the rule cuts them off.
async fn pass(mut client: TcpStream, shared: Arc<Shared>) {
    let Ok(mut broker) = TcpStream::connect(&shared.node).await else { return };
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let cut = Notify::new();
    let (from_client, to_client) = client.split();
    let (from_broker, to_broker) = broker.split();
    let was_cut = tokio::select! {
        _ = pump(Side::Client, from_client, to_broker, &shared, &cut) => false,
        _ = pump(Side::Broker, from_broker, to_client, &shared, &cut) => false,
        () = cut.notified() => true,
    };
    if was_cut {
        // Dropped like this, they send a reset.
        let _ = (client.set_zero_linger(), broker.set_zero_linger());
    }
}

async fn pump(
    from: Side,
    mut reader: tcp::ReadHalf<'_>,
    mut writer: tcp::WriteHalf<'_>,
    shared: &Shared,
    cut: &Notify,
) -> io::Result<()> {
    let mut passing = shared.passing.subscribe();
    if from == Side::Client {
        let mut greeting = [0; GREETING];
        reader.read_exact(&mut greeting).await?;
        let _ = passing.wait_for(|passing| *passing).await;
        writer.write_all(&greeting).await?;
    }
    loop {
        let mut bytes = vec![0; HEAD];
        reader.read_exact(&mut bytes).await?;
        let size = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]) as usize;
        bytes.resize(HEAD + size + 1, 0);
        reader.read_exact(&mut bytes[HEAD..]).await?;
        let _ = passing.wait_for(|passing| *passing).await;
        let frame = Frame { from, bytes };
        let then = (shared.rule.lock())(&frame);
        match then {
            Then::Pass => writer.write_all(&frame.bytes).await?,
            Then::Instead(bytes) => writer.write_all(&bytes).await?,
            Then::Cut(at) => {
                writer.write_all(&frame.bytes[..at.min(frame.bytes.len())]).await?;
                cut.notify_one();
                std::future::pending::<()>().await;
            }
        }
    }
}
