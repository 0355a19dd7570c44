//! Lists of deliveries, and single ones.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tidegate_adapters::{AttemptResult, Data, DeadReason, Delivery, DeliveryId, Event, Exchange};

use super::world::{API_KEY, Listening, NOW, open, pending};
use crate::queue::{AttemptRecord, Listed, State};

/// `listed` with its delivery and event changed.
pub(super) fn changed(
    mut listed: Listed,
    change: impl FnOnce(&mut Delivery, &mut Event),
) -> Listed {
    let mut delivery = Delivery::clone(&listed.delivery);
    let mut event = Event::clone(&delivery.event);
    change(&mut delivery, &mut event);
    delivery.event = Arc::new(event);
    listed.delivery = Arc::new(delivery);
    listed
}

pub(super) fn dead(id: i64, reason: DeadReason) -> Listed {
    let dead = Some((reason, "status 410, not in retry_on".to_owned()));
    Listed { state: State::Dead, dead, due_at: None, ..pending(id) }
}

/// `listed`, with an attempt that failed.
pub(super) fn tried(mut listed: Listed) -> Listed {
    listed.attempts = vec![AttemptRecord {
        number: 2,
        at: NOW,
        duration: Duration::from_millis(1500),
        result: AttemptResult::ServerError,
        detail: "status 503".to_owned(),
        exchange: Exchange {
            request: "POST /v2/members/1 HTTP/1.1".to_owned(),
            status: Some(503),
            response: "down".to_owned(),
        },
    }];
    listed
}

pub(super) async fn holding(deliveries: Vec<Listed>) -> Listening {
    let admin = open().await;
    *admin.world.queue.deliveries.lock() = deliveries;
    admin
}

