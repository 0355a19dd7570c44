//! From a call to a job, and from its answer to a receipt or a failure.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use tokio::sync::{mpsc, oneshot};

use super::{Job, PublishError};
use crate::{
    AttemptResult, Call, DeadReason, Exchange, Failure, Health, Receipt, Request, TraceContext,
    Verdict,
    event::{Event, Written},
    rabbitmq::{Envelope, OnUnroutable, PublishRequest, wall_clock},
};

/// AMQP's word for a message that is written to disk.
const PERSISTENT: u8 = 2;

/// So much of the message is kept with an attempt, in bytes.
const KEPT: usize = 4 << 10;

/// Looked at beyond [`KEPT`], so that a secret across the cut is found before the cut is made.
const MARGIN: usize = 4 << 10;

/// Headers in a message at most, names and values together, in bytes. All properties go into one
/// frame of 128 KiB; RabbitMQ answers a larger one by closing the connection.
const HEADERS_MAX: usize = 96 << 10;

/// A message as RabbitMQ gets it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

/// Calls the broker. Clones share its connection.
#[derive(Debug, Clone)]
pub struct PublishService {
    jobs: mpsc::Sender<Job>,
}

impl PublishService {
    pub(super) fn new(jobs: mpsc::Sender<Job>) -> Self {
        Self { jobs }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("exchange", &self.exchange).field("key", &self.key).finish()
    }
}

impl tower::Service<Call> for PublishService {
    type Response = Receipt;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Receipt, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let jobs = self.jobs.clone();
        Box::pin(async move {
            let Request::Rabbitmq(request) = &call.request else {
                unreachable!("a route's target renders for its own leaf")
            };
            let message = Message::sendable(&call.delivery.event, request)?;
            let record = record(request, &message);
            let (answer, answered) = oneshot::channel();
            let job = Job {
                exchange: Arc::clone(&request.exchange),
                key: request.key.clone(),
                declare: true,
                message,
                answer,
            };
            if jobs.send(job).await.is_err() {
                return Err(not_sent("shutting down"));
            }
            // A job that is dropped with the publisher may have been published.
            let lost = || Err(PublishError::Ambiguous("shutting down".to_owned()));
            judge(answered.await.unwrap_or_else(|_| lost()), request, record)
        })
    }
}

impl Message {
    /// `event` as `request` wants it.
    fn new(event: &Event, request: &PublishRequest) -> Self {
        let written = match request.envelope {
            Envelope::Cloudevents => event.write_structured(),
            Envelope::CloudeventsBinary => event.write_binary(),
            Envelope::MetadataData => event.write_metadata_data(),
        };
        Self::of(event, written, &request.headers, request.trace.as_ref())
    }

    /// The same, if a message has room for it.
    fn sendable(event: &Event, request: &PublishRequest) -> Result<Self, Failure> {
        let message = Self::new(event, request);
        let headers = message.headers_size();
        if headers > HEADERS_MAX {
            let detail = format!(
                "headers: {headers} bytes, {HEADERS_MAX} at most fit into a message; put less \
                 into them, or write the event with `envelope: cloudevents`"
            );
            return Err(unsendable(detail));
        }
        Ok(message)
    }

    /// `event` as a structured CloudEvent.
    pub(super) fn structured(event: &Event) -> Self {
        Self::of(event, event.write_structured(), &[], None)
    }

