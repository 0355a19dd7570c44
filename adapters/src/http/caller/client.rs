//! The HTTP client of one upstream: its connections, and who gets the next.
//!
//! A request that finds no idle connection dials one *and* waits for those of other requests;
//! whichever is there first is its own. What comes free goes to whoever waits longest; what a
//! request has dialled nobody takes from under it. What was dialled and is no longer needed goes
//! the way of what comes free.
//!
//! A token of the rate limit is taken before the call, but a connect may take seconds, and all
//! that wait for one would then leave in one burst. So after any waiting the [`Gate`] is asked
//! again, right before the request is put on its connection.
//!
//! A connection that was idle may be closed by the other side in the very moment it is used. When
//! no byte of the request has left, it is put on another one; everything else is the queue's to
//! repeat, which takes a token for it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, response::Parts,
    uri::PathAndQuery,
};
use http_body_util::Full;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::{
    connection::{Answering, Connection, Http1, Http2, Outgoing, Unanswered},
    dial::{DialError, Dialer},
    network::{self, Broken},
};
use crate::{
    Gate,
    http::{ConfigError, egress::Guard},
    secret::Mask,
};

/// Below the 5 s after which common servers close idle connections, so that ours never races it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Whether a request has been handed to a connection. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicBool>);

impl Progress {
    /// Whether the other side may have seen anything of the request.
    #[must_use]
    pub fn sent(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, sent: bool) {
        self.0.store(sent, Ordering::Release);
    }
}

/// The connections to one upstream. Clones share them.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Arc<Pool>,
}

/// A request, as far as a client has to know it.
pub(crate) struct Sending<'a> {
    pub(crate) method: &'a Method,
    /// On the client's upstream.
    pub(crate) url: &'a Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

struct Pool {
    dialer: Dialer,
    /// The most idle connections that are kept.
    keep: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The one that was used last is the last.
    idle: Vec<Idle>,
    shared: Option<Shared>,
    /// Whoever waits longest is the first.
    waiting: VecDeque<oneshot::Sender<Connection>>,
    /// Whether somebody looks after what is idle.
    tended: bool,
}

struct Idle {
    connection: Box<Http1>,
    since: Instant,
}

/// The HTTP/2 connection.
struct Shared {
    connection: Http2,
    used: Instant,
}

/// A connection, and how it was got.
struct Got {
    connection: Connection,
    /// It has carried requests before.
    used: bool,
}

impl Client {
    /// A client of the URL's host, that keeps up to `keep` connections. The URL has its key; the
    /// proxy's credentials are made known to `mask`.
    ///
    /// # Errors
    /// When it or the proxy's cannot be dialled, with the key.
    pub(crate) fn new(
        url: (&str, &Url),
        tls: &Arc<ClientConfig>,
        guard: Guard,
        proxy: Option<&Url>,
        mask: &Mask,
        keep: usize,
    ) -> Result<Self, ConfigError> {
        let dialer = Dialer::new(url, tls, guard, proxy, mask)?;
        Ok(Self { pool: Arc::new(Pool { dialer, keep, state: Mutex::default() }) })
    }

    /// Sends, and waits for the head of the answer. `gate`, if there is one, is asked again after
    /// any waiting for a connection, and `progress` tells whether the request was handed to one.
    ///
    /// # Errors
    /// What the network did, in words that hold no URL.
    pub(crate) async fn send(
        &self,
        sending: Sending<'_>,
        gate: Option<&dyn Gate>,
        progress: &Progress,
    ) -> Result<Answer, Broken> {
        let url = sending.url;
        let mut request = self.request(sending);
        loop {
            let Got { connection, used } = self.connection(gate).await?;
            self.aim(&mut request, url, &connection).ok_or_else(network::unsendable)?;
            progress.set(true);
            match connection.send(request).await {
                Ok((head, body)) => {
                    let Parts { status, headers, .. } = head;
                    return Ok(Answer { status, headers, body, pool: Arc::clone(&self.pool) });
                }
                Err(Unanswered { unsent: Some(unsent), .. }) if used => {
                    progress.set(false);
                    request = unsent;
                }
                Err(unanswered) => return Err(network::unanswered(&unanswered)),
            }
        }
    }

    /// All but where it goes.
    fn request(&self, sending: Sending<'_>) -> Outgoing {
        let Sending { method, mut headers, body, .. } = sending;
        if body.is_empty() && matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
            // Some servers refuse with 411 what RFC 9110 §8.6 only says one should send.
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(Some(authorization)) = self.pool.dialer.forwards() {
            headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method.clone();
        *request.headers_mut() = headers;
        request
    }

    /// Says where it goes, in the words of this connection. `None` for a URL longer than can be
    /// sent.
    fn aim(&self, request: &mut Outgoing, url: &Url, connection: &Connection) -> Option<()> {
        let dialer = &self.pool.dialer;
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let path = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(path.as_bytes())).ok()?;
        let whole = |path| {
            let mut parts = dialer.upstream().clone().into_parts();
            parts.path_and_query = Some(path);
            Uri::from_parts(parts).ok()
        };
        if connection.is_http2() {
            // The authority is a field of its own there (RFC 9113 §8.3.1).
            request.headers_mut().remove(header::HOST);
            *request.uri_mut() = whole(path)?;
            return Some(());
        }
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).ok()?);
        let forwarded = dialer.forwards().is_some();
        *request.uri_mut() = if forwarded { whole(path)? } else { path.into() };
        Some(())
    }

    /// A connection that is ready: an idle one, or the first that comes free or is dialled.
    async fn connection(&self, gate: Option<&dyn Gate>) -> Result<Got, Broken> {
        while let Some(idle) = self.pool.take() {
            let connection = match idle {
                Connection::Http1(one) => one.if_ready().await.map(Connection::Http1),
                two @ Connection::Http2(_) => Some(two),
            };
            if let Some(connection) = connection {
                return Ok(Got { connection, used: true });
            }
        }
        let (give, mut given) = oneshot::channel();
        self.pool.wait(give);
        // In a task of its own, so that the request is woken by its end and not by every step of
        // a handshake; dropped with the request, it ends.
        let pool = Arc::clone(&self.pool);
        let mut dialling = AbortOnDropHandle::new(tokio::spawn(async move { pool.dial().await }));
        let got = tokio::select! {
            biased;
            Ok(connection) = &mut given => {
                let pool = Arc::clone(&self.pool);
                tokio::spawn(async move {
                    if let Ok(Ok(connection)) = dialling.await {
                        pool.put(connection);
                    }
                });
                Got { connection, used: true }
            }
            dialled = &mut dialling => {
                // What was given in this very moment is not lost.
                given.close();
                if let Ok(other) = given.try_recv() {
                    self.pool.put(other);
                }
                let dialled = dialled.unwrap_or_else(|ended| Err(DialError::Connect(ended.into())));
                let connection = dialled.map_err(|error| network::undialled(&error))?;
                Got { connection, used: false }
            }
        };
        if let Some(gate) = gate {
            gate.pass().await;
        }
        Ok(got)
    }
}

