//! The consumers of all routes, on the connection they share: what is wanted is said as a whole,
//! and what runs follows it.
//!
//! ```text
//! wanted ─► gone or changed: stopped, its acks made   ─┐
//!        ─► new or changed: started once the old ended ─┴─► then: what was bound and is no longer
//!        ─► the same: not touched                           wanted is unbound
//! ```
//!
//! # Unbinding
//!
//! A binding that is no longer wanted is taken away after the consumer of its queue has declared
//! what is wanted now: an event that both match must not fall between them. A queue that no route
//! consumes any more needs not wait. Nobody else's bindings are touched: only what we were told to
//! take away. What is wanted changes only between two unbindings, or one might cross the declaring
//! of the same binding.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use lapin::types::FieldTable;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    BindConfig, ConnectionState, ConsumerConfig, Server, SessionError,
    consumer::Consumer,
    session::{Link, Role, short, within},
    supervise::{self, next_link},
};
use crate::Intake;

/// After an unbinding that failed, how long until it is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// A binding of a RabbitMQ queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
pub struct Binding {
    /// The RabbitMQ queue.
    pub queue: String,
    /// What it is bound to.
    pub to: BindConfig,
}

/// One route's consumer, as it is wanted.
#[derive(Clone)]
pub struct WantedConsumer {
    /// The route.
    pub route: Arc<str>,
    /// Its source. The same `Arc` says that nothing about it has changed.
    pub config: Arc<ConsumerConfig>,
    /// Whether its RabbitMQ queue serves one consumer at a time.
    pub ordered: bool,
    /// Where it takes what it reads.
    pub intake: Arc<dyn Intake>,
}

/// What is to be consumed.
#[derive(Clone, Default)]
pub struct Wanted {
    /// One a route.
    pub consumers: Vec<WantedConsumer>,
    /// What we have bound and nobody wants any more.
    pub unbind: Vec<Binding>,
}

/// Told what has been unbound.
type Unbound = Arc<dyn Fn(Vec<Binding>) -> BoxFuture<'static, ()> + Send + Sync>;

/// The consumers of all routes, and the connection they share. Connects to nothing until it runs
/// and something is wanted.
pub struct Consumers {
    server: Server,
    state: Arc<ConnectionState>,
    wanted: watch::Sender<Arc<Wanted>>,
    unbound: Unbound,
}

/// Says what is to be consumed.
#[derive(Clone)]
pub struct ConsumersHandle {
    wanted: watch::Sender<Arc<Wanted>>,
    state: Arc<ConnectionState>,
}

/// A consumer that runs, or has ended by itself.
struct Running {
    wanted: WantedConsumer,
    stop: CancellationToken,
    declared: watch::Receiver<bool>,
    ended: bool,
}

/// What [`Consumers::run`] works on.
struct Fleet {
    links: watch::Receiver<Option<Arc<Link>>>,
    running: BTreeMap<Arc<str>, Running>,
    tasks: JoinSet<Arc<str>>,
    unbinding: Option<(CancellationToken, JoinHandle<()>)>,
    unbound: Unbound,
    shutdown: CancellationToken,
}

