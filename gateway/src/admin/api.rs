//! `/api/v1/routes` and `/api/v1/upstreams` as JSON.

use serde_json::{Value, json};
use tidegate_adapters::event::attribute::rfc3339;

use super::{Answer, missing, ok};
use crate::{
    app::Inspect,
    config::{RouteConfig, Source, Target},
    protect::{BreakerState, UpstreamStatus},
    queue::RouteStatus,
};

/// Every route, also those only the queue still knows.
pub(super) async fn routes(inspect: &dyn Inspect) -> Result<Answer, Answer> {
    let mut routes = Vec::new();
    for status in inspect.queue().routes() {
        routes.push(route_json(inspect, &status).await);
    }
    routes.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Ok(ok(inspect, &json!({ "routes": routes })))
}

/// One route.
pub(super) async fn route(inspect: &dyn Inspect, name: &str) -> Result<Answer, Answer> {
    let routes = inspect.queue().routes();
    let status = routes.iter().find(|status| &*status.name == name);
    let names = routes.iter().map(|status| &*status.name);
    let status = status.ok_or_else(|| missing("route", name, names))?;
    Ok(ok(inspect, &route_json(inspect, status).await))
}

async fn route_json(inspect: &dyn Inspect, status: &RouteStatus) -> Value {
    let config = inspect.config();
    let route = config.routes.get(&status.name);
    let activity = inspect.routes().remove(&status.name).unwrap_or_default();
    let now = inspect.now();
    let oldest = inspect.queue().oldest_due(&status.name, now).await.ok().flatten();
    let state = match (route, status.paused) {
        (None, _) => "orphaned",
        (Some(_), true) => "paused",
        (Some(_), false) => "running",
    };
    json!({
        "name": &*status.name,
        "description": route.and_then(|route| route.description.as_deref()),
        "from": route.map(from_json),
        "to": route.map(to_json),
        "state": state,
        "paused": status.paused,
        "source_up": activity.source_up,
        "counts": {
            "pending": status.counts.pending.saturating_sub(activity.active),
            "active": activity.active,
            "delivered": status.counts.delivered,
            "dead": status.counts.dead,
            "discarded": status.counts.discarded,
        },
        "size_bytes": status.bytes,
        "oldest_due_seconds": oldest.map(|oldest| now.since(oldest).as_secs_f64()),
    })
}

fn from_json(route: &RouteConfig) -> Value {
    match &route.from {
        Source::Rabbitmq(source) => {
            let bind = source.bind.iter();
            let bind = bind.map(|bind| json!({ "exchange": bind.exchange, "key": bind.key }));
            json!({ "rabbitmq": { "queue": source.queue, "bind": bind.collect::<Vec<_>>() } })
        }
        Source::Webhook(source) => {
            json!({ "webhook": { "path": source.path, "verify": source.verify.to_string() } })
        }
        Source::Reply(of) => json!({ "reply": { "of": &**of } }),
    }
}

fn to_json(route: &RouteConfig) -> Value {
    match &route.to {
        Target::Http(target) => {
            let path = target.path.as_ref().map(|path| path.source());
            json!({ "http": {
                "upstream": target.upstream, "method": target.method.as_str(), "path": path,
            } })
        }
        Target::Rabbitmq(target) => {
            json!({ "rabbitmq": { "exchange": target.exchange, "key": target.key.source() } })
        }
    }
}

/// Every upstream.
pub(super) fn upstreams(inspect: &dyn Inspect) -> Result<Answer, Answer> {
    let upstreams: Vec<Value> = inspect.upstreams().iter().map(upstream_json).collect();
    Ok(ok(inspect, &json!({ "upstreams": upstreams })))
}

/// One upstream.
pub(super) fn upstream(inspect: &dyn Inspect, name: &str) -> Result<Answer, Answer> {
    let upstreams = inspect.upstreams();
    let status = upstreams.iter().find(|status| &*status.name == name);
    let names = upstreams.iter().map(|status| &*status.name);
    let status = status.ok_or_else(|| missing("upstream", name, names))?;
    Ok(ok(inspect, &upstream_json(status)))
}

fn upstream_json(status: &UpstreamStatus) -> Value {
    let breaker = status.breaker.map(|breaker| {
        let state = match breaker.state {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half-open",
            BreakerState::Open => "open",
        };
        json!({
            "state": state,
            "failures": breaker.failures,
            "probe_at": breaker.probe_at.map(rfc3339),
        })
    });
    let limits = status.limits.iter().map(|limit| {
        json!({
            "limit": limit.limit,
            "period_ms": limit.period_ms,
            "burst": limit.burst,
            "keys": limit.keys,
            "used": limit.used,
        })
    });
    json!({
        "name": &*status.name,
        "url": status.url,
        "breaker": breaker,
        "concurrency": status.concurrency,
        "in_flight": status.in_flight,
        "limits": limits.collect::<Vec<_>>(),
        "paused": status.paused,
        "paused_until": status.paused_until.map(rfc3339),
    })
}
