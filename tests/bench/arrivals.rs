//! An HTTP server that notes when each request arrived, and answers 200.
//!
//! A request's path ends with its number. Its time is taken when the last byte of it was read.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::Instant,
};

/// Numbers and times, in the order of arrival.
type Notes = Arc<Mutex<Vec<(u64, Instant)>>>;

/// The server; ends when dropped.
pub(crate) struct Arrivals {
    address: SocketAddr,
    notes: Notes,
    task: JoinHandle<()>,
}

impl Arrivals {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let notes = Notes::default();
        let noted = Arc::clone(&notes);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&noted)));
            }
        });
        Self { address, notes, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn count(&self) -> u64 {
        self.notes.lock().len() as u64
    }

    /// When all arrived, in order.
    pub(crate) fn times(&self) -> Vec<Instant> {
        // Connections are read side by side, so notes may swap places.
        let mut times: Vec<Instant> = self.notes.lock().iter().map(|(_, at)| *at).collect();
        times.sort_unstable();
        times
    }

    /// When each arrived first, by its number.
    pub(crate) fn by_number(&self) -> HashMap<u64, Instant> {
        let mut first = HashMap::new();
        for (number, at) in &*self.notes.lock() {
            first.entry(*number).or_insert(*at);
        }
        first
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, notes: Notes) {
    // Small answers must not wait for more to send.
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let Some((length, number)) = request(&buffer) else {
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => continue,
            }
        };
        notes.lock().push((number, Instant::now()));
        buffer.drain(..length);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// The length of the first whole request in `buffer`, and its number.
fn request(buffer: &[u8]) -> Option<(usize, u64)> {
    let head = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&buffer[..head]).ok()?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = head + length.map_or(Some(0), Result::ok)?;
    let path = text.split(' ').nth(1)?;
    let number = path.rsplit('/').next()?.parse().expect("a path that ends with a number");
    (buffer.len() >= length).then_some((length, number))
}

/// The value that `share` of them do not exceed.
pub(crate) fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values[rank.max(1) - 1]
}
