use serde_json::{Value, json};
use tidegate_adapters::{DeliveryId, rabbitmq::PublisherConfig};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

fn config(reply: Value) -> ReplyConfig {
    let mut whole = json!({
        "on": ["delivered", "dead"],
        "exchange": "loyalty",
        "key": "{.type}",
        "envelope": "cloudevents",
        "on_unroutable": "drop",
        "event": { "type": "loyalty.points-{.outcome}.v1" },
    });
    let Value::Object(reply) = reply else { panic!("an object") };
    whole.as_object_mut().unwrap().extend(reply);
    serde_json::from_value(whole).unwrap()
}

fn delivery(hops: u32, data: &'static str) -> Delivery {
    let event = Event {
        id: "e-1".to_owned(),
        source: "/orders".to_owned(),
        kind: "order.confirmed.v1".to_owned(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: std::collections::BTreeMap::new(),
        traceparent: TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        hops,
        data: Data::Json(Bytes::from_static(data.as_bytes())),
    };
    Delivery {
        id: DeliveryId(7),
        route: "award-points".into(),
        event: Arc::new(event),
        key: None,
        accepted_at: NOW,
        due_at: NOW,
        attempts: 0,
        tries: 2,
        first_attempt_at: Some(NOW),
    }
}

fn made(config: Value, end: End<'_>) -> Option<Content> {
    of(config, end, &delivery(0, r#"{"orderId": 9}"#))
}

fn of(reply: Value, end: End<'_>, delivery: &Delivery) -> Option<Content> {
    let rule = ReplyRule::new(&delivery.route, &config(reply));
    let reply = rule.make(delivery, end, NOW)?;
    assert_eq!(&*reply.route, "award-points/reply");
    Some(reply.append.content)
}

fn pending(content: Option<Content>) -> Arc<Event> {
    match content {
        Some(Content::Pending(event)) => event,
        other => panic!("{other:?}"),
    }
}

const DELIVERED: End<'_> =
    End { outcome: ReplyOn::Delivered, reason: None, response: None, attempt: 3, trace: None };
const DEAD: End<'_> = End {
    outcome: ReplyOn::Dead,
    reason: Some(DeadReason::Rejected),
    response: None,
    attempt: 3,
    trace: None,
};

#[test]
fn it_says_what_came_of_which_event() {
    let response =
        Bytes::from_static(br#"{"status":202,"headers":{"location":"/j/5"},"body":1.0}"#);
    let event = json!({
        "type": "loyalty.points-{.outcome}.v1",
        "subject": "{.event.data.orderId}",
        "extensions": { "tenant": "{.event.source}" },
        "data": "{order: .event.data.orderId, job: .response.headers.location, n: .response.body}",
    });
    let end = End { response: Some(&response), ..DELIVERED };
    let event = pending(made(json!({ "event": event }), end));
    assert_eq!(event.kind, "loyalty.points-delivered.v1");
    assert_eq!(event.source, "/award-points");
    assert_eq!(event.subject.as_deref(), Some("9"));
    assert_eq!(event.extensions["tenant"], "/orders");
    assert_eq!(event.time.as_deref(), Some("2027-01-15T08:00:00Z"));
    assert_eq!(event.data, Data::Json(Bytes::from_static(br#"{"order":9,"job":"/j/5","n":1.0}"#)));
    assert!(event.traceparent.is_some(), "it is part of the same trace");
    assert_eq!(event.hops, 1);
}

#[test]
fn without_data_it_names_the_event_and_its_end() {
    let event = pending(made(json!({}), DEAD));
    let expected = json!({
        "event": { "id": "e-1", "source": "/orders", "type": "order.confirmed.v1" },
        "outcome": "dead",
        "reason": "rejected",
    });
    let data: Value = serde_json::from_slice(&event.data_bytes()).unwrap();
    assert_eq!(data, expected);
}

#[test]
fn its_id_is_one_for_each_end() {
    let id = |end| pending(made(json!({}), end)).id.clone();
    assert_eq!(id(DELIVERED), id(DELIVERED));
    let others = [DEAD, End { attempt: 4, ..DELIVERED }].map(id);
    assert!(!others.contains(&id(DELIVERED)) && others[0] != others[1]);
    let key = delivery(0, "{}").idempotency_key();
    let name = format!("tidegate:reply\n{key}\n7\ndelivered\n3");
    let expected = Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string();
    assert_eq!(id(DELIVERED), expected);
}

#[test]
fn there_is_none_where_none_is_wanted() {
    assert!(made(json!({ "on": ["dead"] }), DELIVERED).is_none());
    assert!(made(json!({ "when": ".response.status == 202" }), DELIVERED).is_none());
    assert!(made(json!({ "when": ".response == null" }), DELIVERED).is_some());
}

#[test]
fn one_that_cannot_be_made_is_dead_and_keeps_what_it_was_made_of() {
    let broken = [
        (json!({ "event": { "type": "{.response.none}" } }), "reply.event: "),
        (json!({ "event": { "type": "x", "data": "error(\"no\")" } }), "reply.event: "),
        (json!({ "event": { "type": "x", "time": "noon" } }), "reply.event: "),
        (json!({ "when": "error(\"no\")" }), "reply.when"),
    ];
    for (reply, key) in broken {
        let Some(Content::Dead(event, DeadReason::Expression, why)) = made(reply, DELIVERED) else {
            panic!("{key}: not dead")
        };
        assert!(why.starts_with(key), "{why}");
        let data: Value = serde_json::from_slice(&event.data_bytes()).unwrap();
        assert_eq!(data["event"]["id"], "e-1");
        assert_eq!(data["outcome"], "delivered");
    }
}

#[test]
fn an_event_nested_as_deep_as_may_be_does_not_stop_the_process() {
    let deep = "[".repeat(128) + &"]".repeat(128);
    let delivery = delivery(0, deep.leak());
    let content = of(json!({ "event": { "type": "x", "data": ".event" } }), DELIVERED, &delivery);
    assert!(matches!(content, Some(Content::Dead(_, DeadReason::Expression, _))));
}

#[test]
fn a_ring_of_routes_ends() {
    let content = of(json!({}), DELIVERED, &delivery(HOPS_MAX, "{}"));
    let Some(Content::Dead(_, DeadReason::Rejected, why)) = content else { panic!("not dead") };
    assert!(why.contains("ring"), "{why}");
    assert!(matches!(
        of(json!({}), DELIVERED, &delivery(HOPS_MAX - 1, "{}")),
        Some(Content::Pending(_))
    ));
}

#[test]
fn its_target_is_written_beside_it() {
    let to: PublisherConfig = config(json!({})).to;
    assert_eq!((&*to.exchange, to.key.source()), ("loyalty", "{.type}"));
}