    fn of(
        event: &Event,
        written: Written,
        own: &[(String, String)],
        trace: Option<&TraceContext>,
    ) -> Self {
        let mut headers = FieldTable::default();
        let mut set = |name: &str, value: &str| {
            if let Some(name) = short(name) {
                headers.insert(name, AMQPValue::LongString(LongString::from(value)));
            }
        };
        for (name, value) in written.headers.iter().chain(own) {
            set(name, value);
        }
        if let Some(trace) = trace.or(event.traceparent.as_ref()) {
            set("traceparent", &trace.to_string());
            if let Some(state) = trace.state() {
                set("tracestate", state);
            }
        }
        let mut properties =
            BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
        if let Some(id) = short(&event.id) {
            properties = properties.with_message_id(id);
        }
        // A type that is too long for its property is in the envelope all the same.
        if let Some(kind) = short(&event.kind) {
            properties = properties.with_type(kind);
        }
        if let Some(content_type) = written.content_type.as_deref().and_then(short) {
            properties = properties.with_content_type(content_type);
        }
        if let Some(encoding) = written.content_encoding.as_deref().and_then(short) {
            properties = properties.with_content_encoding(encoding);
        }
        if let Ok(seconds) = u64::try_from(wall_clock().0 / 1000) {
            properties = properties.with_timestamp(seconds);
        }
        Self { id: event.id.clone(), body: written.body, properties }
    }

    /// What the headers take on the wire, in bytes.
    fn headers_size(&self) -> usize {
        // Around a name its length, around a value its type and length.
        const AROUND: usize = 1 + 1 + 4;
        let headers = self.properties.headers().iter().flat_map(|headers| headers.inner());
        let size = |(name, value): (&ShortString, &AMQPValue)| match value {
            AMQPValue::LongString(text) => name.as_str().len() + text.as_bytes().len() + AROUND,
            _ => name.as_str().len() + AROUND,
        };
        headers.map(size).sum()
    }
}

/// A message as it would have gone to RabbitMQ.
#[derive(Debug, Clone)]
pub struct Published {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub key: String,
    /// `content_type`.
    pub content_type: Option<String>,
    /// Headers, those of the envelope too.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// Publishes `event` by `request` as the service does, with `answer` in RabbitMQ's stead.
///
/// # Errors
/// As the service's.
pub fn rehearse(
    event: &Event,
    request: &PublishRequest,
    answer: impl FnOnce(Published) -> Result<(), PublishError>,
) -> Result<Receipt, Failure> {
    let message = Message::sendable(event, request)?;
    let record = record(request, &message);
    let headers = message.properties.headers().iter().flat_map(|headers| headers.inner());
    let headers = headers.filter_map(|(name, value)| match value {
        AMQPValue::LongString(text) => Some((name.to_string(), text.to_string())),
        _ => None,
    });
    let published = Published {
        exchange: request.exchange.to_string(),
        key: request.key.clone(),
        content_type: message.properties.content_type().as_ref().map(ToString::to_string),
        headers: headers.collect(),
        body: message.body.clone(),
    };
    judge(answer(published), request, record)
}

/// `None` for what is longer than AMQP allows. The library's own conversion panics then.
fn short(text: &str) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}

/// What follows from RabbitMQ's answer.
fn judge(
    answer: Result<(), PublishError>,
    request: &PublishRequest,
    record: String,
) -> Result<Receipt, Failure> {
    let retry = Verdict::Retry { after: None };
    let (result, verdict, detail) = match answer {
        Ok(()) => return Ok(receipt(AttemptResult::Success, record)),
        Err(PublishError::Unroutable) => {
            let verdict = match request.on_unroutable {
                OnUnroutable::Drop => return Ok(receipt(AttemptResult::Unroutable, record)),
                OnUnroutable::Dead => Verdict::Dead(DeadReason::Unroutable),
                OnUnroutable::Retry => retry,
            };
            let detail = format!(
                "nothing is bound to exchange `{}` for key `{}`",
                request.exchange, request.key
            );
            (AttemptResult::Unroutable, verdict, detail)
        }
        Err(error @ PublishError::Nacked) => (AttemptResult::Nack, retry, error.to_string()),
        Err(error @ PublishError::Refused(_)) => {
            (AttemptResult::Protocol, retry, error.to_string())
        }
        // It would be as large the next time.
        Err(error @ PublishError::TooLarge(_)) => {
            let verdict = Verdict::Dead(DeadReason::Rejected);
            (AttemptResult::Oversize, verdict, error.to_string())
        }
        Err(error @ PublishError::Ambiguous(_)) => {
            (AttemptResult::Ambiguous, retry, error.to_string())
        }
        Err(PublishError::Unavailable(why)) => return Err(not_sent(&why)),
    };
    Err(Failure {
        result: Some(result),
        verdict,
        health: Health::Silent,
        throttle: None,
        detail: request.mask.apply(&detail),
        exchange: Exchange { request: record, ..Exchange::default() },
        response: None,
    })
}

