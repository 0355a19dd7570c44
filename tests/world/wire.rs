//! A publisher that writes AMQP 0-9-1 by hand, for headers that no client library would send.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xCE;

/// One channel with confirms.
pub struct RawPublisher {
    stream: TcpStream,
}

impl RawPublisher {
    /// Connects to the RabbitMQ at `url`, `amqp://guest:guest@host:port/vhost`.
    pub async fn connect(url: &str) -> Self {
        let (address, vhost) = url
            .rsplit_once('@')
            .and_then(|(_, rest)| rest.split_once('/'))
            .expect("a URL with credentials and a virtual host");
        let stream = TcpStream::connect(address).await.expect("the test's own node is up");
        let mut publisher = Self { stream };
        publisher.stream.write_all(b"AMQP\0\0\x09\x01").await.expect("written");
        publisher.expect("start", (10, 10)).await;
        let mut start = method(10, 11);
        start.extend(0_u32.to_be_bytes());
        start.extend(short("PLAIN"));
        start.extend(long(b"\0guest\0guest"));
        start.extend(short("en_US"));
        publisher.frame(METHOD, 0, &start).await;
        publisher.expect("tune", (10, 30)).await;
        let mut tune = method(10, 31);
        tune.extend(16_u16.to_be_bytes());
        tune.extend(131_072_u32.to_be_bytes());
        tune.extend(0_u16.to_be_bytes());
        publisher.frame(METHOD, 0, &tune).await;
        let mut open = method(10, 40);
        open.extend(short(&vhost.replace("%2f", "/")));
        open.extend([0, 0]);
        publisher.frame(METHOD, 0, &open).await;
        publisher.expect("open-ok", (10, 41)).await;
        publisher.frame(METHOD, 1, &[method(20, 10), vec![0]].concat()).await;
        publisher.expect("channel open-ok", (20, 11)).await;
        publisher.frame(METHOD, 1, &[method(85, 10), vec![0]].concat()).await;
        publisher.expect("select-ok", (85, 11)).await;
        publisher
    }

    /// Publishes `body` with the bytes of a header table, without its length.
    ///
    /// # Errors
    /// What RabbitMQ says when it closes the channel or the connection instead of taking it.
    pub async fn publish(
        &mut self,
        exchange: &str,
        key: &str,
        headers: &[u8],
        body: &[u8],
    ) -> Result<(), String> {
        const CONTENT_TYPE_AND_HEADERS: u16 = 1 << 15 | 1 << 13;
        let mut publish = method(60, 40);
        publish.extend(0_u16.to_be_bytes());
        publish.extend(short(exchange));
        publish.extend(short(key));
        publish.push(0);
        self.frame(METHOD, 1, &publish).await;
        let mut header = Vec::from(60_u16.to_be_bytes());
        header.extend(0_u16.to_be_bytes());
        header.extend((body.len() as u64).to_be_bytes());
        header.extend(CONTENT_TYPE_AND_HEADERS.to_be_bytes());
        header.extend(short("application/json"));
        header.extend(long(headers));
        self.frame(HEADER, 1, &header).await;
        self.frame(BODY, 1, body).await;
        match self.read().await {
            Ok((60, 80, _)) => Ok(()),
            Ok((class, id, rest)) => {
                Err(format!("{class}.{id}: {}", String::from_utf8_lossy(&rest)))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(length(payload).to_be_bytes());
        frame.extend(payload);
        frame.push(END);
        self.stream.write_all(&frame).await.expect("written");
    }

    async fn expect(&mut self, what: &str, expected: (u16, u16)) {
        let (class, id, rest) = self.read().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((class, id), expected, "{what}: {}", String::from_utf8_lossy(&rest));
    }

    /// The next method: its class, its id, and the rest of it.
    async fn read(&mut self) -> std::io::Result<(u16, u16, Vec<u8>)> {
        loop {
            let kind = self.stream.read_u8().await?;
            let _channel = self.stream.read_u16().await?;
            let length = self.stream.read_u32().await?;
            let mut payload = vec![0; length as usize];
            self.stream.read_exact(&mut payload).await?;
            assert_eq!(self.stream.read_u8().await?, END);
            if kind == METHOD {
                let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
                return Ok((number(0), number(2), payload[4..].to_vec()));
            }
        }
    }
}

/// The entry of a header table: its name, and its value with the letter of its type.
#[must_use]
pub fn entry(name: &str, value: &[u8]) -> Vec<u8> {
    [short(name), value.to_vec()].concat()
}

/// An array within an array, `levels` deep, the innermost one empty.
#[must_use]
pub fn nested(levels: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(5 * levels);
    for level in (0..levels).rev() {
        value.push(b'A');
        value.extend(u32::try_from(5 * level).expect("short").to_be_bytes());
    }
    value
}

fn method(class: u16, id: u16) -> Vec<u8> {
    [class.to_be_bytes(), id.to_be_bytes()].concat()
}

fn short(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short string");
    [&[length], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&length(bytes).to_be_bytes()[..], bytes].concat()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("no frame is so long")
}
