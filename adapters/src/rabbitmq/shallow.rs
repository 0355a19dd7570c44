//! Header tables are made shallow before the client library reads them.
//!
//! RabbitMQ passes on tables that nest as deep as a frame has room for, 26,000 levels. The library
//! reads them by recursion on a thread of 2 MiB, overflows its stack, and that ends the process;
//! and since the message was not acked, every process after it. So frames are watched as they come
//! in, and the type of what lies deeper than [`LEVELS`] is overwritten: a table or an array and an
//! array of bytes are written alike, as a length and so many bytes, so what lies deeper becomes
//! bytes where it stands. What is left is still too deep for an event and is told as such, but is
//! read.
//!
//! ```text
//! AMQP 0-9-1 §2.3.5, §4.2.3:  frame    type:u8 channel:u16 size:u32 payload end:u8
//!                             header   class:u16 weight:u16 body:u64 flags:u16 properties
//!                             table    size:u32 (name:short value)*
//!                             array    size:u32 value*
//!                             value    type:u8 …
//! ```
//!
//! Frames other than headers are counted off and not looked into. A frame of which only the
//! beginning has come is held back until it can be told what it is, and a header until it is whole.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use async_rs::{Runtime, Tokio, traits::Reactor, util::RuntimeParts};
use futures_util::{
    Stream,
    io::{AsyncRead, AsyncWrite},
};
use lapin::AsyncTcpStream;
use tokio::runtime::Handle;

use super::valve::Valve;
use crate::event::DEPTH_MAX;

/// So many levels are left as they are: one more than an event may have.
const LEVELS: usize = DEPTH_MAX + 1;

/// Type, channel and size of a frame.
const FRAME_HEAD: usize = 7;

/// Type of a frame that holds the properties of a message.
const HEADER: u8 = 2;

/// No header is as long; frames are negotiated to be shorter.
const HEADER_MAX: usize = 1 << 20;

/// A connection as the library itself would make it, with TLS or without.
pub(super) type Dialled = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// What the library runs on: tokio, with connections that are [`Shallow`].
pub(super) fn runtime() -> Runtime<RuntimeParts<Tokio, Shallows>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Shallows(tokio)))
}

/// Makes connections that are [`Shallow`].
#[derive(Debug, Clone)]
pub(super) struct Shallows(Tokio);

/// A connection whose headers are shallow when they are read, and that is read while its valve is
/// open.
#[derive(Debug)]
pub(super) struct Shallow<S> {
    /// There until it is dropped.
    stream: Option<S>,
    frames: Frames,
    valve: Valve,
    /// Where it was made.
    runtime: Option<Handle>,
}

/// Where in the frames the reader is.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of the frame begun that are passed on as they come.
    left: usize,
    /// The beginning of a frame, not passed on yet.
    held: Vec<u8>,
    /// So many bytes of `held` have been passed on, since it can be.
    given: Option<usize>,
}

impl<S> Shallow<S> {
    pub(super) fn new(stream: S, valve: Valve) -> Self {
        let runtime = Handle::try_current().ok();
        Self { stream: Some(stream), frames: Frames::default(), valve, runtime }
    }
}

impl<S> Drop for Shallow<S> {
    fn drop(&mut self) {
        // Dropped on a thread of the library's, the stream would start a runtime of its own to be
        // dropped in; and where there is no thread for that, panic, now and ever after.
        let _entered = self.runtime.as_ref().map(Handle::enter);
        self.stream = None;
    }
}

impl<S: Unpin> Shallow<S> {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut S> {
        Pin::new(self.get_mut().stream.as_mut().expect(THERE))
    }
}

const THERE: &str = "it is there until it is dropped";

impl Frames {
    /// Takes what has come; answers how much of it is passed on now. The rest is held back.
    fn pass(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let passed = self.left.min(bytes.len() - at);
            self.left -= passed;
            at += passed;
            if at == bytes.len() {
                return Ok(at);
            }
            let rest = &mut bytes[at..];
            match Frame::of(rest) {
                Some(Frame { header: true, size }) if size > HEADER_MAX => return Err(too_long()),
                Some(Frame { header: true, size }) if size <= rest.len() => {
                    flatten(&mut rest[..size]);
                    at += size;
                }
                Some(Frame { header: false, size }) => self.left = size,
                _ => {
                    self.held.extend_from_slice(rest);
                    return Ok(at);
                }
            }
        }
    }

    /// How many bytes more must come before what is held can be passed on.
    fn missing(&self) -> io::Result<usize> {
        match Frame::of(&self.held) {
            None => Ok(FRAME_HEAD - self.held.len()),
            Some(Frame { header: false, .. }) => Ok(0),
            Some(Frame { size, .. }) if size > HEADER_MAX => Err(too_long()),
            Some(Frame { size, .. }) => Ok(size - self.held.len()),
        }
    }

    /// All that was missing is there.
    fn complete(&mut self) {
        match Frame::of(&self.held) {
            Some(Frame { header: false, size }) => self.left = size - self.held.len(),
            _ => flatten(&mut self.held),
        }
        self.given = Some(0);
    }

    /// Gives out what was held, as far as `buffer` has room for it.
    fn give(&mut self, given: usize, buffer: &mut [u8]) -> usize {
        let rest = &self.held[given..];
        let more = rest.len().min(buffer.len());
        buffer[..more].copy_from_slice(&rest[..more]);
        if more == rest.len() {
            self.held.clear();
            self.given = None;
        } else {
            self.given = Some(given + more);
        }
        more
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a header frame of more than 1 MiB")
}

