//! How a slow connect keeps to the rate limit.
//!
//! A token of the rate limit is taken before the call, but a connect may take seconds, and all
//! that wait for one would then leave in one burst. So the [`Gate`] is asked again right before a
//! request can reach a connection. Where that is, is not obvious: a request that finds no idle
//! connection starts a connect *and* waits for other requests' connections to come back to the
//! pool; either may win, and the request is written in the same poll. Therefore:
//!
//! - [`Dial`] wraps the connector. It runs each connect in a task of its own, so that the request
//!   is woken by its end and not by every step of a handshake, and it leaves a mark whenever it is
//!   polled on behalf of a request: this one is still waiting.
//! - [`send`] wraps the client's future. If the request was waiting after the last poll, the next
//!   one happens only after [`Gate::pass`], which is immediate while the token is young. A failed
//!   connect is let through at once: nothing will be sent.
//!
//! A connect that lost the race lives on in the client's background, to fill the pool; nobody
//! marks anything for it there, and no gate is asked.

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio_util::task::AbortOnDropHandle;
use tower::{Layer, Service};

use crate::Gate;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Name, TCP and TLS together.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a request has been handed to a connection. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicBool>);

impl Progress {
    /// Whether the other side may have seen anything of the request.
    #[must_use]
    pub fn sent(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Runs `request`, the client's future, and keeps it from a connection until `gate` lets it pass.
pub(super) async fn send<F: Future>(gate: &dyn Gate, progress: &Progress, request: F) -> F::Output {
    let mut request = pin!(request);
    let connect = Arc::new(Connect::default());
    let mut waiting = false;
    let mut pass: Option<BoxFuture<'_, ()>> = None;
    std::future::poll_fn(|cx| {
        if waiting && !connect.failed.load(Ordering::Acquire) {
            ready!(pass.get_or_insert_with(|| gate.pass()).as_mut().poll(cx));
            pass = None;
        }
        connect.pending.store(false, Ordering::Release);
        let polled = CONNECT.sync_scope(Arc::clone(&connect), || request.as_mut().poll(cx));
        waiting = connect.pending.load(Ordering::Acquire);
        progress.0.store(!waiting, Ordering::Release);
        polled
    })
    .await
}

tokio::task_local! {
    /// Set while a request's future is polled, and only then.
    static CONNECT: Arc<Connect>;
}

/// What the connects of one request have to say.
#[derive(Default)]
struct Connect {
    /// One was polled and is not done: no connection was at hand.
    pending: AtomicBool,
    /// The last one came to nothing.
    failed: AtomicBool,
}

/// Wraps the connector in [`Dial`].
#[derive(Clone)]
pub(super) struct DialLayer;

/// A connector whose connects run in tasks of their own, under a deadline.
#[derive(Clone)]
pub(super) struct Dial<S> {
    inner: S,
}

impl<S> Layer<S> for DialLayer {
    type Service = Dial<S>;

    fn layer(&self, inner: S) -> Dial<S> {
        Dial { inner }
    }
}

impl<S, R> Service<R> for Dial<S>
where
    S: Service<R, Error = BoxError>,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Dialling<S::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, destination: R) -> Self::Future {
        let connect = CONNECT.try_with(Arc::clone).ok();
        let set_failed = move |failed| {
            if let Some(connect) = &connect {
                connect.failed.store(failed, Ordering::Release);
            }
        };
        set_failed(false);
        let dialled = tokio::time::timeout(CONNECT_TIMEOUT, self.inner.call(destination));
        let task = async move {
            let result = dialled.await.unwrap_or_else(|_| {
                let problem = format!("none within {} s", CONNECT_TIMEOUT.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, problem).into())
            });
            set_failed(result.is_err());
            result
        };
        Dialling { task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }
}

/// A connect under way; dropping it ends it.
pub(super) struct Dialling<T> {
    task: AbortOnDropHandle<Result<T, BoxError>>,
}

impl<T> Future for Dialling<T> {
    type Output = Result<T, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.task).poll(cx);
        let mark = |connect: &Arc<Connect>| {
            connect.pending.store(polled.is_pending(), Ordering::Release);
        };
        // Outside of a request it is the client's background that polls.
        let _ = CONNECT.try_with(mark);
        Poll::Ready(ready!(polled).unwrap_or_else(|gone| Err(gone.into())))
    }
}

#[cfg(test)]
mod tests;
