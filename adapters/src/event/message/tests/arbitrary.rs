//! Whatever arrives, it becomes an event that holds, or is invalid with a reason.

use super::*;
use crate::event::check_json;

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("1.0")),
        Just(json!("2026-01-31T12:00:00Z")),
        Just(json!(TRACEPARENT)),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(any_name(), inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Names that mean something somewhere, or nothing.
fn any_name() -> impl Strategy<Value = String> {
    let known = [
        "specversion id source type time subject data data_base64 datacontenttype dataschema",
        "traceparent metadata eventId event_type version timestamp correlationId message_id $data",
    ];
    let known: Vec<&str> = known.iter().flat_map(|line| line.split(' ')).collect();
    let prefix = prop::sample::select(vec!["", "", "cloudEvents:", "cloudEvents_", "ce-", "CE-"]);
    let name = prop_oneof![
        4 => prop::sample::select(known).prop_map(str::to_owned),
        1 => "[a-zA-Z0-9_$-]{0,6}",
        1 => any::<String>(),
    ];
    (prefix, name).prop_map(|(prefix, name)| format!("{prefix}{name}"))
}

/// A table, often with the attributes that a CloudEvent must have.
fn any_table() -> impl Strategy<Value = Map<String, Value>> {
    let members = prop::collection::btree_map(any_name(), any_value(), 0..5);
    let prefix = prop::sample::select(vec![None, Some(""), Some("ce-"), Some("cloudEvents:")]);
    (members, prefix).prop_map(|(members, prefix)| {
        let mut table: Map<String, Value> = members.into_iter().collect();
        let required = [("specversion", "1.0"), ("id", "1"), ("source", "/"), ("type", "t")];
        for (name, value) in prefix.map(|_| required).into_iter().flatten() {
            table.insert(prefix.unwrap_or_default().to_owned() + name, value.into());
        }
        table
    })
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let object = any_table().prop_map(|table| Value::from(table).to_string().into_bytes()).boxed();
    let envelope = (any_table(), any_value()).prop_map(|(metadata, data)| {
        json!({ "metadata": metadata, "data": data }).to_string().into_bytes()
    });
    // Bent somewhere.
    let bent = (object.clone(), any::<prop::sample::Index>(), any::<u8>());
    let bent = bent.prop_map(|(mut body, at, byte)| {
        let at = at.index(body.len());
        body[at] = byte;
        body
    });
    prop_oneof![
        3 => object,
        2 => envelope,
        1 => bent,
        1 => any_value().prop_map(|value| value.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => (100_usize..200).prop_map(|depth| "[".repeat(depth).into_bytes()),
    ]
}

prop_compose! {
    fn any_message()(
        body in any_body(),
        content_type in prop::sample::select(vec![
            None, Some(STRUCTURED), Some("Application/CloudEvents+JSON;v=1"), JSON,
            Some("text/plain"), Some(""), Some(";"), Some("é+json"), Some("a\r\nb"),
            Some("application/cloudevents-batch+json"),
        ]),
        content_encoding in prop::sample::select(vec![None, None, Some("identity"), Some("gzip")]),
        headers in any_table(),
        properties in any_table(),
        routing_key in prop_oneof![Just("order.paid".to_owned()), any::<String>()],
    ) -> Message {
        Message {
            body: body.into(),
            content_type: content_type.map(str::to_owned),
            content_encoding: content_encoding.map(str::to_owned),
            headers,
            properties,
            routing_key,
            exchange: "orders".to_owned(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn n18_any_message_becomes_a_sound_event_or_is_invalid_with_a_reason(message in any_message()) {
        let arrival = arrival(&message);
        match arrival.event {
            Err(invalid) => {
                prop_assert!(!invalid.why.is_empty() && !arrival.own_id);
                let kept = message.body.len().min(RAW_MAX);
                prop_assert_eq!(&invalid.raw[..], &message.body[..kept]);
            }
            Ok(event) => {
                prop_assert_eq!(event.check(), Ok(()));
                prop_assert_eq!(check_json(&event.to_json()), Ok(()));
                let stored = Event::decode(&event.encode_attributes(), event.data_bytes());
                prop_assert_eq!(stored.as_ref(), Ok(&event));
                let again = self::arrival(&message).event.map(|event| event.id).ok();
                prop_assert_eq!(again == Some(event.id), arrival.own_id);
            }
        }
    }
}
