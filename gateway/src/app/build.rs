//! From configuration to parts, each built once and none running.

use std::{collections::BTreeMap, sync::Arc};

use tidegate_adapters::{
    Intake,
    embedded::Embedded,
    http::{
        Api,
        caller::{Caller, HttpTarget},
    },
    rabbitmq,
};
use tokio::time::Instant;

use super::{BrokerHandle, Sources, StartError, wall_clock};
use crate::{
    config::{Broker, Config, OnDead, RouteConfig, Source, Target},
    delivery::{self, Activity, Clock, intake::RouteIntake, reply::ReplyRule},
    protect::{self, Upstream},
    queue::{
        Queue, RouteSettings,
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
        max_size: queue.max_size,
        max_route_share: queue.max_route_share,
        keep_delivered: queue.keep.delivered,
        keep_dead: queue.keep.dead,
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

pub(super) fn build_route(
    config: &Config,
    name: &Arc<str>,
    route: &RouteConfig,
    apis: &BTreeMap<Arc<str>, Arc<Api>>,
    upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>,
) -> Result<delivery::Route, StartError> {
    const KNOWN: &str = "the loader checked that every route's upstream exists";
    let Target::Http(target) = &route.to else {
        return Err(build_error(format!("routes.{name}.to.rabbitmq"), &"not built"));
    };
    let settings = config.upstreams.get(&*target.upstream).expect(KNOWN);
    let api = apis.get(&*target.upstream).expect(KNOWN);
    let same_upstream =
        config.routes.iter().filter(|(_, other)| other.upstream() == Some(&*target.upstream));
    Ok(delivery::Route {
        name: Arc::clone(name),
        target: HttpTarget::new(target, Arc::clone(api), route.retry.retry_after_max)
            .map_err(|problem| build_error(format!("routes.{name}.to.http"), &problem))?,
        service: protect::stack(Caller::new(Arc::clone(api)), settings.timeout),
        upstream: Arc::clone(upstreams.get(&*target.upstream).expect(KNOWN)),
        limit_keys: settings.rate_limit.iter().map(|limit| limit.key.clone()).collect(),
        retry: route.retry.clone(),
        reply: route.reply.as_ref().map(|reply| ReplyRule::new(name, reply)),
        peers: same_upstream.map(|(peer, _)| Arc::clone(peer)).collect(),
    })
}

pub(super) fn build_intake(
    name: &Arc<str>,
    route: &RouteConfig,
    queue: &Arc<dyn Queue>,
    activity: &Arc<Activity>,
    metrics: &Metrics,
) -> Arc<dyn Intake> {
    Arc::new(RouteIntake::new(
        Arc::clone(name),
        route.when.clone(),
        route.order_by.clone(),
        route.dedupe().is_some(),
        Arc::clone(queue),
        Arc::clone(activity),
        metrics.clone(),
    ))
}

pub(super) fn build_broker(
    config: &Config,
    intakes: Vec<(Arc<str>, Arc<dyn Intake>)>,
) -> Result<(BrokerHandle, Sources), StartError> {
    let of_route = |name: &Arc<str>| {
        let route = &config.routes[name];
        let Source::Rabbitmq(source) = &route.from else { return None };
        Some((source.clone(), route.order_by.is_some()))
    };
    match &config.settings.broker {
        Broker::Embedded(_) => {
            let broker = Embedded::default();
            for (name, intake) in intakes {
                if let Some((source, _)) = of_route(&name) {
                    broker.bind(&name, source.bind, intake);
                }
            }
            Ok((BrokerHandle::Embedded(broker), Sources::Embedded))
        }
        Broker::Rabbitmq(broker) => {
            let mut consumers = rabbitmq::Consumers::new(broker.clone())
                .map_err(|problem| build_error("broker.rabbitmq".to_owned(), &problem))?;
            for (name, intake) in intakes {
                if let Some((source, ordered)) = of_route(&name) {
                    consumers.add(name, source, ordered, intake);
                }
            }
            let state = consumers.state();
            let handle = BrokerHandle::Rabbitmq { config: broker.clone(), state };
            Ok((handle, Sources::Rabbitmq(consumers)))
        }
    }
}

fn build_error(key: String, problem: &dyn std::fmt::Display) -> StartError {
    StartError::Build { key, problem: problem.to_string() }
}
