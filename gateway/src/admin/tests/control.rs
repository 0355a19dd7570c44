//! What an operator does to routes, upstreams, single deliveries and the configuration.

use serde_json::json;
use tidegate_adapters::{DeadReason, DeliveryId};

use super::{
    deliveries::{dead, holding},
    routes::upstream,
    world::{NOW, open, pending},
};
use crate::{
    app::{Generation, Inspect as _, ReloadError, Reloaded},
    queue::{Counts, Listed, RouteStatus, State},
};

#[tokio::test]
async fn a_route_is_paused_and_resumed_and_again_is_no_matter() {
    let admin = open().await;
    for (verb, state) in
        [("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("resume", "running")]
    {
        let said = admin.post(&format!("/api/v1/routes/award-points/{verb}"), "").await;
        assert_eq!(said.status, 200, "{said:?}");
        assert_eq!(
            (&said.json()["name"], &said.json()["state"]),
            (&json!("award-points"), &json!(state))
        );
        assert_eq!(said.json()["paused"], state == "paused");
    }
    assert!(admin.world.queue.routes.lock().iter().all(|route| !route.paused));
}

#[tokio::test]
async fn routes_of_replies_and_routes_only_the_queue_knows_are_paused_too() {
    let admin = open().await;
    for name in ["award-points/reply", "dropped"] {
        admin.world.queue.routes.lock().push(RouteStatus {
            name: name.into(),
            counts: Counts::default(),
            bytes: 0,
            paused: false,
            configured: false,
            dedupe: None,
        });
        let said = admin.post(&format!("/api/v1/routes/{name}/pause"), "").await;
        assert_eq!((said.status, &said.json()["paused"]), (200, &json!(true)), "{said:?}");
        assert_eq!(said.json()["name"], name);
    }
    let routes = admin.world.queue.routes.lock();
    assert!(routes.iter().all(|route| route.paused != route.configured), "and no other");
}

#[tokio::test]
async fn an_upstream_is_paused_resumed_and_reset() {
    let admin = open().await;
    let mut quiet = upstream("loyalty");
    quiet.paused_until = Some(NOW);
    *admin.world.upstreams.lock() = vec![quiet, upstream("mail")];
    for (verb, paused, breaker) in [
        ("pause", true, "open"),
        ("pause", true, "open"),
        ("reset", true, "closed"),
        ("resume", false, "closed"),
    ] {
        let said = admin.post(&format!("/api/v1/upstreams/loyalty/{verb}"), "").await;
        assert_eq!((said.status, &said.json()["paused"]), (200, &json!(paused)), "{verb}");
        assert_eq!(said.json()["breaker"]["state"], breaker, "{verb}");
        assert_eq!(said.json()["paused_until"].is_null(), breaker == "closed", "{verb}");
    }
    let other = admin.get("/api/v1/upstreams/mail").await.json();
    assert_eq!((&other["paused"], &other["breaker"]["state"]), (&json!(false), &json!("open")));
}

#[tokio::test]
async fn a_name_that_is_not_there_is_a_404_that_says_what_is_near() {
    let admin = open().await;
    *admin.world.upstreams.lock() = vec![upstream("loyalty")];
    for (path, near) in [
        ("routes/award-point/pause", "; did you mean `award-points`?"),
        ("routes/award-points/reply/resume", "there is no route `award-points/reply`"),
        ("upstreams/loyality/pause", "; did you mean `loyalty`?"),
        ("upstreams/loyalti/reset", "; did you mean `loyalty`?"),
        ("upstreams/x/resume", "there is no upstream `x`"),
    ] {
        let said = admin.post(&format!("/api/v1/{path}"), "").await;
        assert_eq!(said.status, 404, "{path}");
        assert!(said.json()["detail"].as_str().unwrap().contains(near), "{path}: {said:?}");
    }
}

#[tokio::test]
async fn one_delivery_is_replayed_or_discarded_if_its_state_allows() {
    let delivered = |id| Listed { state: State::Delivered, due_at: None, ..pending(id) };
    let discarded = |id| Listed { state: State::Discarded, due_at: None, ..pending(id) };
    for (one, verb, status, says) in [
        (dead(1, DeadReason::Rejected), "replay", 200, "pending"),
        (delivered(1), "replay", 200, "pending"),
        (dead(1, DeadReason::Rejected), "discard", 200, "discarded"),
        (pending(1), "discard", 200, "discarded"),
        (pending(1), "replay", 409, "delivery 1 is pending; only dead and delivered"),
        (discarded(1), "replay", 409, "delivery 1 is discarded; only dead and delivered"),
        (delivered(1), "discard", 409, "delivery 1 is delivered; only pending and dead"),
        (discarded(1), "discard", 409, "delivery 1 is discarded; only pending and dead"),
    ] {
        let admin = holding(vec![one]).await;
        let said = admin.post(&format!("/api/v1/deliveries/1/{verb}"), "").await;
        assert_eq!(said.status, status, "{verb}: {said:?}");
        match status {
            200 => {
                assert_eq!((&said.json()["id"], &said.json()["state"]), (&json!("1"), &json!(says)))
            }
            _ => assert!(said.json()["detail"].as_str().unwrap().starts_with(says), "{said:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_being_attempted_is_left_alone() {
    let admin = holding(vec![pending(1)]).await;
    admin.world.queue.claims.lock().insert(DeliveryId(1));
    for verb in ["replay", "discard"] {
        let said = admin.post(&format!("/api/v1/deliveries/1/{verb}"), "").await;
        assert_eq!(said.status, 409, "{said:?}");
        assert!(said.json()["detail"].as_str().unwrap().contains("once its attempt is over"));
    }
    for id in ["2", "x", "-1"] {
        let said = admin.post(&format!("/api/v1/deliveries/{id}/replay"), "").await;
        assert_eq!(said.status, 404, "{said:?}");
    }
}

#[tokio::test]
async fn a_discarded_delivery_is_counted_as_ended() {
    let admin = holding(vec![pending(1)]).await;
    let discarded =
        "tidegate_deliveries_total{route=\"award-points\",outcome=\"discarded\",reason=\"\"}";
    let before = admin.get("/metrics").await.body;
    assert!(before.contains(&format!("{discarded} 0\n")), "{before}");
    assert_eq!(admin.post("/api/v1/deliveries/1/discard", "").await.status, 200);
    assert_eq!(admin.post("/api/v1/deliveries/1/discard", "").await.status, 409);
    let after = admin.get("/metrics").await.body;
    assert!(after.contains(&format!("{discarded} 1\n")), "{after}");
}

#[tokio::test]
async fn a_verb_without_a_body_takes_none() {
    let admin = open().await;
    let path = "/api/v1/routes/award-points/pause";
    assert_eq!(admin.post(path, "{}").await.status, 200);
    assert_eq!(admin.post(path, r#"{"until": "1h"}"#).await.status, 400);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(admin.ask("POST", path, &form, "a=b").await.status, 415);
}

#[tokio::test]
async fn a_reload_says_what_is_in_force_and_what_changed() {
    let admin = open().await;
    let generation =
        Generation { number: 2, hash: "fedcba9876543210".to_owned(), since: NOW, failed: None };
    *admin.world.reload.lock() = Some(Ok(Reloaded {
        generation,
        changed: vec!["routes.award-points".to_owned()],
        warnings: vec!["odd".to_owned()],
    }));
    let said = admin.post("/api/v1/reload", "").await;
    assert_eq!(said.status, 200, "{said:?}");
    let expected = json!({
        "generation": 2,
        "hash": "fedcba9876543210",
        "since": "2026-01-31T12:00:00Z",
        "changed": ["routes.award-points"],
        "warnings": ["odd"],
    });
    assert_eq!(said.json(), expected);
}

#[tokio::test]
async fn a_reload_that_is_refused_says_why_and_each_reason_has_its_status() {
    let admin = open().await;
    let invalid = super::world::load("routes: { r: { form: {} } }\n").unwrap_err();
    let problems = invalid.to_json()["problems"].clone();
    assert!(problems.as_array().is_some_and(|problems| problems.len() > 1), "{problems}");
    *admin.world.reload.lock() = Some(Err(ReloadError::Invalid(invalid)));
    let said = admin.post("/api/v1/reload", "").await;
    assert_eq!((said.status, said.header("content-type")), (422, "application/problem+json"));
    assert_eq!(said.json()["problems"], problems, "as `check --json` says it");
    assert!(said.json()["detail"].as_str().unwrap().contains("nothing has changed"), "{said:?}");

    let keys = vec!["admin.listen".to_owned(), "queue.sqlite".to_owned()];
    *admin.world.reload.lock() = Some(Err(ReloadError::Restart(keys.clone())));
    let said = admin.post("/api/v1/reload", "").await;
    assert_eq!((said.status, &said.json()["keys"]), (409, &json!(keys)));
    assert!(said.json()["detail"].as_str().unwrap().contains("admin.listen, queue.sqlite"));

    let stopping = ReloadError::Unavailable("the gateway is stopping".to_owned());
    *admin.world.reload.lock() = Some(Err(stopping));
    let said = admin.post("/api/v1/reload", "").await;
    assert_eq!((said.status, &said.json()["detail"]), (503, &json!("the gateway is stopping")));
    assert_eq!(admin.world.generation().number, 1);
}
