//! Alive and ready.

use std::sync::atomic::Ordering;

use tidegate_adapters::Timestamp;

use super::world::{NOW, open};

const MINUTE_MS: i64 = 60_000;

fn ago(minutes: i64) -> Timestamp {
    Timestamp(NOW.0 - minutes * MINUTE_MS)
}

#[tokio::test]
async fn p14_due_work_that_stands_still_is_not_alive_and_says_where() {
    let admin = open().await;
    assert_eq!(admin.get("/healthz").await.status, 200);
    admin.world.stands_still("award-points", ago(2), ago(2));
    let said = admin.get("/healthz").await;
    assert_eq!(said.status, 503);
    assert_eq!(said.json()["alive"], false);
    assert_eq!(said.json()["stalled_routes"], serde_json::json!(["award-points"]));
}

#[tokio::test]
async fn an_old_backlog_that_moves_is_alive() {
    let admin = open().await;
    admin.world.stands_still("award-points", ago(600), ago(0));
    assert_eq!(admin.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_route_without_due_work_is_alive_however_long_ago_it_had_some() {
    let admin = open().await;
    admin.world.stands_still("award-points", ago(-1), ago(600));
    assert_eq!(admin.get("/healthz").await.status, 200);
    // Due a moment ago, after a quiet night.
    admin.world.stands_still("award-points", ago(0), ago(600));
    assert_eq!(admin.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn an_attempt_under_way_may_take_its_timeout_and_no_longer() {
    let admin = open().await;
    // `mail` has a timeout of five minutes.
    let with_one_under_way = |minutes| {
        admin.world.stands_still("thank-you", ago(minutes), ago(minutes));
        admin.world.routes.lock().get_mut("thank-you").unwrap().active = 1;
    };
    with_one_under_way(4);
    assert_eq!(admin.get("/healthz").await.status, 200);
    with_one_under_way(7);
    assert_eq!(admin.get("/healthz").await.status, 503);
}

#[tokio::test]
async fn neither_a_paused_route_nor_a_draining_process_is_stalled() {
    let admin = open().await;
    admin.world.stands_still("award-points", ago(5), ago(5));
    admin.world.stopping.store(true, Ordering::Relaxed);
    assert_eq!(admin.get("/healthz").await.status, 200);
    admin.world.stopping.store(false, Ordering::Relaxed);
    assert_eq!(admin.get("/healthz").await.status, 503);
    for route in admin.world.queue.routes.lock().iter_mut() {
        route.paused = true;
    }
    assert_eq!(admin.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn ready_shows_each_component() {
    let admin = open().await;
    let said = admin.get("/readyz").await;
    assert_eq!(said.status, 200);
    let expected = serde_json::json!({
        "ready": true,
        "stopping": false,
        "components": {
            "queue": "up",
            "admin": "up",
            "broker": "up",
            "sources": { "award-points": "up", "thank-you": "up" },
        },
        "config": {
            "generation": 1,
            "hash": "0123456789abcdef",
            "since": "2026-01-31T12:00:00Z",
            "reload_failed": false,
        },
    });
    assert_eq!(said.json(), expected);
}

#[tokio::test]
async fn not_ready_from_the_moment_it_stops_or_the_queue_has_failed() {
    let admin = open().await;
    admin.world.stopping.store(true, Ordering::Relaxed);
    let said = admin.get("/readyz").await;
    assert_eq!((said.status, &said.json()["stopping"]), (503, &true.into()));
    admin.world.stopping.store(false, Ordering::Relaxed);
    admin.world.queue.status.lock().writable = false;
    let said = admin.get("/readyz").await;
    assert_eq!((said.status, &said.json()["components"]["queue"]), (503, &"failed".into()));
}

#[tokio::test]
async fn a_broker_that_is_down_and_a_full_queue_are_shown_and_waited_for() {
    let admin = open().await;
    admin.world.broker.lock().consume_connected = false;
    admin.world.queue.status.lock().room = false;
    let said = admin.get("/readyz").await;
    assert_eq!(said.status, 200);
    assert_eq!(said.json()["components"]["broker"], "down");
    assert_eq!(said.json()["components"]["queue"], "full");
}

#[tokio::test]
async fn a_reload_that_failed_shows_and_why_only_to_those_who_may_read() {
    use super::world::{READ, guarded};
    let admin = guarded().await;
    admin.world.generation.lock().failed = Some("routes.x: `10 s` is no duration".to_owned());
    let said = admin.get("/readyz").await;
    assert_eq!(said.status, 200, "what ran before still runs");
    let config = said.json()["config"].clone();
    assert_eq!((&config["reload_failed"], config.get("reload_problem")), (&true.into(), None));
    let config = admin.get_as("/readyz", READ).await.json()["config"].clone();
    assert_eq!(config["reload_problem"], "routes.x: `10 s` is no duration");
}
