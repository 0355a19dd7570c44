//! `/api/v1`: routes, upstreams and deliveries as JSON.

use std::sync::Arc;

use base64::Engine as _;
use http::StatusCode;
use serde_json::{Map, Value, json};
use tidegate_adapters::{DeadReason, DeliveryId, Timestamp, event::attribute::rfc3339};

use super::{Answer, ok, problem};
use crate::{
    app::Inspect,
    config::{RouteConfig, Source, Target},
    protect::{BreakerState, UpstreamStatus},
    queue::{AttemptRecord, Filter, Listed, QueueError, RouteStatus, State},
};

/// Deliveries on a page, unless asked for fewer or more; and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;

/// Every route, also those only the queue still knows.
pub(super) async fn routes(inspect: &dyn Inspect) -> Result<Answer, Answer> {
    let mut routes = Vec::new();
    for status in inspect.queue().routes() {
        routes.push(route_json(inspect, &status).await);
    }
    routes.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    Ok(ok(&json!({ "routes": routes })))
}

/// One route.
pub(super) async fn route(inspect: &dyn Inspect, name: &str) -> Result<Answer, Answer> {
    let routes = inspect.queue().routes();
    let status = routes.iter().find(|status| &*status.name == name);
    let status = status.ok_or_else(|| missing("route", name))?;
    Ok(ok(&route_json(inspect, status).await))
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
    let Source::Rabbitmq(source) = &route.from;
    let bind = source.bind.iter().map(|bind| json!({ "exchange": bind.exchange, "key": bind.key }));
    json!({ "rabbitmq": { "queue": source.queue, "bind": bind.collect::<Vec<_>>() } })
}

fn to_json(route: &RouteConfig) -> Value {
    let Target::Http(target) = &route.to;
    let path = target.path.as_ref().map(|path| path.source());
    json!({ "http": {
        "upstream": target.upstream, "method": target.method.as_str(), "path": path,
    } })
}

/// Every upstream.
pub(super) fn upstreams(inspect: &dyn Inspect) -> Result<Answer, Answer> {
    let upstreams: Vec<Value> = inspect.upstreams().iter().map(upstream_json).collect();
    Ok(ok(&json!({ "upstreams": upstreams })))
}

/// One upstream.
pub(super) fn upstream(inspect: &dyn Inspect, name: &str) -> Result<Answer, Answer> {
    let upstreams = inspect.upstreams();
    let status = upstreams.iter().find(|status| &*status.name == name);
    Ok(ok(&upstream_json(status.ok_or_else(|| missing("upstream", name))?)))
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
        "paused_until": status.paused_until.map(rfc3339),
    })
}

/// A page of deliveries, newest first.
pub(super) async fn deliveries(inspect: &dyn Inspect, query: &str) -> Result<Answer, Answer> {
    let bad = |why: String| problem(StatusCode::BAD_REQUEST, &why);
    let asked = Asked::parse(query, inspect).map_err(bad)?;
    let page = inspect.queue().list(asked.filter, asked.cursor, asked.limit).await;
    let page = page.map_err(|error| failed(&error))?;
    let listed = page.deliveries.iter().map(|listed| Value::Object(listed_json(inspect, listed)));
    let next = page.next.map(|next| next.to_string());
    Ok(ok(&json!({ "deliveries": listed.collect::<Vec<_>>(), "next": next })))
}

/// One delivery, with its event and attempts.
pub(super) async fn delivery(inspect: &dyn Inspect, id: &str) -> Result<Answer, Answer> {
    let number = id.parse().map_err(|_| missing("delivery", id))?;
    let listed = inspect.queue().show(DeliveryId(number)).await.map_err(|error| failed(&error))?;
    let mut json = listed_json(inspect, &listed);
    match &listed.raw {
        None => {
            let event: Value =
                serde_json::from_slice(&listed.delivery.event.to_json()).unwrap_or_default();
            json.insert("event".to_owned(), event);
        }
        Some(raw) => {
            json.insert("event".to_owned(), Value::Null);
            json.insert("about".to_owned(), json!(listed.delivery.event.extensions));
            let text = base64::engine::general_purpose::STANDARD.encode(raw);
            json.insert("raw_base64".to_owned(), text.into());
        }
    }
    if let Some((_, detail)) = &listed.dead {
        json.insert("detail".to_owned(), detail.clone().into());
    }
    let attempts: Vec<Value> = listed.attempts.iter().map(attempt_json).collect();
    json.insert("attempts".to_owned(), attempts.into());
    Ok(ok(&Value::Object(json)))
}

