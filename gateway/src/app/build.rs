//! From configuration to parts, each built once and none running.

use std::{collections::BTreeMap, sync::Arc};

use tidegate_adapters::{
    embedded::Embedded,
    http::{
        Api, WebhookLimitConfig,
        caller::{Caller, HttpTarget},
    },
    rabbitmq::{self, Consumers, ConsumersHandle, PublishTarget},
};
use tokio::time::Instant;

use super::{StartError, bindings::Bindings, wall_clock};
use crate::{
    config::{self, Config, OnDead, RateLimitConfig, RouteConfig, Source, Target, UpstreamConfig},
    delivery::{
        self, Clock,
        intake::{Judge, Rules},
    },
    protect::{self, Upstream},
    queue::{
        Bounds, Queue, RouteSettings,
        sqlite::{Options, SqliteQueue},
    },
    telemetry::{Exporter, Metrics, Tracer},
};

pub(super) fn open_queue(
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
    Ok(Arc::new(SqliteQueue::open(options)?))
}

pub(super) fn bounds(config: &Config) -> Bounds {
    let queue = &config.settings.queue;
    Bounds {
        max_size: queue.max_size,
        max_route_share: queue.max_route_share,
        keep_delivered: queue.keep.delivered,
        keep_dead: queue.keep.dead,
    }
}

/// What the queue is told of each route.
pub(super) fn route_settings(config: &Config) -> BTreeMap<Arc<str>, RouteSettings> {
    let settings = config.routes.iter().map(|(name, route)| {
        let settings = RouteSettings {
            name: Arc::clone(name),
            dedupe: route.dedupe(),
            hold: route.on_dead == OnDead::Hold,
        };
        (Arc::clone(name), settings)
    });
    settings.collect()
}

pub(super) fn api(
    name: &str,
    config: &Config,
    upstream: &UpstreamConfig,
) -> Result<Arc<Api>, StartError> {
    let concurrency = upstream.concurrency.get() as usize;
    let api = Api::new(&upstream.api, concurrency, config.mask.clone(), wall_clock)
        .map_err(|problem| build_error(format!("upstreams.{name}"), &problem))?;
    Ok(Arc::new(api))
}

/// What records spans, and what sends them; nothing where the configuration has no `telemetry`.
pub(super) fn tracer(
    config: &Config,
    metrics: &Metrics,
) -> Result<(Tracer, Option<Exporter>), StartError> {
    let Some(telemetry) = &config.settings.telemetry else { return Ok((Tracer::off(), None)) };
    let (tracer, exporter) = Exporter::new(telemetry, &config.mask, metrics)
        .map_err(|problem| build_error("telemetry.otlp".to_owned(), &problem))?;
    Ok((tracer, Some(exporter)))
}

/// The broker as built: where routes publish to, what admits them, and what consumes.
pub(super) struct Broker {
    pub(super) kind: BrokerKind,
    /// The protections that all routes publishing to it share.
    pub(super) upstream: Arc<Upstream>,
}

pub(super) enum BrokerKind {
    Embedded(Embedded),
    Rabbitmq {
        consuming: ConsumersHandle,
        publish: rabbitmq::PublishHandle,
        publishing: Arc<rabbitmq::ConnectionState>,
        service: rabbitmq::PublishService,
        server: rabbitmq::Server,
    },
}

/// What of the broker must run.
#[derive(Default)]
pub(super) struct BrokerParts {
    pub(super) consumers: Option<Consumers>,
    pub(super) publisher: Option<rabbitmq::Publisher>,
}

impl Broker {
    pub(super) fn new(
        config: &Config,
        metrics: &Metrics,
        bindings: &Arc<Bindings>,
    ) -> Result<(Self, BrokerParts), StartError> {
        let now = Instant::now();
        let (kind, flowing, parts) = match &config.settings.broker {
            config::Broker::Embedded(_) => {
                // There is no connection that could break.
                let flowing = tokio::sync::watch::channel(true).1;
                (BrokerKind::Embedded(Embedded::default()), flowing, BrokerParts::default())
            }
            config::Broker::Rabbitmq(broker) => {
                let server = rabbitmq::Server::new(dialled(broker)?);
                let publisher = rabbitmq::Publisher::new(&server);
                let bindings = Arc::clone(bindings);
                let unbound = move |unbound| -> futures_util::future::BoxFuture<'static, ()> {
                    let bindings = Arc::clone(&bindings);
                    Box::pin(async move { bindings.unbound(unbound).await })
                };
                let consumers = Consumers::new(&server, unbound);
                let kind = BrokerKind::Rabbitmq {
                    consuming: consumers.handle(),
                    publish: publisher.handle(),
                    publishing: publisher.state(),
                    service: publisher.service(),
                    server,
                };
                let flowing = publisher.flowing();
                let parts = BrokerParts { consumers: Some(consumers), publisher: Some(publisher) };
                (kind, flowing, parts)
            }
        };
        let upstream = Arc::new(Upstream::broker(flowing, metrics.clone(), now));
        Ok((Self { kind, upstream }, parts))
    }

    /// The leaf that publishes.
    pub(super) fn service(&self) -> protect::Target {
        match &self.kind {
            BrokerKind::Embedded(broker) => protect::Target::new(broker.service()),
            BrokerKind::Rabbitmq { service, .. } => protect::Target::new(service.clone()),
        }
    }
}

