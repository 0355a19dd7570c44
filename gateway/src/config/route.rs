//! `routes.<name>`, as it is written; and the routes that nobody writes, of replies.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tidegate_adapters::{
    event::EventMapping,
    expression::Expression,
    http::{HttpTargetConfig, WebhookConfig},
    rabbitmq::{ConsumerConfig, PublisherConfig},
};

use super::RetryConfig;

/// `routes.<name>`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// For people.
    pub description: Option<String>,
    /// Where it takes in.
    pub from: Source,
    /// Looked at on arrival.
    pub when: Option<Expression>,
    /// The order key.
    pub order_by: Option<Expression>,
    /// What a dead delivery does to its key.
    pub on_dead: OnDead,
    /// Where it lets out.
    pub to: Target,
    /// The upstream's, or the broker's, with the route's own keys over it.
    pub retry: RetryConfig,
    /// What came of an HTTP delivery, as an event.
    pub reply: Option<ReplyConfig>,
}

impl RouteConfig {
    /// The upstream it calls; `None` where it publishes to the broker.
    #[must_use]
    pub fn upstream(&self) -> Option<&str> {
        match &self.to {
            Target::Http(target) => Some(&target.upstream),
            Target::Rabbitmq(_) => None,
        }
    }

    /// Its source's repeat window; `None` is off.
    #[must_use]
    pub fn dedupe(&self) -> Option<Duration> {
        match &self.from {
            Source::Rabbitmq(source) => source.dedupe,
            Source::Webhook(source) => source.dedupe,
            Source::Reply(_) => None,
        }
    }
}

/// `reply:`; only with an `http` target. Delivered by the route `<route>/reply`.
#[derive(Debug, Clone, Deserialize)]
pub struct ReplyConfig {
    /// Which ends it tells of.
    pub on: Vec<ReplyOn>,
    /// Looked at when the delivery ends; false or null: no reply.
    pub when: Option<Expression>,
    /// Its attributes and data, of `{event, outcome, reason, response}`; `type` is there, `id` is
    /// ours.
    pub event: EventMapping,
    /// Where it goes, and how.
    #[serde(flatten)]
    pub to: PublisherConfig,
}

/// An entry of `reply.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplyOn {
    /// The API took it.
    Delivered,
    /// It was given up.
    Dead,
}

/// `from:`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "one a route, made once and never moved about")]
pub enum Source {
    /// A RabbitMQ queue, or its stand-in on the embedded broker.
    Rabbitmq(ConsumerConfig),
    /// A third party's webhooks.
    Webhook(WebhookConfig),
    /// What came of the deliveries of another route. Never written: the loader makes such a route
    /// of every `reply`.
    #[serde(skip)]
    Reply(Arc<str>),
}

/// `to:`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::large_enum_variant, reason = "one a route, made once and never moved about")]
pub enum Target {
    /// A third-party API.
    Http(HttpTargetConfig),
    /// An exchange of the broker.
    Rabbitmq(PublisherConfig),
}

/// `on_dead:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDead {
    /// The next of its key goes on.
    #[default]
    Continue,
    /// Its key waits for an operator.
    Hold,
}
