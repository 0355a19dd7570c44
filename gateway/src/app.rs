//! Config → App → run(shutdown): the table of contents of the process.
//!
//! ```text
//! App::new    queue ─► broker ─► fleet: upstreams, routes, intakes, listener (as a reload does it)
//! App::run    admin │ publisher │ consumers │ listener │ loops │ reloads
//!                                          … until shutdown, or until something fails
//!             not ready ─► sources stop ─► loops drain ─► publisher ─► queue closes ─► admin stops
//! ```

mod bindings;
mod build;
mod fleet;
mod inspect;
mod reload;
mod source;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tidegate_adapters::{Timestamp, http::Receiver};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    admin::Admin,
    config::Config,
    delivery::Clock,
    queue::QueueError,
    telemetry::{Exporter, LogHandle, Metrics},
};

pub use inspect::{
    BrokerActivity, ControlError, Generation, Inspect, PublishError, ReloadError, Reloaded,
    RouteActivity,
};
pub use source::ConfigSource;

use bindings::Bindings;
use build::{Broker, BrokerParts};
use fleet::{Fleet, Started, View};
use inspect::Shared;
use reload::{Reloads, Request};

/// How long webhooks are still taken once it is said that we are not ready: so long a load balancer
/// may go on sending.
const LINGER: Duration = Duration::from_secs(2);

/// How long sources get to stop before the loops are told to.
const SOURCES_STOP: Duration = Duration::from_secs(5);

/// Reloads asked for and not begun, at most; who asks beyond waits.
const RELOADS: usize = 8;

/// A gateway, built from its configuration: everything opened and bound, nothing running.
pub struct App {
    shared: Arc<Shared>,
    fleet: Fleet,
    admin: Admin,
    started: Started,
    broker: BrokerParts,
    reloads: Reloads,
    exporter: Option<Exporter>,
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
    /// When the queue, an upstream, a route or a listener cannot be had.
    pub async fn new(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let clock: Clock = Arc::new(wall_clock);
        let metrics = Metrics::new(&config);
        let (tracer, exporter) = build::tracer(&config, &metrics)?;
        let queue = build::open_queue(&config, &metrics, &clock)?;
        let bindings = Arc::new(Bindings::load(Arc::clone(&queue), &config).await?);
        let (broker, parts) = Broker::new(&config, &metrics, &bindings)?;
        let address = config.settings.admin.listen;
        let (admin, admin_address) = Admin::bind(address)
            .await
            .map_err(|source| StartError::Listen { key: "admin.listen", address, source })?;
        let mut fleet = Fleet::new(
            Arc::clone(&queue),
            metrics.clone(),
            Arc::clone(&clock),
            tracer,
            broker,
            bindings,
        );
        let prepared = fleet.prepare(Arc::clone(&config)).await?;
        let started = fleet.commit(prepared).await?;
        let generation =
            Generation { number: 1, hash: config.hash.clone(), since: clock(), failed: None };
        let (ask, asked) = mpsc::channel(RELOADS);
        let shared = Shared {
            queue,
            metrics,
            broker: Arc::clone(&fleet.broker),
            view: RwLock::new(Arc::new(fleet.view())),
            generation: RwLock::new(generation),
            admin_address,
            stopping: AtomicBool::new(false),
            clock,
            reload: ask,
        };
        let reloads = Reloads::new(asked);
        let shared = Arc::new(shared);
        Ok(Self { shared, fleet, admin, started, broker: parts, reloads, exporter })
    }

    /// The same, reading its configuration again from `source` when asked to, and when its files
    /// change.
    #[must_use]
    pub fn reloading(mut self, source: Arc<ConfigSource>) -> Self {
        self.reloads.source = Some(source);
        self
    }

