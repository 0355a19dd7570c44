//! What an operator may look at, of a running gateway.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use tidegate_adapters::{Event, Timestamp};

use crate::{config::Config, protect::UpstreamStatus, queue::Queue, telemetry::Metrics};

/// What an operator may look at, of a running gateway. The admin listener reads nothing else.
pub trait Inspect: Send + Sync + 'static {
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;

    /// The queue.
    fn queue(&self) -> Arc<dyn Queue>;

    /// The counters.
    fn metrics(&self) -> Metrics;

    /// Every upstream, by name.
    fn upstreams(&self) -> Vec<UpstreamStatus>;

    /// What the loop holds of each route.
    fn routes(&self) -> BTreeMap<Arc<str>, RouteActivity>;

    /// The broker connections.
    fn broker(&self) -> BrokerActivity;

    /// True from the moment SIGTERM came.
    fn stopping(&self) -> bool;

    /// Wall time.
    fn now(&self) -> Timestamp;

    /// Where the admin listener is.
    fn admin_url(&self) -> String;

    /// Where webhooks come in; `None` when no route takes any.
    fn webhooks_url(&self) -> Option<String>;

    /// Publishes one event to the broker in use.
    fn publish(
        &self,
        exchange: String,
        key: String,
        event: Event,
    ) -> BoxFuture<'static, Result<(), PublishError>>;
}

/// One route, as the loop and its source see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteActivity {
    /// Deliveries being attempted now.
    pub active: u64,
    /// Whether the source is connected and consuming.
    pub source_up: bool,
    /// When something of it was last settled or admitted, or the wait for the upstream last had a
    /// reason (limit, breaker, pause): due work older than this that stands still is a fault.
    pub progress_at: Timestamp,
}

/// The broker connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BrokerActivity {
    /// `embedded` has no connections: always true then.
    pub consume_connected: bool,
    /// As above.
    pub publish_connected: bool,
    /// RabbitMQ has blocked us (`connection.blocked`).
    pub blocked: bool,
}

/// Why an event was not published.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// Nothing is bound for it.
    #[error("unroutable: nothing is bound to exchange `{exchange}` for key `{key}`")]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The routing key.
        key: String,
    },
    /// No broker could ever take it.
    #[error("{0}")]
    Impossible(String),
    /// The broker cannot take it now.
    #[error("broker unavailable: {0}")]
    Unavailable(String),
}