/// Ids that `query` lists, and the cursor.
async fn listed(admin: &Listening, query: &str) -> (Vec<String>, Option<String>) {
    let said = admin.get(&format!("/api/v1/deliveries?{query}")).await;
    assert_eq!(said.status, 200, "{said:?}");
    let page = said.json();
    let deliveries = page["deliveries"].as_array().unwrap();
    let ids = deliveries.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    (ids, page["next"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn a_list_has_what_the_reference_promises() {
    let admin = holding(vec![dead(2, DeadReason::Rejected), pending(1)]).await;
    let page = admin.get("/api/v1/deliveries").await.json();
    let expected = json!({
        "deliveries": [
            {
                "id": "2", "event_id": "e-2", "type": "order.confirmed.v1",
                "route": "award-points", "upstream": "loyalty", "state": "dead",
                "reason": "rejected", "key": "customer-1", "attempt_count": 2,
                "accepted_at": "2026-01-31T11:00:02Z", "due_at": null,
            },
            {
                "id": "1", "event_id": "e-1", "type": "order.confirmed.v1",
                "route": "award-points", "upstream": "loyalty", "state": "pending",
                "reason": null, "key": "customer-1", "attempt_count": 2,
                "accepted_at": "2026-01-31T11:00:01Z", "due_at": "2026-01-31T12:00:00Z",
            },
        ],
        "next": null,
    });
    assert_eq!(page, expected);
}

#[tokio::test]
async fn every_filter_filters() {
    let other = changed(pending(3), |delivery, event| {
        delivery.route = "thank-you".into();
        delivery.key = None;
        event.kind = "order.cancelled.v1".to_owned();
    });
    let admin = holding(vec![
        pending(4),
        other,
        dead(2, DeadReason::Expired),
        dead(1, DeadReason::Rejected),
    ])
    .await;
    for (query, expected) in [
        ("", &["4", "3", "2", "1"][..]),
        ("route=thank-you", &["3"]),
        ("upstream=loyalty", &["4", "2", "1"]),
        ("upstream=mail&route=thank-you", &["3"]),
        ("upstream=mail&route=award-points", &[]),
        ("upstream=nobody", &[]),
        ("state=pending", &["4", "3"]),
        ("state=dead&reason=expired", &["2"]),
        ("type=order.cancelled.v1", &["3"]),
        ("event=e-2", &["2"]),
        ("key=customer-1&state=pending", &["4"]),
        ("since=2026-01-31T11:00:03Z", &["4", "3"]),
        ("until=2026-01-31T11:00:02Z", &["1"]),
        ("until=2026-01-31T12:00:02%2B01:00", &["1"]),
        ("since=1h", &["4", "3", "2", "1"]),
        ("since=5m", &[]),
    ] {
        assert_eq!(listed(&admin, query).await.0, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_follow_one_another_without_gap_or_overlap() {
    let admin = holding((1..=120).rev().map(pending).collect()).await;
    assert_eq!(listed(&admin, "").await.0.len(), 50, "by default");
    let (mut all, mut query) = (Vec::new(), "limit=7".to_owned());
    loop {
        let (ids, next) = listed(&admin, &query).await;
        assert!(ids.len() <= 7);
        all.extend(ids);
        let Some(next) = next else { break };
        query = format!("limit=7&cursor={next}");
    }
    let expected: Vec<String> = (1..=120).rev().map(|id| id.to_string()).collect();
    assert_eq!(all, expected);
}

#[tokio::test]
async fn what_the_loop_holds_is_active_and_not_pending() {
    let admin = holding((1..=9).rev().map(pending).collect()).await;
    admin.world.queue.claims.lock().extend([2, 5, 8].map(DeliveryId));
    assert_eq!(listed(&admin, "state=active").await.0, ["8", "5", "2"]);
    assert_eq!(listed(&admin, "state=pending").await.0, ["9", "7", "6", "4", "3", "1"]);
    assert_eq!(listed(&admin, "state=active&event=e-5").await.0, ["5"]);
    assert_eq!(listed(&admin, "state=active&route=thank-you").await.0, [""; 0]);
    let (first, next) = listed(&admin, "state=active&limit=2").await;
    assert_eq!(first, ["8", "5"]);
    let query = format!("state=active&limit=2&cursor={}", next.unwrap());
    assert_eq!(listed(&admin, &query).await, (vec!["2".to_owned()], None));
    assert_eq!(admin.get("/api/v1/deliveries/5").await.json()["state"], "active");
}

#[tokio::test]
async fn a_wrong_filter_is_a_400_that_says_what_is_right() {
    let admin = holding(Vec::new()).await;
    for (query, says) in [
        ("stat=dead", "`stat` is no filter; there are route upstream state"),
        ("stat=dead", "; did you mean `state`?"),
        ("reason=rejectd", "; did you mean `rejected`?"),
        ("state=done", "pending active delivered dead discarded"),
        ("reason=tired", "rejected exhausted expired invalid expression unroutable"),
        ("since=yesterday", "`yesterday` is neither a time (2026-01-31T12:00:00Z)"),
        ("until=2026-01-31", "nor how long ago (1h)"),
        ("limit=0", "not from 1 to 500"),
        ("limit=501", "not from 1 to 500"),
        ("limit=many", "`limit` is not a number"),
        ("cursor=x", "`cursor` is not one we gave"),
    ] {
        let said = admin.get(&format!("/api/v1/deliveries?{query}")).await;
        assert_eq!(said.status, 400, "{query}");
        assert!(said.json()["detail"].as_str().unwrap().contains(says), "{query}: {said:?}");
    }
}

#[tokio::test]
async fn a_delivery_shows_its_event_and_its_attempts() {
    let admin = holding(vec![tried(dead(1, DeadReason::Exhausted))]).await;
    let shown = admin.get("/api/v1/deliveries/1").await.json();
    assert_eq!(shown["event"]["id"], "e-1");
    assert_eq!(shown["event"]["specversion"], "1.0");
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("dead"), &json!("exhausted")));
    assert_eq!(shown["detail"], "status 410, not in retry_on");
    let expected = json!([{
        "number": 2, "at": "2026-01-31T12:00:00Z", "duration_ms": 1500.0, "result": "5xx",
        "status": 503, "detail": "status 503",
        "request": "POST /v2/members/1 HTTP/1.1", "response": "down",
    }]);
    assert_eq!(shown["attempts"], expected);
}

#[tokio::test]
async fn an_event_keeps_its_digits_and_its_depth() {
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    let exact = format!(r#"{{"total":12.50,"big":12345678901234567890123,"deep":{deep}}}"#);
    let data = exact.clone();
    let admin = holding(vec![changed(pending(1), move |_, event| {
        event.data = Data::Json(data.into());
    })])
    .await;
    let said = admin.get("/api/v1/deliveries/1").await;
    assert!(said.body.contains(&exact), "{}", said.body);
}

#[tokio::test]
async fn what_is_no_event_shows_its_raw_bytes() {
    let mut one = dead(1, DeadReason::Invalid);
    one = changed(one, |_, event| {
        event.id.clear();
        event.kind.clear();
        event.extensions.insert("routing_key".to_owned(), "order.x".into());
    });
    one.raw = Some(b"\xff[".as_slice().into());
    let admin = holding(vec![one]).await;
    let shown = admin.get("/api/v1/deliveries/1").await.json();
    assert_eq!(shown["event"], json!(null));
    assert_eq!(shown["event_id"], json!(null));
    assert_eq!(shown["raw_base64"], "/1s=");
    assert_eq!(shown["about"]["routing_key"], "order.x");
}

#[tokio::test]
async fn s6_a_secret_that_an_event_or_an_api_echoes_is_masked() {
    let attempt = AttemptRecord {
        number: 1,
        at: NOW,
        duration: Duration::ZERO,
        result: AttemptResult::ClientError,
        detail: format!("refused {API_KEY}"),
        exchange: Exchange {
            request: format!("authorization: Bearer {API_KEY}"),
            status: Some(400),
            response: format!("you sent {API_KEY}"),
        },
    };
    let mut one = changed(pending(1), |delivery, event| {
        delivery.key = Some(API_KEY.into());
        event.data = Data::Json(format!(r#"{{"note":"{API_KEY}"}}"#).into());
    });
    one.attempts = vec![attempt];
    let admin = holding(vec![one]).await;
    for path in ["/api/v1/deliveries", "/api/v1/deliveries/1"] {
        let said = admin.get(path).await;
        assert!(!said.body.contains(API_KEY) && said.body.contains("***"), "{}", said.body);
        said.json();
    }
}

#[tokio::test]
async fn ids_that_are_none_of_ours_are_a_404() {
    let admin = holding(vec![pending(1)]).await;
    for id in ["2", "x", "-1", "1.0", "99999999999999999999999", "%31", ""] {
        let said = admin.get(&format!("/api/v1/deliveries/{id}")).await;
        assert_eq!(said.status, 404, "`{id}`");
    }
}

#[test]
fn a_secret_number_does_not_break_the_json_it_stood_in() {
    let mask = tidegate_adapters::secret::Mask::default();
    mask.add("1234567890");
    let json = r#"{"pin":1234567890,"text":"x1234567890","other":12}"#.to_owned();
    let masked: serde_json::Value =
        serde_json::from_str(&crate::admin::masked(&mask, json)).unwrap();
    assert_eq!(masked, json!({ "pin": "***", "text": "x***", "other": 12 }));
}
