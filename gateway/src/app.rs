//! Config → App → run(shutdown): the table of contents of the process.
//!
//! ```text
//! App::new    queue ─► broker ─► upstreams ─► routes (target, protections, intake) ─► listeners
//! App::run    admin │ publisher │ loops │ sources    … until shutdown, or until something fails
//!             not ready ─► sources stop ─► loops drain ─► publisher ─► queue closes ─► admin stops
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
    http::Receiver,
    rabbitmq,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Admin,
    config::{self, Config},
    delivery::{self, Activity, Clock},
    protect::{Upstream, UpstreamStatus},
    queue::{Queue, QueueError},
    telemetry::{Exporter, Metrics},
};

pub use inspect::{
    BrokerActivity, ControlError, Generation, Inspect, PublishError, ReloadError, Reloaded,
    RouteActivity,
};

/// How long webhooks are still taken once it is said that we are not ready: so long a load balancer
/// may go on sending.
const LINGER: Duration = Duration::from_secs(2);

/// How long sources get to stop before the loops are told to.
const SOURCES_STOP: Duration = Duration::from_secs(5);

/// A gateway, built from its configuration: everything opened and bound, nothing running.
pub struct App {
    shared: Arc<Shared>,
    admin: Admin,
    loops: Vec<delivery::Loop>,
    sources: Sources,
    publisher: Option<rabbitmq::Publisher>,
    exporter: Option<Exporter>,
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
    webhooks_address: Option<SocketAddr>,
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
    Rabbitmq {
        consuming: Arc<rabbitmq::ConnectionState>,
        publishing: Arc<rabbitmq::ConnectionState>,
        publish: rabbitmq::PublishHandle,
    },
}

