//! What runs, by name, and how a configuration takes effect on it: the first one and every other.
//!
//! ```text
//! prepare   all that can fail: clients, targets, webhooks, the listener. Nothing is changed
//! commit    1  the queue takes up the routes, old and new; what we will bind is written down
//!           2  upstreams change in place: what is under way and what is spent counts on
//!           3  loops get their orders: what they hold is rendered anew, in its order
//!           4  sources change: only a consumer whose source is another one is stopped
//!           5  the queue lets go of the routes that are no more; what is theirs stays (orphaned)
//! ```
//!
//! A route is what its name says: its loop, its intake and what is known of it live as long as the
//! process. One that the configuration has no more gets no orders, so what is under way of it ends
//! where it began, and nothing is attempted twice should the route come back.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::{Discriminant, discriminant},
    sync::Arc,
};

use tidegate_adapters::{
    Intake,
    http::{Api, Hook, Hooks, Receiver, ReceiverHandle},
    rabbitmq::{self, Binding, ConsumerConfig, Wanted, WantedConsumer},
};
use tokio::{sync::watch, time::Instant};

use super::{
    StartError,
    bindings::Bindings,
    build::{self, Broker, BrokerKind, Rendered},
    wall_clock,
};
use crate::{
    config::{self, Config, Source},
    delivery::{self, Activity, Clock, Orders, Seat, intake::RouteIntake},
    descriptors,
    protect::Upstream,
    queue::{Queue, QueueError},
    telemetry::{Metrics, Tracer},
};

/// Everything that outlives a configuration.
pub(super) struct Fleet {
    pub(super) queue: Arc<dyn Queue>,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    tracer: Tracer,
    pub(super) broker: Arc<Broker>,
    bindings: Arc<Bindings>,
    /// The configuration in force; `None` before the first.
    config: Option<Arc<Config>>,
    apis: BTreeMap<Arc<str>, Arc<Api>>,
    upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// Every route there ever was.
    routes: BTreeMap<Arc<str>, RouteParts>,
    receiver: Option<ReceiverHandle>,
}

/// What is kept of a route.
#[derive(Clone)]
struct RouteParts {
    activity: Arc<Activity>,
    intake: Arc<RouteIntake>,
    orders: watch::Sender<Orders>,
    /// Where its source sits, and of which kind that is.
    seat: Arc<Seat>,
    kind: Option<Kind>,
    /// Its source, as its consumer was given it.
    consumer: Option<Arc<ConsumerConfig>>,
}

/// Which kind of source a route has.
type Kind = Discriminant<Source>;

/// A configuration of which everything is built that can fail.
pub(super) struct Prepared {
    config: Arc<Config>,
    apis: BTreeMap<Arc<str>, Arc<Api>>,
    rendered: BTreeMap<Arc<str>, Rendered>,
    /// Of routes that were never there before.
    fresh: BTreeMap<Arc<str>, RouteParts>,
    /// For sources of another kind than before.
    seats: BTreeMap<Arc<str>, Arc<Seat>>,
    hooks: Hooks,
    receiver: Option<Receiver>,
    /// Another RabbitMQ, or the same by other credentials.
    dialled: Option<rabbitmq::Broker>,
}

/// What must run from now on, besides what does.
pub(super) struct Started {
    pub(super) loops: Vec<delivery::Loop>,
    pub(super) receiver: Option<Receiver>,
}

/// What is shown of it.
#[derive(Clone)]
pub(super) struct View {
    pub(super) config: Arc<Config>,
    pub(super) upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    pub(super) routes: BTreeMap<Arc<str>, (Arc<Activity>, Arc<Upstream>)>,
    pub(super) receiver: Option<ReceiverHandle>,
}

impl Fleet {
    pub(super) fn new(
        queue: Arc<dyn Queue>,
        metrics: Metrics,
        clock: Clock,
        tracer: Tracer,
        broker: Broker,
        bindings: Arc<Bindings>,
    ) -> Self {
        Self {
            queue,
            metrics,
            clock,
            tracer,
            broker: Arc::new(broker),
            bindings,
            config: None,
            apis: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            routes: BTreeMap::new(),
            receiver: None,
        }
    }

