//! What attributes may be: names, texts, times, media types, trace context.

use std::collections::BTreeMap;

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Event, EventError};
use crate::Timestamp;

/// The longest text of an attribute, in bytes. They are kept in memory, shown in lists and sent in
/// headers; what is longer belongs into the data.
pub const TEXT_MAX: usize = 64 << 10;

/// From here on a number that stands for a time counts milliseconds, not seconds: as seconds it
/// lies in the year 5138, as milliseconds in 1973.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

impl Event {
    /// Whether all attributes are as CloudEvents wants them (core specification 1.0.2, "Type
    /// System" and "Context Attributes"). Whoever fills in an event's fields calls this.
    ///
    /// # Errors
    /// [`EventError::Attribute`] for the first one that is not.
    pub fn check(&self) -> Result<(), EventError> {
        let texts = [
            ("id", Some(&*self.id)),
            ("source", Some(&self.source)),
            ("type", Some(&self.kind)),
            ("subject", self.subject.as_deref()),
            ("time", self.time.as_deref()),
            ("datacontenttype", self.datacontenttype.as_deref()),
            ("dataschema", self.dataschema.as_deref()),
        ];
        check_attributes(texts, &self.extensions)
    }
}

/// Whether those that are there are as CloudEvents wants them.
pub(super) fn check_attributes(
    texts: [(&'static str, Option<&str>); 7],
    extensions: &BTreeMap<String, Value>,
) -> Result<(), EventError> {
    for (name, value) in texts {
        let Some(value) = value else { continue };
        check_text(name, value)?;
        if name == "time" && OffsetDateTime::parse(value, &Rfc3339).is_err() {
            let problem = "is not RFC 3339 with an offset, as in 2026-01-31T12:00:00Z";
            return Err(wrong("time", problem));
        }
    }
    for (name, value) in extensions {
        check_extension(name, value)?;
    }
    Ok(())
}

fn check_extension(name: &str, value: &Value) -> Result<(), EventError> {
    if is_core(name) {
        return Err(wrong(name, "is CloudEvents' own; an extension cannot be called so"));
    }
    if !is_extension_name(name) {
        return Err(wrong(name, "is no attribute name: lower-case letters and digits only"));
    }
    match value {
        // CloudEvents has no empty strings, but an extension that is one harms nobody.
        Value::String(text) if text.is_empty() => Ok(()),
        Value::String(text) => check_text(name, text),
        Value::Bool(_) => Ok(()),
        Value::Number(number) if !number.is_f64() => Ok(()),
        _ => Err(wrong(name, "is neither a string nor a boolean nor a whole number")),
    }
}

fn check_text(name: &str, text: &str) -> Result<(), EventError> {
    if text.is_empty() {
        return Err(wrong(name, "is empty"));
    }
    if text.len() > TEXT_MAX {
        return Err(wrong(name, "is longer than 64 KiB"));
    }
    // They end up in headers and routing keys.
    if text.chars().any(char::is_control) {
        return Err(wrong(name, "has control characters"));
    }
    Ok(())
}

pub(super) fn wrong(name: &str, problem: &'static str) -> EventError {
    // A name is the sender's text too.
    let name = name.chars().take(64).collect::<String>().escape_debug().to_string();
    EventError::Attribute { name, problem }
}

/// Whether `name` is an attribute of the core specification, or a member that holds the data.
#[must_use]
pub fn is_core(name: &str) -> bool {
    matches!(
        name,
        "specversion"
            | "id"
            | "source"
            | "type"
            | "subject"
            | "time"
            | "datacontenttype"
            | "dataschema"
            | "data"
            | "data_base64"
    )
}

/// Whether an extension attribute may be called `name`: lower-case letters and digits (core
/// specification 1.0.2, "Naming Conventions"), and not as one of CloudEvents' own.
#[must_use]
pub fn is_extension_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(allowed) && !is_core(name)
}

/// `value` as an extension attribute. CloudEvents knows strings, booleans and integers; any other
/// number becomes its text. `None` for null; arrays and objects come back as they are.
pub(super) fn extension_value(value: Value) -> Result<Option<Value>, Value> {
    match value {
        Value::Null => Ok(None),
        Value::Number(number) if number.is_f64() => Ok(Some(number.to_string().into())),
        Value::String(_) | Value::Bool(_) | Value::Number(_) => Ok(Some(value)),
        Value::Array(_) | Value::Object(_) => Err(value),
    }
}

/// `timestamp` as RFC 3339 in UTC, with as many digits as it needs.
#[must_use]
pub fn rfc3339(timestamp: Timestamp) -> String {
    let nanos = i128::from(timestamp.0) * 1_000_000;
    let time =
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(&Rfc3339).expect("years 0 to 9999, which the conversion keeps to, can be written")
}

/// A number of seconds since the Unix epoch, or of milliseconds where it is too large for that,
/// as RFC 3339. `None` outside the years 0 to 9999.
#[must_use]
pub fn unix_time(number: i64) -> Option<String> {
    let nanos_each = match number.unsigned_abs() >= MILLISECONDS_FROM {
        true => 1_000_000,
        false => 1_000_000_000,
    };
    let nanos = i128::from(number) * nanos_each;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    time.format(&Rfc3339).ok()
}

/// Whether a content type is JSON: `application/json`, `text/json` or any `+json`; parameters and
/// case do not matter.
#[must_use]
pub fn is_json(content_type: &str) -> bool {
    let media_type = media_type(content_type);
    let suffix = media_type.len().checked_sub(5).and_then(|at| media_type.get(at..));
    media_type.eq_ignore_ascii_case("application/json")
        || media_type.eq_ignore_ascii_case("text/json")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

/// The media type without its parameters.
#[must_use]
pub fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or("").trim()
}
