//! Many deliveries by filter.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::{Value, json};
use tidegate_adapters::{DeadReason, DeliveryId};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use super::{
    deliveries::{changed, dead, holding},
    routes::upstream,
    world::{Listening, Said, pending},
};
use crate::queue::{Listed, State};

const REPLAY: &str = "/api/v1/deliveries/replay";
const DISCARD: &str = "/api/v1/deliveries/discard";

fn of_thank_you(listed: Listed) -> Listed {
    changed(listed, |delivery, _| delivery.route = "thank-you".into())
}

/// Six, newest first: two dead and one pending of each route.
async fn six() -> Listening {
    let admin = holding(vec![
        of_thank_you(pending(6)),
        of_thank_you(dead(5, DeadReason::Expired)),
        of_thank_you(dead(4, DeadReason::Rejected)),
        pending(3),
        dead(2, DeadReason::Expired),
        dead(1, DeadReason::Rejected),
    ])
    .await;
    *admin.world.upstreams.lock() = vec![upstream("loyalty"), upstream("mail")];
    admin
}

async fn post(admin: &Listening, path: &str, body: Value) -> Said {
    admin.post(path, &body.to_string()).await
}

fn in_state(admin: &Listening, wanted: State) -> Vec<i64> {
    let states = admin.world.queue.states();
    states.into_iter().filter(|(_, state)| *state == wanted).map(|(id, _)| id).collect()
}

#[tokio::test]
async fn what_the_filter_finds_is_replayed_and_told_by_route() {
    for (filter, expected, left) in [
        (json!({ "state": "dead" }), json!({ "award-points": 2, "thank-you": 2 }), &[][..]),
        (json!({ "route": "thank-you" }), json!({ "thank-you": 2 }), &[2, 1]),
        (json!({ "upstream": "loyalty" }), json!({ "award-points": 2 }), &[5, 4]),
        (json!({ "reason": "expired" }), json!({ "award-points": 1, "thank-you": 1 }), &[4, 1]),
        (json!({ "event": "e-4" }), json!({ "thank-you": 1 }), &[5, 2, 1]),
        (json!({ "type": "another" }), json!({}), &[5, 4, 2, 1]),
        (
            json!({ "since": "2026-01-31T11:00:02Z", "until": "2026-01-31T11:00:05Z" }),
            json!({ "award-points": 1, "thank-you": 1 }),
            &[5, 1],
        ),
        (json!({}), json!({ "award-points": 2, "thank-you": 2 }), &[]),
    ] {
        let admin = six().await;
        let said = post(&admin, REPLAY, json!({ "filter": filter })).await;
        assert_eq!(said.status, 200, "{filter}: {said:?}");
        let counts = expected.as_object().unwrap().values().map(|n| n.as_u64().unwrap());
        let sum: u64 = counts.sum();
        assert_eq!(
            said.json(),
            json!({ "replayed": sum, "routes": expected, "next": null }),
            "{filter}"
        );
        assert_eq!(in_state(&admin, State::Dead), left, "{filter}");
    }
}