impl Consumers {
    /// From `server`, with no route yet. `unbound` is told what has been unbound.
    pub fn new(
        server: &Server,
        unbound: impl Fn(Vec<Binding>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        let (server, wanted) = (server.clone(), watch::channel(Arc::default()).0);
        Self { server, state: Arc::default(), wanted, unbound: Arc::new(unbound) }
    }

    /// For saying what is to be consumed, before it runs and while it does.
    #[must_use]
    pub fn handle(&self) -> ConsumersHandle {
        ConsumersHandle { wanted: self.wanted.clone(), state: Arc::clone(&self.state) }
    }

    /// Consumes what is wanted until `shutdown`; then acks what was accepted and closes the
    /// connection, each within 5 s.
    ///
    /// # Panics
    /// When a consumer did: that is a defect, and its route would stand still unnoticed.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { server, state, wanted, unbound } = self;
        let mut wanted = wanted.subscribe();
        let any = |wanted: &Arc<Wanted>| !(wanted.consumers.is_empty() && wanted.unbind.is_empty());
        tokio::select! {
            _ = wanted.wait_for(any) => {}
            () = shutdown.cancelled() => return,
        }
        wanted.mark_changed();
        let (links, link) = watch::channel(None);
        let all_ended = CancellationToken::new();
        let ended = all_ended.clone();
        let supervising = supervise::supervise(&server, Role::Consume, &state, &links, ended);
        let fleet = Fleet {
            links: link,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            unbinding: None,
            unbound,
            shutdown,
        };
        let consuming = async {
            fleet.run(wanted).await;
            all_ended.cancel();
        };
        tokio::join!(supervising, consuming);
    }
}

impl ConsumersHandle {
    /// From now on this is wanted, and nothing else. Returns at once.
    pub fn set(&self, wanted: Wanted) {
        self.wanted.send_replace(Arc::new(wanted));
    }

    /// Whether anything is consumed.
    #[must_use]
    pub fn consumes(&self) -> bool {
        !self.wanted.borrow().consumers.is_empty()
    }

    /// How the connection is; may be asked at any time.
    #[must_use]
    pub fn state(&self) -> Arc<ConnectionState> {
        Arc::clone(&self.state)
    }
}

