//! Many events of one request.

use super::*;

fn splitting(split: &str) -> WebhookConfig {
    WebhookConfig { split: expression(split), ..config() }
}

#[test]
fn each_item_is_an_event_with_its_bytes_and_an_id_of_its_own() {
    let body =
        r#"{"account": "acme", "items": [{"n": 12.50, "n": 1}, 12345678901234567890, null]}"#;
    for split in [".body.items[]", ".body.items | .[]"] {
        let mut config = splitting(split);
        config.event.subject = template("{.body.account}-{.index}");
        let reading = read_as(&config, &typed(JSON, body), &with_id("msg_1"));
        assert!(reading.arrivals.iter().all(|arrival| arrival.own_id));
        let events = reading.arrivals.iter().map(|arrival| arrival.event.clone().unwrap());
        let events: Vec<Event> = events.collect();
        let subjects = events.iter().map(|event| event.subject.as_deref().unwrap());
        assert_eq!(subjects.collect::<Vec<_>>(), ["acme-0", "acme-1", "acme-2"]);
        assert_eq!(events[1].data, json_data("12345678901234567890"));
        assert_eq!(events[2].data, json_data("null"));
        assert_eq!(events[2].datacontenttype.as_deref(), Some(JSON));
        if split.ends_with("items[]") {
            assert_eq!(events[0].data, json_data(r#"{"n": 12.50, "n": 1}"#), "byte for byte");
        }
        let ids = r#"{"ids":["msg_1/0","msg_1/1","msg_1/2"]}"#;
        assert_eq!(answered(reading), (202, JSON.to_owned(), ids.to_owned()));
    }
}

#[test]
fn items_without_an_id_are_never_taken_for_repeats() {
    let reading = read(&splitting(".body[]"), &typed(JSON, "[1,2]"));
    assert!(reading.arrivals.iter().all(|arrival| !arrival.own_id));
    let ids: Vec<_> =
        reading.arrivals.iter().map(|arrival| arrival.event.clone().unwrap().id).collect();
    assert!(ids[0].ends_with("/0") && ids[1].ends_with("/1"), "{ids:?}");
    assert_eq!(answered(reading).2, json!({ "ids": ids }).to_string());
}

#[test]
fn items_are_mapped_by_item_and_index() {
    let mut config = splitting(".body.items[] | select(.ok)");
    config.event = EventMapping {
        id: template("{.item.id}"),
        kind: template("item.{.item.kind | ascii_downcase}"),
        data: expression("{n: .item.n, index: .index, all: (.body.items | length)}"),
        ..EventMapping::default()
    };
    let body = r#"{"items": [{"id": "a", "kind": "X", "n": 1.50, "ok": true}, {"ok": false},
        {"id": "b", "kind": "Y", "n": 2, "ok": true}]}"#;
    let events = events(&config, &typed(JSON, body));
    assert_eq!((&*events[0].id, &*events[0].kind), ("a", "item.x"));
    assert_eq!(events[0].data, json_data(r#"{"n":1.50,"index":0,"all":3}"#));
    assert_eq!(events[1].data, json_data(r#"{"n":2,"index":1,"all":3}"#));
}

#[test]
fn an_item_whose_mapping_fails_is_dead_alone() {
    let mut config = splitting(".body[]");
    config.event.subject = template("s-{.item.s}");
    let request = typed(JSON, r#"[{"s":"a"}, {"t": 1.0}, {"s":"c"}]"#);
    let reading = read_as(&config, &request, &with_id("m"));
    let [first, second, third] = &reading.arrivals[..] else { panic!("three") };
    assert!(first.event.is_ok() && third.event.is_ok());
    let invalid = second.event.as_ref().unwrap_err();
    assert_eq!(invalid.raw, r#"{"t": 1.0}"#, "the item, not the whole request");
    assert_eq!((&invalid.about["id"], &invalid.about["index"]), (&json!("m/1"), &json!(1)));
    assert_eq!(answered(reading).2, r#"{"ids":["m/0","m/1","m/2"]}"#);
}

#[test]
fn a_split_that_fails_keeps_the_request_dead() {
    let request = typed(JSON, r#"{"items": 7}"#);
    for split in [".body.items[]", ".body.items.x[]", "error(\"no\")"] {
        let config = splitting(split);
        let invalid = invalid(&config, &request);
        assert!(invalid.why.starts_with("`split`: "), "{}", invalid.why);
        assert_eq!(invalid.raw, request.raw);
        let reading = read_as(&config, &request, &with_id("m"));
        assert_eq!(answered(reading).2, r#"{"ids":["m"]}"#);
    }
}

#[test]
fn a_split_that_gives_nothing_is_taken_all_the_same() {
    let reading = read(&splitting(".body[]"), &typed(JSON, "[]"));
    assert!(reading.arrivals.is_empty());
    assert_eq!(answered(reading), (202, JSON.to_owned(), r#"{"ids":[]}"#.to_owned()));
}

#[test]
fn a_thousand_events_are_the_most() {
    let body = |count: usize| typed(JSON, json!(vec![1; count]).to_string());
    for split in [".body[]", ".body[] | ."] {
        assert_eq!(events(&splitting(split), &body(EVENTS_MAX)).len(), EVENTS_MAX);
        let Malformed { status, why } = malformed(&splitting(split), &body(EVENTS_MAX + 1));
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(why.contains("more than 1000 events"), "{why}");
    }
}

#[test]
fn equal_ids_within_one_request_are_a_400() {
    let mut config = splitting(".body[]");
    config.event.id = template("{.item}");
    let Malformed { status, why } = malformed(&config, &typed(JSON, "[1, 2, 1]"));
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(why.contains("have the id `1`"), "{why}");
    assert_eq!(events(&config, &typed(JSON, "[1, 2, 3]")).len(), 3);
}

#[test]
fn a_cloud_event_is_split_under_its_own_id_and_attributes() {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "e"),
        ("ce-source", "/s"),
        ("ce-type", "t2"),
        ("ce-tenant", "acme"),
    ];
    let config = WebhookConfig { split: expression(".body[]"), ..unmapped() };
    let events = events(&config, &request(&headers, "[1.0,2]"));
    assert_eq!((&*events[0].id, &*events[1].id), ("e/0", "e/1"));
    assert_eq!((&*events[1].kind, &*events[1].source), ("t2", "/s"));
    assert_eq!(events[0].data, json_data("1.0"));
    assert_eq!(events[0].extensions["tenant"], json!("acme"));
}

#[test]
fn a_form_and_a_text_can_be_split() {
    let events_of = |split, request| {
        let events = events(&splitting(split), &request).into_iter();
        events
            .map(|event| String::from_utf8(event.data_bytes().to_vec()).unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(events_of(".body.a[]", typed(FORM, "a=1&a=2")), [r#""1""#, r#""2""#]);
    let lines = typed("text/plain", "x\ny");
    assert_eq!(events_of(".raw | split(\"\\n\")[]", lines), [r#""x""#, r#""y""#]);
}

/// What is large is shared: the body is neither copied nor searched once for each item.
#[test]
fn what_items_share_is_shared() {
    let filler = "x".repeat(1000);
    let items: Vec<Value> = (0..EVENTS_MAX).map(|n| json!({ "n": n, "filler": filler })).collect();
    let request = typed(JSON, json!({ "items": items, "account": "acme" }).to_string());
    let mut config = splitting(".body.items[]");
    config.event.subject = template("{.body.account}");
    config.event.id = template("{.item.n}-{.item.n + 1}");
    let body = request.raw.as_ptr_range();
    let events = events(&config, &request);
    assert_eq!(events.len(), EVENTS_MAX);
    assert_eq!(events[7].id, "7-8");
    for event in &events {
        assert!(body.contains(&event.data_bytes().as_ptr()), "a slice of the request");
    }
}

#[test]
fn what_a_mapping_makes_of_one_request_is_bounded() {
    let filler = "x".repeat(1 << 20);
    let items: Vec<usize> = (0..EVENTS_MAX).collect();
    let request = typed(JSON, json!({ "items": items, "filler": filler }).to_string());
    for data in [".body", ".", "{all: .body.filler[:900000]}"] {
        let mut config = splitting(".body.items[]");
        config.event.data = expression(data);
        let invalid = invalid(&config, &request);
        assert!(invalid.why.contains("more than 64 MiB"), "{}", invalid.why);
    }
}
