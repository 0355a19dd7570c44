//! The in-process broker: topic exchanges on the gateway's own durable queue.
//!
//! For trying out, for tests, for one machine. A published event is matched against the bindings
//! of every route with RabbitMQ's own topic rules and offered to each match's [`Intake`]; "yes" to
//! the publisher means every one of them has said yes.
//!
//! What a route publishes moves inside: it is exempt from the queue's cap, or a full queue could
//! not empty, and counted, or a ring of routes would go round for ever.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;

use parking_lot::RwLock;

use crate::{
    Accepted, Arrival, AttemptResult, Call, DeadReason, Event, Exchange, Failure, Health, Intake,
    Receipt, Refused, Request, Verdict,
    event::HOPS_MAX,
    rabbitmq::{BindConfig, OnUnroutable},
};

/// AMQP 0-9-1 routing keys are short strings.
pub const KEY_MAX: usize = 255;

/// A topic broker in process. Clones are one broker.
#[derive(Clone, Default)]
pub struct Embedded {
    bindings: Arc<RwLock<BTreeMap<Arc<str>, Binding>>>,
}

/// What one route wants, and where it takes it.
struct Binding {
    wants: Vec<BindConfig>,
    intake: Arc<dyn Intake>,
}

/// Why an event was not published, or not to everyone it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// AMQP has no room for such a routing key.
    #[error("the routing key is {0} bytes long, {KEY_MAX} are allowed")]
    KeyTooLong(usize),
    /// A route refused it; see [`Embedded::publish`].
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl Embedded {
    /// Binds `route`; from now on matching events go to `intake`. What `route` was bound to before
    /// is forgotten.
    pub fn bind(&self, route: &str, wants: Vec<BindConfig>, intake: Arc<dyn Intake>) {
        // There is no connection that could break: the repeat window always runs.
        intake.connected(true);
        self.bindings.write().insert(route.into(), Binding { wants, intake });
    }

    /// Unbinds every route that is not among `routes`.
    pub fn keep_only(&self, routes: &std::collections::BTreeSet<Arc<str>>) {
        self.bindings.write().retain(|route, binding| {
            let kept = routes.contains(route);
            if !kept {
                binding.intake.connected(false);
            }
            kept
        });
    }

    /// Publishes `event`; answers how many routes it is for (0: nothing is bound for it). An event
    /// that matches several bindings of a route is offered to it once, as in RabbitMQ.
    ///
    /// # Errors
    /// When a route refused it, or `key` is longer than AMQP allows. The routes that took it keep
    /// it, and know it by its source and id when it is published once more: at least once.
    pub async fn publish(
        &self,
        exchange: &str,
        key: &str,
        event: &Event,
    ) -> Result<usize, PublishError> {
        if key.len() > KEY_MAX {
            return Err(PublishError::KeyTooLong(key.len()));
        }
        self.offer(exchange, key, event, |intake, batch| intake.accept(batch)).await
    }

    /// The leaf that routes publish by.
    #[must_use]
    pub fn service(&self) -> EmbeddedService {
        EmbeddedService { broker: self.clone() }
    }

    async fn offer(
        &self,
        exchange: &str,
        key: &str,
        event: &Event,
        accept: impl Fn(&dyn Intake, Vec<Arrival>) -> Accepting,
    ) -> Result<usize, PublishError> {
        let intakes: Vec<Arc<dyn Intake>> = {
            let bindings = self.bindings.read();
            let matching = bindings.values().filter(|binding| binding.matches(exchange, key));
            matching.map(|binding| Arc::clone(&binding.intake)).collect()
        };
        let offered = intakes.iter().map(|intake| {
            accept(&**intake, vec![Arrival { event: Ok(event.clone()), own_id: true }])
        });
        // All are asked, and all have answered, before any refusal is told.
        let answers: Vec<Result<Vec<Accepted>, Refused>> =
            futures_util::future::join_all(offered).await;
        let routes = answers.len();
        for answer in answers {
            answer?;
        }
        Ok(routes)
    }
}

