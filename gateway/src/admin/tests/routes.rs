//! Routes and upstreams.

use std::sync::Arc;

use serde_json::json;

use super::world::{API_KEY, NOW, READ, guarded, open};
use crate::{
    protect::{BreakerState, BreakerStatus, LimitStatus, UpstreamStatus},
    queue::{Counts, RouteStatus},
};

pub(super) fn upstream(name: &str) -> UpstreamStatus {
    UpstreamStatus {
        name: name.into(),
        url: "https://api.loyalty.example/v2".to_owned(),
        breaker: Some(BreakerStatus {
            state: BreakerState::Open,
            failures: 5,
            probe_at: Some(NOW),
        }),
        concurrency: 64,
        in_flight: 3,
        limits: vec![LimitStatus { limit: 100, period_ms: 1000, burst: 5, keys: None, used: 0.25 }],
        paused: false,
        paused_until: None,
    }
}

#[tokio::test]
async fn a_route_shows_its_ends_its_counts_and_how_old_its_oldest_is() {
    let admin = open().await;
    admin.world.stands_still("award-points", tidegate_adapters::Timestamp(NOW.0 - 1500), NOW);
    admin.world.routes.lock().get_mut("award-points").unwrap().active = 2;
    let said = admin.get("/api/v1/routes/award-points").await;
    assert_eq!(said.status, 200);
    let expected = json!({
        "name": "award-points",
        "description": "Points for orders",
        "from": { "rabbitmq": {
            "queue": "tidegate.award-points",
            "bind": [{ "exchange": "orders", "key": "order.#" }],
        } },
        "to": { "http": {
            "upstream": "loyalty", "method": "POST", "path": "/members/{.data.id}",
        } },
        "state": "running",
        "paused": false,
        "source_up": true,
        "counts": { "pending": 5, "active": 2, "delivered": 5, "dead": 3, "discarded": 1 },
        "size_bytes": 4096,
        "oldest_due_seconds": 1.5,
    });
    assert_eq!(said.json(), expected);
}

#[tokio::test]
async fn a_list_has_every_route_orphans_included_by_name() {
    let admin = open().await;
    admin.world.queue.routes.lock().push(RouteStatus {
        name: "dropped".into(),
        counts: Counts { pending: 1, ..Counts::default() },
        bytes: 10,
        paused: false,
        configured: false,
        dedupe: None,
    });
    admin.world.queue.routes.lock()[0].paused = true;
    let routes = admin.get("/api/v1/routes").await.json();
    let shown: Vec<_> = routes["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| (route["name"].as_str().unwrap(), route["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        shown,
        [("award-points", "paused"), ("dropped", "orphaned"), ("thank-you", "running")]
    );
}

#[tokio::test]
async fn an_upstream_shows_breaker_limits_and_what_is_in_flight() {
    let admin = open().await;
    *admin.world.upstreams.lock() = vec![upstream("loyalty"), upstream("mail")];
    let said = admin.get("/api/v1/upstreams/loyalty").await;
    let expected = json!({
        "name": "loyalty",
        "url": "https://api.loyalty.example/v2",
        "breaker": { "state": "open", "failures": 5, "probe_at": "2026-01-31T12:00:00Z" },
        "concurrency": 64,
        "in_flight": 3,
        "limits": [{ "limit": 100, "period_ms": 1000, "burst": 5, "keys": null, "used": 0.25 }],
        "paused": false,
        "paused_until": null,
    });
    assert_eq!(said.json(), expected);
    let all = admin.get("/api/v1/upstreams").await.json();
    assert_eq!(all["upstreams"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_name_that_is_not_there_is_a_404_that_repeats_it() {
    let admin = open().await;
    for path in ["/api/v1/routes/award-point", "/api/v1/upstreams/award-point"] {
        let said = admin.get(path).await;
        assert_eq!(said.status, 404);
        assert!(said.json()["detail"].as_str().unwrap().contains("`award-point`"));
    }
    *admin.world.upstreams.lock() = vec![upstream("loyalty"), upstream("mail")];
    for (path, near) in [("routes/award-point", "award-points"), ("upstreams/loyality", "loyalty")]
    {
        let said = admin.get(&format!("/api/v1/{path}")).await;
        let near = format!("; did you mean `{near}`?");
        assert!(said.json()["detail"].as_str().unwrap().ends_with(&near), "{said:?}");
    }
}

#[tokio::test]
async fn s6_no_answer_shows_a_secret_of_the_configuration() {
    let admin = guarded().await;
    let mut echo = upstream("loyalty");
    echo.url = format!("https://api.loyalty.example/{API_KEY}");
    *admin.world.upstreams.lock() = vec![echo];
    {
        let mut routes = admin.world.queue.routes.lock();
        let secret: Arc<str> = API_KEY.into();
        routes[0].name = secret;
    }
    for path in ["/readyz", "/api/v1/routes", "/api/v1/upstreams", "/api/v1/deliveries"] {
        let said = admin.get_as(path, READ).await;
        assert_eq!(said.status, 200, "{path}");
        for secret in [API_KEY, READ, super::world::OPERATE] {
            assert!(!said.body.contains(secret), "{path}: {}", said.body);
        }
    }
}