/// What the first bytes of a frame tell.
struct Frame {
    header: bool,
    /// All of it, its head and its end included.
    size: usize,
}

impl Frame {
    fn of(bytes: &[u8]) -> Option<Self> {
        let [kind, _, _, size @ ..] = *bytes.first_chunk::<FRAME_HEAD>()?;
        let size = u32::from_be_bytes(size) as usize + FRAME_HEAD + 1;
        Some(Self { header: kind == HEADER, size })
    }
}

/// Overwrites the type of whatever in the header table of `frame` lies deeper than [`LEVELS`].
/// What is no header frame as it should be is left to the library to refuse.
fn flatten(frame: &mut [u8]) {
    let _ = walk(frame);
}

/// `None` at the first thing that does not fit.
fn walk(frame: &mut [u8]) -> Option<()> {
    const FLAGS: usize = FRAME_HEAD + 12;
    const CONTENT_TYPE: u16 = 1 << 15;
    const CONTENT_ENCODING: u16 = 1 << 14;
    const HEADERS: u16 = 1 << 13;
    let flags = u16::from_be_bytes(*frame.get(FLAGS..)?.first_chunk()?);
    let mut at = FLAGS + 2;
    for text in [CONTENT_TYPE, CONTENT_ENCODING] {
        if flags & text != 0 {
            at += 1 + usize::from(*frame.get(at)?);
        }
    }
    if flags & HEADERS == 0 {
        return Some(());
    }
    // Where each table and array ends that `at` is in, and whether its values have names.
    let mut open = vec![(at + 4 + length(frame, at)?, true)];
    at += 4;
    while let Some(&(end, named)) = open.last() {
        if at >= end {
            open.pop();
            continue;
        }
        if named {
            at += 1 + usize::from(*frame.get(at)?);
        }
        let kind = frame.get_mut(at)?;
        at += 1;
        at += match kind {
            b'F' | b'A' if open.len() < LEVELS => {
                let named = *kind == b'F';
                open.push((at + 4 + length(frame, at)?, named));
                4
            }
            b'F' | b'A' => {
                *kind = b'x';
                4 + length(frame, at)?
            }
            b'S' | b'x' => 4 + length(frame, at)?,
            b'V' => 0,
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            _ => return None,
        };
    }
    Some(())
}

fn length(frame: &[u8], at: usize) -> Option<usize> {
    Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?) as usize)
}

impl<S: AsyncRead + Unpin> AsyncRead for Shallow<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, frames, valve, .. } = self.get_mut();
        let stream = stream.as_mut().expect(THERE);
        ready!(valve.poll(context));
        loop {
            if let Some(given) = frames.given {
                return Poll::Ready(Ok(frames.give(given, buffer)));
            }
            if frames.held.is_empty() {
                let read = ready!(Pin::new(&mut *stream).poll_read(context, buffer))?;
                let passed = frames.pass(&mut buffer[..read])?;
                if passed > 0 || read == 0 {
                    return Poll::Ready(Ok(passed));
                }
                continue;
            }
            let (held, missing) = (frames.held.len(), frames.missing()?);
            if missing == 0 {
                frames.complete();
                continue;
            }
            frames.held.resize(held + missing, 0);
            let polled = Pin::new(&mut *stream).poll_read(context, &mut frames.held[held..]);
            let read = if let Poll::Ready(Ok(read)) = polled { read } else { 0 };
            frames.held.truncate(held + read);
            match ready!(polled)? {
                0 => return Poll::Ready(Ok(0)),
                _ => continue,
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Shallow<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_close(context)
    }
}

