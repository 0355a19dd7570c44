//! What an operator may look at, of a running gateway.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tidegate_adapters::{Event, Timestamp, embedded, rabbitmq};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Request, View,
    build::{Broker, BrokerKind},
};
use crate::{
    config::{self, Config},
    delivery::Clock,
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

/// What the running parts and the admin listener share.
pub(super) struct Shared {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) metrics: Metrics,
    pub(super) broker: Arc<Broker>,
    pub(super) view: RwLock<Arc<View>>,
    pub(super) generation: RwLock<Generation>,
    pub(super) admin_address: SocketAddr,
    pub(super) stopping: AtomicBool,
    pub(super) clock: Clock,
    pub(super) reload: mpsc::Sender<Request>,
}

impl Shared {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }
}

impl Inspect for Shared {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.view().config)
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.queue)
    }

    fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    fn upstreams(&self) -> Vec<UpstreamStatus> {
        let (now, wall) = (Instant::now(), (self.clock)());
        self.view().upstreams.values().map(|upstream| upstream.status(now, wall)).collect()
    }

    fn routes(&self) -> BTreeMap<Arc<str>, RouteActivity> {
        let now = (self.clock)();
        let view = self.view();
        let routes = view
            .routes
            .iter()
            .map(|(name, (activity, upstream))| (Arc::clone(name), activity.seen(upstream, now)));
        routes.collect()
    }

    fn broker(&self) -> BrokerActivity {
        match &self.broker.kind {
            BrokerKind::Embedded(_) => {
                BrokerActivity { consume_connected: true, publish_connected: true, blocked: false }
            }
            BrokerKind::Rabbitmq { consuming, publishing, .. } => BrokerActivity {
                // Where nothing is consumed, one connection is all there is.
                consume_connected: match consuming.consumes() {
                    true => consuming.state().connected(),
                    false => publishing.connected(),
                },
                publish_connected: publishing.connected(),
                blocked: publishing.blocked(),
            },
        }
    }

    fn pause_upstream(
        &self,
        upstream: &str,
        paused: bool,
    ) -> BoxFuture<'static, Result<(), ControlError>> {
        let Some(upstream) = self.view().upstreams.get(upstream).cloned() else {
            let unknown = ControlError::NoUpstream(upstream.to_owned());
            return Box::pin(std::future::ready(Err(unknown)));
        };
        let queue = Arc::clone(&self.queue);
        Box::pin(async move {
            queue.pause_upstream(upstream.name(), paused).await?;
            upstream.pause(paused);
            Ok(())
        })
    }

    fn reset_upstream(&self, upstream: &str) -> Result<(), ControlError> {
        let view = self.view();
        let known = view.upstreams.get(upstream);
        known.ok_or_else(|| ControlError::NoUpstream(upstream.to_owned()))?.reset();
        Ok(())
    }

    fn reload(&self) -> BoxFuture<'static, Result<Reloaded, ReloadError>> {
        let ask = self.reload.clone();
        Box::pin(async move {
            let (request, answer) = oneshot::channel();
            let stopping = || ReloadError::Unavailable("the gateway is stopping".to_owned());
            ask.send(request).await.map_err(|_| stopping())?;
            answer.await.map_err(|_| stopping())?
        })
    }

    fn generation(&self) -> Generation {
        self.generation.read().clone()
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn admin_url(&self) -> String {
        format!("http://{}", self.admin_address)
    }

    fn webhooks_url(&self) -> Option<String> {
        let view = self.view();
        let tls = view.config.settings.server.tls.is_some();
        let scheme = if tls { "https" } else { "http" };
        view.receiver.as_ref().map(|receiver| format!("{scheme}://{}", receiver.address()))
    }

    fn publish(
        &self,
        exchange: String,
        key: String,
        event: Event,
    ) -> BoxFuture<'static, Result<(), PublishError>> {
        match &self.broker.kind {
            BrokerKind::Embedded(broker) => {
                let broker = broker.clone();
                Box::pin(async move {
                    match broker.publish(&exchange, &key, &event).await {
                        Ok(0) => Err(PublishError::Unroutable { exchange, key }),
                        Ok(_) => Ok(()),
                        Err(error @ embedded::PublishError::KeyTooLong(_)) => {
                            Err(PublishError::Impossible(error.to_string()))
                        }
                        Err(embedded::PublishError::Refused(refused)) => {
                            Err(PublishError::Unavailable(refused.to_string()))
                        }
                    }
                })
            }
            BrokerKind::Rabbitmq { publish, .. } => {
                let handle = publish.clone();
                Box::pin(async move { self::publish(&handle, exchange, key, event).await })
            }
        }
    }
}

async fn publish(
    handle: &rabbitmq::PublishHandle,
    exchange: String,
    key: String,
    event: Event,
) -> Result<(), PublishError> {
    match handle.publish(&exchange, &key, event).await {
        Ok(()) => Ok(()),
        Err(error @ (rabbitmq::PublishError::Refused(_) | rabbitmq::PublishError::TooLarge(_))) => {
            Err(PublishError::Impossible(error.to_string()))
        }
        Err(rabbitmq::PublishError::Unroutable) => Err(PublishError::Unroutable { exchange, key }),
        Err(error) => Err(PublishError::Unavailable(error.to_string())),
    }
}
