//! Whatever a verified request holds, it is malformed with a reason, or its events hold.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::event::check_json;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        Just(json!("1.0")),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let name = prop::sample::select(vec!["specversion", "id", "source", "type", "data", "x"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let event = any_json().prop_map(
        |data| json!({ "specversion": "1.0", "id": "1", "source": "/", "type": "t", "data": data }),
    );
    let event = event.boxed();
    let batch = prop::collection::vec(event.clone(), 0..3).prop_map(Value::from);
    prop_oneof![
        2 => any_json().prop_map(|value| value.to_string().into_bytes()),
        1 => event.prop_map(|value| value.to_string().into_bytes()),
        1 => batch.prop_map(|value| value.to_string().into_bytes()),
        1 => "[a-z%&=+0-9é]{0,16}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..64),
        1 => (100_usize..200).prop_map(|depth| "[".repeat(depth).into_bytes()),
    ]
}

prop_compose! {
    fn any_request()(
        raw in any_body(),
        content_type in prop::sample::select(vec![
            None, Some(JSON), Some(FORM), Some("text/plain"), Some(""), Some(";"), Some("\u{e9}"),
            Some("application/cloudevents+json"), Some("application/cloudevents-batch+json"),
            Some("Application/CloudEvents+Avro"),
        ]),
        encoding in prop::sample::select(vec![None, None, None, Some("identity"), Some("gzip")]),
        names in prop::collection::vec(
            prop::sample::select(vec![
                "ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-data", "ce-",
                "ce-x", "ce-x-y", "traceparent", "x",
            ]),
            0..6,
        ),
        values in prop::collection::vec(
            prop_oneof![
                2 => Just(b"1.0".to_vec()),
                1 => "[ -~]{0,8}".prop_map(String::into_bytes),
                1 => prop::collection::vec(128_u8..=255, 0..4),
                1 => Just(TRACEPARENT.as_bytes().to_vec()),
            ],
            6,
        ),
        query in any::<String>(),
    ) -> Received {
        let mut headers = HeaderMap::new();
        let known = [("content-type", content_type), ("content-encoding", encoding)];
        for (name, value) in known {
            if let Some(value) = value {
                headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
        }
        for (name, value) in names.into_iter().zip(values) {
            headers.append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        let path = "/hooks/loyalty".to_owned();
        Received { method: Method::POST, url: path.clone(), path, query, headers, raw: raw.into() }
    }
}

/// Compiled once.
static HOOKS: LazyLock<Vec<Hook>> = LazyLock::new(|| configs().iter().map(hook).collect());

fn configs() -> [WebhookConfig; 3] {
    let mut mapped = config();
    mapped.event.id = template("{.body.id // .headers.x // \"i\"}");
    mapped.event.extensions.insert("q".to_owned(), template("{.query.a}").unwrap());
    mapped.event.data = expression("[., .raw]");
    mapped.respond = Some(RespondConfig {
        status: 200,
        headers: BTreeMap::from([("x".to_owned(), template("{.headers.x}").unwrap())]),
        body: expression(".body.x"),
    });
    let split = WebhookConfig { split: expression(".body[]"), ..config() };
    [unmapped(), mapped, split]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn n18_any_request_is_malformed_or_becomes_sound_arrivals(request in any_request()) {
        for hook in HOOKS.iter() {
            let reading = hook.read(&request, &Verified::default(), NOW);
            let Reading { arrivals, reply } = match reading {
                Ok(reading) => reading,
                Err(Malformed { status, why }) => {
                    prop_assert!(matches!(status.as_u16(), 400 | 415) && !why.is_empty());
                    continue;
                }
            };
            for arrival in &arrivals {
                match &arrival.event {
                    Err(invalid) => prop_assert!(!invalid.why.is_empty() && !arrival.own_id),
                    Ok(event) => {
                        prop_assert_eq!(event.check(), Ok(()));
                        prop_assert_eq!(check_json(&event.to_json()), Ok(()));
                    }
                }
            }
            let answer = reply.answer(&pending(arrivals.len()));
            prop_assert!(answer.status.is_success());
        }
    }
}
