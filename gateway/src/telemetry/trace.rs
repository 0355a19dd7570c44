//! One trace from what arrived, through the queue, to the attempt and the upstream.
//!
//! ```text
//! sender's span ──► process orders (CONSUMER)   ──► POST /members/{…} (CLIENT), attempt 1
//!                   POST /hooks/x  (SERVER)     ├─► POST /members/{…} (CLIENT), attempt 2
//!                   kept with the event         └─► … hours later: the same trace
//! ```
//!
//! The context that arrived is the parent of a span at the intake; that one's is stored with the
//! event and is the parent of every attempt; and an attempt's goes on the wire. Names are those of
//! the OpenTelemetry semantic conventions for HTTP, messaging and CloudEvents
//! (<https://opentelemetry.io/docs/specs/semconv/>); `tidegate.*` are ours.
//!
//! Whether a trace is recorded is decided where it begins: by its sender, or else by its id, so
//! that everybody who decides by the same ratio decides alike. What is not recorded is handed on
//! all the same. Without `telemetry` nothing is recorded and nothing made at the intake; attempts
//! carry on what came, or else a trace that belongs to the delivery, the same for each attempt.
//!
//! No attribute holds a body, a query or a header.

use std::sync::Arc;

use tidegate_adapters::{
    Accepted, Arrival, AttemptResult, Delivery, Event, Rejection, Request, TraceContext,
    http::webhook::{VerifyConfig, WebhookConfig},
};
use tokio::sync::mpsc;
use url::Url;

use super::{
    Metrics,
    recorder::{Open, Recorder},
    span::{About, Attribute, Kind, Span, Value},
};
use crate::{
    config::{Broker, RouteConfig, Source, Target},
    queue::Outcome,
};

/// Records spans, or does not. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Tracer {
    recorder: Option<Recorder>,
}

/// What makes spans of what arrives on one route.
#[derive(Clone, Debug, Default)]
pub struct SourceTracer {
    recorder: Option<Recorder>,
    about: Option<Arc<About>>,
    /// What was told yes, where that is a status code.
    status: Option<u16>,
}

/// The spans of a batch that is on its way into the queue.
#[derive(Debug, Default)]
pub struct Received {
    recorder: Option<Recorder>,
    status: Option<u16>,
    /// With the place of each one's event in the batch.
    spans: Vec<(usize, Open)>,
}

/// What makes spans of one route's attempts.
#[derive(Clone, Debug, Default)]
pub struct TargetTracer {
    recorder: Option<Recorder>,
    about: Option<Arc<About>>,
}

/// One attempt under way.
#[derive(Debug)]
pub struct AttemptSpan {
    context: TraceContext,
    recorded: Option<(Recorder, Open)>,
}

impl Tracer {
    /// One that records nothing.
    #[must_use]
    pub fn off() -> Self {
        Self::default()
    }

    /// One that hands the share `sample` of all traces that begin here, and every trace whose
    /// sender records it, to the receiver.
    pub(super) fn recording(sample: f64, metrics: Metrics) -> (Self, mpsc::Receiver<Span>) {
        let (recorder, ended) = Recorder::new(sample, metrics);
        (Self { recorder: Some(recorder) }, ended)
    }

    /// For what arrives on `route`.
    #[must_use]
    pub fn source(&self, route: &Arc<str>, config: &RouteConfig, broker: &Broker) -> SourceTracer {
        let Some(recorder) = self.recorder.clone() else { return SourceTracer::default() };
        let mut attributes = vec![("tidegate.route", Value::Shared(Arc::clone(route)))];
        let (name, kind, status) = match &config.from {
            Source::Webhook(webhook) => {
                attributes.push(("http.request.method", Value::Word("POST")));
                attributes.push(("http.route", Value::text(&webhook.path)));
                attributes.push(("url.path", Value::text(&webhook.path)));
                (format!("POST {}", webhook.path), Kind::Server, Some(yes_status(webhook)))
            }
            Source::Rabbitmq(source) => {
                attributes.extend(messaging(broker, "process", &source.queue));
                (format!("process {}", source.queue), Kind::Consumer, None)
            }
            // A reply comes out of an attempt, whose span is all there is to say.
            Source::Reply(_) => return SourceTracer::default(),
        };
        let about = Some(Arc::new(About { name, kind, attributes }));
        SourceTracer { recorder: Some(recorder), about, status }
    }

    /// For the attempts of `route`, to the upstream at `url` where its target is one.
    #[must_use]
    pub fn target(
        &self,
        route: &Arc<str>,
        config: &RouteConfig,
        url: Option<&Url>,
        broker: &Broker,
    ) -> TargetTracer {
        let Some(recorder) = self.recorder.clone() else { return TargetTracer::default() };
        let mut attributes = vec![("tidegate.route", Value::Shared(Arc::clone(route)))];
        let (name, kind) = match &config.to {
            Target::Http(target) => {
                let base = url.map_or("", |url| url.path().trim_end_matches('/'));
                let path = target.path.as_ref().map_or("", |path| path.source());
                let template = format!("{base}{path}");
                let template = if template.is_empty() { "/".to_owned() } else { template };
                let name = format!("{} {template}", target.method);
                attributes.push(("tidegate.upstream", Value::text(&target.upstream)));
                attributes.push(("http.request.method", Value::text(target.method.as_str())));
                attributes.push(("url.template", Value::text(&template)));
                if let Some(host) = url.and_then(Url::host_str) {
                    attributes.push(("server.address", Value::text(host)));
                }
                if let Some(port) = url.and_then(Url::port_or_known_default) {
                    attributes.push(("server.port", Value::Number(port.into())));
                }
                (name, Kind::Client)
            }
            Target::Rabbitmq(target) => {
                attributes.extend(messaging(broker, "send", &target.exchange));
                (format!("send {}", target.exchange), Kind::Producer)
            }
        };
        TargetTracer {
            recorder: Some(recorder),
            about: Some(Arc::new(About { name, kind, attributes })),
        }
    }
}

