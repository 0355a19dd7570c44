//! Config → App → run(shutdown): the table of contents of the process.
//!
//! ```text
//! App::new    queue ─► upstreams ─► routes (target, protections, intake) ─► broker ─► admin
//! App::run    admin │ loops │ sources            … until shutdown, or until something fails
//!             not ready ─► sources stop ─► loops drain ─► queue closes ─► admin stops
//! ```

mod build;
mod inspect;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tidegate_adapters::{
    Event, Timestamp,
    embedded::{self, Embedded},
    rabbitmq,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Admin,
    config::Config,
    delivery::{self, Activity, Clock},
    protect::{Upstream, UpstreamStatus},
    queue::{Queue, QueueError},
    telemetry::Metrics,
};

pub use inspect::{BrokerActivity, Inspect, PublishError, RouteActivity};

/// How long sources get to stop before the loops are told to.
const SOURCES_STOP: Duration = Duration::from_secs(5);

/// A gateway, built from its configuration: everything opened and bound, nothing running.
pub struct App {
    shared: Arc<Shared>,
    admin: Admin,
    loops: Vec<delivery::Loop>,
    sources: Sources,
}

/// What the running parts and the admin listener share.
struct Shared {
    config: Arc<Config>,
    queue: Arc<dyn Queue>,
    metrics: Metrics,
    upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    routes: BTreeMap<Arc<str>, RouteParts>,
    broker: BrokerHandle,
    admin_address: SocketAddr,
    stopping: AtomicBool,
    clock: Clock,
}

/// What is kept of a route for those who look at it.
struct RouteParts {
    activity: Arc<Activity>,
    upstream: Arc<Upstream>,
}

/// The broker in use.
enum BrokerHandle {
    Embedded(Embedded),
    Rabbitmq { config: rabbitmq::BrokerConfig, state: Arc<rabbitmq::ConnectionState> },
}

/// What takes in events, not running yet.
enum Sources {
    Embedded,
    Rabbitmq(rabbitmq::Consumers),
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The queue cannot be opened.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The admin listener cannot be bound.
    #[error("admin.listen {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// An upstream or a route cannot be built, though its configuration is well-formed: a
    /// certificate that does not load, say.
    #[error("{key}: {problem}")]
    Build {
        /// Its key in the configuration.
        key: String,
        /// What is wrong.
        problem: String,
    },
}

/// Why a gateway stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store failed for good.
    #[error("the queue failed: {0}")]
    Queue(String),
    /// A part of the process ended that never should.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

impl App {
    /// Opens and binds everything; runs nothing.
    ///
    /// # Errors
    /// When the queue, an upstream, a route or the listener cannot be had.
    pub async fn new(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let clock: Clock = Arc::new(wall_clock);
        let metrics = Metrics::new(&config);
        let queue = build::open_queue(&config, &metrics, &clock).await?;
        let apis = build::build_apis(&config)?;
        let upstreams = build::build_upstreams(&config, &metrics);
        let mut loops = Vec::new();
        let mut routes = BTreeMap::new();
        let mut intakes = Vec::new();
        for (name, route) in &config.routes {
            let built = build::build_route(&config, name, route, &apis, &upstreams)?;
            let activity = Arc::new(Activity::default());
            let upstream = Arc::clone(&built.upstream);
            routes
                .insert(Arc::clone(name), RouteParts { activity: Arc::clone(&activity), upstream });
            intakes.push((
                Arc::clone(name),
                build::build_intake(name, route, &queue, &activity, &metrics),
            ));
            loops.push(delivery::Loop::new(
                Arc::new(built),
                Arc::clone(&queue),
                activity,
                metrics.clone(),
                Arc::clone(&clock),
            ));
        }
        let (broker, sources) = build::build_broker(&config, intakes)?;
        let address = config.settings.admin.listen;
        let (admin, admin_address) = Admin::bind(address, &config.settings.admin)
            .await
            .map_err(|source| StartError::Listen { address, source })?;
        let shared = Shared {
            config,
            queue,
            metrics,
            upstreams,
            routes,
            broker,
            admin_address,
            stopping: AtomicBool::new(false),
            clock,
        };
        Ok(Self { shared: Arc::new(shared), admin, loops, sources })
    }

    /// A look into it, also while it runs.
    #[must_use]
    pub fn inspect(&self) -> Arc<dyn Inspect> {
        Arc::clone(&self.shared) as Arc<dyn Inspect>
    }

