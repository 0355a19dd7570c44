//! One connection to an upstream, and one request at a time on it.
//!
//! An HTTP/1.1 connection is driven by the very task whose request is on it: it needs no task of
//! its own, and a request costs none of the wake-ups that go from one task to another and back.
//! Nobody drives an idle one, so it is asked whether it still stands before it is used again. An
//! HTTP/2 connection carries many requests at once and has a task of its own.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, response::Parts};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::dial::{Dialled, Io, PING};

/// What goes out.
pub(super) type Outgoing = Request<Full<Bytes>>;

/// A connection ready for a request.
pub(super) enum Connection {
    Http1(Box<Http1>),
    Http2(Http2),
}

/// Reads and writes for an HTTP/1.1 connection, when it is polled.
type Driver = http1::Connection<TokioIo<Box<dyn Io>>, Full<Bytes>>;

/// One that carries one request at a time.
pub(super) struct Http1 {
    sender: http1::SendRequest<Full<Bytes>>,
    /// `None` when it has ended.
    driver: Option<Pin<Box<Driver>>>,
    /// What it ended of.
    ended: Option<hyper::Error>,
}

/// One that carries many. Clones are one.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Full<Bytes>>,
    /// As many as there are users, and one for the pool.
    users: Arc<()>,
}

/// Why there is no answer.
pub(super) struct Unanswered {
    /// The request, when no byte of it has left.
    pub(super) unsent: Option<Outgoing>,
    pub(super) error: hyper::Error,
    /// What the connection ended of, where that is known besides.
    pub(super) ended: Option<hyper::Error>,
}

/// An answer's body, still to be read. Dropped before its end it takes an HTTP/1.1 connection with
/// it.
pub(super) struct Answering {
    body: Incoming,
    connection: Connection,
}

impl Connection {
    /// Shakes hands.
    pub(super) async fn open(dialled: Dialled) -> hyper::Result<Self> {
        let io = TokioIo::new(dialled.io);
        if dialled.http2 {
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .handshake(io)
                .await?;
            // It ends when the last sender is dropped, or the other side wants it to; whoever has
            // a request on it is told why.
            tokio::spawn(driver);
            return Ok(Self::Http2(Http2 { sender, users: Arc::new(()) }));
        }
        let (sender, driver) = http1::Builder::new().handshake(io).await?;
        let driver = Some(Box::pin(driver));
        Ok(Self::Http1(Box::new(Http1 { sender, driver, ended: None })))
    }

    /// Whether requests on it name the whole address and not only the path.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Sends `request`, and waits for the head of the answer.
    ///
    /// # Errors
    /// When there will be none.
    pub(super) async fn send(
        mut self,
        request: Outgoing,
    ) -> Result<(Parts, Answering), Unanswered> {
        let answered = match &mut self {
            Self::Http1(one) => {
                let answer = one.sender.try_send_request(request);
                let mut answer = std::pin::pin!(answer);
                poll_fn(|cx| one.drive(cx, |cx| answer.as_mut().poll(cx))).await
            }
            Self::Http2(two) => two.sender.try_send_request(request).await,
        };
        match answered {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                Ok((head, Answering { body, connection: self }))
            }
            Err(error) => Err(self.unanswered(error)),
        }
    }

    fn unanswered(self, mut error: TrySendError<Outgoing>) -> Unanswered {
        let ended = match self {
            Self::Http1(one) => one.ended,
            Self::Http2(_) => None,
        };
        Unanswered { unsent: error.take_message(), error: error.into_error(), ended }
    }
}

impl Http1 {
    /// Polls `future`, which waits for something that this connection brings.
    fn drive<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut future: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if let Poll::Ready(done) = future(cx) {
            return Poll::Ready(done);
        }
        self.advance(cx);
        future(cx)
    }

    /// Writes and reads what can be. What waits for an ended connection learns that it has.
    fn advance(&mut self, cx: &mut Context<'_>) {
        let Some(driver) = &mut self.driver else { return };
        if let Poll::Ready(ended) = driver.as_mut().poll(cx) {
            self.driver = None;
            self.ended = ended.err();
        }
    }

    /// The connection, if it can take a request now: between two of them, and not closed.
    pub(super) async fn if_ready(mut self: Box<Self>) -> Option<Box<Self>> {
        let ready = poll_fn(|cx| {
            self.advance(cx);
            Poll::Ready(matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))))
        });
        (ready.await && self.driver.is_some()).then_some(self)
    }
}

impl Http2 {
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Whether nobody but the pool has it.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.users) == 1
    }
}

impl Answering {
    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off.
    pub(super) async fn chunk(&mut self) -> Option<hyper::Result<Bytes>> {
        let Self { body, connection, .. } = self;
        while !body.is_end_stream() {
            let frame = match connection {
                Connection::Http1(one) => {
                    poll_fn(|cx| one.drive(cx, |cx| Pin::new(&mut *body).poll_frame(cx))).await
                }
                Connection::Http2(_) => body.frame().await,
            };
            match frame?.map(hyper::body::Frame::into_data) {
                Ok(Ok(data)) => return Some(Ok(data)),
                // Trailers say nothing to us.
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }

    /// The connection, for the next request; to be called after the body's end.
    pub(super) fn finish(self) -> Connection {
        self.connection
    }
}