    /// Builds all of `config` that can fail. Changes nothing.
    ///
    /// # Errors
    /// What cannot be built, with its key.
    pub(super) async fn prepare(&self, config: Arc<Config>) -> Result<Prepared, StartError> {
        let mut apis = BTreeMap::new();
        for (name, upstream) in &config.upstreams {
            // The same upstream keeps its connections and its tokens.
            let api = match self.apis.get(name) {
                Some(api) if self.agrees(&config, &format!("upstreams.{name}")) => Arc::clone(api),
                _ => build::api(name, &config, upstream)?,
            };
            apis.insert(Arc::clone(name), api);
        }
        let mut rendered = BTreeMap::new();
        let (mut fresh, mut seats) = (BTreeMap::new(), BTreeMap::new());
        let mut hooks = Hooks::default();
        for (name, route) in &config.routes {
            let target = Rendered::new(&config, name, route, &apis)?;
            rendered.insert(Arc::clone(name), target);
            let parts = match self.routes.get(name) {
                Some(parts) => parts.clone(),
                None => {
                    let parts = self.parts(name, build::rules(&config, &self.tracer, name, route));
                    fresh.entry(Arc::clone(name)).or_insert(parts).clone()
                }
            };
            let mut seat = Arc::clone(&parts.seat);
            if parts.kind.is_some_and(|kind| kind != discriminant(&route.from)) {
                seat = Arc::new(Seat::at(Arc::clone(&parts.intake)));
                seats.insert(Arc::clone(name), Arc::clone(&seat));
            }
            if let Source::Webhook(webhook) = &route.from {
                let hook = Hook::new(Arc::clone(name), webhook).map_err(|problem| {
                    build::build_error(format!("routes.{name}.from.webhook"), &problem)
                })?;
                hooks.add(hook, seat).map_err(|problem| {
                    build::build_error(format!("routes.{name}.from.webhook.path"), &problem)
                })?;
            }
        }
        let receiver = match hooks.is_empty() || self.receiver.is_some() {
            true => None,
            false => Some(listen(&config).await?),
        };
        let dialled = match &config.settings.broker {
            config::Broker::Rabbitmq(broker) if !self.agrees(&config, "broker.rabbitmq") => {
                Some(build::dialled(broker)?)
            }
            config::Broker::Rabbitmq(_) | config::Broker::Embedded(_) => None,
        };
        Ok(Prepared { config, apis, rendered, fresh, seats, hooks, receiver, dialled })
    }

    /// Puts it in force.
    ///
    /// # Errors
    /// When the queue has failed: then nothing has changed.
    pub(super) async fn commit(&mut self, prepared: Prepared) -> Result<Started, QueueError> {
        let Prepared { config, apis, rendered, fresh, seats, hooks, receiver, dialled } = prepared;
        let settings = build::route_settings(&config);
        let mut both = self.config.as_deref().map(build::route_settings).unwrap_or_default();
        both.extend(settings.clone());
        self.queue.configure(both.into_values().collect()).await?;
        let unbind = self.bindings.want(&config).await?;
        if self.config.as_deref().is_some_and(|old| build::bounds(old) != build::bounds(&config)) {
            self.queue.set_bounds(build::bounds(&config)).await?;
        }
        self.metrics.expect(&config);
        self.set_upstreams(&config);
        self.apis = apis;
        if let (BrokerKind::Rabbitmq { server, .. }, Some(dialled)) = (&self.broker.kind, dialled) {
            server.set(dialled);
        }
        let loops = self.give_orders(&config, rendered, fresh);
        self.take_seats(&config, seats);
        self.set_sources(&config, hooks, unbind, receiver.as_ref());
        self.config = Some(config);
        self.queue.configure(settings.into_values().collect()).await?;
        self.warn_of_orphans();
        Ok(Started { loops, receiver })
    }

    /// What there is to see.
    pub(super) fn view(&self) -> View {
        let config = self.config.clone().expect("the first configuration is committed");
        let routes = config.routes.iter().map(|(name, route)| {
            let upstream = route.upstream().and_then(|upstream| self.upstreams.get(upstream));
            let upstream = upstream.unwrap_or(&self.broker.upstream);
            let activity = Arc::clone(&self.routes[name].activity);
            (Arc::clone(name), (activity, Arc::clone(upstream)))
        });
        View {
            routes: routes.collect(),
            upstreams: self.upstreams.clone(),
            receiver: self.receiver.clone(),
            config,
        }
    }

    /// Whether the configuration in force says the same at `path`.
    fn agrees(&self, config: &Config, path: &str) -> bool {
        let in_force = self.config.as_ref();
        in_force.is_some_and(|old| old.fingerprints.agree(&config.fingerprints, path))
    }

    fn parts(&self, name: &Arc<str>, rules: delivery::intake::Rules) -> RouteParts {
        let activity = Arc::new(Activity::default());
        let intake = RouteIntake::new(
            Arc::clone(name),
            rules,
            Arc::clone(&self.queue),
            Arc::clone(&activity),
            self.metrics.clone(),
        );
        let (intake, orders) = (Arc::new(intake), watch::channel(None).0);
        let seat = Arc::new(Seat::at(Arc::clone(&intake)));
        RouteParts { activity, intake, orders, seat, kind: None, consumer: None }
    }