#[tokio::test]
async fn discards_are_counted_and_the_active_ones_left_alone() {
    let admin = six().await;
    admin.world.queue.claims.lock().insert(DeliveryId(6));
    let said = post(&admin, DISCARD, json!({ "filter": { "state": "pending" } })).await;
    assert_eq!(
        said.json(),
        json!({ "discarded": 1, "routes": { "award-points": 1 }, "next": null })
    );
    let said = post(&admin, DISCARD, json!({ "filter": {} })).await;
    assert_eq!(said.json()["discarded"], 4);
    assert_eq!(in_state(&admin, State::Pending), [6]);
    let metrics = admin.get("/metrics").await.body;
    for (route, count) in [("award-points", 3), ("thank-you", 2)] {
        let labels = format!("route=\"{route}\",outcome=\"discarded\",reason=\"\"");
        let line = format!("tidegate_deliveries_total{{{labels}}} {count}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn a_dry_run_tells_and_touches_nothing() {
    let admin = six().await;
    let before = admin.world.queue.states();
    for (path, expected) in [(REPLAY, 4), (DISCARD, 6)] {
        for filter in [json!({}), json!({ "limit": 100 })] {
            let said = post(&admin, path, json!({ "filter": filter, "dry_run": true })).await;
            assert_eq!(said.json()["matched"], expected, "{said:?}");
        }
    }
    assert_eq!(admin.world.queue.states(), before);
    let metrics = admin.get("/metrics").await.body;
    assert!(!metrics.contains("outcome=\"discarded\",reason=\"\"} 4"), "{metrics}");
}

#[tokio::test]
async fn a_limit_is_kept_and_says_where_to_go_on() {
    let admin = six().await;
    let said = post(&admin, REPLAY, json!({ "filter": { "limit": 3 } })).await.json();
    assert_eq!((&said["replayed"], said["next"].is_string()), (&json!(3), true), "{said}");
    assert_eq!(in_state(&admin, State::Dead), [1], "the newest first");
    let rest = json!({ "filter": { "limit": 3 }, "cursor": said["next"] });
    let said = post(&admin, REPLAY, rest).await.json();
    assert_eq!(said, json!({ "replayed": 1, "routes": { "award-points": 1 }, "next": null }));
}

#[tokio::test]
async fn a_wrong_body_is_a_400_that_says_what_is_right_and_nothing_happens() {
    let admin = six().await;
    let before = admin.world.queue.states();
    for (body, says) in [
        ("", "the body is no JSON"),
        ("{", "the body is no JSON"),
        ("[]", "not a JSON object"),
        ("{}", "`filter` is missing: an object; an empty one means all"),
        (r#"{"filter": null}"#, "`filter` is missing"),
        (r#"{"filter": "route=a"}"#, "`filter` is missing: an object"),
        (r#"{"filters": {}}"#, "`filters` is unknown; there are filter dry_run cursor"),
        (r#"{"filter": {}, "dryrun": true}"#, "did you mean `dry_run`?"),
        (r#"{"filter": {}, "dry_run": "yes"}"#, "`dry_run` is neither true nor false"),
        (r#"{"filter": {}, "cursor": "x"}"#, "`cursor` is not one we gave"),
        (r#"{"filter": {"rote": "a"}}"#, "did you mean `route`?"),
        (r#"{"filter": {"route": 1}}"#, "`route` is not a string"),
        (r#"{"filter": {"route": "award-point"}}"#, "there is no route `award-point`; did you"),
        (r#"{"filter": {"upstream": "loyalti"}}"#, "there is no upstream `loyalti`; did you"),
        (r#"{"filter": {"state": "ded"}}"#, "did you mean `dead`?"),
        (r#"{"filter": {"state": "pending"}}"#, "only dead and delivered deliveries"),
        (r#"{"filter": {"state": "active"}}"#, "only dead and delivered deliveries"),
        (r#"{"filter": {"since": "yesterday"}}"#, "neither a time"),
        (r#"{"filter": {"limit": 0}}"#, "not from 1 to 10000"),
        (r#"{"filter": {"limit": "3"}}"#, "not from 1 to 10000"),
    ] {
        let said = admin.post(REPLAY, body).await;
        assert_eq!(said.status, 400, "{body}: {said:?}");
        assert!(said.json()["detail"].as_str().unwrap().contains(says), "{body}: {said:?}");
    }
    let said = admin.ask("POST", REPLAY, &[("content-type", "text/plain")], "{}").await;
    assert_eq!(said.status, 415, "{said:?}");
    let cloudevents = [("content-type", "application/cloudevents+json")];
    assert_eq!(admin.ask("POST", REPLAY, &cloudevents, "{}").await.status, 415);
    for state in ["active", "delivered", "discarded"] {
        let body = json!({ "filter": { "state": state } });
        assert_eq!(post(&admin, DISCARD, body).await.status, 400, "{state}");
    }
    assert_eq!(admin.world.queue.states(), before);
}

/// On the paused clock: time goes on by itself whenever everything waits.
#[tokio::test(start_paused = true)]
async fn between_two_steps_it_rests_as_long_as_the_step_took() {
    let admin = holding((1..=10).rev().map(|id| dead(id, DeadReason::Expired)).collect()).await;
    admin.world.queue.step.store(2, Ordering::Relaxed);
    *admin.world.queue.step_takes.lock() = Duration::from_millis(50);
    let began = Instant::now();
    let said = post(&admin, REPLAY, json!({ "filter": {} })).await;
    assert_eq!(
        said.json(),
        json!({ "replayed": 10, "routes": { "award-points": 10 }, "next": null })
    );
    // Five steps find something; the fifth's cursor may lead to an empty sixth.
    let steps = *admin.world.queue.steps.borrow();
    let took = began.elapsed().as_millis();
    let expected = (steps * 50 + (steps - 1) * 50) as u128;
    assert!((expected..expected + 50).contains(&took), "{steps} steps in {took} ms");
}

#[tokio::test(start_paused = true)]
async fn after_five_minutes_it_answers_where_to_go_on_and_goes_on_from_there() {
    let admin = holding((1..=10).rev().map(|id| dead(id, DeadReason::Expired)).collect()).await;
    admin.world.queue.step.store(2, Ordering::Relaxed);
    *admin.world.queue.step_takes.lock() = Duration::from_secs(100);
    let said = post(&admin, REPLAY, json!({ "filter": {} })).await.json();
    assert_eq!(said["replayed"], 4, "{said}");
    assert_eq!(in_state(&admin, State::Dead), [6, 5, 4, 3, 2, 1]);
    *admin.world.queue.step_takes.lock() = Duration::ZERO;
    let rest = post(&admin, REPLAY, json!({ "filter": {}, "cursor": said["next"] })).await.json();
    assert_eq!((&rest["replayed"], &rest["next"]), (&json!(6), &json!(null)));
}

#[tokio::test]
async fn it_stops_when_its_client_has_gone_away_or_the_process_stops() {
    let admin = holding((1..=1000).rev().map(|id| dead(id, DeadReason::Expired)).collect()).await;
    admin.world.queue.step.store(1, Ordering::Relaxed);
    *admin.world.queue.step_takes.lock() = Duration::from_millis(5);
    let mut client = TcpStream::connect(admin.address).await.unwrap();
    let request = format!(
        "POST {REPLAY} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         content-length: 13\r\n\r\n{{\"filter\":{{}}}}",
        admin.address
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut steps = admin.world.queue.steps.subscribe();
    steps.wait_for(|steps| *steps > 3).await.unwrap();
    drop(client);
    // It has ended once no step has come for a hundred times as long as one takes.
    let quiet = Duration::from_millis(500);
    while tokio::time::timeout(quiet, steps.changed()).await.is_ok() {}
    let done = 1000 - in_state(&admin, State::Dead).len();
    assert!((4..900).contains(&done), "{done}");

    admin.world.stopping.store(true, Ordering::Relaxed);
    let said = post(&admin, REPLAY, json!({ "filter": {} })).await.json();
    assert_eq!(said["next"], "1000", "after one step: {said}");
}
