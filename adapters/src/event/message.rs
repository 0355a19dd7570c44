//! From a message as it lies on a RabbitMQ queue to an event: which envelope it is in, and what
//! the route's `event:` makes of it.
//!
//! ```text
//! content_type application/cloudevents+json ─► structured CloudEvents
//! a header `specversion` with a known prefix ─► binary CloudEvents
//! {"metadata": {…}, "data": …}               ─► metadata-data
//! anything else                              ─► plain
//! ```
//!
//! Where both an envelope and `event:` name an attribute, `event:` wins, field by field. Where
//! neither does, the message's own properties do, except that a CloudEvent says all of it itself.
//! Nothing here panics, recurses or grows beyond a small multiple of the body.

use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::{
    Event, EventError, EventMapping,
    attribute::{is_json, media_type, rfc3339, unix_time},
    check_json, cloudevents,
    mapping::Draft,
    metadata_data, plain,
};
use crate::{
    Arrival, Invalid, Timestamp, TraceContext,
    expression::{Input, Variables},
};

/// So much of a message that is no event is kept.
pub const RAW_MAX: usize = 64 << 10;

/// So much of each of its texts is shown, in characters.
pub(crate) const ABOUT_MAX: usize = 255;

/// A message, free of any client library's types.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The body as it came.
    pub body: Bytes,
    /// `content_type`.
    pub content_type: Option<String>,
    /// `content_encoding`; with anything but none and `identity` the body is never looked into.
    pub content_encoding: Option<String>,
    /// The header table as JSON: timestamps as Unix seconds, at most a few levels deep.
    pub headers: Map<String, Value>,
    /// The other properties: `message_id`, `type`, `app_id`, `timestamp` (Unix seconds), …
    pub properties: Map<String, Value>,
    /// Routing key.
    pub routing_key: String,
    /// Exchange; empty is the default exchange.
    pub exchange: String,
}

/// Reads `message` as it arrived for `route` at `now`. Never fails: what is no event is
/// [`Invalid`], with the reason and its first 64 KiB.
#[must_use]
pub fn read(message: &Message, route: &str, mapping: &EventMapping, now: Timestamp) -> Arrival {
    match draft(message).and_then(|draft| finish(draft, message, route, mapping, now)) {
        Ok((event, own_id)) => Arrival { event: Ok(event), own_id },
        Err(error) => invalid(message, error.to_string()),
    }
}

/// A message that is kept as dead, with `why`.
#[must_use]
pub fn invalid(message: &Message, why: String) -> Arrival {
    let content_encoding = message.content_encoding.as_deref();
    let texts = [
        ("exchange", Some(&*message.exchange)),
        ("routing_key", Some(&*message.routing_key)),
        ("content_type", message.content_type.as_deref()),
        ("content_encoding", content_encoding),
        ("message_id", message.property("message_id")),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| {
        Some((name.to_owned(), text?.chars().take(ABOUT_MAX).collect::<String>().into()))
    });
    let mut about: Map<String, Value> = texts.collect();
    about.insert("size".to_owned(), message.body.len().into());
    // A copy, or these 64 KiB would keep the whole message in memory.
    let raw = Bytes::copy_from_slice(&message.body[..message.body.len().min(RAW_MAX)]);
    Arrival { event: Err(Invalid { why, raw, about }), own_id: false }
}

fn draft(message: &Message) -> Result<Draft, EventError> {
    let media_type = message.content_type.as_deref().map_or("", media_type);
    if media_type.eq_ignore_ascii_case("application/cloudevents+json") {
        if let Some(encoding) = message.encoding() {
            let why = format!(
                "a CloudEvent in a `{encoding}` body is not read; publish it without \
                 content_encoding"
            );
            return Err(EventError::Envelope(why));
        }
        return cloudevents::structured(&message.body);
    }
    if media_type.eq_ignore_ascii_case("application/cloudevents-batch+json") {
        let why = "a CloudEvents batch; publish its events as messages of their own";
        return Err(EventError::Envelope(why.to_owned()));
    }
    if let Some(draft) = cloudevents::binary(message)? {
        return Ok(draft);
    }
    if let Some(draft) = metadata_data::read(message)? {
        return Ok(draft);
    }
    plain::read(message)
}