/// What an intake answers with.
type Accepting = BoxFuture<'static, Result<Vec<Accepted>, Refused>>;

/// Publishes what routes let out. Clones share the broker.
#[derive(Clone)]
pub struct EmbeddedService {
    broker: Embedded,
}

impl tower::Service<Call> for EmbeddedService {
    type Response = Receipt;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Receipt, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let broker = self.broker.clone();
        Box::pin(async move {
            let Request::Rabbitmq(request) = &call.request else {
                unreachable!("a route's target renders for its own leaf")
            };
            let mut event = Event::clone(&call.delivery.event);
            event.hops += 1;
            if let Some(trace) = &request.trace {
                event.traceparent = Some(trace.clone());
            }
            if event.hops > HOPS_MAX {
                let why = format!(
                    "{HOPS_MAX} moves inside led to it: its routes go round in a ring; look at \
                     what is bound to exchange `{}`",
                    request.exchange
                );
                let verdict = Verdict::Dead(DeadReason::Rejected);
                return Err(failure(None, verdict, why));
            }
            let (exchange, key) = (&*request.exchange, &*request.key);
            let inside = |intake: &dyn Intake, batch| intake.accept_inside(batch);
            let retry = Verdict::Retry { after: None };
            let result = match broker.offer(exchange, key, &event, inside).await {
                Ok(0) => AttemptResult::Unroutable,
                Ok(_) => AttemptResult::Success,
                Err(error) => return Err(failure(None, retry, error.to_string())),
            };
            if result == AttemptResult::Success || request.on_unroutable == OnUnroutable::Drop {
                let exchange = Exchange { request: record(exchange, key), ..Exchange::default() };
                return Ok(Receipt { result, health: Health::Good, exchange, response: None });
            }
            let verdict = match request.on_unroutable {
                OnUnroutable::Dead => Verdict::Dead(DeadReason::Unroutable),
                OnUnroutable::Retry | OnUnroutable::Drop => retry,
            };
            let why = format!("nothing is bound to exchange `{exchange}` for key `{key}`");
            let mut failure = failure(Some(result), verdict, why);
            failure.exchange.request = record(exchange, key);
            Err(failure)
        })
    }
}

fn record(exchange: &str, key: &str) -> String {
    format!("PUBLISH {exchange} {key}\n")
}

fn failure(result: Option<AttemptResult>, verdict: Verdict, detail: String) -> Failure {
    Failure {
        result,
        verdict,
        health: Health::Silent,
        throttle: None,
        detail,
        exchange: Exchange::default(),
        response: None,
    }
}

impl Binding {
    fn matches(&self, exchange: &str, key: &str) -> bool {
        self.wants.iter().any(|want| want.exchange == exchange && topic_matches(&want.key, key))
    }
}

/// Whether `pattern` (words by dots, `*` one word, `#` none or more) matches `key`, by RabbitMQ's
/// rules (<https://www.rabbitmq.com/tutorials/tutorial-five-python>).
///
/// No recursion: the time is the product of their lengths in words, whatever the pattern.
#[must_use]
pub fn topic_matches(pattern: &str, key: &str) -> bool {
    let words = words(key);
    // reached[n]: the pattern so far matches the first n words.
    let mut reached = vec![false; words.len() + 1];
    reached[0] = true;
    for part in self::words(pattern) {
        if part == "#" {
            let first = reached.iter().position(|reached| *reached).unwrap_or(reached.len());
            reached[first..].fill(true);
            continue;
        }
        for n in (0..words.len()).rev() {
            reached[n + 1] = reached[n] && (part == "*" || part == words[n]);
        }
        reached[0] = false;
    }
    reached[words.len()]
}

/// The words of a key. The empty key has none; an empty word between dots counts.
fn words(key: &str) -> Vec<&str> {
    if key.is_empty() { Vec::new() } else { key.split('.').collect() }
}

#[cfg(test)]
mod tests;
