//! An API that speaks raw bytes: whatever no HTTP library would send, at the moment it is told to.
//!
//! Each connection plays a script of its own, the last of them again and again. A connection counts
//! from its first byte on: a client may open more than it uses.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{Instant, interval},
};

/// What `200 OK` is, and the connection stays open.
pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

/// What a connection does next. After the last it is closed.
#[derive(Debug, Clone)]
pub enum Act {
    /// Reads a request, body and all, and remembers it.
    Read,
    /// Reads a request's head alone, and remembers that.
    ReadHead,
    /// Writes these bytes at once.
    Write(Vec<u8>),
    /// Writes these bytes one by one, that far apart.
    Drip(Vec<u8>, Duration),
    /// Writes these bytes again and again until nobody takes them.
    Endless(Vec<u8>),
    /// Answers every request with these bytes.
    Serve(Vec<u8>),
    /// Reads on and says nothing, until the other side has gone.
    Silence,
    /// Closes with a reset in place of an end.
    Reset,
}

impl Act {
    /// [`Act::Write`] of text.
    #[must_use]
    pub fn say(text: &str) -> Self {
        Self::Write(text.as_bytes().to_vec())
    }

    /// A script that reads one request and answers with `text`.
    #[must_use]
    pub fn answer(text: &str) -> Vec<Self> {
        vec![Self::Read, Self::say(text)]
    }

    /// A script that answers every request with 200.
    #[must_use]
    pub fn well() -> Vec<Self> {
        vec![Self::Serve(OK.into())]
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Got {
    /// When its head was complete.
    pub at: Instant,
    /// Request line and headers.
    pub head: String,
    /// The body, as far as it was read.
    pub body: Vec<u8>,
}

impl Got {
    /// The value of header `name`, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// Its idempotency key.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn key(&self) -> &str {
        self.header("idempotency-key").unwrap_or_else(|| panic!("no key: {}", self.head))
    }
}

#[derive(Debug, Default)]
struct Record {
    got: Vec<Got>,
    connections: usize,
    /// Bytes sent by [`Act::Endless`].
    flood: u64,
}

/// A running API of raw bytes; ends when dropped.
pub struct RawHttp {
    address: SocketAddr,
    record: Arc<Mutex<Record>>,
    task: JoinHandle<()>,
}

impl RawHttp {
    /// One whose connections play `scripts` in turn.
    pub async fn start(scripts: Vec<Vec<Act>>) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").await.expect("a free port"), scripts)
    }

    /// One that answers every request with 200, on `port` of loopback address `host`.
    pub async fn start_at(host: &str, port: u16) -> Self {
        let listener = TcpListener::bind((host, port)).await.expect("free at that address");
        Self::listen(listener, vec![Act::well()])
    }

    fn listen(listener: TcpListener, scripts: Vec<Vec<Act>>) -> Self {
        let address = listener.local_addr().expect("bound");
        let record = Arc::<Mutex<Record>>::default();
        let (scripts, noted) = (Arc::new(scripts), Arc::clone(&record));
        let task = tokio::spawn(async move {
            // Dropped with this task, and every connection with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                connections.spawn(play(stream, Arc::clone(&scripts), Arc::clone(&noted)));
            }
        });
        Self { address, record, task }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it got.
    #[must_use]
    pub fn got(&self) -> Vec<Got> {
        self.record.lock().got.clone()
    }

    /// How many requests it got.
    #[must_use]
    pub fn count(&self) -> usize {
        self.record.lock().got.len()
    }

    /// How many connections said something.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.record.lock().connections
    }

    /// How many bytes of endless bodies it got rid of.
    #[must_use]
    pub fn flood(&self) -> u64 {
        self.record.lock().flood
    }
}

impl Drop for RawHttp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn play(mut stream: TcpStream, scripts: Arc<Vec<Vec<Act>>>, record: Arc<Mutex<Record>>) {
    if !matches!(stream.peek(&mut [0]).await, Ok(1)) {
        return;
    }
    let number = {
        let mut record = record.lock();
        record.connections += 1;
        record.connections
    };
    let script = &scripts[number.min(scripts.len()) - 1];
    for act in script {
        if act_out(&mut stream, act, &record).await.is_none() {
            return;
        }
    }
}

/// Nothing when the other side has gone.
async fn act_out(stream: &mut TcpStream, act: &Act, record: &Mutex<Record>) -> Option<()> {
    match act {
        Act::Read => read(stream, true, record).await?,
        Act::ReadHead => read(stream, false, record).await?,
        Act::Write(bytes) => stream.write_all(bytes).await.ok()?,
        Act::Drip(bytes, apart) => {
            let mut ticks = interval(*apart);
            for byte in bytes {
                ticks.tick().await;
                stream.write_all(&[*byte]).await.ok()?;
            }
        }
        Act::Endless(bytes) => loop {
            stream.write_all(bytes).await.ok()?;
            record.lock().flood += bytes.len() as u64;
        },
        Act::Serve(bytes) => loop {
            read(stream, true, record).await?;
            stream.write_all(bytes).await.ok()?;
        },
        Act::Silence => {
            let mut buffer = vec![0; 16 << 10];
            while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
        }
        Act::Reset => {
            stream.set_zero_linger().ok()?;
            return None;
        }
    }
    Some(())
}

/// Reads a request; nothing when there is none.
async fn read(stream: &mut TcpStream, whole: bool, record: &Mutex<Record>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let at = Instant::now();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut got = Got { at, head, body: Vec::new() };
    if whole {
        let length = got.header("content-length").map_or(0, |text| text.parse().expect("a number"));
        got.body = vec![0; length];
        stream.read_exact(&mut got.body).await.ok()?;
    }
    record.lock().got.push(got);
    Some(())
}
