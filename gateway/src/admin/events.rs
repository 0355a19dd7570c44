//! `POST /api/v1/events?exchange&key`: one CloudEvent, structured or binary, to the broker.

use bytes::Bytes;
use http::{StatusCode, request::Parts};
use serde_json::{Map, Value, json};
use tidegate_adapters::{
    event::EventMapping,
    event::{
        attribute::media_type,
        message::{Message, read},
    },
};

use super::{Answer, ok, problem};
use crate::{
    app::{Inspect, PublishError},
    config::did_you_mean,
};

/// The type of a structured CloudEvent.
pub(super) const STRUCTURED: &str = "application/cloudevents+json";

/// Publishes what the request holds, for `operator`; answers `{"id": …}`.
pub(super) async fn publish(
    inspect: &dyn Inspect,
    operator: &str,
    head: &Parts,
    query: &str,
    body: Bytes,
) -> Result<Answer, Answer> {
    let bad = |why: &str| problem(StatusCode::BAD_REQUEST, why);
    let (mut exchange, mut key) = (None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "exchange" => exchange = Some(value.into_owned()),
            "key" => key = Some(value.into_owned()),
            name => {
                let near = did_you_mean(name, ["exchange", "key"]);
                let why = format!("`{name}` is no parameter; there are exchange and key{near}");
                return Err(bad(&why));
            }
        }
    }
    let exchange = exchange.ok_or_else(|| bad("`exchange` is missing: where to publish to"))?;
    let message = message(head, body);
    let media_type = message.content_type.as_deref().map(media_type);
    let is_event = media_type.is_some_and(|is| is.eq_ignore_ascii_case(STRUCTURED))
        || message.headers.contains_key("ce-specversion");
    if !is_event {
        return Err(bad(
            "not a CloudEvent: send application/cloudevents+json, or ce- headers with a JSON body",
        ));
    }
    let arrival = read(&message, "events", &EventMapping::default(), inspect.now());
    let event = arrival.event.map_err(|invalid| bad(&invalid.why))?;
    let key = key.unwrap_or_else(|| event.kind.clone());
    let id = event.id.clone();
    let published = inspect.publish(exchange.clone(), key.clone(), event).await;
    match published {
        Ok(()) => {
            tracing::info!(operator, exchange, key, event = id, "event published");
            Ok(ok(inspect, &json!({ "id": id })))
        }
        Err(error) => {
            tracing::warn!(operator, exchange, key, event = id, %error, "event not published");
            let status = match error {
                PublishError::Unroutable { .. } | PublishError::Impossible(_) => {
                    StatusCode::UNPROCESSABLE_ENTITY
                }
                PublishError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            Err(problem(status, &error.to_string()))
        }
    }
}

/// The request as a message: HTTP and AMQP carry CloudEvents the same way, `ce-` headers included.
fn message(head: &Parts, body: Bytes) -> Message {
    let text = |name: &str| {
        let value = head.headers.get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let mut headers = Map::new();
    for (name, value) in &head.headers {
        let wanted = name.as_str().starts_with("ce-") || name == "traceparent";
        if let (true, Ok(value)) = (wanted, value.to_str()) {
            // Header values are percent-encoded (HTTP binding §3.1.3.2).
            let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
            headers.insert(name.as_str().to_owned(), Value::from(value.into_owned()));
        }
    }
    Message {
        body,
        content_type: text("content-type"),
        content_encoding: text("content-encoding"),
        headers,
        ..Message::default()
    }
}