impl Reactor for Shallows {
    type TcpStream = Shallow<Dialled>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: io::Read + io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, pause: Duration) -> Self::Sleep {
        self.0.sleep(pause)
    }

    fn interval(&self, pause: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(pause)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let dialling = self.0.tcp_connect_addr(address);
        async move { Ok(Shallow::new(AsyncTcpStream::Plain(dialling.await?), Valve::default())) }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{AsyncReadExt as _, FutureExt as _, io::Cursor};

    use super::*;

    /// A header frame with a table of one value `x`.
    fn header(value: &[u8]) -> Vec<u8> {
        let table = [b"\x01x", value].concat();
        let size = u32::try_from(table.len()).unwrap().to_be_bytes();
        let payload = [&[0; 12][..], &[0xE0, 0], b"\x04text\x02gz", &size, &table].concat();
        frame(HEADER, &payload)
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, 1], &size[..], payload, &[0xCE]].concat()
    }

    /// `levels` of arrays and tables in turn.
    fn nested(levels: usize) -> Vec<u8> {
        (0..levels).fold(b"V".to_vec(), |inner, level| {
            let inner = if level % 2 == 0 { inner } else { [b"\x01y", &inner[..]].concat() };
            let kind = if level % 2 == 0 { b'A' } else { b'F' };
            [&[kind], &u32::try_from(inner.len()).unwrap().to_be_bytes()[..], &inner].concat()
        })
    }

    /// What is read of `bytes` that come `piece` by `piece` into a buffer of `room`.
    fn read(bytes: &[u8], piece: usize, room: usize) -> Vec<u8> {
        struct Pieces<'b>(Cursor<&'b [u8]>, usize);
        impl AsyncRead for Pieces<'_> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                let most = buffer.len().min(self.1);
                Pin::new(&mut self.0).poll_read(context, &mut buffer[..most])
            }
        }
        let mut stream = Shallow::new(Pieces(Cursor::new(bytes), piece), Valve::default());
        let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
        loop {
            match stream.read(&mut buffer).now_or_never().unwrap().unwrap() {
                0 => return all,
                read => all.extend_from_slice(&buffer[..read]),
            }
        }
    }

    #[test]
    fn n17_what_is_deeper_than_allowed_becomes_bytes_where_it_stands() {
        for levels in [0, 1, LEVELS - 1] {
            let mut frame = header(&nested(levels));
            let before = frame.clone();
            flatten(&mut frame);
            assert_eq!(frame, before, "{levels} levels");
        }
        for levels in [LEVELS, LEVELS + 1, 10_000] {
            let mut frame = header(&nested(levels));
            let before = frame.clone();
            flatten(&mut frame);
            let changed: Vec<_> = (0..frame.len()).filter(|at| frame[*at] != before[*at]).collect();
            assert_eq!(changed.len(), 1, "{levels} levels");
            assert!(matches!(before[changed[0]], b'A' | b'F') && frame[changed[0]] == b'x');
        }
        // Several, and what stands behind them is read again.
        let deep = nested(LEVELS);
        let two = [&deep[..], b"\x01y", b"t\x01", b"\x01z", &deep].concat();
        let mut frame = header(&two);
        flatten(&mut frame);
        let bytes = |frame: &[u8]| frame.iter().filter(|byte| **byte == b'x').count();
        assert_eq!(bytes(&frame), bytes(&header(&two)) + 2);
    }

    #[test]
    fn frames_pass_unchanged_wherever_they_are_cut() {
        let frames = [
            frame(1, b"method"),
            header(&nested(3)),
            frame(3, &[2; 50]),
            frame(8, b""),
            header(b"S\0\0\0\x01a"),
            frame(3, b""),
        ]
        .concat();
        for piece in 1..40 {
            for room in [1, 7, 30, 1000] {
                assert_eq!(read(&frames, piece, room), frames, "{piece} {room}");
            }
        }
        let deep = [frame(1, b"m"), header(&nested(LEVELS)), frame(3, b"b")].concat();
        let flat = read(&deep, 1000, 10_000);
        assert_ne!(flat, deep);
        for piece in [1, 13, 500] {
            assert_eq!(read(&deep, piece, 64), flat, "{piece}");
        }
    }

    #[test]
    fn what_is_no_header_breaks_nothing() {
        let whole = header(&nested(4));
        for end in FRAME_HEAD + 1..whole.len() {
            flatten(&mut whole[..end].to_vec());
        }
        for at in FRAME_HEAD..whole.len() {
            let mut broken = whole.clone();
            broken[at] = 0xFF;
            flatten(&mut broken);
        }
        let mut frames = Frames::default();
        assert!(frames.pass(&mut [HEADER, 0, 1, 0xFF, 0, 0, 0, 0]).is_err());
    }
}