fn receipt(result: AttemptResult, request: String) -> Receipt {
    let exchange = Exchange { request, ..Exchange::default() };
    Receipt { result, health: Health::Good, exchange, response: None }
}

/// It never came to an attempt.
fn not_sent(why: &str) -> Failure {
    Failure { verdict: Verdict::Retry { after: None }, ..unsendable(why.to_owned()) }
}

/// It never will: nothing was sent, and trying again would end alike.
fn unsendable(detail: String) -> Failure {
    Failure {
        result: None,
        verdict: Verdict::Dead(DeadReason::Expression),
        health: Health::Silent,
        throttle: None,
        detail,
        exchange: Exchange::default(),
        response: None,
    }
}

/// What was sent, for the attempt's record: masked, the body cut.
fn record(request: &PublishRequest, message: &Message) -> String {
    let properties = &message.properties;
    let mut text = format!("PUBLISH {} {}\n", request.exchange, request.key);
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name}: {value}\n"));
    line("message_id", &message.id);
    if let Some(content_type) = properties.content_type() {
        line("content_type", content_type.as_str());
    }
    for (name, value) in properties.headers().iter().flat_map(|headers| headers.inner()) {
        if let AMQPValue::LongString(value) = value {
            line(name.as_str(), &value.to_string());
        }
    }
    text.push('\n');
    let looked_at = &message.body[..message.body.len().min(KEPT + MARGIN)];
    text.push_str(&String::from_utf8_lossy(looked_at));
    let mut text = request.mask.apply(&text);
    if text.len() > KEPT {
        let end = (0..=KEPT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Data, secret::Mask};

    const SECRET: &str = "secret-of-some-length";

    fn event(data: &[u8]) -> Event {
        Event {
            id: "e-1".to_owned(),
            source: "/shop".to_owned(),
            kind: "k".repeat(256),
            subject: None,
            time: None,
            datacontenttype: None,
            dataschema: None,
            extensions: std::collections::BTreeMap::new(),
            traceparent: None,
            hops: 0,
            data: Data::Binary(data.to_vec().into()),
        }
    }

    fn request(headers: Vec<(String, String)>) -> PublishRequest {
        let mask = Mask::default();
        mask.add(SECRET);
        PublishRequest {
            exchange: "shop".into(),
            key: "k".to_owned(),
            headers,
            envelope: Envelope::CloudeventsBinary,
            on_unroutable: OnUnroutable::Retry,
            trace: None,
            mask,
        }
    }

    #[test]
    fn what_is_kept_of_a_message_is_short_and_shows_no_secret() {
        for position in (0..2 * KEPT).step_by(7) {
            let event = event(format!("{}{SECRET}", "é".repeat(position / 2)).as_bytes());
            let headers =
                vec![("x-large".to_owned(), format!("{SECRET} {}", "x".repeat(position)))];
            for request in [request(Vec::new()), request(headers)] {
                let record = record(&request, &Message::new(&event, &request));
                assert!(record.len() <= KEPT, "{}", record.len());
                assert!(!record.contains(&SECRET[..Mask::SHORTEST]), "{position}");
            }
        }
    }

    #[test]
    fn a_type_that_does_not_fit_its_property_is_in_the_envelope_only() {
        let request = request(Vec::new());
        let message = Message::new(&event(b"1"), &request);
        assert_eq!(*message.properties.kind(), None);
        let headers = message.properties.headers().as_ref().unwrap();
        let kind = AMQPValue::LongString(LongString::from("k".repeat(256)));
        assert_eq!(headers.inner().get("ce-type"), Some(&kind));
    }
}