impl SourceTracer {
    /// Begins the spans of `batch`, and puts their contexts into its events. What came by one
    /// request and names one parent has one span; every message has its own.
    pub fn receive(&self, batch: &mut [Arrival]) -> Received {
        let (Some(recorder), Some(about)) = (&self.recorder, &self.about) else {
            return Received::default();
        };
        let mut spans = Vec::new();
        let mut last: Option<(Option<TraceContext>, TraceContext)> = None;
        for (at, arrival) in batch.iter_mut().enumerate() {
            let Ok(event) = &mut arrival.event else { continue };
            let parent = event.traceparent.take();
            if let Some((known, context)) = &last
                && about.kind == Kind::Server
                && *known == parent
            {
                event.traceparent = Some(context.clone());
                continue;
            }
            let context = recorder.beneath(parent.as_ref(), || TraceContext::root(false));
            event.traceparent = Some(context.clone());
            if context.is_sampled() {
                let mut open = Open::new(about, &context, parent.as_ref(), of_event(event));
                if about.kind == Kind::Consumer && arrival.own_id {
                    open.add("messaging.message.id", Value::text(&event.id));
                }
                spans.push((at, open));
            }
            last = Some((parent, context));
        }
        Received { recorder: Some(recorder.clone()), status: self.status, spans }
    }
}

impl Received {
    /// Ends the spans: what became of each arrival, or why none was taken.
    pub fn end(self, answer: Result<&[Accepted], Rejection>) {
        let Some(recorder) = self.recorder else { return };
        for (at, mut open) in self.spans {
            let status = match answer {
                Ok(accepted) => {
                    open.accepted(accepted.get(at));
                    self.status
                }
                Err(why) => {
                    open.fail(why.as_str());
                    // The only ones that come as far as the queue: full, and closed.
                    self.status.map(|_| 503)
                }
            };
            if let Some(status) = status {
                open.add("http.response.status_code", Value::Number(status.into()));
            }
            recorder.record(open);
        }
    }
}

impl TargetTracer {
    /// Begins attempt number `number` (1 for the first) of `delivery`, and puts its context into
    /// `request`.
    pub fn attempt(&self, delivery: &Delivery, number: u32, request: &mut Request) -> AttemptSpan {
        let parent = delivery.event.traceparent.as_ref();
        let root = || TraceContext::root_of(delivery.idempotency_key(), false);
        let (Some(recorder), Some(about)) = (&self.recorder, &self.about) else {
            let context = parent.map_or_else(root, TraceContext::child);
            request.carry(&context);
            return AttemptSpan { context, recorded: None };
        };
        let context = recorder.beneath(parent, root);
        request.carry(&context);
        let recorded = context.is_sampled().then(|| {
            let mut open = Open::new(about, &context, parent, of_event(&delivery.event));
            open.add("tidegate.delivery", Value::Text(delivery.id.to_string()));
            match request {
                Request::Http(_) if number > 1 => {
                    let again = Value::Number(i64::from(number) - 1);
                    open.add("http.request.resend_count", again);
                }
                Request::Http(_) => {}
                Request::Rabbitmq(request) => {
                    let key = "messaging.rabbitmq.destination.routing_key";
                    open.add(key, Value::text(&request.key));
                    open.add("messaging.message.id", Value::text(&delivery.event.id));
                }
            }
            (recorder.clone(), open)
        });
        AttemptSpan { context, recorded }
    }
}

impl AttemptSpan {
    /// What went on the wire.
    #[must_use]
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Ends it: how it went, the status of the answer, and what follows. One that never reached
    /// for the network is no attempt, and leaves no span.
    pub fn end(self, result: Option<AttemptResult>, status: Option<u16>, outcome: &Outcome) {
        let (Some((recorder, mut open)), Some(result)) = (self.recorded, result) else { return };
        if let Some(status) = status {
            open.add("http.response.status_code", Value::Number(status.into()));
        }
        let word = match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Retry { .. } => "retry",
            Outcome::Dead { reason, .. } => {
                open.add("tidegate.reason", Value::Word(reason.as_str()));
                "dead"
            }
        };
        open.add("tidegate.outcome", Value::Word(word));
        if !matches!(outcome, Outcome::Delivered) {
            open.fail(result.as_str());
        }
        recorder.record(open);
    }
}

fn of_event(event: &Event) -> Vec<Attribute> {
    let mut attributes = Vec::with_capacity(8);
    attributes.push(("cloudevents.event_id", Value::text(&event.id)));
    attributes.push(("cloudevents.event_source", Value::text(&event.source)));
    attributes.push(("cloudevents.event_type", Value::text(&event.kind)));
    attributes
}

fn messaging(broker: &Broker, operation: &'static str, destination: &str) -> [Attribute; 4] {
    let system = match broker {
        Broker::Rabbitmq(_) => "rabbitmq",
        Broker::Embedded(_) => "tidegate",
    };
    [
        ("messaging.system", Value::Word(system)),
        ("messaging.operation.type", Value::Word(operation)),
        ("messaging.operation.name", Value::Word(operation)),
        ("messaging.destination.name", Value::text(destination)),
    ]
}

/// What a sender is answered whose request was taken.
fn yes_status(webhook: &WebhookConfig) -> u16 {
    match (&webhook.respond, &webhook.verify) {
        (Some(respond), _) => respond.status,
        (None, VerifyConfig::Shopify(_) | VerifyConfig::Slack(_) | VerifyConfig::Twilio(_)) => 200,
        (None, _) => 202,
    }
}

#[cfg(test)]
mod tests;
