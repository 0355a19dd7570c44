//! What an operator may look at, of a running gateway.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;
use tidegate_adapters::{Event, Timestamp};

use crate::{
    config::{self, Config},
    protect::UpstreamStatus,
    queue::{Queue, QueueError},
    telemetry::Metrics,
};

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

    /// Pauses or resumes `upstream`: its calls wait in the queue. Survives restarts.
    fn pause_upstream(
        &self,
        upstream: &str,
        paused: bool,
    ) -> BoxFuture<'static, Result<(), ControlError>>;

    /// Closes the breaker of `upstream`, and forgets the quiet that it asked for.
    ///
    /// # Errors
    /// When there is no such upstream.
    fn reset_upstream(&self, upstream: &str) -> Result<(), ControlError>;

    /// Reads the configuration again and takes it up, if all of it is good.
    fn reload(&self) -> BoxFuture<'static, Result<Reloaded, ReloadError>>;

    /// Which configuration is in force.
    fn generation(&self) -> Generation;

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

/// Which configuration is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// 1 at the start, one more with each reload that changed something.
    pub number: u64,
    /// The first 16 hexadecimal digits of a SHA-256 of the configuration, secrets left out: the
    /// same wherever the same is configured.
    pub hash: String,
    /// Since when.
    pub since: Timestamp,
    /// Why the last reload changed nothing, if it failed; `None` once one has succeeded.
    pub failed: Option<String>,
}

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// What is in force now.
    pub generation: Generation,
    /// What is different, as key paths: `routes.award-points`, `upstreams.loyalty`, `admin`. Empty
    /// when nothing is.
    pub changed: Vec<String>,
    /// What is odd about it, and harmless; one sentence each.
    pub warnings: Vec<String>,
}

/// Why a reload changed nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReloadError {
    /// The configuration is invalid: every problem, as `tidegate check` tells them.
    #[error("{0}")]
    Invalid(config::Report),
    /// It changes something that only a restart can change; the key paths.
    #[error("only a restart changes {}; everything stays as it was", .0.join(", "))]
    Restart(Vec<String>),
    /// It is valid, and cannot be taken up now: the process is stopping, say.
    #[error("{0}")]
    Unavailable(String),
}

/// Why a control did nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// There is no such upstream.
    #[error("there is no upstream `{0}`")]
    NoUpstream(String),
    /// The queue could not keep it.
    #[error(transparent)]
    Queue(#[from] QueueError),
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
