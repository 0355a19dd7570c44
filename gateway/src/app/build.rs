//! From configuration to parts, each built once and none running.

use std::{collections::BTreeMap, sync::Arc};

use tidegate_adapters::{
    Intake,
    embedded::Embedded,
    http::{
        Api, Hook, Receiver, WebhookLimitConfig,
        caller::{Caller, HttpTarget},
    },
    rabbitmq::{self, PublishTarget},
};
use tokio::time::Instant;

use super::{BrokerHandle, Sources, StartError, wall_clock};
use crate::{
    config::{self, Config, OnDead, RateLimitConfig, RouteConfig, Source, Target},
    delivery::{self, Activity, Clock, intake::RouteIntake, reply::ReplyRule},
    protect::{self, Upstream, rate_limit::RateLimits},
    queue::{
        Bounds, Queue, RouteSettings,
        sqlite::{Options, SqliteQueue},
    },
    telemetry::Metrics,
};

pub(super) async fn open_queue(
    config: &Config,
    metrics: &Metrics,
    clock: &Clock,
) -> Result<Arc<dyn Queue>, StartError> {
    let queue = &config.settings.queue;
    let metrics = metrics.clone();
    let options = Options {
        path: queue.sqlite.path.clone(),
        bounds: Bounds {
            max_size: queue.max_size,
            max_route_share: queue.max_route_share,
            keep_delivered: queue.keep.delivered,
            keep_dead: queue.keep.dead,
        },
        observer: Arc::new(move |took| metrics.commit(took)),
        clock: Arc::clone(clock),
    };
    let queue: Arc<dyn Queue> = Arc::new(SqliteQueue::open(options)?);
    let settings = config.routes.iter().map(|(name, route)| RouteSettings {
        name: Arc::clone(name),
        dedupe: route.dedupe(),
        hold: route.on_dead == OnDead::Hold,
    });
    queue.configure(settings.collect()).await?;
    for orphan in queue.routes().iter().filter(|route| !route.configured) {
        if orphan.counts.pending > 0 {
            tracing::warn!(
                route = %orphan.name,
                pending = orphan.counts.pending,
                "deliveries of a route that the configuration does not have; they wait for it"
            );
        }
    }
    Ok(queue)
}

pub(super) fn build_apis(config: &Config) -> Result<BTreeMap<Arc<str>, Arc<Api>>, StartError> {
    let mut apis = BTreeMap::new();
    for (name, upstream) in &config.upstreams {
        let concurrency = upstream.concurrency.get() as usize;
        let api = Api::new(&upstream.api, concurrency, config.mask.clone(), wall_clock)
            .map_err(|problem| build_error(format!("upstreams.{name}"), &problem))?;
        apis.insert(Arc::clone(name), Arc::new(api));
    }
    Ok(apis)
}

pub(super) fn build_upstreams(
    config: &Config,
    metrics: &Metrics,
) -> BTreeMap<Arc<str>, Arc<Upstream>> {
    let now = Instant::now();
    let build = |(name, upstream): (&Arc<str>, _)| {
        let built = Upstream::new(Arc::clone(name), upstream, metrics.clone(), now);
        (Arc::clone(name), Arc::new(built))
    };
    config.upstreams.iter().map(build).collect()
}

/// The broker as built: where routes publish to, and what admits them.
pub(super) struct Broker {
    kind: BrokerKind,
    /// The protections that all routes publishing to it share.
    upstream: Arc<Upstream>,
}

enum BrokerKind {
    Embedded(Embedded),
    Rabbitmq(rabbitmq::Publisher),
}

impl Broker {
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Result<Self, StartError> {
        let now = Instant::now();
        let (kind, flowing) = match &config.settings.broker {
            config::Broker::Embedded(_) => {
                // There is no connection that could break.
                (BrokerKind::Embedded(Embedded::default()), tokio::sync::watch::channel(true).1)
            }
            config::Broker::Rabbitmq(broker) => {
                let publisher = rabbitmq::Publisher::new(broker.clone())
                    .map_err(|problem| build_error("broker.rabbitmq".to_owned(), &problem))?;
                let flowing = publisher.flowing();
                (BrokerKind::Rabbitmq(publisher), flowing)
            }
        };
        let upstream = Arc::new(Upstream::broker(flowing, metrics.clone(), now));
        Ok(Self { kind, upstream })
    }

    /// The leaf that publishes.
    fn service(&self) -> protect::Target {
        match &self.kind {
            BrokerKind::Embedded(broker) => protect::Target::new(broker.service()),
            BrokerKind::Rabbitmq(publisher) => protect::Target::new(publisher.service()),
        }
    }

    /// What is kept of it while it runs, and the part that must run.
    pub(super) fn into_handle(
        self,
        consuming: Option<Arc<rabbitmq::ConnectionState>>,
    ) -> (BrokerHandle, Option<rabbitmq::Publisher>) {
        match self.kind {
            BrokerKind::Embedded(broker) => (BrokerHandle::Embedded(broker), None),
            BrokerKind::Rabbitmq(publisher) => {
                let handle = BrokerHandle::Rabbitmq {
                    // Where nothing is consumed, one connection is all there is.
                    consuming: consuming.unwrap_or_else(|| publisher.state()),
                    publishing: publisher.state(),
                    publish: publisher.handle(),
                };
                (handle, Some(publisher))
            }
        }
    }
}