    fn set_upstreams(&mut self, config: &Config) {
        let now = Instant::now();
        let paused = self.queue.paused_upstreams();
        self.upstreams.retain(|name, _| config.upstreams.contains_key(name));
        for (name, upstream) in &config.upstreams {
            if let Some(known) = self.upstreams.get(name) {
                known.reconfigure(upstream, now);
                continue;
            }
            let built = Upstream::new(Arc::clone(name), upstream, self.metrics.clone(), now);
            if paused.contains(name) {
                built.pause(true);
            }
            self.upstreams.insert(Arc::clone(name), Arc::new(built));
        }
    }

    /// Tells every loop what to do. Answers those that are new.
    fn give_orders(
        &mut self,
        config: &Config,
        rendered: BTreeMap<Arc<str>, Rendered>,
        fresh: BTreeMap<Arc<str>, RouteParts>,
    ) -> Vec<delivery::Loop> {
        let mut loops = Vec::new();
        for (name, parts) in fresh {
            loops.push(delivery::Loop::new(
                Arc::clone(&name),
                parts.orders.subscribe(),
                Arc::clone(&self.queue),
                Arc::clone(&parts.activity),
                self.metrics.clone(),
                Arc::clone(&self.clock),
            ));
            self.routes.insert(name, parts);
        }
        for (name, target) in rendered {
            let parts = &self.routes[&name];
            let rules = build::rules(config, &self.tracer, &name, &config.routes[&name]);
            parts.intake.set_rules(rules);
            let route =
                build::route(config, &self.tracer, &name, target, &self.upstreams, &self.broker);
            parts.orders.send_replace(Some(Arc::new(route)));
        }
        for (_, gone) in self.routes.iter().filter(|(name, _)| !config.routes.contains_key(*name)) {
            if gone.orders.borrow().is_some() {
                gone.orders.send_replace(None);
            }
        }
        loops
    }

    /// Seats sources of another kind in the place of those before.
    fn take_seats(&mut self, config: &Config, mut seats: BTreeMap<Arc<str>, Arc<Seat>>) {
        for (name, route) in &config.routes {
            let parts = self.routes.get_mut(name).expect(PARTS);
            parts.kind = Some(discriminant(&route.from));
            if let Some(seat) = seats.remove(name) {
                std::mem::replace(&mut parts.seat, seat).leave();
            }
            if let Source::Reply(_) = route.from {
                // A reply comes from another route's settling, which is always there.
                parts.activity.set_source_up(true);
            }
        }
    }

    fn set_sources(
        &mut self,
        config: &Config,
        hooks: Hooks,
        unbind: Vec<Binding>,
        receiver: Option<&Receiver>,
    ) {
        if let Some(receiver) = receiver {
            self.receiver = Some(receiver.handle());
        }
        if let Some(receiver) = &self.receiver {
            receiver.set(&config.settings.server, hooks);
        }
        let mut wanted = Wanted { consumers: Vec::new(), unbind };
        let mut bound = BTreeSet::new();
        for (name, route) in &config.routes {
            let Source::Rabbitmq(source) = &route.from else { continue };
            let same = self.agrees(config, &format!("routes.{name}.from"));
            let parts = self.routes.get_mut(name).expect(PARTS);
            let intake = Arc::clone(&parts.seat) as Arc<dyn Intake>;
            match &self.broker.kind {
                BrokerKind::Embedded(broker) => {
                    bound.insert(Arc::clone(name));
                    broker.bind(name, source.bind.clone(), intake);
                }
                BrokerKind::Rabbitmq { .. } => {
                    let kept = parts.consumer.take().filter(|_| same);
                    let source = kept.unwrap_or_else(|| Arc::new(source.clone()));
                    parts.consumer = Some(Arc::clone(&source));
                    wanted.consumers.push(WantedConsumer {
                        route: Arc::clone(name),
                        config: source,
                        ordered: route.order_by.is_some(),
                        intake,
                    });
                }
            }
        }
        match &self.broker.kind {
            BrokerKind::Embedded(broker) => broker.keep_only(&bound),
            BrokerKind::Rabbitmq { consuming, .. } => consuming.set(wanted),
        }
    }

    fn warn_of_orphans(&self) {
        for orphan in self.queue.routes().iter().filter(|route| !route.configured) {
            if orphan.counts.pending > 0 {
                tracing::warn!(
                    route = %orphan.name,
                    pending = orphan.counts.pending,
                    "deliveries of a route that the configuration does not have; they wait for it"
                );
            }
        }
    }
}

const PARTS: &str = "every route has its parts by then";

/// The public listener; there is none before a route takes webhooks.
async fn listen(config: &Config) -> Result<Receiver, StartError> {
    let server = &config.settings.server;
    descriptors::raise(server.max_connections.get());
    Receiver::bind(server, wall_clock)
        .await
        .map_err(|problem| build::build_error("server".to_owned(), &problem))
}

#[cfg(test)]
mod tests;
