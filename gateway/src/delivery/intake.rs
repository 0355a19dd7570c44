//! The yes: from an arrival to a durable delivery.
//!
//! What depends on the configuration and must not change later is decided here, once: whether the
//! route wants the event (`when`) and which others it must not overtake (`order_by`). An event
//! whose filter or key cannot be told is kept as dead; it would fail again each time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tidegate_adapters::{
    Accepted, Arrival, DeadReason, Event, Intake, Refused, Rejection,
    expression::{Expression, ExpressionError, Input, Variables},
};
use tokio::time::Instant;

use super::Activity;
use crate::{
    config::RateLimitConfig,
    protect::rate_limit::{Keys, RateLimits, Taken},
    queue::{Append, AppendError, Content, Queue, Space},
    telemetry::{Ending, Metrics, SourceTracer},
};

/// The intake of one route, for as long as the process lives: a reload changes its rules.
pub struct RouteIntake {
    route: Arc<str>,
    queue: Arc<dyn Queue>,
    rules: RwLock<Arc<Rules>>,
    limit: RateLimits,
    activity: Arc<Activity>,
    metrics: Metrics,
}

/// What the configuration in force says of a route's arrivals.
pub struct Rules {
    /// What is decided of each event.
    pub judge: Judge,
    /// Whether the source guards against repeats at all.
    pub dedupe: bool,
    /// How many requests are let in; `None` is all.
    pub limit: Option<RateLimitConfig>,
    /// Makes spans of what arrives.
    pub tracer: SourceTracer,
}

/// What is decided of each event of a route, once. Pure.
pub struct Judge {
    when: Option<Expression>,
    order_by: Option<Expression>,
    variables: Variables,
}

impl RouteIntake {
    /// The intake of `route` by `rules`. A limit begins with its burst whole.
    #[must_use]
    pub fn new(
        route: Arc<str>,
        rules: Rules,
        queue: Arc<dyn Queue>,
        activity: Arc<Activity>,
        metrics: Metrics,
    ) -> Self {
        let limit = RateLimits::rested(rules.limit.as_slice(), Instant::now());
        let rules = RwLock::new(Arc::new(rules));
        Self { route, queue, rules, limit, activity, metrics }
    }

    /// Takes up other rules; what is spent of the limit stays spent.
    pub fn set_rules(&self, rules: Rules) {
        self.limit.reconfigure(rules.limit.as_slice(), Instant::now());
        *self.rules.write() = Arc::new(rules);
    }
}

impl Rules {
    fn append(&self, arrival: Arrival) -> Append {
        let own_id = arrival.own_id;
        let (content, key) = match arrival.event {
            Ok(event) => self.judge.judge(Arc::new(event)),
            Err(invalid) => (Content::Invalid(invalid), None),
        };
        Append { content, key, dedupe: self.dedupe && own_id }
    }
}

impl Judge {
    /// By these expressions of `route`.
    #[must_use]
    pub fn new(route: &Arc<str>, when: Option<Expression>, order_by: Option<Expression>) -> Self {
        let variables = Variables { route: Arc::clone(route), ..Variables::default() };
        Self { when, order_by, variables }
    }

    /// What is kept of `event`, and its order key.
    #[must_use]
    pub fn judge(&self, event: Arc<Event>) -> (Content, Option<Arc<str>>) {
        let input = Input::event(Arc::clone(&event));
        // A defect in a library must cost this event, not the process.
        let judged = catch_unwind(AssertUnwindSafe(|| {
            self.wanted(&input).and_then(|wanted| Ok((wanted, self.key(&input)?)))
        }));
        let judged = judged.unwrap_or_else(|_| {
            let message = "the expression panicked; this is a defect of Tidegate".to_owned();
            Err(ExpressionError { message, offset: None })
        });
        match judged {
            Ok((true, key)) => (Content::Pending(event), key),
            Ok((false, _)) => (Content::Filtered(event), None),
            Err(failed) => (Content::Dead(event, DeadReason::Expression, failed.message), None),
        }
    }