fn listed_json(inspect: &dyn Inspect, listed: &Listed) -> Map<String, Value> {
    let delivery = &listed.delivery;
    let config = inspect.config();
    let upstream = config.routes.get(&delivery.route).map(|route| {
        let Target::Http(target) = &route.to;
        target.upstream.clone()
    });
    let state = match listed.state {
        State::Pending if inspect.queue().claimed(delivery.id) => "active",
        State::Pending => "pending",
        State::Delivered => "delivered",
        State::Dead => "dead",
        State::Discarded => "discarded",
    };
    let reason = listed.dead.as_ref().map(|(reason, _)| reason.as_str());
    let event_id = Some(&delivery.event.id).filter(|id| !id.is_empty());
    let json = json!({
        "id": delivery.id.to_string(),
        "event_id": event_id,
        "type": Some(&delivery.event.kind).filter(|kind| !kind.is_empty()),
        "route": &*delivery.route,
        "upstream": upstream,
        "state": state,
        "reason": reason,
        "key": delivery.key.as_deref(),
        "attempt_count": delivery.tries,
        "accepted_at": rfc3339(delivery.accepted_at),
        "due_at": listed.due_at.map(rfc3339),
    });
    match json {
        Value::Object(json) => json,
        _ => Map::new(),
    }
}

fn attempt_json(attempt: &AttemptRecord) -> Value {
    json!({
        "number": attempt.number,
        "at": rfc3339(attempt.at),
        "duration_ms": attempt.duration.as_secs_f64() * 1000.0,
        "result": attempt.result.as_str(),
        "status": attempt.exchange.status,
        "detail": attempt.detail,
        "request": attempt.exchange.request,
        "response": attempt.exchange.response,
    })
}

/// What a list was asked for.
struct Asked {
    filter: Filter,
    cursor: Option<DeliveryId>,
    limit: usize,
}

impl Asked {
    fn parse(query: &str, inspect: &dyn Inspect) -> Result<Self, String> {
        let mut asked = Self { filter: Filter::default(), cursor: None, limit: PAGE };
        let filter = &mut asked.filter;
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                "route" => narrow(&mut filter.routes, vec![value.into()]),
                "upstream" => narrow(&mut filter.routes, routes_of(inspect, &value)),
                "state" => filter.state = Some(state_named(&value)?),
                "reason" => filter.reason = Some(reason_named(&value)?),
                "type" => filter.kind = Some(value),
                "event" => filter.event = Some(value),
                "key" => filter.key = Some(value),
                "since" => filter.since = Some(moment(&value, inspect.now())?),
                "until" => filter.until = Some(moment(&value, inspect.now())?),
                "cursor" => {
                    let cursor = value.parse().map_err(|_| "`cursor` is not one we gave")?;
                    asked.cursor = Some(DeliveryId(cursor));
                }
                "limit" => {
                    let limit: usize = value.parse().map_err(|_| "`limit` is not a number")?;
                    if !(1..=PAGE_MAX).contains(&limit) {
                        return Err(format!("`limit` is {limit}, not from 1 to {PAGE_MAX}"));
                    }
                    asked.limit = limit;
                }
                _ => {
                    return Err(format!(
                        "`{name}` is no filter; there are route upstream state reason type event \
                         key since until limit cursor"
                    ));
                }
            }
        }
        Ok(asked)
    }
}

/// Both a route and an upstream were named: those that are both. No route matches an empty list
/// of names, so that nothing is found rather than everything.
fn narrow(routes: &mut Vec<Arc<str>>, to: Vec<Arc<str>>) {
    if routes.is_empty() {
        *routes = to;
    } else {
        routes.retain(|route| to.contains(route));
    }
    if routes.is_empty() {
        routes.push("".into());
    }
}

fn routes_of(inspect: &dyn Inspect, upstream: &str) -> Vec<Arc<str>> {
    let config = inspect.config();
    let ours = config.routes.iter().filter(|(_, route)| {
        let Target::Http(target) = &route.to;
        target.upstream == upstream
    });
    ours.map(|(name, _)| Arc::clone(name)).collect()
}

fn state_named(name: &str) -> Result<State, String> {
    match name {
        // Active ones are pending ones in the loop's hands.
        "pending" | "active" => Ok(State::Pending),
        "delivered" => Ok(State::Delivered),
        "dead" => Ok(State::Dead),
        "discarded" => Ok(State::Discarded),
        _ => {
            Err(format!("`{name}` is no state; there are pending active delivered dead discarded"))
        }
    }
}

fn reason_named(name: &str) -> Result<DeadReason, String> {
    DeadReason::ALL.into_iter().find(|reason| reason.as_str() == name).ok_or_else(|| {
        let known: Vec<&str> = DeadReason::ALL.iter().map(|reason| reason.as_str()).collect();
        format!("`{name}` is no reason; there are {}", known.join(" "))
    })
}

/// RFC 3339, or how long ago: `1h`.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = tidegate_adapters::units::parse_duration(text) {
        let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(Timestamp(now.0.saturating_sub(ago_ms)));
    }
    let format = &time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(text, format).map_err(|_| {
        format!("`{text}` is neither a time (2026-01-31T12:00:00Z) nor how long ago (1h)")
    })?;
    let ms = time.unix_timestamp_nanos() / 1_000_000;
    Ok(Timestamp(i64::try_from(ms).unwrap_or(i64::MAX)))
}

fn missing(what: &str, name: &str) -> Answer {
    problem(StatusCode::NOT_FOUND, &format!("there is no {what} `{name}`"))
}

fn failed(error: &QueueError) -> Answer {
    match error {
        QueueError::Missing(id) => missing("delivery", &id.to_string()),
        error => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}
