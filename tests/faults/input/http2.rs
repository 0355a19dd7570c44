//! HTTP/2 frames on a socket, as those write them who want to keep a server busy.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{IN_TIME, KEY, Site};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `POST /hooks` with the key, in literals (RFC 7541 §6.2.2).
fn post() -> Vec<u8> {
    let literal = |name: &[u8], value: &str| {
        let length = u8::try_from(value.len()).expect("short");
        [name, &[length], value.as_bytes()].concat()
    };
    [
        vec![0x83, 0x86],
        literal(&[4], "/hooks"),
        literal(&[1], "x"),
        literal(b"\0\x05x-key", KEY),
        literal(b"\0\x0ccontent-type", "application/json"),
    ]
    .concat()
}

/// What became of a connection that was written to without mercy.
#[derive(Debug)]
struct Ended {
    /// It was told to go, or hung up on.
    refused: bool,
    /// Bytes that were let in.
    written: usize,
    /// The types of the frames that came back.
    frames: Vec<u8>,
}

/// Writes the frames that `attack` makes of 0, 1, 2, … until it is refused or `times` are written.
async fn attack(site: &Site, times: u32, attack: impl Fn(u32) -> Vec<u8>) -> Ended {
    let (mut reading, mut writing) = site.connect().await.into_split();
    let start = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, b"")].concat();
    let writer = async {
        let mut written = 0;
        let mut pending = start;
        for n in 0..times {
            pending.extend(attack(n));
            if pending.len() > 16 << 10 || n + 1 == times {
                if writing.write_all(&pending).await.is_err() {
                    return (written, true);
                }
                written += pending.len();
                pending.clear();
            }
        }
        let _ = writing.shutdown().await;
        (written, false)
    };
    let reader = async {
        let (mut frames, mut head) = (Vec::new(), [0; 9]);
        while reading.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            frames.push(head[3]);
            let mut payload = vec![0; length];
            if reading.read_exact(&mut payload).await.is_err() {
                break;
            }
            if head[3] == GOAWAY && payload[4..8] != [0; 4] {
                return (frames, true);
            }
        }
        (frames, false)
    };
    let ((written, hung_up), (frames, told)) =
        timeout(IN_TIME, async { tokio::join!(writer, reader) }).await.expect("it ends");
    Ended { refused: told || hung_up, written, frames }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n10_floods_of_http_2_frames_end_their_own_connection_and_nothing_else() {
    let site = Site::start("").await;
    site.serves().await;
    let before = site.gateway.peak_memory();
    let stream = |n: u32| 2 * n + 1;
    let open = |n: u32| frame(HEADERS, END_HEADERS, stream(n), &post());

    // Rapid reset (CVE-2023-44487).
    let reset = |n: u32| frame(RST_STREAM, 0, stream(n), &8_u32.to_be_bytes());
    let ended = attack(&site, 50_000, |n| [open(n), reset(n)].concat()).await;
    assert!(ended.refused, "rapid reset: {} bytes", ended.written);
    site.serves().await;

    // MadeYouReset (CVE-2025-8671): frames that make the server reset its own streams.
    let nothing = |n: u32| frame(WINDOW_UPDATE, 0, stream(n), &[0; 4]);
    let ended = attack(&site, 50_000, |n| [open(n), nothing(n)].concat()).await;
    assert!(ended.refused, "made to reset: {} bytes", ended.written);
    site.serves().await;

    // A head without end, of headers that are and that are none (CVE-2024-27316).
    for field in [&b"\0\x01x\x7d"[..], b""] {
        let more = [field, &vec![b'y'; if field.is_empty() { 0 } else { 125 }]].concat();
        let ended = attack(&site, 200_000, |n| match n {
            0 => frame(HEADERS, 0, 1, &post()),
            _ => frame(CONTINUATION, 0, 1, &more),
        })
        .await;
        assert!(ended.refused, "continuation: {} bytes", ended.written);
        site.serves().await;
    }

    // Data in frames of one byte, and of none.
    for byte in [&b" "[..], b""] {
        let ended = attack(&site, 2_000_000, |n| match n {
            0 => open(0),
            _ => frame(DATA, 0, 1, byte),
        })
        .await;
        assert!(ended.refused, "tiny data: {} bytes, {:?}", ended.written, ended.frames);
        site.serves().await;
    }

    // More streams at once than allowed, and pings without end.
    let ended = attack(&site, 10_000, open).await;
    assert!(ended.refused || ended.frames.contains(&RST_STREAM), "streams: {ended:?}");
    attack(&site, 100_000, |_| frame(PING, 0, 0, &[0; 8])).await;
    site.serves().await;

    let grown = site.gateway.peak_memory().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    // Who speaks it as it is meant is served.
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build();
    let url = format!("http://{}/hooks", site.address);
    let request = client.expect("a client").post(url).header("x-key", KEY);
    let answer = request.header("content-type", "application/json").body("{}").send().await;
    let answer = answer.expect("an answer");
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 202));
}
