//! What an operator does to routes, upstreams, single deliveries and the configuration.
//!
//! Each is logged with the operator's name. What has two halves runs to its end in a task of its
//! own: an operator who goes away in the middle leaves nothing half done.

use http::StatusCode;
use serde_json::{Value, json};
use tidegate_adapters::{DeliveryId, event::attribute::rfc3339};

use super::{
    Answer, api,
    deliveries::{failed, listed_json, numbered},
    masked, missing, ok, problem, with_type,
};
use crate::{
    app::{ControlError, Inspect, ReloadError},
    queue::{Action, QueueError},
    telemetry::Ending,
};

/// Pauses or resumes a route, also one that only the queue still knows; answers the route.
pub(super) async fn pause_route(
    inspect: &dyn Inspect,
    operator: &str,
    name: &str,
    paused: bool,
) -> Result<Answer, Answer> {
    let queue = inspect.queue();
    let routes = queue.routes();
    let names = routes.iter().map(|status| &*status.name);
    let status = routes.iter().find(|status| &*status.name == name);
    let status = status.ok_or_else(|| missing("route", name, names))?;
    queue.pause_route(&status.name, paused).await.map_err(|error| failed(&error))?;
    match paused {
        true => tracing::info!(operator, route = name, "route paused"),
        false => tracing::info!(operator, route = name, "route resumed"),
    }
    api::route(inspect, name).await
}

/// Pauses or resumes an upstream; answers it.
pub(super) async fn pause_upstream(
    inspect: &dyn Inspect,
    operator: &str,
    name: &str,
    paused: bool,
) -> Result<Answer, Answer> {
    let done = whole(inspect.pause_upstream(name, paused)).await?;
    done.map_err(|error| not_controlled(inspect, name, &error))?;
    match paused {
        true => tracing::info!(operator, upstream = name, "pause of the upstream asked for"),
        false => tracing::info!(operator, upstream = name, "end of the pause asked for"),
    }
    api::upstream(inspect, name)
}

/// Closes an upstream's breaker and forgets the quiet it asked for; answers it. An operator's pause
/// stays: that is ended by whoever ends it on purpose.
pub(super) fn reset_upstream(
    inspect: &dyn Inspect,
    operator: &str,
    name: &str,
) -> Result<Answer, Answer> {
    let reset = inspect.reset_upstream(name);
    reset.map_err(|error| not_controlled(inspect, name, &error))?;
    tracing::info!(operator, upstream = name, "reset of the upstream asked for");
    api::upstream(inspect, name)
}

/// Replays or discards one delivery; answers it as a list shows it.
pub(super) async fn act(
    inspect: &dyn Inspect,
    operator: &str,
    action: Action,
    id: &str,
) -> Result<Answer, Answer> {
    let queue = inspect.queue();
    let id = numbered(id)?;
    let before = queue.show(id).await.map_err(|error| failed(&error))?;
    let route = &before.delivery.route;
    queue.act(action, id).await.map_err(|error| not_acted(action, &error))?;
    let (route_name, delivery) = (&**route, id.0);
    match action {
        Action::Replay => {
            tracing::info!(operator, route = route_name, delivery, "delivery replayed");
        }
        Action::Discard => {
            inspect.metrics().ended(route, Ending::Discarded);
            tracing::info!(operator, route = route_name, delivery, "delivery discarded");
        }
    }
    let after = queue.show(id).await.map_err(|error| failed(&error))?;
    Ok(ok(inspect, &listed_json(inspect, &after)))
}

/// Reads the configuration again and takes it up, if all of it is good.
pub(super) async fn reload(inspect: &dyn Inspect, operator: &str) -> Result<Answer, Answer> {
    tracing::info!(operator, "reload asked for");
    match whole(inspect.reload()).await? {
        Ok(reloaded) => {
            let generation = &reloaded.generation;
            let json = json!({
                "generation": generation.number,
                "hash": generation.hash,
                "since": rfc3339(generation.since),
                "changed": reloaded.changed,
                "warnings": reloaded.warnings,
            });
            Ok(ok(inspect, &json))
        }
        Err(error) => Err(not_reloaded(inspect, &error)),
    }
}

fn not_reloaded(inspect: &dyn Inspect, error: &ReloadError) -> Answer {
    let (status, detail, more) = match error {
        ReloadError::Invalid(report) => {
            let count = match report.problems.len() {
                1 => "1 problem".to_owned(),
                many => format!("{many} problems"),
            };
            let detail = format!("the configuration is invalid: {count}; nothing has changed");
            (StatusCode::UNPROCESSABLE_ENTITY, detail, report.to_json())
        }
        ReloadError::Restart(keys) => {
            (StatusCode::CONFLICT, error.to_string(), json!({ "keys": keys }))
        }
        ReloadError::Unavailable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string(), json!({}))
        }
    };
    let mut body = json!({
        "title": status.canonical_reason(), "status": status.as_u16(), "detail": detail,
    });
    for name in ["problems", "warnings", "keys"] {
        if let Some(value) = more.get(name) {
            body[name] = value.clone();
        }
    }
    let body = masked(&inspect.config().mask, body.to_string());
    with_type(status, "application/problem+json", body)
}

fn not_controlled(inspect: &dyn Inspect, name: &str, error: &ControlError) -> Answer {
    match error {
        ControlError::NoUpstream(_) => {
            let upstreams = inspect.upstreams();
            missing("upstream", name, upstreams.iter().map(|status| &*status.name))
        }
        ControlError::Queue(error) => failed(error),
    }
}

fn not_acted(action: Action, error: &QueueError) -> Answer {
    let QueueError::Unfit { id, state } = error else { return failed(error) };
    problem(StatusCode::CONFLICT, &unfit(action, *id, state))
}

/// Why `action` cannot be done to a delivery in `state`, and what could be.
fn unfit(action: Action, id: DeliveryId, state: &str) -> String {
    if state == "active" {
        return format!("delivery {id} is active: try again once its attempt is over");
    }
    match action {
        Action::Replay => {
            format!("delivery {id} is {state}; only dead and delivered ones are replayed")
        }
        Action::Discard => {
            format!("delivery {id} is {state}; only pending and dead ones are discarded")
        }
    }
}

/// Runs it to its end, even if the one who asked for it goes away.
pub(super) async fn whole<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Answer> {
    let ended = tokio::spawn(work).await;
    ended.map_err(|_| problem(StatusCode::INTERNAL_SERVER_ERROR, "it broke off; see the log"))
}

/// A verb that takes no body was sent one.
pub(super) fn no_body(body: &[u8]) -> Result<(), Answer> {
    let empty = body.trim_ascii().is_empty()
        || serde_json::from_slice::<Value>(body).is_ok_and(|body| body == json!({}));
    match empty {
        true => Ok(()),
        false => Err(problem(StatusCode::BAD_REQUEST, "this takes no body")),
    }
}