impl Fleet {
    async fn run(mut self, mut wanted: watch::Receiver<Arc<Wanted>>) {
        let shutdown = self.shutdown.clone();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Ok(()) = wanted.changed() => {
                    let now = Arc::clone(&wanted.borrow_and_update());
                    self.stop_unbinding().await;
                    self.follow(&now);
                }
                Some(ended) = self.tasks.join_next() => {
                    self.ended(ended);
                    let now = Arc::clone(&wanted.borrow());
                    self.follow(&now);
                }
            }
        }
        self.stop_unbinding().await;
        while let Some(ended) = self.tasks.join_next().await {
            self.ended(ended);
        }
    }

    /// Stops what is no longer wanted, starts what is wanted and does not run.
    fn follow(&mut self, wanted: &Wanted) {
        let is_wanted = |running: &Running| {
            let mut wanted = wanted.consumers.iter();
            wanted.any(|wanted| running.wanted.is_same(wanted))
        };
        for running in self.running.values().filter(|running| !is_wanted(running)) {
            running.stop.cancel();
        }
        self.running.retain(|_, running| !running.ended || is_wanted(running));
        for consumer in &wanted.consumers {
            if !self.running.contains_key(&consumer.route) {
                self.start(consumer.clone());
            }
        }
        // One that stops has declared what was wanted before.
        let settled = self.running.values().all(|running| !running.stop.is_cancelled());
        if settled && self.unbinding.is_none() && !wanted.unbind.is_empty() {
            self.start_unbinding(wanted.unbind.clone());
        }
    }

    fn start(&mut self, wanted: WantedConsumer) {
        let WantedConsumer { route, config, ordered, intake } = wanted.clone();
        let (tell, declared) = watch::channel(false);
        let consumer = Consumer::new(Arc::clone(&route), config, ordered, intake);
        let consumer = consumer.telling(tell);
        let stop = self.shutdown.child_token();
        let running = consumer.run(self.links.clone(), stop.clone());
        let name = Arc::clone(&route);
        self.tasks.spawn(async move {
            running.await;
            name
        });
        self.running.insert(route, Running { wanted, stop, declared, ended: false });
    }

    fn ended(&mut self, ended: Result<Arc<str>, tokio::task::JoinError>) {
        match ended {
            Ok(route) => {
                if let Some(running) = self.running.get_mut(&route) {
                    // It is started again only when something else is wanted: its intake closed.
                    running.ended = true;
                    if running.stop.is_cancelled() {
                        self.running.remove(&route);
                    }
                }
            }
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => {}
        }
    }

    fn start_unbinding(&mut self, bindings: Vec<Binding>) {
        let stop = self.shutdown.child_token();
        let consumers = self.running.values();
        let declared: BTreeMap<String, watch::Receiver<bool>> = consumers
            .map(|running| (running.wanted.config.queue.clone(), running.declared.clone()))
            .collect();
        let work = Unbinding {
            bindings,
            declared,
            links: self.links.clone(),
            stop: stop.clone(),
            unbound: Arc::clone(&self.unbound),
        };
        self.unbinding = Some((stop, tokio::spawn(work.run())));
    }

    async fn stop_unbinding(&mut self) {
        let Some((stop, task)) = self.unbinding.take() else { return };
        stop.cancel();
        if let Err(failed) = task.await
            && failed.is_panic()
        {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
}

impl WantedConsumer {
    fn is_same(&self, other: &Self) -> bool {
        self.route == other.route
            && Arc::ptr_eq(&self.config, &other.config)
            && self.ordered == other.ordered
            && Arc::ptr_eq(&self.intake, &other.intake)
    }
}

/// Takes bindings away, however long RabbitMQ is not there.
struct Unbinding {
    bindings: Vec<Binding>,
    /// By queue: whether what is wanted of it has been declared.
    declared: BTreeMap<String, watch::Receiver<bool>>,
    links: watch::Receiver<Option<Arc<Link>>>,
    stop: CancellationToken,
    unbound: Unbound,
}

impl Unbinding {
    /// Ends when all is unbound, or between two steps when it is to stop.
    async fn run(mut self) {
        let stop = self.stop.clone();
        while !self.bindings.is_empty() {
            let link = tokio::select! {
                link = next_link(&mut self.links) => link,
                () = stop.cancelled() => return,
            };
            let Some(link) = link else { return };
            let mut left = Vec::new();
            for binding in std::mem::take(&mut self.bindings) {
                if !self.is_time(&binding.queue).await {
                    left.push(binding);
                    continue;
                }
                match unbind(&link, &binding).await {
                    Ok(()) => {
                        info!(
                            queue = binding.queue,
                            exchange = binding.to.exchange,
                            key = binding.to.key,
                            "unbound: no route wants it any more"
                        );
                        (self.unbound)(vec![binding]).await;
                    }
                    Err(error) => {
                        if link.alive() {
                            warn!(queue = binding.queue, %error, "cannot unbind; trying again");
                        }
                        left.push(binding);
                    }
                }
            }
            self.bindings = left;
            if !self.bindings.is_empty() {
                tokio::select! {
                    () = tokio::time::sleep(AGAIN) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    /// Whether what is wanted of `queue` is declared; waits a little for it.
    async fn is_time(&self, queue: &str) -> bool {
        if self.stop.is_cancelled() {
            return false;
        }
        let Some(declared) = self.declared.get(queue) else { return true };
        let mut declared = declared.clone();
        tokio::select! {
            declared = declared.wait_for(|declared| *declared) => declared.is_ok(),
            () = tokio::time::sleep(AGAIN) => false,
            () = self.stop.cancelled() => false,
        }
    }
}

async fn unbind(link: &Link, binding: &Binding) -> Result<(), SessionError> {
    let channel = link.channel().await?;
    let Binding { queue, to } = binding;
    let (exchange, key) = (short(&to.exchange)?, short(&to.key)?);
    let unbound = channel.queue_unbind(short(queue)?, exchange, key, FieldTable::default());
    match link.judge(within("unbind the queue", unbound).await) {
        Ok(()) => link.judge(within("close the channel", channel.close(200, "OK".into())).await),
        // Neither queue nor exchange is there any more, so it is not bound.
        Err(gone) if gone.code() == Some(404) => Ok(()),
        Err(error) => Err(error),
    }
}
