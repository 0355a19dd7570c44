//! What a route is given, as it would arrive: a message on its RabbitMQ queue, or a request.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Map, Value, json};
use tidegate_adapters::{
    Timestamp,
    event::{attribute::rfc3339, message::Message},
    http::webhook::Received,
};

use super::stage::headers;
use crate::config::{Given, GivenMessage, GivenWebhook};

/// What is given as a message that came by `exchange`, unless it says another.
pub(super) fn message(given: &Given, exchange: String, now: Timestamp) -> Message {
    match given {
        Given::Event(attributes) => {
            let event = event(attributes, now);
            Message {
                body: event.to_string().into(),
                content_type: Some("application/cloudevents+json".to_owned()),
                routing_key: event["type"].as_str().unwrap_or_default().to_owned(),
                exchange,
                ..Message::default()
            }
        }
        Given::Message(given) => message_of(given, exchange),
        Given::Webhook(_) => Message::default(),
    }
}

/// What is given as a request to `path` of `public_url`. Nothing proves it yet.
pub(super) fn request(given: &Given, path: &str, public_url: &str, now: Timestamp) -> Received {
    let (query, headers, raw) = match given {
        Given::Event(attributes) => {
            let kind = HeaderValue::from_static("application/cloudevents+json");
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind)]);
            (String::new(), headers, event(attributes, now).to_string().into())
        }
        Given::Webhook(given) => (given.query.clone(), headers_of(given), body_of(given)),
        Given::Message(_) => (String::new(), HeaderMap::new(), Bytes::new()),
    };
    let separator = if query.is_empty() { "" } else { "?" };
    let url = format!("{public_url}{path}{separator}{query}");
    Received { method: Method::POST, url, path: path.to_owned(), query, headers, raw }
}

/// A CloudEvent with stand-ins for what it must have and nobody cares about.
fn event(attributes: &Map<String, Value>, now: Timestamp) -> Value {
    let mut event = json!({
        "specversion": "1.0", "id": "test-1", "source": "/test", "time": rfc3339(now),
    });
    let object = event.as_object_mut().expect("made right above");
    object.extend(attributes.clone());
    object.retain(|_, value| !value.is_null());
    event
}

fn message_of(given: &GivenMessage, exchange: String) -> Message {
    let json = given.body.as_ref().map(Value::to_string);
    let raw = || given.raw.clone().unwrap_or_default();
    let kind = json.is_some().then(|| "application/json".to_owned());
    Message {
        content_type: given.content_type.clone().or(kind),
        body: json.unwrap_or_else(raw).into(),
        content_encoding: given.content_encoding.clone(),
        headers: given.headers.clone(),
        properties: given.properties.clone(),
        routing_key: given.routing_key.clone().unwrap_or_default(),
        exchange: given.exchange.clone().unwrap_or(exchange),
    }
}

fn headers_of(given: &GivenWebhook) -> HeaderMap {
    let mut headers = headers(&given.headers);
    let kind = match (&given.body, &given.form) {
        (Some(_), _) => Some("application/json"),
        (None, Some(_)) => Some("application/x-www-form-urlencoded"),
        (None, None) => None,
    };
    if let Some(kind) = kind {
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
    }
    headers
}

fn body_of(given: &GivenWebhook) -> Bytes {
    match (&given.body, &given.form, &given.raw) {
        (Some(body), _, _) => body.to_string().into(),
        (None, Some(form), _) => {
            let mut text = url::form_urlencoded::Serializer::new(String::new());
            text.extend_pairs(form).finish().into()
        }
        (None, None, raw) => raw.clone().unwrap_or_default().into(),
    }
}
