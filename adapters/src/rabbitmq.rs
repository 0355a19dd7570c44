//! RabbitMQ: the session both ends stand on. Its ends: [`consumer`] and [`publisher`].
//!
//! # The session
//!
//! One connection consumes for all routes; whoever publishes has another, because RabbitMQ stops
//! reading from a connection that publishes while an alarm is on, acks and all. On it every route
//! has a channel of its own: RabbitMQ answers a wrong queue argument by closing the channel, and
//! that must not be everybody's.
//!
//! ```text
//!           dial ─► handshake ─► connected ─────────────┐ fails, closes, or
//!            ▲        5 s each      │                   │ a consumer gives it up
//!            └────── wait 0.2 → 4 s, full jitter ◄──────┘
//!                                   │ a channel per route
//!           declare ─► consume ─► flow ──────────────────┐ channel closed, consumer cancelled
//!            ▲                      │ queue full         │
//!            │                      └─► cancel, wait for room
//!            └────── wait 0.2 → 4 s, full jitter ◄───────┘
//! ```
//!
//! The client library can reconnect by itself, but gives up after some minutes, forgets channel
//! errors and leaves streams pending for ever; so it never does. Any doubt ends the session and
//! another one is made, for ever, with no limit to the tries.
//!
//! What may hang has a deadline. The library runs a thread per connection that blocks for as long
//! as its peer is silent, so a deadline alone would leave threads behind: the session keeps a
//! second handle of the socket and shuts it down when it ends, however it ends.

pub mod consumer;
pub mod publisher;

mod backoff;
mod consumers;
mod greeting;
mod message;
mod prefetch;
mod session;
mod shallow;
mod supervise;
mod target;
mod topology;
mod valve;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use time::OffsetDateTime;

pub use consumers::{Binding, Consumers, ConsumersHandle, Wanted, WantedConsumer};
pub use publisher::{PublishError, PublishHandle, PublishService, Publisher};
pub use session::{Broker, ConfigError, Server, SessionError};
pub use supervise::ConnectionState;
pub use target::PublishTarget;
pub use topology::check_arguments;

use crate::{
    Timestamp, TraceContext,
    event::EventMapping,
    expression::Template,
    secret::{Mask, Secret},
};

/// How long RabbitMQ may take to confirm a window of messages before they count as ambiguous.
pub const CONFIRM: Duration = Duration::from_secs(30);

/// `broker.rabbitmq`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// `amqp://` or `amqps://`; the user part is a secret.
    pub url: Secret,
    /// AMQP heartbeat; a dead peer is noticed after twice this.
    #[serde(with = "crate::units::duration")]
    pub heartbeat: Duration,
    /// Private CA and client certificate.
    pub tls: Option<crate::http::TlsConfig>,
}

/// `from.rabbitmq`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerConfig {
    /// The RabbitMQ queue; the loader fills in `tidegate.<route>`.
    pub queue: String,
    /// What the queue is bound to.
    #[serde(default)]
    pub bind: Vec<BindConfig>,
    /// Further queue arguments.
    #[serde(default)]
    pub arguments: BTreeMap<String, serde_json::Value>,
    /// Whether we declare queue, exchanges and bindings.
    pub declare: bool,
    /// Unacked messages at most.
    pub prefetch: u16,
    /// Larger ones become dead, with their first 64 KiB.
    #[serde(with = "crate::units::size")]
    pub max_message: u64,
    /// The repeat window; `None` is off. Used by the gateway's intake.
    #[serde(with = "crate::units::duration_or_off")]
    pub dedupe: Option<Duration>,
    /// How messages that are no CloudEvents become one.
    #[serde(default)]
    pub event: EventMapping,
}

/// One binding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct BindConfig {
    /// Declared as a durable topic exchange when missing.
    pub exchange: String,
    /// A topic pattern: `*` one word, `#` none or more.
    pub key: String,
}

/// `to.rabbitmq`, and what a `reply` says of where it goes.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublisherConfig {
    /// Declared as a durable topic exchange when missing.
    pub exchange: String,
    /// The routing key.
    pub key: Template,
    /// Message headers; a single null placeholder leaves one out.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// How the event travels.
    pub envelope: Envelope,
    /// What becomes of an event that nothing is bound for.
    pub on_unroutable: OnUnroutable,
}

/// `envelope:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Envelope {
    /// Structured CloudEvents JSON, attributes and data in the body.
    Cloudevents,
    /// Binary CloudEvents: attributes in headers, the data as the body.
    CloudeventsBinary,
    /// `{"metadata": {…}, "data": …}`.
    MetadataData,
}

/// `on_unroutable:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnroutable {
    /// Try again until something is bound.
    Retry,
    /// Dead, `unroutable`.
    Dead,
    /// Nobody wants it: delivered.
    Drop,
}

/// A rendered message. Its body and properties are written from the event when it is sent.
#[derive(Debug, Clone)]
pub struct PublishRequest {
    /// Where it goes.
    pub exchange: Arc<str>,
    /// Its routing key; at most 255 bytes.
    pub key: String,
    /// Its headers, besides those of the envelope.
    pub headers: Vec<(String, String)>,
    /// How the event is written.
    pub envelope: Envelope,
    /// What follows when nothing is bound for it.
    pub on_unroutable: OnUnroutable,
    /// The trace it is sent in; without one, the event's.
    pub trace: Option<TraceContext>,
    /// What its record is masked by.
    pub mask: Mask,
}

/// The one place that reads the wall clock for RabbitMQ's ends.
#[expect(clippy::disallowed_methods, reason = "the one place")]
fn wall_clock() -> Timestamp {
    let since_epoch = OffsetDateTime::now_utc() - OffsetDateTime::UNIX_EPOCH;
    Timestamp(i64::try_from(since_epoch.whole_milliseconds()).unwrap_or(i64::MAX))
}