    /// Runs until `shutdown`, then stops in order, or ends early when a part fails for good.
    ///
    /// # Errors
    /// When the queue failed or a part ended that never should.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), RunError> {
        let Self { shared, admin, loops, sources } = self;
        let drain = shared.config.settings.shutdown.drain;
        tracing::info!(address = %shared.admin_address, "admin listening");
        let stop = Stop::default();
        let mut parts: JoinSet<&'static str> = JoinSet::new();
        let mut source_parts: JoinSet<()> = JoinSet::new();
        let (inspect, admin_stop) = (Arc::clone(&shared) as Arc<dyn Inspect>, stop.admin.clone());
        let admin = tokio::spawn(admin.run(inspect, admin_stop));
        for route in loops {
            let token = stop.loops.clone();
            parts.spawn(async move {
                route.run(token, drain).await;
                "a delivery loop"
            });
        }
        if let Sources::Rabbitmq(consumers) = sources {
            let token = stop.sources.clone();
            source_parts.spawn(consumers.run(token));
        }
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            reason = shared.queue.failed() => Err(RunError::Queue(reason)),
            Some(part) = parts.join_next() => Err(RunError::Ended(part.unwrap_or("a part"))),
            Some(_) = source_parts.join_next() => Err(RunError::Ended("the RabbitMQ session")),
        };
        shared.stopping.store(true, Ordering::Relaxed);
        tracing::info!(drain = ?drain, "stopping");
        stop.sources.cancel();
        let sources = async { while source_parts.join_next().await.is_some() {} };
        if timeout(SOURCES_STOP, sources).await.is_err() {
            tracing::warn!("sources did not stop in time; what they hold returns to RabbitMQ");
        }
        stop.loops.cancel();
        while parts.join_next().await.is_some() {}
        shared.queue.close().await;
        stop.admin.cancel();
        // It only answers questions; one that panicked took nothing with it.
        let _ = admin.await;
        tracing::info!("stopped");
        ended
    }
}

/// The order of stopping, as tokens.
#[derive(Default)]
struct Stop {
    sources: CancellationToken,
    loops: CancellationToken,
    admin: CancellationToken,
}

/// The one place that reads the wall clock for the middle.
#[expect(clippy::disallowed_methods, reason = "the clock that is handed to everyone else")]
fn wall_clock() -> Timestamp {
    let since_epoch = time::OffsetDateTime::now_utc() - time::OffsetDateTime::UNIX_EPOCH;
    Timestamp(i64::try_from(since_epoch.whole_milliseconds()).unwrap_or(i64::MAX))
}

impl Inspect for Shared {
    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config)
    }

    fn queue(&self) -> Arc<dyn Queue> {
        Arc::clone(&self.queue)
    }

    fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    fn upstreams(&self) -> Vec<UpstreamStatus> {
        let (now, wall) = (Instant::now(), (self.clock)());
        self.upstreams.values().map(|upstream| upstream.status(now, wall)).collect()
    }

    fn routes(&self) -> BTreeMap<Arc<str>, RouteActivity> {
        let now = (self.clock)();
        let seen = |parts: &RouteParts| parts.activity.seen(&parts.upstream, now);
        self.routes.iter().map(|(name, parts)| (Arc::clone(name), seen(parts))).collect()
    }

    fn broker(&self) -> BrokerActivity {
        match &self.broker {
            BrokerHandle::Embedded(_) => {
                BrokerActivity { consume_connected: true, publish_connected: true, blocked: false }
            }
            BrokerHandle::Rabbitmq { state, .. } => BrokerActivity {
                consume_connected: state.connected(),
                // Events are published over a connection of their own each time: as reachable as
                // this one, and no more is known.
                publish_connected: state.connected(),
                blocked: state.blocked(),
            },
        }
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

    fn publish(
        &self,
        exchange: String,
        key: String,
        event: Event,
    ) -> BoxFuture<'static, Result<(), PublishError>> {
        match &self.broker {
            BrokerHandle::Embedded(broker) => {
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
            BrokerHandle::Rabbitmq { config, .. } => {
                let config = config.clone();
                Box::pin(async move { publish_once(&config, exchange, key, &event).await })
            }
        }
    }
}

async fn publish_once(
    config: &rabbitmq::BrokerConfig,
    exchange: String,
    key: String,
    event: &Event,
) -> Result<(), PublishError> {
    match rabbitmq::publish_once(config, &exchange, &key, event).await {
        Ok(()) => Ok(()),
        Err(rabbitmq::PublishError::Unroutable) => Err(PublishError::Unroutable { exchange, key }),
        Err(error) => Err(PublishError::Unavailable(error.to_string())),
    }
}
