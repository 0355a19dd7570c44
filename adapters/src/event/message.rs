//! From a message as it lies on a RabbitMQ queue to an event: which envelope it is in, and what
//! the route's `event:` makes of it.
//!
//! The order of looking: structured CloudEvents, binary CloudEvents, metadata-data, plain. Where
//! both an envelope and `event:` name an attribute, `event:` wins, field by field.

use bytes::Bytes;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Data, Event, EventError, check_json, cloudevents, metadata_data, plain};
use crate::{
    Arrival, Invalid, Timestamp,
    expression::{Input, Place, Template, Variables},
    rabbitmq::EventMapping,
};

/// So much of a message that is no event is kept.
pub const RAW_MAX: usize = 64 << 10;

/// A message, free of any client library's types.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// The body as it came.
    pub body: Bytes,
    /// `content_type`.
    pub content_type: Option<String>,
    /// `content_encoding`; anything but none and `identity` is left as it is.
    pub content_encoding: Option<String>,
    /// The header table as JSON.
    pub headers: Map<String, Value>,
    /// The other properties: `message_id`, `type`, `app_id`, `timestamp` (Unix seconds), …
    pub properties: Map<String, Value>,
    /// Routing key.
    pub routing_key: String,
    /// Exchange; empty is the default exchange.
    pub exchange: String,
}

/// What an envelope says of an event; what it does not say has a default.
#[derive(Debug, Default)]
pub struct Draft {
    /// Its own id.
    pub id: Option<String>,
    /// Its source.
    pub source: Option<String>,
    /// Its type.
    pub kind: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// RFC 3339.
    pub time: Option<String>,
    /// Media type of its data.
    pub datacontenttype: Option<String>,
    /// Schema of its data.
    pub dataschema: Option<String>,
    /// Further attributes.
    pub extensions: std::collections::BTreeMap<String, Value>,
    /// The data.
    pub data: Data,
}

impl Message {
    /// Whether the body may be JSON: it says so, or says nothing; and it is not compressed.
    #[must_use]
    pub fn may_be_json(&self) -> bool {
        let encoded = self.content_encoding.as_deref().unwrap_or("");
        let plain = encoded.is_empty() || encoded.eq_ignore_ascii_case("identity");
        plain && self.content_type.as_deref().is_none_or(is_json)
    }

    /// The media type without parameters, lower case.
    #[must_use]
    pub fn media_type(&self) -> Option<String> {
        self.content_type.as_deref().map(media_type)
    }

    /// A text property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties
            .get(name)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    }

    /// What `event:` works on: `{body, headers, properties, routing_key, exchange}`.
    ///
    /// # Errors
    /// When the body nests too deep.
    fn input(&self) -> Result<Input, EventError> {
        let mut json = Vec::with_capacity(self.body.len() + 512);
        json.extend_from_slice(b"{\"body\":");
        match check_json(&self.body) {
            Ok(()) if self.may_be_json() => json.extend_from_slice(&self.body),
            Err(EventError::TooDeep) if self.may_be_json() => return Err(EventError::TooDeep),
            _ => {
                let text = std::str::from_utf8(&self.body).ok().map(Value::from);
                json.extend_from_slice(text.unwrap_or(Value::Null).to_string().as_bytes());
            }
        }
        let rest = serde_json::json!({
            "headers": self.headers,
            "properties": self.properties,
            "routing_key": self.routing_key,
            "exchange": self.exchange,
        });
        let rest = rest.to_string();
        json.push(b',');
        json.extend_from_slice(&rest.as_bytes()[1..]);
        Ok(Input::json(json.into())?)
    }
}

/// Reads `message` as it arrived for `route` at `now`. Never fails: what is no event is
/// [`Invalid`], with the reason and its first 64 KiB.
#[must_use]
pub fn read(message: &Message, route: &str, mapping: &EventMapping, now: Timestamp) -> Arrival {
    match draft(message).and_then(|draft| finish(draft, message, route, mapping, now)) {
        Ok((event, own_id)) => Arrival {
            event: Ok(event),
            own_id,
        },
        Err(error) => invalid(message, error.to_string()),
    }
}

/// A message that is kept as dead, with `why`.
#[must_use]
pub fn invalid(message: &Message, why: String) -> Arrival {
    let mut about = Map::new();
    about.insert("routing_key".to_owned(), message.routing_key.clone().into());
    about.insert("exchange".to_owned(), message.exchange.clone().into());
    about.insert(
        "content_type".to_owned(),
        message.content_type.clone().into(),
    );
    about.insert(
        "message_id".to_owned(),
        message.property("message_id").into(),
    );
    about.insert("size".to_owned(), message.body.len().into());
    // A copy, or these 64 KiB would keep the whole message in memory.
    let raw = Bytes::copy_from_slice(&message.body[..message.body.len().min(RAW_MAX)]);
    Arrival {
        event: Err(Invalid { why, raw, about }),
        own_id: false,
    }
}

