//! Alive (making progress) and ready (able to take something in).

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::{Answer, with_type};
use crate::app::Inspect;

/// Due work that stands still for longer, with nothing to wait for, is a fault of ours.
const STALLED: Duration = Duration::from_secs(60);

/// 503 when due work has stood still although its upstream is healthy.
pub(super) async fn alive(inspect: &dyn Inspect) -> Answer {
    let (queue, now) = (inspect.queue(), inspect.now());
    let mut stalled = Vec::new();
    for (name, activity) in inspect.routes() {
        if now.since(activity.progress_at) < STALLED {
            continue;
        }
        let oldest = queue.oldest_due(&name, now).await.ok().flatten();
        if oldest.is_some_and(|due| now.since(due) >= STALLED) {
            stalled.push(name.to_string());
        }
    }
    let status = match stalled.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({ "alive": stalled.is_empty(), "stalled_routes": stalled });
    with_type(status, "application/json", body.to_string())
}

/// 503 when the queue cannot be written to, or from the moment of SIGTERM.
pub(super) fn ready(inspect: &dyn Inspect) -> Answer {
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
    let body = json!({
        "ready": ready,
        "stopping": inspect.stopping(),
        "components": {
            "queue": queue_state,
            "admin": "up",
            // Down is no reason not to be ready: it is waited for, and nothing is lost meanwhile.
            "broker": up(broker.consume_connected),
            "sources": serde_json::Map::from_iter(sources),
        },
    });
    with_type(status, "application/json", body.to_string())
}