/// What takes in events, not running yet. The embedded broker needs no running.
struct Sources {
    consumers: Option<rabbitmq::Consumers>,
    receiver: Option<Receiver>,
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The queue cannot be opened.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// A listener cannot be bound.
    #[error("{key} {address}: {source}")]
    Listen {
        /// Its key in the configuration.
        key: &'static str,
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
        let (tracer, exporter) = build::build_tracer(&config, &metrics)?;
        let queue = build::open_queue(&config, &metrics, &clock).await?;
        let broker = build::Broker::new(&config, &metrics)?;
        let apis = build::build_apis(&config)?;
        let upstreams = build::build_upstreams(&config, &metrics);
        let mut loops = Vec::new();
        let mut routes = BTreeMap::new();
        let mut intakes = Vec::new();
        for (name, route) in &config.routes {
            let built =
                build::build_route(&config, &tracer, name, route, &apis, &upstreams, &broker)?;
            let activity = Arc::new(Activity::default());
            // A reply comes from another route's settling, which is always there.
            activity.set_source_up(matches!(route.from, config::Source::Reply(_)));
            let upstream = Arc::clone(&built.upstream);
            routes
                .insert(Arc::clone(name), RouteParts { activity: Arc::clone(&activity), upstream });
            intakes.push((
                Arc::clone(name),
                build::build_intake(&config, &tracer, name, route, &queue, &activity, &metrics),
            ));
            loops.push(delivery::Loop::new(
                Arc::new(built),
                Arc::clone(&queue),
                activity,
                metrics.clone(),
                Arc::clone(&clock),
            ));
        }
        let sources = build::build_sources(&config, intakes, &broker).await?;
        let webhooks_address = sources.receiver.as_ref().map(Receiver::address);
        let consuming = sources.consumers.as_ref().map(rabbitmq::Consumers::state);
        let (broker, publisher) = broker.into_handle(consuming);
        let address = config.settings.admin.listen;
        let (admin, admin_address) = Admin::bind(address, &config.settings.admin)
            .await
            .map_err(|source| StartError::Listen { key: "admin.listen", address, source })?;
        let shared = Shared {
            config,
            queue,
            metrics,
            upstreams,
            routes,
            broker,
            admin_address,
            webhooks_address,
            stopping: AtomicBool::new(false),
            clock,
        };
        Ok(Self { shared: Arc::new(shared), admin, loops, sources, publisher, exporter })
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
        let Self { shared, admin, loops, sources, publisher, exporter } = self;
        let drain = shared.config.settings.shutdown.drain;
        tracing::info!(address = %shared.admin_address, "admin listening");
        let stop = Stop::default();
        let mut parts: JoinSet<&'static str> = JoinSet::new();
        let mut source_parts: JoinSet<&'static str> = JoinSet::new();
        let (inspect, admin_stop) = (Arc::clone(&shared) as Arc<dyn Inspect>, stop.admin.clone());
        let admin = tokio::spawn(admin.run(inspect, admin_stop));
        for route in loops {
            let token = stop.loops.clone();
            parts.spawn(async move {
                route.run(token, drain).await;
                "a delivery loop"
            });
        }
        let mut publishing = JoinSet::new();
        if let Some(publisher) = publisher {
            publishing.spawn(publisher.run(stop.publisher.clone()));
        }
        let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(stop.exporter.clone())));
        let linger = if sources.receiver.is_some() { LINGER.min(drain) } else { Duration::ZERO };
        sources.spawn(&mut source_parts, &stop.sources);
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            reason = shared.queue.failed() => Err(RunError::Queue(reason)),
            Some(part) = parts.join_next() => Err(RunError::Ended(part.unwrap_or("a part"))),
            Some(part) = source_parts.join_next() => {
                Err(RunError::Ended(part.unwrap_or("a source")))
            }
            Some(_) = publishing.join_next() => Err(RunError::Ended("the publisher")),
        };
        shared.stopping.store(true, Ordering::Relaxed);
        tracing::info!(drain = ?drain, "stopping");
        if ended.is_ok() {
            tokio::time::sleep(linger).await;
        }
        stop.sources.cancel();
        let sources = async { while source_parts.join_next().await.is_some() {} };
        if timeout(SOURCES_STOP, sources).await.is_err() {
            tracing::warn!("sources did not stop in time; what they hold returns to RabbitMQ");
        }
        stop.loops.cancel();
        while parts.join_next().await.is_some() {}
        stop.publisher.cancel();
        while publishing.join_next().await.is_some() {}
        shared.queue.close().await;
        stop.exporter.cancel();
        if let Some(exporting) = exporting {
            // It only tells; one that panicked took nothing with it.
            let _ = exporting.await;
        }
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
    publisher: CancellationToken,
    exporter: CancellationToken,
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
            BrokerHandle::Rabbitmq { consuming, publishing, .. } => BrokerActivity {
                consume_connected: consuming.connected(),
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
        let Some(upstream) = self.upstreams.get(upstream).cloned() else {
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
        let known = self.upstreams.get(upstream);
        known.ok_or_else(|| ControlError::NoUpstream(upstream.to_owned()))?.reset();
        Ok(())
    }

    fn reload(&self) -> BoxFuture<'static, Result<Reloaded, ReloadError>> {
        Box::pin(async { Err(ReloadError::Unavailable("not built yet".to_owned())) })
    }

    fn generation(&self) -> Generation {
        Generation { number: 1, hash: String::new(), since: Timestamp(0), failed: None }
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
        let tls = self.config.settings.server.tls.is_some();
        let scheme = if tls { "https" } else { "http" };
        self.webhooks_address.map(|address| format!("{scheme}://{address}"))
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
            BrokerHandle::Rabbitmq { publish, .. } => {
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

impl Sources {
    fn spawn(self, parts: &mut JoinSet<&'static str>, stop: &CancellationToken) {
        if let Some(consumers) = self.consumers {
            let token = stop.clone();
            parts.spawn(async move {
                consumers.run(token).await;
                "the RabbitMQ session"
            });
        }
        if let Some(receiver) = self.receiver {
            tracing::info!(address = %receiver.address(), "webhooks listening");
            let token = stop.clone();
            parts.spawn(async move {
                receiver.run(token).await;
                "the public listener"
            });
        }
    }
}
