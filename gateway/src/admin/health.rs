//! Alive (making progress) and ready (able to take something in).

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::json;
use tidegate_adapters::{event::attribute::rfc3339, rabbitmq};

use super::{Answer, JSON, with_type};
use crate::{
    app::{Inspect, RouteActivity},
    queue::RouteStatus,
};

/// Due work that stands still for longer, with nothing to wait for, is a fault of ours.
const STALLED: Duration = Duration::from_secs(60);

/// 503 when due work has stood still although its upstream is healthy.
pub(super) async fn alive(inspect: &dyn Inspect) -> Answer {
    let mut stalled = Vec::new();
    // What drains may be left standing: it is still pending, and shutdown has its own deadline.
    if !inspect.stopping() {
        for (name, activity) in inspect.routes() {
            if is_stalled(inspect, &name, &activity).await {
                stalled.push(name.to_string());
            }
        }
    }
    let status = match stalled.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "alive": stalled.is_empty(), "stalled_routes": stalled });
    with_type(status, JSON, body.to_string())
}

async fn is_stalled(inspect: &dyn Inspect, route: &Arc<str>, activity: &RouteActivity) -> bool {
    let (queue, now) = (inspect.queue(), inspect.now());
    // An attempt under way is progress for as long as it may take, and not longer: one that never
    // ends, or is never recorded, is what this is here to find.
    let attempt = match activity.active {
        0 => Duration::ZERO,
        _ => attempt_timeout(inspect, route),
    };
    let patience = STALLED + attempt;
    if now.since(activity.progress_at) < patience {
        return false;
    }
    let paused = |status: &RouteStatus| status.name == *route && status.paused;
    if queue.routes().iter().any(paused) {
        return false;
    }
    // A store that cannot be read has failed, which ends the process; it is not for a probe to say.
    let oldest = queue.oldest_due(route, now).await.ok().flatten();
    oldest.is_some_and(|due| now.since(due) >= patience)
}

fn attempt_timeout(inspect: &dyn Inspect, route: &str) -> Duration {
    let config = inspect.config();
    match config.routes.get(route).map(|route| route.upstream()) {
        None => Duration::ZERO,
        Some(None) => rabbitmq::CONFIRM,
        Some(Some(upstream)) => {
            config.upstreams.get(upstream).map_or(Duration::ZERO, |upstream| upstream.timeout)
        }
    }
}

/// 503 when the queue cannot be written to, or from the moment of SIGTERM. Why a reload failed may
/// repeat what is configured: that is for those who may read.
pub(super) fn ready(inspect: &dyn Inspect, reads: bool) -> Answer {
    let queue = inspect.queue().status();
    let broker = inspect.broker();
    let ready = queue.writable && !inspect.stopping();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let up = |up: bool| if up { "up" } else { "down" };
    let queue_state = match (queue.writable, queue.room) {
        (false, _) => "failed",
        (true, false) => "full",
        (true, true) => "up",
    };
    let sources = inspect
        .routes()
        .into_iter()
        .map(|(name, activity)| (name.to_string(), up(activity.source_up).into()));
    let mut body = json!({
        "ready": ready,
        "stopping": inspect.stopping(),
        "components": {
            "queue": queue_state,
            "admin": "up",
            // Down is no reason not to be ready: it is waited for, and nothing is lost meanwhile.
            "broker": up(broker.consume_connected && broker.publish_connected),
            "sources": serde_json::Map::from_iter(sources),
        },
    });
    let generation = inspect.generation();
    body["config"] = json!({
        "generation": generation.number,
        "hash": generation.hash,
        "since": rfc3339(generation.since),
        "reload_failed": generation.failed.is_some(),
    });
    if let (true, Some(problem)) = (reads, generation.failed) {
        body["config"]["reload_problem"] = inspect.config().mask.apply(&problem).into();
    }
    if inspect.webhooks_url().is_some() {
        // Bound before anything runs.
        body["components"]["webhooks"] = "up".into();
    }
    with_type(status, JSON, body.to_string())
}