    /// The same, having `log` follow the level that is configured.
    #[must_use]
    pub fn logging(mut self, log: LogHandle) -> Self {
        self.reloads.log = Some(log);
        self
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
        let Self { shared, fleet, admin, started, broker, mut reloads, exporter } = self;
        tracing::info!(address = %shared.admin_address, "admin listening");
        let (inspect, admin_stop) = (Arc::clone(&shared) as Arc<dyn Inspect>, Stop::default());
        let mut parts = Parts::new(fleet, admin_stop);
        let admin = tokio::spawn(admin.run(inspect, parts.stop.admin.clone()));
        parts.start_broker(broker);
        parts.start(started);
        let token = parts.stop.exporter.clone();
        let exporting = exporter.map(|exporter| tokio::spawn(exporter.run(token)));
        let watching = parts.stop.sources.clone();
        let ended = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                reason = shared.queue.failed() => break Err(RunError::Queue(reason)),
                Some(part) = parts.loops.join_next() => {
                    break Err(RunError::Ended(part.unwrap_or("a delivery loop")));
                }
                Some(part) = parts.sources.join_next() => {
                    break Err(RunError::Ended(part.unwrap_or("a source")));
                }
                Some(_) = parts.publishing.join_next() => {
                    break Err(RunError::Ended("the publisher"));
                }
                request = reloads.next(&watching) => {
                    reloads.answer(request, &shared, &mut parts).await;
                }
            }
        };
        shared.stopping.store(true, Ordering::Relaxed);
        // Whoever asks for a reload from now on is told at once.
        drop(reloads);
        tracing::info!(drain = ?*parts.drain.borrow(), "stopping");
        parts.finish(ended.is_ok()).await;
        shared.queue.close().await;
        parts.stop.exporter.cancel();
        if let Some(exporting) = exporting {
            // It only tells; one that panicked took nothing with it.
            let _ = exporting.await;
        }
        parts.stop.admin.cancel();
        // It only answers questions; one that panicked took nothing with it.
        let _ = admin.await;
        tracing::info!("stopped");
        ended
    }
}

/// What runs.
struct Parts {
    fleet: Fleet,
    stop: Stop,
    loops: JoinSet<&'static str>,
    sources: JoinSet<&'static str>,
    publishing: JoinSet<()>,
    drain: watch::Sender<Duration>,
}

impl Parts {
    fn new(fleet: Fleet, stop: Stop) -> Self {
        let drain = watch::channel(fleet.view().config.settings.shutdown.drain).0;
        let (loops, sources, publishing) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        Self { fleet, stop, loops, sources, publishing, drain }
    }

    fn start_broker(&mut self, broker: BrokerParts) {
        if let Some(publisher) = broker.publisher {
            self.publishing.spawn(publisher.run(self.stop.publisher.clone()));
        }
        if let Some(consumers) = broker.consumers {
            let token = self.stop.sources.clone();
            self.sources.spawn(async move {
                consumers.run(token).await;
                "the RabbitMQ session"
            });
        }
    }

    fn start(&mut self, started: Started) {
        for route in started.loops {
            let (token, drain) = (self.stop.loops.clone(), self.drain.subscribe());
            self.loops.spawn(async move {
                route.run(token, drain).await;
                "a delivery loop"
            });
        }
        if let Some(receiver) = started.receiver {
            self.start_listening(receiver);
        }
    }

    fn start_listening(&mut self, receiver: Receiver) {
        tracing::info!(address = %receiver.handle().address(), "webhooks listening");
        let token = self.stop.sources.clone();
        self.sources.spawn(async move {
            receiver.run(token).await;
            "the public listener"
        });
    }

    /// Stops everything, in order; orderly, webhooks are still taken for a moment.
    async fn finish(&mut self, orderly: bool) {
        let drain = *self.drain.borrow();
        if orderly && self.fleet.view().receiver.is_some() {
            tokio::time::sleep(LINGER.min(drain)).await;
        }
        self.stop.sources.cancel();
        let sources = async { while self.sources.join_next().await.is_some() {} };
        if timeout(SOURCES_STOP, sources).await.is_err() {
            tracing::warn!("sources did not stop in time; what they hold returns to RabbitMQ");
        }
        self.stop.loops.cancel();
        while self.loops.join_next().await.is_some() {}
        self.stop.publisher.cancel();
        while self.publishing.join_next().await.is_some() {}
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