fn draft(message: &Message) -> Result<Draft, EventError> {
    match message.media_type().as_deref() {
        Some("application/cloudevents+json") => return cloudevents::structured(message),
        Some("application/cloudevents-batch+json") => {
            let why = "a CloudEvents batch; RabbitMQ messages carry one event each";
            return Err(EventError::Envelope(why.to_owned()));
        }
        _ => {}
    }
    if let Some(draft) = cloudevents::binary(message)? {
        return Ok(draft);
    }
    if message.may_be_json()
        && let Some(draft) = metadata_data::read(message)?
    {
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
        map(&mut draft, message, route, mapping)?;
    }
    let own_id = draft.id.is_some();
    let kind = draft.kind.ok_or(EventError::Attribute {
        name: "type".to_owned(),
        problem: "is missing: the message has no routing key either; set `event.type`",
    })?;
    let extensions = draft.extensions;
    let carried = message
        .headers
        .get("traceparent")
        .or_else(|| extensions.get("traceparent"));
    let traceparent = carried
        .and_then(Value::as_str)
        .filter(|text| is_traceparent(text));
    let event = Event {
        id: draft.id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
        source: draft.source.unwrap_or_else(|| format!("/{route}")),
        kind,
        subject: draft.subject,
        time: Some(draft.time.unwrap_or_else(|| arrival_time(message, now))),
        datacontenttype: draft.datacontenttype,
        dataschema: draft.dataschema,
        traceparent: traceparent.map(str::to_owned),
        extensions,
        data: draft.data,
    };
    check(&event)?;
    Ok((event, own_id))
}

fn map(
    draft: &mut Draft,
    message: &Message,
    route: &str,
    mapping: &EventMapping,
) -> Result<(), EventError> {
    let input = message.input()?;
    let variables = Variables {
        route: route.into(),
        ..Variables::default()
    };
    let field = |template: &Option<Template>, place| match template {
        None => Ok(None),
        Some(template) => template.render(&input, &variables, place),
    };
    let fields = [
        (&mapping.id, &mut draft.id, Place::Field),
        (&mapping.source, &mut draft.source, Place::Field),
        (&mapping.kind, &mut draft.kind, Place::Field),
        (&mapping.subject, &mut draft.subject, Place::OptionalField),
        (&mapping.time, &mut draft.time, Place::OptionalField),
    ];
    for (template, attribute, place) in fields {
        if let Some(text) = field(template, place)? {
            *attribute = Some(text);
        }
    }
    for (name, template) in &mapping.extensions {
        if let Some(text) = template.render(&input, &variables, Place::OptionalField)? {
            draft.extensions.insert(name.clone(), text.into());
        }
    }
    if let Some(expression) = &mapping.data {
        draft.data = Data::Json(expression.run(&input, &variables)?.to_json());
        draft.datacontenttype = Some("application/json".to_owned());
    }
    Ok(())
}

/// The message's own timestamp (AMQP: whole seconds), else now.
fn arrival_time(message: &Message, now: Timestamp) -> String {
    let seconds = message.properties.get("timestamp").and_then(Value::as_i64);
    let seconds = seconds.filter(|seconds| *seconds > 0);
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| rfc3339(now))
}

/// `timestamp` as RFC 3339 in UTC, with milliseconds.
#[must_use]
pub fn rfc3339(timestamp: Timestamp) -> String {
    let nanos = i128::from(timestamp.0) * 1_000_000;
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).unwrap_or_default()
}

fn check(event: &Event) -> Result<(), EventError> {
    let wrong = |name: &str, problem| EventError::Attribute {
        name: name.to_owned(),
        problem,
    };
    let texts = [
        ("id", Some(&event.id)),
        ("source", Some(&event.source)),
        ("type", Some(&event.kind)),
        ("subject", event.subject.as_ref()),
        ("time", event.time.as_ref()),
        ("datacontenttype", event.datacontenttype.as_ref()),
        ("dataschema", event.dataschema.as_ref()),
    ];
    for (name, text) in texts {
        let Some(text) = text else { continue };
        if text.is_empty() {
            return Err(wrong(name, "is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(wrong(name, "has control characters"));
        }
    }
    let time = event.time.as_deref().unwrap_or("1970-01-01T00:00:00Z");
    if OffsetDateTime::parse(time, &Rfc3339).is_err() {
        return Err(wrong("time", "is not RFC 3339, as in 2026-01-31T12:00:00Z"));
    }
    Ok(())
}

/// W3C Trace Context: `00-<32 hex>-<16 hex>-<2 hex>`, ids not all zero.
#[must_use]
pub fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length: usize| {
        part.len() == length
            && part
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    matches!(parts[..], [version, trace, span, flags]
        if hex(version, 2) && version != "ff" && hex(trace, 32) && !zero(trace)
            && hex(span, 16) && !zero(span) && hex(flags, 2))
}

/// Whether a content type is JSON: `application/json`, `text/json` or any `+json`.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let media_type = media_type(content_type);
    matches!(&*media_type, "application/json" | "text/json") || media_type.ends_with("+json")
}

fn media_type(content_type: &str) -> String {
    content_type
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase()
}

impl EventMapping {
    /// Whether it maps nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            id,
            source,
            kind,
            subject,
            time,
            extensions,
            data,
        } = self;
        [id, source, kind, subject, time]
            .iter()
            .all(|template| template.is_none())
            && extensions.is_empty()
            && data.is_none()
    }
}
