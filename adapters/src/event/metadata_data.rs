//! The metadata-data envelope: `{"metadata": {…}, "data": …}`, keys in camel or snake case.
//!
//! ```json
//! {"metadata": {"eventId": "42", "eventType": "order.confirmed", "eventVersion": "v1",
//!               "eventTime": "2026-01-31T12:00:00Z", "source": "/orders", "correlationId": "7"},
//!  "data": {"orderId": "…"}}
//! ```
//!
//! An object is taken for this envelope only when nothing would get lost by it: it has these two
//! members and no others, each once, and the metadata names the event's id or type. Any other
//! object is a plain message.
//!
//! The type stays what it is; its version goes into the extension `version`. What else the
//! metadata holds becomes an extension where CloudEvents allows it: scalars, under their names in
//! lower case without `_` and `-` (`correlationId` is `correlationid`). Nested metadata is left to
//! `event:`, which sees the whole body.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

use super::{
    Data, EventError,
    attribute::{extension_value, is_extension_name, unix_time, wrong},
    json_text,
    mapping::Draft,
    message::Message,
};

/// The most metadata, in bytes; as a tree in memory it takes many times that.
const METADATA_MAX: usize = 64 << 10;

const ID: &[&str] = &["eventId", "event_id", "id", "messageId", "message_id"];
const TYPE: &[&str] = &["eventType", "event_type", "type", "eventName", "event_name"];
const VERSION: &[&str] = &["eventVersion", "event_version", "version"];
const TIME: &[&str] = &[
    "eventTime",
    "event_time",
    "time",
    "occurredAt",
    "occurred_at",
    "timestamp",
    "publishedAt",
    "published_at",
    "createdAt",
    "created_at",
];
const SOURCE: &[&str] = &["eventSource", "event_source", "source"];
const SUBJECT: &[&str] = &["eventSubject", "event_subject", "subject"];
const CONTENT_TYPE: &[&str] = &["dataContentType", "data_content_type", "datacontenttype"];
const SCHEMA: &[&str] = &["dataSchema", "data_schema", "dataschema"];
const ENCODING: &[&str] = &["dataEncoding", "data_encoding"];

/// The envelope, both parts as they came.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "there")]
    data: Option<&'a RawValue>,
}

/// A `null` is data like any other; serde would take it for none.
fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Reads it; `None` when the body is no such envelope.
///
/// # Errors
/// When it nests too deep, or its metadata is too large or of the wrong shape.
pub fn read(message: &Message) -> Result<Option<Draft>, EventError> {
    if !message.may_be_json() || !message.body.trim_ascii_start().starts_with(b"{") {
        return Ok(None);
    }
    let text = match json_text(&message.body) {
        Ok(text) => text,
        Err(EventError::TooDeep) => return Err(EventError::TooDeep),
        Err(_) => return Ok(None),
    };
    // A foreign member ends this at once: a plain message costs no second pass.
    let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) else {
        return Ok(None);
    };
    let metadata = envelope.metadata.get();
    if metadata.len() > METADATA_MAX && metadata.starts_with('{') {
        return Err(wrong("metadata", "is larger than 64 KiB"));
    }
    let Ok(mut metadata) = serde_json::from_str::<BTreeMap<String, Value>>(metadata) else {
        return Ok(None);
    };
    let mut take = |names: &[&str]| {
        let found = names.iter().find_map(|name| metadata.remove(*name).filter(is_there));
        text_of(names[0], found)
    };
    let (id, kind) = (take(ID)?, take(TYPE)?);
    if id.is_none() && kind.is_none() {
        return Ok(None);
    }
    let version = take(VERSION)?;
    let (source, subject) = (take(SOURCE)?, take(SUBJECT)?);
    let (datacontenttype, dataschema) = (take(CONTENT_TYPE)?, take(SCHEMA)?);
    let encoding = take(ENCODING)?;
    let time = TIME.iter().find_map(|name| metadata.remove(*name).filter(is_there));
    let time = match time {
        Some(Value::Number(number)) => number.as_i64().and_then(unix_time).map(Value::from),
        other => other,
    };
    let mut extensions = extensions(metadata);
    if let Some(version) = version {
        extensions.insert("version".to_owned(), version.into());
    }
    let data = envelope.data.map(|raw| message.body.slice_ref(raw.get().as_bytes()));
    let data = match (data, encoding.as_deref()) {
        (Some(json), Some("base64")) => from_base64(&json)?,
        (Some(json), _) => Data::Json(json),
        (None, _) => Data::Absent,
    };
    Ok(Some(Draft {
        id,
        source,
        kind,
        subject,
        time: text_of("time", time)?,
        datacontenttype,
        dataschema,
        extensions,
        data,
        ..Draft::default()
    }))
}

/// Data that is no JSON, as [`Event::write_metadata_data`](super::Event::write_metadata_data)
/// writes it.
fn from_base64(json: &[u8]) -> Result<Data, EventError> {
    let text = serde_json::from_slice::<String>(json).ok();
    let bytes = text.and_then(|text| STANDARD.decode(text).ok());
    let wrong = || wrong("data", "is no Base64, though `dataEncoding` says so");
    bytes.map(|bytes| Data::Binary(bytes.into())).ok_or_else(wrong)
}

/// Null and the empty text are how some senders write "none".
fn is_there(value: &Value) -> bool {
    !value.is_null() && value.as_str() != Some("")
}

/// A text; numbers count as their text.
fn text_of(name: &str, value: Option<Value>) -> Result<Option<String>, EventError> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(wrong(&format!("metadata.{name}"), "is neither a string nor a number")),
    }
}

/// What CloudEvents allows: scalars, of one line, under names that are letters and digits.
fn extensions(metadata: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let allowed = metadata.into_iter().filter_map(|(name, value)| {
        let name = name.to_ascii_lowercase().replace(['_', '-'], "");
        let value = extension_value(value).ok().flatten()?;
        let line = value.as_str().is_none_or(|text| !text.chars().any(char::is_control));
        (line && is_extension_name(&name)).then_some((name, value))
    });
    allowed.collect()
}