/// The RabbitMQ of `config`, to be dialled.
pub(super) fn dialled(config: &rabbitmq::BrokerConfig) -> Result<rabbitmq::Broker, StartError> {
    rabbitmq::Broker::new(config)
        .map_err(|problem| build_error("broker.rabbitmq".to_owned(), &problem))
}

/// What renders a route's calls, and where they go.
pub(super) enum Rendered {
    Http(HttpTarget, Arc<Api>),
    Rabbitmq(PublishTarget),
}

impl Rendered {
    pub(super) fn new(
        config: &Config,
        name: &Arc<str>,
        route: &RouteConfig,
        apis: &BTreeMap<Arc<str>, Arc<Api>>,
    ) -> Result<Self, StartError> {
        match &route.to {
            Target::Http(target) => {
                let api = apis.get(&*target.upstream).expect(KNOWN);
                let after = route.retry.retry_after_max;
                let mut rendered = HttpTarget::new(target, Arc::clone(api), after)
                    .map_err(|problem| build_error(format!("routes.{name}.to.http"), &problem))?;
                if route.reply.is_some() {
                    rendered = rendered.with_reply();
                }
                Ok(Self::Http(rendered, Arc::clone(api)))
            }
            Target::Rabbitmq(target) => PublishTarget::new(target, config.mask.clone())
                .map(Self::Rabbitmq)
                .map_err(|problem| build_error(format!("routes.{name}.to.rabbitmq"), &problem)),
        }
    }
}

/// The route as its loop takes it. `upstreams` have their protections already.
pub(super) fn route(
    config: &Config,
    tracer: &Tracer,
    name: &Arc<str>,
    rendered: Rendered,
    upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>,
    broker: &Broker,
) -> delivery::Route {
    let route = &config.routes[name];
    let peers = config.routes.iter().filter(|(_, other)| other.upstream() == route.upstream());
    let peers = peers.map(|(peer, _)| Arc::clone(peer)).collect();
    let (name, retry) = (Arc::clone(name), route.retry.clone());
    let url =
        route.upstream().map(|upstream| &config.upstreams.get(upstream).expect(KNOWN).api.url);
    let tracer = tracer.target(&name, route, url, &config.settings.broker);
    let reply = route.reply.as_ref().map(|reply| delivery::reply::ReplyRule::new(&name, reply));
    let (target, service, upstream, limit_keys) = match rendered {
        Rendered::Http(target, api) => {
            let named = route.upstream().expect(KNOWN);
            let settings = config.upstreams.get(named).expect(KNOWN);
            let service = protect::stack(Caller::new(api), settings.timeout);
            let keys = settings.rate_limit.iter().map(|limit| limit.key.clone()).collect();
            let upstream = upstreams.get(named).expect(KNOWN);
            (delivery::Target::Http(target), service, upstream, keys)
        }
        Rendered::Rabbitmq(target) => {
            let target = delivery::Target::Rabbitmq(target);
            (target, broker.service(), &broker.upstream, Vec::new())
        }
    };
    delivery::Route {
        name,
        target,
        service,
        limits_epoch: upstream.limits_epoch(),
        upstream: Arc::clone(upstream),
        limit_keys,
        retry,
        reply,
        tracer,
        peers,
    }
}

const KNOWN: &str = "the loader checked that every route's upstream exists";

/// What is decided of a route's arrivals.
pub(super) fn rules(
    config: &Config,
    tracer: &Tracer,
    name: &Arc<str>,
    route: &RouteConfig,
) -> Rules {
    let limit = match &route.from {
        Source::Webhook(webhook) => webhook.rate_limit.as_ref(),
        Source::Rabbitmq(_) | Source::Reply(_) => None,
    };
    Rules {
        judge: Judge::new(name, route.when.clone(), route.order_by.clone()),
        dedupe: route.dedupe().is_some(),
        limit: limit.map(|limit| {
            let WebhookLimitConfig { limit, period, burst } = *limit;
            RateLimitConfig { limit, period, burst, key: None }
        }),
        tracer: tracer.source(name, route, &config.settings.broker),
    }
}

pub(super) fn build_error(key: String, problem: &dyn std::fmt::Display) -> StartError {
    StartError::Build { key, problem: problem.to_string() }
}
