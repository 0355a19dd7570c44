//! Requests that two servers could read differently are refused (RFC 9112 §6.1, §11.2).
//!
//! hyper refuses most shapes by itself: lengths that differ or are no numbers, codings other than
//! chunked, broken chunks, folded headers, a space before the colon. One it mends silently: of a
//! length and a transfer coding it drops the length. A proxy before us may have gone by the length,
//! and what it took for the body's end we would take for the next request. By the time a request is
//! ours to see, the length is gone; so the bytes are watched as they come in.
//!
//! What is watched is small: the heads, and the lengths that tell where the next head begins. A
//! head with a transfer coding is the last that is watched: its connection ends with its answer.
//!
//! Beside that, the first head has a deadline here: hyper's own begins when it knows the protocol,
//! which a sender that says nothing never tells.
//!
//! And who is answered before its body was read may still be sending. A socket closed on bytes that
//! nobody read resets the connection, and the reset can overtake the answer (RFC 9112 §9.6): the
//! sender would never learn that its body is too large, and send it again. So such a connection is
//! closed for writing first, and what comes is thrown away until the sender has closed, too.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{StatusCode, Version, header, request::Parts};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::problem::Refusal;
use crate::Rejection;

/// hyper refuses longer heads by itself.
const HEAD_MAX: usize = 64 << 10;

/// How long a sender that is answered already may send on, how much, and how long it may say
/// nothing.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_BYTES: usize = 32 << 20;
const SILENCE: Duration = Duration::from_secs(1);

/// What was seen on one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Framing {
    ambiguous: Arc<AtomicBool>,
}

/// A connection whose heads are watched.
#[derive(Debug)]
pub(super) struct Watched<S> {
    stream: S,
    framing: Framing,
    place: Place,
    /// Until when the first head must be there.
    first: Option<Pin<Box<Sleep>>>,
    /// Closed for writing, while the sender still sends.
    closing: Option<Closing>,
}

/// What is left of a connection whose last answer is out.
#[derive(Debug)]
struct Closing {
    silence: Pin<Box<Sleep>>,
    end: Pin<Box<Sleep>>,
    /// How many bytes more are thrown away.
    left: usize,
}

/// Where on the connection we are.
#[derive(Debug)]
enum Place {
    /// Within a head; what there is of it.
    Head(Vec<u8>),
    /// Within a body: so many bytes until the next head.
    Body(u64),
    /// Within a body whose end is not looked for.
    Coded,
    /// Nothing more to watch.
    Over,
}

impl Framing {
    /// Whether a request can be read in one way only.
    ///
    /// # Errors
    /// 400, and the end of the connection.
    pub(super) fn check(&self, head: &Parts) -> Result<(), Refusal> {
        let refuse = |why: &str| {
            let refusal = Refusal::new(StatusCode::BAD_REQUEST, why);
            Err(refusal.because(Rejection::Malformed).closing())
        };
        if head.version > Version::HTTP_11 {
            return Ok(());
        }
        if self.ambiguous.load(Ordering::Acquire) {
            return refuse("both Content-Length and Transfer-Encoding");
        }
        let hosts = head.headers.get_all(header::HOST).iter().count();
        if hosts > 1 || (hosts == 0 && head.version == Version::HTTP_11) {
            return refuse("HTTP/1.1 wants one Host header");
        }
        Ok(())
    }
}

/// Whether the connection must end with the answer to this request.
pub(super) fn is_last(head: &Parts) -> bool {
    head.headers.contains_key(header::TRANSFER_ENCODING)
}

impl<S> Watched<S> {
    /// `stream`, whose first head must come within `patience`.
    pub(super) fn new(stream: S, framing: Framing, patience: Duration) -> Self {
        let first = Some(Box::pin(sleep(patience)));
        Self { stream, framing, place: Place::Head(Vec::new()), first, closing: None }
    }
}

impl Closing {
    fn new() -> Self {
        Self { silence: Box::pin(sleep(SILENCE)), end: Box::pin(sleep(LINGER)), left: LINGER_BYTES }
    }