    fn wanted(&self, input: &Input) -> Result<bool, ExpressionError> {
        let Some(when) = &self.when else { return Ok(true) };
        Ok(when.run(input, &self.variables).map_err(|failed| named("when", failed))?.is_true())
    }

    /// The order key as text: a string as it is, anything else as its JSON.
    fn key(&self, input: &Input) -> Result<Option<Arc<str>>, ExpressionError> {
        let Some(order_by) = &self.order_by else { return Ok(None) };
        let key =
            order_by.run(input, &self.variables).map_err(|failed| named("order_by", failed))?;
        if key.is_null() {
            return Ok(None);
        }
        let text = match key.to_value() {
            serde_json::Value::String(text) => text,
            _ => String::from_utf8_lossy(&key.to_json()).into_owned(),
        };
        Ok(Some(text.into()))
    }
}

impl RouteIntake {
    fn take(
        &self,
        mut batch: Vec<Arrival>,
        space: Space,
    ) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        let rules = Arc::clone(&self.rules.read());
        let received = rules.tracer.receive(&mut batch);
        let appends: Vec<Append> = batch.into_iter().map(|arrival| rules.append(arrival)).collect();
        let reasons: Vec<DeadReason> = appends.iter().map(dead_reason).collect();
        let committed = self.queue.append(&self.route, appends, space);
        let (route, metrics) = (Arc::clone(&self.route), self.metrics.clone());
        Box::pin(async move {
            match committed.await {
                Ok(accepted) => {
                    received.end(Ok(&accepted));
                    count(&metrics, &route, &accepted, &reasons);
                    Ok(accepted)
                }
                Err(AppendError::Full(_)) => {
                    received.end(Err(Rejection::QueueFull));
                    metrics.rejected(&route, Rejection::QueueFull, reasons.len() as u64);
                    Err(Refused::Full)
                }
                Err(AppendError::Closed) => {
                    received.end(Err(Rejection::Closed));
                    metrics.rejected(&route, Rejection::Closed, reasons.len() as u64);
                    Err(Refused::Closed)
                }
            }
        })
    }
}

impl Intake for RouteIntake {
    fn accept(&self, batch: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        self.take(batch, Space::Capped)
    }

    fn accept_inside(
        &self,
        batch: Vec<Arrival>,
    ) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        self.take(batch, Space::Exempt)
    }

    fn admit(&self) -> Result<(), Duration> {
        let now = Instant::now();
        match self.limit.take_admitted(&Keys::none(), now, now) {
            Taken::Now | Taken::Stale => Ok(()),
            Taken::Upstream(at) | Taken::Key(at) => Err(at.saturating_duration_since(now)),
        }
    }

    fn rejected(&self, why: Rejection) {
        self.metrics.rejected(&self.route, why, 1);
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        self.queue.room(&self.route)
    }

    fn connected(&self, up: bool) {
        self.activity.set_source_up(up);
        self.queue.connected(&self.route, up);
    }
}

fn named(key: &str, mut failed: ExpressionError) -> ExpressionError {
    failed.message = format!("{key}: {}", failed.message);
    failed
}

/// Why it would be dead, if the queue says that it is.
fn dead_reason(append: &Append) -> DeadReason {
    match &append.content {
        Content::Dead(_, reason, _) => *reason,
        Content::Pending(_) | Content::Filtered(_) | Content::Invalid(_) => DeadReason::Invalid,
    }
}

fn count(metrics: &Metrics, route: &Arc<str>, accepted: &[Accepted], reasons: &[DeadReason]) {
    let (mut taken, mut repeats) = (0, 0);
    for (accepted, reason) in accepted.iter().zip(reasons) {
        match accepted {
            Accepted::Duplicate(_) => repeats += 1,
            Accepted::Pending(_) => taken += 1,
            Accepted::Filtered => {
                taken += 1;
                metrics.ended(route, Ending::Filtered);
            }
            Accepted::Dead(_) => {
                taken += 1;
                metrics.ended(route, Ending::Dead(*reason));
            }
        }
    }
    if taken > 0 {
        metrics.accepted(route, taken);
    }
    if repeats > 0 {
        metrics.duplicate(route, repeats);
    }
}
