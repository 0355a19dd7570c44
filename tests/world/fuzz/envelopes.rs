//! Events in their envelopes, as they come from RabbitMQ and over HTTP.

use std::sync::LazyLock;

use bytes::Bytes;
use hyper::{HeaderMap, Method, header::HeaderName, header::HeaderValue};
use serde_json::{Value, json};
use tidegate_adapters::{
    Accepted, Arrival, Data, DeliveryId,
    event::{
        EventMapping, cloudevents,
        message::{self, Message, RAW_MAX},
    },
    http::{
        Hook,
        verify::Verified,
        webhook::{EVENTS_MAX, Reading, Received},
    },
};

use super::{
    NOW, Parts,
    sound::{assert_sound, is_part},
};

/// What is mapped: nothing, and everything.
static MAPPINGS: LazyLock<[EventMapping; 2]> = LazyLock::new(|| {
    let mapped = json!({
        "id": "{.properties.message_id // .body.id // \"i\"}", "source": "/{.exchange}",
        "type": "{.routing_key}", "subject": "{.headers.x}", "time": "{.body.time}",
        "extensions": { "tenant": "{.headers.tenant}" }, "data": "[., .body_base64]",
    });
    let mapped = serde_json::from_value(mapped).expect("a sound mapping");
    [EventMapping::default(), mapped]
});

/// A message on a RabbitMQ queue: `content_type`, `content_encoding`, `routing_key`, `exchange`,
/// `properties.<name>`; any other name is a header's, its value JSON or else text. Then the body.
///
/// # Panics
/// When an event comes of it that does not hold, or something else is kept than what came.
pub fn envelopes_amqp(input: &[u8]) {
    let message = message(&Parts::of(input));
    for mapping in MAPPINGS.iter() {
        let arrival = message::read(&message, "orders", mapping, NOW);
        match &arrival.event {
            Err(invalid) => {
                assert!(!invalid.why.is_empty() && !arrival.own_id);
                let kept = message.body.len().min(RAW_MAX);
                assert_eq!(invalid.raw[..], message.body[..kept]);
            }
            Ok(event) => {
                assert_sound(event);
                let unmapped = mapping.data.is_none();
                if let (Data::Json(data), true) = (&event.data, unmapped) {
                    assert!(is_part(data, &message.body), "JSON stays the bytes it came as");
                }
                let again = message::read(&message, "orders", mapping, NOW);
                let again = again.event.map(|event| event.id).ok();
                assert_eq!(again.as_ref() == Some(&event.id), arrival.own_id);
            }
        }
    }
}

fn message(parts: &Parts<'_>) -> Message {
    let mut message = Message {
        body: Bytes::copy_from_slice(parts.rest),
        content_type: parts.text("content_type"),
        content_encoding: parts.text("content_encoding"),
        routing_key: parts.text("routing_key").unwrap_or_default(),
        exchange: parts.text("exchange").unwrap_or_default(),
        ..Message::default()
    };
    for (name, value) in &parts.lines {
        let text = String::from_utf8_lossy(value);
        let value = serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text));
        match name.strip_prefix("properties.") {
            Some(property) => message.properties.insert(property.to_owned(), value),
            None => message.headers.insert((*name).to_owned(), value),
        };
    }
    message
}

/// A webhook without `event:`; with all of it; and with `split`.
static HOOKS: LazyLock<[Hook; 3]> = LazyLock::new(|| {
    let configs = [
        json!({}),
        json!({
            "event": {
                "id": "{.body.id // .headers.x // \"i\"}", "type": "t",
                "extensions": { "q": "{.query.a}" }, "data": "[., .raw]",
            },
            "respond": {
                "status": 200, "headers": { "x": "{.headers.x}" }, "body": ".body.x",
            },
        }),
        json!({ "event": { "type": "{.item.type // \"t\"}" }, "split": ".body[]" }),
    ];
    configs.map(|mut config| {
        config["path"] = json!("/hook");
        config["verify"] = json!({ "none": {} });
        config["dedupe"] = json!("off");
        let config = serde_json::from_value(config).expect("a sound webhook");
        Hook::new("hooks".into(), &config).expect("a sound webhook")
    })
});

/// A webhook's request: headers, and `?` for the query. Then the body.
///
/// # Panics
/// When an event comes of it that does not hold, or other ways to the same event give another.
pub fn envelopes_http(input: &[u8]) {
    let request = request(&Parts::of(input));
    for hook in HOOKS.iter() {
        let Reading { arrivals, reply } = match hook.read(&request, &Verified::default(), NOW) {
            Ok(reading) => reading,
            Err(malformed) => {
                assert!(matches!(malformed.status.as_u16(), 400 | 415));
                assert!(!malformed.why.is_empty());
                continue;
            }
        };
        assert!(arrivals.len() <= EVENTS_MAX);
        for arrival in &arrivals {
            match &arrival.event {
                Err(invalid) => assert!(!invalid.why.is_empty() && !arrival.own_id),
                Ok(event) => assert_sound(event),
            }
        }
        let accepted = vec![Accepted::Pending(DeliveryId(1)); arrivals.len()];
        assert!(reply.answer(&accepted).status.is_success());
    }
    let unmapped = HOOKS[0].read(&request, &Verified::default(), NOW);
    if let Ok(reading) = unmapped {
        assert_agrees_with_rabbitmq(&request, &reading.arrivals);
    }
}

/// What is in the JSON format means the same wherever it comes in, alone or in a batch.
fn assert_agrees_with_rabbitmq(request: &Received, arrivals: &[Arrival]) {
    let content_type = request.headers.get("content-type").and_then(|kind| kind.to_str().ok());
    let media_type = content_type.unwrap_or_default().trim().to_ascii_lowercase();
    let bodies = match &*media_type {
        "application/cloudevents+json" => vec![request.raw.clone()],
        "application/cloudevents-batch+json" => {
            let batch = cloudevents::batch(&request.raw, EVENTS_MAX).expect("it was read before");
            batch.into_iter().map(|(_, event)| event).collect()
        }
        _ => return,
    };
    assert_eq!(bodies.len(), arrivals.len());
    for (body, arrival) in bodies.into_iter().zip(arrivals) {
        let content_type = Some("application/cloudevents+json".to_owned());
        let message = Message { body, content_type, ..Message::default() };
        let other = message::read(&message, "hooks", &EventMapping::default(), NOW);
        let event = arrival.event.as_ref().expect("a CloudEvent that is none is malformed");
        let mut other = other.event.expect("it was an event over HTTP");
        other.traceparent.clone_from(&event.traceparent);
        assert_eq!(*event, other);
    }
}

fn request(parts: &Parts<'_>) -> Received {
    let query = parts.text("?").unwrap_or_default();
    Received {
        method: Method::POST,
        url: format!("https://hooks.example/hook?{query}"),
        path: "/hook".to_owned(),
        query,
        headers: headers(parts),
        raw: Bytes::copy_from_slice(parts.rest),
    }
}

/// Those of the lines that are headers.
pub(super) fn headers(parts: &Parts<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &parts.lines {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(*name), HeaderValue::from_bytes(value))
        else {
            continue;
        };
        headers.append(name, value);
    }
    headers
}