/// Lays `event:` over the draft, fills in defaults and checks the whole.
fn finish(
    mut draft: Draft,
    message: &Message,
    route: &str,
    mapping: &EventMapping,
    now: Timestamp,
) -> Result<(Event, bool), EventError> {
    if !mapping.is_empty() {
        let variables = Variables { route: route.into(), ..Variables::default() };
        mapping.lay_over(&mut draft, &message.input()?, &variables)?;
    }
    if !draft.complete {
        fill_in(&mut draft, message, route, now);
    }
    let keyless = "is missing: the message has no routing key; set `event.type`";
    let header = |name| message.headers.get(name).and_then(Value::as_str);
    let trace = header("traceparent")
        .and_then(|parent| TraceContext::carried(parent, header("tracestate")));
    draft.finish(|| uuid::Uuid::new_v4().to_string(), trace, keyless)
}

/// The defaults of an envelope that is not a CloudEvent; all but the id of one that has none.
fn fill_in(draft: &mut Draft, message: &Message, route: &str, now: Timestamp) {
    if draft.id.is_none() {
        draft.id = message.property("message_id").map(str::to_owned);
    }
    if draft.kind.is_none() && !message.routing_key.is_empty() {
        draft.kind = Some(message.routing_key.clone());
    }
    draft.source.get_or_insert_with(|| format!("/{route}"));
    draft.time.get_or_insert_with(|| {
        let timestamp = message.properties.get("timestamp").and_then(Value::as_i64);
        let timestamp = timestamp.filter(|timestamp| *timestamp > 0);
        timestamp.and_then(unix_time).unwrap_or_else(|| rfc3339(now))
    });
}

impl Message {
    /// Whether the body may be JSON: it says so, or says nothing; and it is not compressed.
    #[must_use]
    pub fn may_be_json(&self) -> bool {
        self.encoding().is_none() && self.content_type.as_deref().is_none_or(is_json)
    }

    /// The content encoding, if it is any.
    #[must_use]
    pub fn encoding(&self) -> Option<&str> {
        let encoding = self.content_encoding.as_deref()?.trim();
        let none = encoding.is_empty() || encoding.eq_ignore_ascii_case("identity");
        (!none).then_some(encoding)
    }

    /// A text property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// What `event:` works on: `{body, headers, properties, routing_key, exchange}`.
    ///
    /// `body` is the JSON that it is, byte for byte; else its text; else null, and `body_base64`
    /// is there as well.
    fn input(&self) -> Result<Input, EventError> {
        let mut json = Vec::with_capacity(self.body.len() + 1024);
        json.extend_from_slice(b"{\"body\":");
        self.write_body(&mut json);
        let rest = serde_json::json!({
            "headers": self.headers,
            "properties": self.properties,
            "routing_key": self.routing_key,
            "exchange": self.exchange,
        });
        json.push(b',');
        json.extend_from_slice(&rest.to_string().as_bytes()[1..]);
        Ok(Input::json(json.into())?)
    }

    fn write_body(&self, json: &mut Vec<u8>) {
        if self.body.is_empty() {
            json.extend_from_slice(b"null");
        } else if self.may_be_json() && check_json(&self.body).is_ok() {
            json.extend_from_slice(&self.body);
        } else if let (None, Ok(text)) = (self.encoding(), std::str::from_utf8(&self.body)) {
            json.extend_from_slice(Value::from(text).to_string().as_bytes());
        } else {
            json.extend_from_slice(b"null,\"body_base64\":\"");
            let text = base64::engine::general_purpose::STANDARD.encode(&self.body);
            json.extend_from_slice(text.as_bytes());
            json.push(b'"');
        }
    }
}

#[cfg(test)]
mod tests;
