//! The attempt's timeout: the wire, connect included, and not the waiting.
//!
//! A leaf may have to wait for another rate-limit token between connect and sending (see
//! [`Gate`](tidegate_adapters::Gate)); with a limit of one a minute that wait alone would exceed
//! any sensible timeout, for ever. So the deadline moves by what the gate has waited.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tidegate_adapters::{Call, Failure, Receipt, Request, http::caller};
use tokio::time::Instant;
use tower::{Layer, Service};

/// Wraps a target with a timeout.
#[derive(Debug, Clone)]
pub struct TimeoutLayer {
    timeout: Duration,
}

impl TimeoutLayer {
    /// One attempt takes at most `timeout`.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, timeout: self.timeout }
    }
}

/// A target whose attempts end in time.
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
    timeout: Duration,
}

impl<S> Service<Call> for Timeout<S>
where
    S: Service<Call, Response = Receipt, Error = Failure>,
    S::Future: Send + 'static,
{
    type Response = Receipt;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Receipt, Failure>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let began = Instant::now();
        let timeout = self.timeout;
        let gate = Arc::clone(&call.gate);
        let Request::Http(request) = &call.request else {
            unreachable!("the broker's leaf has a deadline of its own, for a whole window")
        };
        let request = Arc::clone(request);
        let answer = self.inner.call(call);
        Box::pin(async move {
            tokio::pin!(answer);
            let mut deadline = began + timeout;
            loop {
                tokio::select! {
                    biased;
                    result = &mut answer => return result,
                    () = tokio::time::sleep_until(deadline) => {}
                }
                let moved = began + timeout + gate.waited();
                if moved <= deadline {
                    return Err(caller::timed_out(&request, timeout));
                }
                deadline = moved;
            }
        })
    }
}