impl Pool {
    async fn dial(self: Arc<Self>) -> Result<Connection, DialError> {
        let dialled = self.dialer.dial().await?;
        let connection = Connection::open(dialled).await;
        let connection = connection.map_err(|error| DialError::Connect(error.into()))?;
        if let Connection::Http2(two) = &connection {
            self.put(Connection::Http2(two.clone()));
        }
        Ok(connection)
    }

    fn wait(&self, give: oneshot::Sender<Connection>) {
        let waiting = &mut self.state.lock().waiting;
        // While nobody gets a connection those that gave up would gather here.
        waiting.retain(|waiting| !waiting.is_closed());
        waiting.push_back(give);
    }

    /// An idle connection, the one that was used last.
    fn take(&self) -> Option<Connection> {
        let mut state = self.state.lock();
        let now = Instant::now();
        if let Some(shared) = &mut state.shared {
            if shared.connection.is_open() {
                shared.used = now;
                return Some(Connection::Http2(shared.connection.clone()));
            }
            state.shared = None;
        }
        let idle = state.idle.pop()?;
        if now.duration_since(idle.since) < IDLE_TIMEOUT {
            return Some(Connection::Http1(idle.connection));
        }
        // All others are older still.
        state.idle.clear();
        None
    }

    /// Gives a ready connection to whoever waits longest, or keeps it for whoever comes.
    fn put(self: &Arc<Self>, connection: Connection) {
        let mut state = self.state.lock();
        match connection {
            Connection::Http1(one) => state.give(one, self.keep),
            Connection::Http2(two) => state.share(&two),
        }
        if !state.tended {
            state.tended = true;
            tokio::spawn(tend(Arc::downgrade(self)));
        }
    }

    /// Closes what has been idle for too long; when to look again, unless nothing is left.
    fn close_idle(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        let now = Instant::now();
        let old = |since: Instant| now.duration_since(since) >= IDLE_TIMEOUT;
        state.idle.retain(|idle| !old(idle.since));
        if let Some(shared) = &mut state.shared {
            if !shared.connection.is_idle() {
                shared.used = now;
            }
            if old(shared.used) || !shared.connection.is_open() {
                state.shared = None;
            }
        }
        let oldest = state.idle.first().map(|idle| idle.since);
        let oldest =
            oldest.into_iter().chain(state.shared.as_ref().map(|shared| shared.used)).min();
        state.tended = oldest.is_some();
        oldest.map(|since| since + IDLE_TIMEOUT)
    }
}

impl State {
    fn give(&mut self, one: Box<Http1>, keep: usize) {
        let mut connection = Connection::Http1(one);
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.send(connection) {
                Ok(()) => return,
                // Gone before its turn: the next.
                Err(back) => connection = back,
            }
        }
        if let Connection::Http1(connection) = connection
            && self.idle.len() < keep
        {
            self.idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// All that wait share it, and whoever comes.
    fn share(&mut self, two: &Http2) {
        for waiting in std::mem::take(&mut self.waiting) {
            let _ = waiting.send(Connection::Http2(two.clone()));
        }
        let used = Instant::now();
        match &mut self.shared {
            Some(shared) if shared.connection.is_open() => shared.used = used,
            _ => self.shared = Some(Shared { connection: two.clone(), used }),
        }
    }
}

/// Nobody drives an idle connection, so somebody has to look after them, as long as there are any.
async fn tend(pool: Weak<Pool>) {
    let mut next = Instant::now() + IDLE_TIMEOUT;
    loop {
        tokio::time::sleep_until(next).await;
        let Some(at) = pool.upgrade().and_then(|pool| pool.close_idle()) else { return };
        next = at;
    }
}

/// An answer whose body is still to be read.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Answering,
    pool: Arc<Pool>,
}

impl Answer {
    /// The next bytes of the body; `None` at its end.
    ///
    /// # Errors
    /// When it breaks off.
    pub(crate) async fn chunk(&mut self) -> Option<hyper::Result<Bytes>> {
        self.body.chunk().await
    }

    /// The body was read to its end: its connection is free for the next request.
    pub(crate) async fn finish(self) {
        let connection = match self.body.finish() {
            Connection::Http1(one) => one.if_ready().await.map(Connection::Http1),
            // The pool has it all the time.
            Connection::Http2(_) => None,
        };
        if let Some(connection) = connection {
            self.pool.put(connection);
        }
    }
}

#[cfg(test)]
mod tests;
