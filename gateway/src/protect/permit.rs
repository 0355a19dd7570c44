//! Permission for one attempt, and what its report tells the protections.

use std::sync::Arc;

use tidegate_adapters::{AttemptResult, DeliveryId, Failure, Gate, Health, Receipt};
use tokio::time::Instant;

use super::{
    Upstream,
    breaker::{Change, Ticket},
    concurrency::{CallPermit, UnsettledPermit},
    gate::TokenGate,
    rate_limit::Keys,
};

/// Permission for one attempt. Dropped without a report, it is as if it had never been asked for,
/// except that the rate-limit token is spent.
#[derive(Debug)]
pub struct Permit {
    pub(super) upstream: Arc<Upstream>,
    pub(super) ticket: Option<Ticket>,
    pub(super) keys: Arc<Keys>,
    pub(super) gate: Arc<TokenGate>,
    pub(super) _call: CallPermit,
    pub(super) unsettled: Option<UnsettledPermit>,
}

/// What the loop needs to know of a reported attempt.
#[derive(Debug)]
pub struct Reported {
    /// Whether it was the probe of a half-open breaker.
    pub probe: bool,
    /// To be held until the settlement is committed.
    pub unsettled: Option<UnsettledPermit>,
}

impl Permit {
    /// Asked by the leaf right before bytes leave.
    #[must_use]
    pub fn gate(&self) -> Arc<dyn Gate> {
        Arc::clone(&self.gate) as Arc<dyn Gate>
    }

    /// Reports how the call went, and ends its place among the calls under way. `waiting` tells
    /// how many deliveries wait for this upstream.
    pub fn report(
        mut self,
        delivery: DeliveryId,
        answer: &Result<Receipt, Failure>,
        waiting: impl FnOnce() -> u64,
    ) -> Reported {
        let now = Instant::now();
        let throttle = answer.as_ref().err().and_then(|failure| failure.throttle);
        match throttle {
            Some(throttle) => self.upstream.hush(&self.keys, throttle.after, now),
            None => {
                self.upstream.quiet.lock().streak = 0;
                self.upstream.limits.answered(&self.keys);
            }
        }
        let ticket = self.ticket.take();
        if let Some(ticket) = ticket {
            let reached = !matches!(answer, Err(failure) if failure.result.is_none());
            let mut breaker = self.upstream.breaker.lock();
            let change = match (&mut *breaker, reached) {
                (None, _) => Change::None,
                (Some(breaker), true) => {
                    let health = health_for_breaker(ticket, answer);
                    breaker.record(ticket, delivery, health, waiting, now)
                }
                (Some(breaker), false) => {
                    breaker.give_back(ticket, now);
                    Change::None
                }
            };
            drop(breaker);
            if ticket.is_probe() || change != Change::None {
                self.upstream.changed_to(change);
            }
        }
        Reported { probe: ticket.is_some_and(Ticket::is_probe), unsettled: self.unsettled.take() }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            if let Some(breaker) = &mut *self.upstream.breaker.lock() {
                breaker.give_back(ticket, Instant::now());
            }
            self.upstream.changed.notify_waiters();
        }
    }
}

/// A throttled answer is silent for a closed breaker, but it is an answer: a 429 shows a half-open
/// one that the upstream lives (any complete answer other than 5xx, 401 and 407).
fn health_for_breaker(ticket: Ticket, answer: &Result<Receipt, Failure>) -> Health {
    match answer {
        Ok(receipt) => receipt.health,
        Err(failure) if ticket.is_probe() && failure.throttle.is_some() => match failure.result {
            Some(AttemptResult::ServerError) => Health::Bad,
            _ => Health::Good,
        },
        Err(failure) => failure.health,
    }
}
