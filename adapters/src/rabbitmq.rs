//! RabbitMQ: the session both ends stand on. Its ends: [`consumer`], and (not yet) `publisher`.

pub mod consumer;

use std::{collections::BTreeMap, time::Duration};

use crate::{
    expression::{Expression, Template},
    secret::Secret,
};

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
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindConfig {
    /// Declared as a durable topic exchange when missing.
    pub exchange: String,
    /// A topic pattern: `*` one word, `#` none or more.
    pub key: String,
}

/// `event:`: which expression fills which attribute. Absent ones have the envelope's default.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventMapping {
    /// Default: the message id, else a fresh one.
    pub id: Option<Template>,
    /// Default `/<route>`.
    pub source: Option<Template>,
    /// Default: the routing key.
    #[serde(rename = "type")]
    pub kind: Option<Template>,
    /// Default: none.
    pub subject: Option<Template>,
    /// Default: the message's timestamp, else now.
    pub time: Option<Template>,
    /// Further attributes.
    pub extensions: BTreeMap<String, Template>,
    /// Default: the body.
    pub data: Option<Expression>,
}