    /// Ready once nothing more is to be expected from `stream`.
    fn poll<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut thrown_away = [MaybeUninit::uninit(); 8192];
        loop {
            let mut buffer = ReadBuf::uninit(&mut thrown_away);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buffer.filled().len());
                    self.silence.as_mut().reset(Instant::now() + SILENCE);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => break,
            }
            // One that always has more to send leaves no time to look at the clocks below.
            if self.left == 0 || self.end.deadline() <= Instant::now() {
                return Poll::Ready(());
            }
        }
        let ended = |sleep: &mut Pin<Box<Sleep>>, context: &mut Context<'_>| {
            sleep.as_mut().poll(context).is_ready()
        };
        match ended(&mut self.silence, context) || ended(&mut self.end, context) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Place {
    /// Goes over `bytes`; true when a head among them is ambiguous.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match self {
                Self::Coded | Self::Over => return false,
                Self::Body(left) => {
                    let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= passed as u64;
                    bytes = &bytes[passed..];
                    if *left == 0 {
                        *self = Self::Head(Vec::new());
                    }
                }
                Self::Head(head) => {
                    let (end, rest) = take_head(head, bytes);
                    bytes = rest;
                    if !end {
                        if head.len() > HEAD_MAX || head.starts_with(b"PRI * HTTP/2.0\r\n") {
                            *self = Self::Over;
                        }
                        continue;
                    }
                    let lengths = Lengths::of(head);
                    if lengths.coded {
                        *self = Self::Coded;
                        return lengths.length.is_some();
                    }
                    *self = match lengths.length {
                        None | Some(Some(0)) => Self::Head(Vec::new()),
                        Some(Some(length)) => Self::Body(length),
                        // hyper refuses it.
                        Some(None) => Self::Over,
                    };
                }
            }
        }
        false
    }
}

/// Appends to `head` up to its end; whether that was reached, and what is left of `bytes`.
fn take_head<'b>(head: &mut Vec<u8>, bytes: &'b [u8]) -> (bool, &'b [u8]) {
    for (at, byte) in bytes.iter().enumerate() {
        // Empty lines before a request are skipped (RFC 9112 §2.2).
        if head.is_empty() && matches!(byte, b'\r' | b'\n') {
            continue;
        }
        head.push(*byte);
        // A bare line feed ends a line for hyper too.
        if head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n") {
            return (true, &bytes[at + 1..]);
        }
        if head.len() > HEAD_MAX {
            return (false, &bytes[at + 1..]);
        }
    }
    (false, &[])
}

/// What a head says about the length of its body.
#[derive(Debug, Default)]
struct Lengths {
    /// There is a length; `None` inside: it is no number.
    length: Option<Option<u64>>,
    /// There is a transfer coding.
    coded: bool,
}

impl Lengths {
    fn of(head: &[u8]) -> Self {
        let mut lengths = Self::default();
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let name = line[..colon].trim_ascii();
            if name.eq_ignore_ascii_case(b"transfer-encoding") {
                lengths.coded = true;
            } else if name.eq_ignore_ascii_case(b"content-length") {
                let value = std::str::from_utf8(line[colon + 1..].trim_ascii());
                lengths.length = Some(value.ok().and_then(|value| value.parse().ok()));
            }
        }
        lengths
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = polled {
            let started = matches!(self.place, Place::Head(_));
            if self.place.pass(&buffer.filled()[before..]) {
                self.framing.ambiguous.store(true, Ordering::Release);
            }
            let within = matches!(&self.place, Place::Head(head) if !head.is_empty());
            if !(started && within) && buffer.filled().len() > before {
                self.first = None;
            }
        }
        if let Some(first) = &mut self.first
            && first.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closing.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !matches!(this.place, Place::Body(_) | Place::Coded) {
                return Poll::Ready(Ok(()));
            }
        }
        let closing = this.closing.get_or_insert_with(Closing::new);
        closing.poll(&mut this.stream, context).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(pieces: &[&str]) -> bool {
        let mut place = Place::Head(Vec::new());
        pieces.iter().any(|piece| place.pass(piece.as_bytes()))
    }

    const BOTH: &str = "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn a_length_beside_a_coding_is_noticed_wherever_the_bytes_are_cut() {
        assert!(pass(&[BOTH]));
        for cut in 1..BOTH.len() {
            let (first, second) = BOTH.split_at(cut);
            assert!(pass(&[first, second]), "{cut}");
        }
        let turned = "POST / HTTP/1.1\r\ntransfer-encoding: x\r\ncontent-length: 1\r\n\r\n";
        assert!(pass(&[turned]));
    }

    #[test]
    fn it_is_noticed_behind_requests_that_are_fine_and_not_within_their_bodies() {
        let fine = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{BOTH}", BOTH.len());
        assert!(!pass(&[&fine]), "it is the body of another");
        assert!(pass(&[&fine, "\r\nGET / HTTP/1.1\r\n\r\n", BOTH]));
        for one in
            ["GET / HTTP/1.1\r\n\r\n", "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"]
        {
            assert!(!pass(&[one]));
        }
    }
}