pub(super) fn build_route(
    config: &Config,
    name: &Arc<str>,
    route: &RouteConfig,
    apis: &BTreeMap<Arc<str>, Arc<Api>>,
    upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>,
    broker: &Broker,
) -> Result<delivery::Route, StartError> {
    const KNOWN: &str = "the loader checked that every route's upstream exists";
    let peers = config.routes.iter().filter(|(_, other)| other.upstream() == route.upstream());
    let peers = peers.map(|(peer, _)| Arc::clone(peer)).collect();
    let (name, retry) = (Arc::clone(name), route.retry.clone());
    let target = match &route.to {
        Target::Http(target) => target,
        Target::Rabbitmq(target) => {
            let target = PublishTarget::new(target, config.mask.clone())
                .map_err(|problem| build_error(format!("routes.{name}.to.rabbitmq"), &problem))?;
            return Ok(delivery::Route {
                name,
                target: delivery::Target::Rabbitmq(target),
                service: broker.service(),
                upstream: Arc::clone(&broker.upstream),
                limit_keys: Vec::new(),
                retry,
                reply: None,
                peers,
            });
        }
    };
    let settings = config.upstreams.get(&*target.upstream).expect(KNOWN);
    let api = apis.get(&*target.upstream).expect(KNOWN);
    let mut rendered = HttpTarget::new(target, Arc::clone(api), route.retry.retry_after_max)
        .map_err(|problem| build_error(format!("routes.{name}.to.http"), &problem))?;
    if route.reply.is_some() {
        rendered = rendered.with_reply();
    }
    Ok(delivery::Route {
        reply: route.reply.as_ref().map(|reply| ReplyRule::new(&name, reply)),
        name,
        target: delivery::Target::Http(rendered),
        service: protect::stack(Caller::new(Arc::clone(api)), settings.timeout),
        upstream: Arc::clone(upstreams.get(&*target.upstream).expect(KNOWN)),
        limit_keys: settings.rate_limit.iter().map(|limit| limit.key.clone()).collect(),
        retry,
        peers,
    })
}

pub(super) fn build_intake(
    name: &Arc<str>,
    route: &RouteConfig,
    queue: &Arc<dyn Queue>,
    activity: &Arc<Activity>,
    metrics: &Metrics,
) -> Arc<dyn Intake> {
    let intake = RouteIntake::new(
        Arc::clone(name),
        route.when.clone(),
        route.order_by.clone(),
        route.dedupe().is_some(),
        Arc::clone(queue),
        Arc::clone(activity),
        metrics.clone(),
    );
    let limit = match &route.from {
        Source::Webhook(webhook) => webhook.rate_limit.as_ref(),
        Source::Rabbitmq(_) | Source::Reply(_) => None,
    };
    match limit {
        None => Arc::new(intake),
        Some(limit) => {
            let WebhookLimitConfig { limit, period, burst } = *limit;
            let limit = RateLimitConfig { limit, period, burst, key: None };
            Arc::new(intake.with_limit(RateLimits::rested(limit, Instant::now())))
        }
    }
}

/// Every source of the configuration, with the intake of its route.
pub(super) async fn build_sources(
    config: &Config,
    intakes: Vec<(Arc<str>, Arc<dyn Intake>)>,
    broker: &Broker,
) -> Result<Sources, StartError> {
    let consumes = config.routes.values().any(|route| matches!(route.from, Source::Rabbitmq(_)));
    let mut consumers = match &config.settings.broker {
        config::Broker::Rabbitmq(broker) if consumes => Some(
            rabbitmq::Consumers::new(broker.clone())
                .map_err(|problem| build_error("broker.rabbitmq".to_owned(), &problem))?,
        ),
        config::Broker::Rabbitmq(_) | config::Broker::Embedded(_) => None,
    };
    let mut receiver = None;
    for (name, intake) in intakes {
        let route = &config.routes[&name];
        match (&route.from, &mut consumers, &broker.kind) {
            (Source::Rabbitmq(source), Some(consumers), _) => {
                consumers.add(name, source.clone(), route.order_by.is_some(), intake);
            }
            (Source::Rabbitmq(source), None, BrokerKind::Embedded(broker)) => {
                broker.bind(&name, source.bind.clone(), intake);
            }
            (Source::Rabbitmq(_), None, BrokerKind::Rabbitmq(_)) => {
                unreachable!("RabbitMQ has its consumers, made above")
            }
            (Source::Webhook(webhook), _, _) => {
                let hook = Hook::new(Arc::clone(&name), webhook).map_err(|problem| {
                    build_error(format!("routes.{name}.from.webhook"), &problem)
                })?;
                let receiver = match &mut receiver {
                    Some(receiver) => receiver,
                    none => none.insert(listen(config).await?),
                };
                receiver.add(hook, intake).map_err(|problem| {
                    build_error(format!("routes.{name}.from.webhook.path"), &problem)
                })?;
            }
            (Source::Reply(_), _, _) => {}
        }
    }
    Ok(Sources { consumers, receiver })
}

/// The public listener; there is none where no route takes webhooks.
async fn listen(config: &Config) -> Result<Receiver, StartError> {
    let server = &config.settings.server;
    Receiver::bind(server, wall_clock)
        .await
        .map_err(|problem| build_error("server".to_owned(), &problem))
}

fn build_error(key: String, problem: &dyn std::fmt::Display) -> StartError {
    StartError::Build { key, problem: problem.to_string() }
}
