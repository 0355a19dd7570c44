//! The metadata-data envelope: `{"metadata": {…}, "data": …}`, keys in camel or snake case.
//!
//! ```json
//! {"metadata": {"eventId": "42", "eventType": "order.confirmed", "eventVersion": "v1",
//!               "occurredAt": "2026-01-31T12:00:00Z", "source": "/orders"},
//!  "data": {"orderId": "…"}}
//! ```
//!
//! The type keeps its version: `order.confirmed` with version `v1` or `1` becomes
//! `order.confirmed.v1`, unless it already ends so. What else the metadata holds and could be a
//! CloudEvents extension becomes one.

use std::collections::BTreeMap;

use serde_json::{Value, value::RawValue};

use super::{
    Data, EventError, check_depth,
    message::{Draft, Message},
};

/// The envelope, its data as the bytes that came.
#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// Reads it; `None` when the body is no such envelope.
///
/// # Errors
/// When it nests too deep, or its metadata is of the wrong shape.
pub fn read(message: &Message) -> Result<Option<Draft>, EventError> {
    check_depth(&message.body)?;
    if !message.body.trim_ascii_start().starts_with(b"{") {
        return Ok(None);
    }
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&message.body) else {
        return Ok(None);
    };
    let Ok(mut metadata) = serde_json::from_str::<BTreeMap<String, Value>>(envelope.metadata.get())
    else {
        return Ok(None);
    };
    let mut take = |names: &[&str]| names.iter().find_map(|name| metadata.remove(*name));
    let id = text(
        "id",
        take(&["eventId", "event_id", "id", "messageId", "message_id"]),
    )?;
    let kind = text(
        "type",
        take(&["eventType", "event_type", "type", "eventName", "event_name"]),
    )?;
    let version = text(
        "version",
        take(&["eventVersion", "event_version", "version"]),
    )?;
    let time_names = [
        "eventTime",
        "event_time",
        "occurredAt",
        "occurred_at",
        "time",
        "timestamp",
        "publishedAt",
        "published_at",
    ];
    let time = text("time", take(&time_names))?;
    let source = text("source", take(&["eventSource", "event_source", "source"]))?;
    let subject = text("subject", take(&["subject"]))?;
    // Without either it is an object that happens to have a member called metadata.
    if id.is_none() && kind.is_none() {
        return Ok(None);
    }
    let data = envelope.data.map_or(Data::Absent, |raw| {
        Data::Json(message.body.slice_ref(raw.get().as_bytes()))
    });
    Ok(Some(Draft {
        id,
        source,
        kind: kind
            .map(|kind| versioned(kind, version.as_deref()))
            .or_else(|| Some(message.routing_key.clone()).filter(|key| !key.is_empty())),
        subject,
        time,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: extensions(metadata),
        data,
    }))
}

fn versioned(kind: String, version: Option<&str>) -> String {
    let Some(version) = version.filter(|version| !version.is_empty()) else {
        return kind;
    };
    let suffix = match version.starts_with(|first: char| first.is_ascii_digit()) {
        true => format!(".v{version}"),
        false => format!(".{version}"),
    };
    match kind.ends_with(&suffix) {
        true => kind,
        false => kind + &suffix,
    }
}

/// A text; numbers count as their text.
fn text(name: &str, value: Option<Value>) -> Result<Option<String>, EventError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        Some(_) => Err(EventError::Attribute {
            name: format!("metadata.{name}"),
            problem: "is neither a string nor a number",
        }),
    }
}

/// Scalars under names that CloudEvents allows (§3.1: lower-case letters and digits).
fn extensions(metadata: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let allowed = metadata.into_iter().filter_map(|(name, value)| {
        let name: String = name.to_ascii_lowercase().replace(['_', '-'], "");
        let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let free = named && !super::cloudevents::is_core(&name);
        let scalar = matches!(value, Value::String(_) | Value::Bool(_))
            || value
                .as_i64()
                .is_some_and(|number| i32::try_from(number).is_ok());
        (free && scalar).then_some((name, value))
    });
    allowed.collect()
}
