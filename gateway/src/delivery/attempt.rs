//! One attempt: call, report, settle. Runs as a task of its own, owned by the loop.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tidegate_adapters::{
    AttemptResult, Call, DeadReason, Delivery, Exchange, Failure, Health, Receipt, Timestamp,
    TraceContext, Verdict,
};
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::{
    Clock, Finished, Route,
    reply::End,
    schedule::{self, Moment},
};
use crate::{
    config::ReplyOn,
    protect::{Permit, Reported},
    queue::{self, AttemptRecord, Content, Outcome, Queue, QueueError, Settlement},
    telemetry::{Ending, Metrics},
};

/// What an attempt needs.
pub(super) struct Attempt {
    pub(super) route: Arc<Route>,
    pub(super) delivery: Arc<Delivery>,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    /// What was replayed by the time it was claimed.
    pub(super) replays: u64,
}

impl Attempt {
    /// Makes the call and settles what came of it.
    pub(super) async fn make(self, mut call: Call, permit: Permit) -> Finished {
        let number = call.attempt;
        let span = self.route.tracer.attempt(&self.delivery, number, &mut call.request);
        let trace = span.context().clone();
        let began_at = (self.clock)();
        let began = Instant::now();
        let service = self.route.service.clone();
        let answer = AssertUnwindSafe(service.oneshot(call))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Err(panicked()));
        let took = began.elapsed();
        let reported = permit.report(self.delivery.id, &answer, || self.waiting());
        let (result, outcome, detail, exchange, response) = self.judge(answer, &reported, began_at);
        span.end(result, exchange.status, &outcome);
        let attempt = result.map(|result| {
            self.metrics.attempt(&self.route.name, self.route.upstream.name(), result, took);
            AttemptRecord { number, at: began_at, duration: took, result, detail, exchange }
        });
        let reply = self.reply(&outcome, response.as_ref(), number, Some(&trace));
        let delivery = Arc::clone(&self.delivery);
        let held = reported.unsettled.map(|permit| -> Box<dyn Any + Send> { Box::new(permit) });
        self.settle(Settlement { delivery, outcome, attempt, reply, held }).await
    }

    /// Settles a delivery whose call could not even be rendered.
    pub(super) async fn fail(self, failure: Failure) -> Finished {
        let now = (self.clock)();
        let outcome = self.after(&failure, now, now, false);
        let reply = self.reply(&outcome, None, self.delivery.tries, None);
        let delivery = Arc::clone(&self.delivery);
        let settlement = Settlement { delivery, outcome, attempt: None, reply, held: None };
        self.settle(settlement).await
    }

    /// Commits `settlement`. If the store fails, the delivery is still pending there.
    pub(super) async fn settle(self, settlement: Settlement) -> Finished {
        let id = self.delivery.id;
        let outcome = settlement.outcome.clone();
        let replied =
            settlement.reply.as_ref().map(|reply| (Arc::clone(&reply.route), dead(reply)));
        match self.queue.settle(settlement).await {
            Ok(()) => {
                self.ended(&outcome);
                self.replied(replied);
            }
            Err(QueueError::Closed) => {}
            Err(error) => {
                tracing::error!(route = %self.route.name, delivery = %id, %error, "cannot settle");
                // Still pending in the store: let the loop find it there again.
                self.queue.unclaim(id);
                self.queue.feed(&self.route.name).fall_behind();
            }
        }
        let again_at = match outcome {
            Outcome::Retry { at, .. } => Some(at),
            Outcome::Delivered | Outcome::Dead { .. } => None,
        };
        Finished { id, again_at, replays: self.replays }
    }

    fn judge(
        &self,
        answer: Result<Receipt, Failure>,
        reported: &Reported,
        began_at: Timestamp,
    ) -> (Option<AttemptResult>, Outcome, String, Exchange, Option<Bytes>) {
        match answer {
            Ok(receipt) => {
                let Receipt { result, exchange, response, .. } = receipt;
                (Some(result), Outcome::Delivered, String::new(), exchange, response)
            }
            Err(failure) => {
                tracing::debug!(
                    route = %self.route.name,
                    upstream = %self.route.upstream.name(),
                    delivery = %self.delivery.id,
                    event = %self.delivery.event.id,
                    %failure,
                    "attempt failed"
                );
                let now = (self.clock)();
                let outcome = self.after(&failure, began_at, now, reported.probe);
                let Failure { result, detail, exchange, response, .. } = failure;
                (result, outcome, detail, exchange, response)
            }
        }
    }

    /// What is said of an end; nothing of what goes on.
    fn reply(
        &self,
        outcome: &Outcome,
        response: Option<&Bytes>,
        attempt: u32,
        trace: Option<&TraceContext>,
    ) -> Option<queue::Reply> {
        let rule = self.route.reply.as_ref()?;
        let (outcome, reason) = match outcome {
            Outcome::Delivered => (ReplyOn::Delivered, None),
            Outcome::Dead { reason, .. } => (ReplyOn::Dead, Some(*reason)),
            Outcome::Retry { .. } => return None,
        };
        let end = End { outcome, reason, response, attempt, trace };
        rule.make(&self.delivery, end, (self.clock)())
    }

    fn after(&self, failure: &Failure, began: Timestamp, now: Timestamp, probe: bool) -> Outcome {
        // The age stands still while the route is paused.
        let paused = self.queue.paused_for(&self.route.name);
        let first = self.delivery.first_attempt_at.map(|first| first.after(paused));
        let first_attempt_at = first.unwrap_or(began);
        let moment = Moment { now, first_attempt_at, probe, chance: fastrand::f64() };
        schedule::after_failure(&self.route.retry, &self.delivery, failure, moment)
    }

    fn ended(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Delivered => {
                let lag = (self.clock)().since(self.delivery.accepted_at);
                self.metrics.ended(&self.route.name, Ending::Delivered);
                self.metrics.lag(&self.route.name, lag);
            }
            Outcome::Dead { reason, detail } => {
                tracing::warn!(
                    route = %self.route.name,
                    upstream = %self.route.upstream.name(),
                    delivery = %self.delivery.id,
                    event = %self.delivery.event.id,
                    reason = reason.as_str(),
                    detail,
                    "delivery is dead"
                );
                self.metrics.ended(&self.route.name, Ending::Dead(*reason));
            }
            Outcome::Retry { .. } => {}
        }
    }

    /// A reply was enqueued, or kept as dead for this reason.
    fn replied(&self, replied: Option<(Arc<str>, Option<DeadReason>)>) {
        let Some((route, dead)) = replied else { return };
        self.metrics.accepted(&route, 1);
        if let Some(reason) = dead {
            tracing::warn!(%route, reason = reason.as_str(), "reply is dead");
            self.metrics.ended(&route, Ending::Dead(reason));
        }
    }

    /// How many deliveries wait for this upstream, on all routes that call it.
    fn waiting(&self) -> u64 {
        let routes = self.queue.routes();
        let ours = routes.iter().filter(|status| self.route.peers.contains(&status.name));
        ours.map(|status| status.counts.pending).sum()
    }
}

fn dead(reply: &queue::Reply) -> Option<DeadReason> {
    match &reply.append.content {
        Content::Dead(_, reason, _) => Some(*reason),
        Content::Pending(_) | Content::Filtered(_) | Content::Invalid(_) => None,
    }
}

/// A panic in a leaf is our fault, not the event's: it is tried again, and the process goes on.
pub(super) fn panicked() -> Failure {
    Failure {
        result: Some(AttemptResult::Protocol),
        verdict: Verdict::Retry { after: None },
        health: Health::Silent,
        throttle: None,
        detail: "the attempt panicked; this is a defect of Tidegate, see the log".to_owned(),
        exchange: Exchange::default(),
        response: None,
    }
}
