//! Events: immutable facts, as CloudEvents 1.0 (<https://github.com/cloudevents/spec>, v1.0.2).
//!
//! JSON data is kept as the bytes that arrived, never re-serialised: numbers keep their text,
//! keys their order, duplicates their place. Everything that needs the event as one JSON object
//! (expressions, envelopes) gets [`Event::to_json`], which splices those bytes in.
//!
//! ```text
//! RabbitMQ message ─┐   ┌─► cloudevents    structured, binary, batch ─┐
//!                   ├───┼─► metadata_data  (RabbitMQ)                 ├─► Draft ─► `event:` ─►
//! Event HTTP request     ─┘   └─► plain                                    ─┘
//! ```
//!
//! What a target publishes is written by the same envelopes, in `write`.

pub mod attribute;
pub mod cloudevents;
pub mod message;
pub mod metadata_data;
pub mod plain;

mod mapping;
mod members;
mod stored;
mod write;

pub use mapping::{Draft, EventMapping};
pub use write::Written;

use std::collections::BTreeMap;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;

use crate::TraceContext;

/// Moves inside Tidegate at most: a ring of routes would go round for ever.
pub const HOPS_MAX: u32 = 16;

/// How deep JSON may nest. Checked over raw bytes before any parser sees them: recursive parsers,
/// and recursive drops, abort the process on deep input.
pub const DEPTH_MAX: usize = 128;

/// An event: CloudEvents attributes and data.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Unique within `source`. Not empty.
    pub id: String,
    /// The event source, a URI reference. Not empty.
    pub source: String,
    /// The CloudEvents `type`. Not empty.
    pub kind: String,
    /// What within the source it is about.
    pub subject: Option<String>,
    /// RFC 3339.
    pub time: Option<String>,
    /// Media type of `data`; `application/json` when absent and the data is JSON.
    pub datacontenttype: Option<String>,
    /// A URI.
    pub dataschema: Option<String>,
    /// Extension attributes: strings, booleans and integers, under names that
    /// [`attribute::is_extension_name`] allows.
    pub extensions: BTreeMap<String, Value>,
    /// The trace it travelled in, as said beside the event or in it.
    pub traceparent: Option<TraceContext>,
    /// Moves inside Tidegate that led to it: replies, and what the embedded broker hands on.
    /// Transport, like `traceparent`: no attribute, and 0 for what came from outside.
    pub hops: u32,
    /// The fact itself.
    pub data: Data,
}

/// The data of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Data {
    /// None at all.
    #[default]
    Absent,
    /// A JSON text, byte for byte as it arrived. Known to be well-formed, and no deeper than
    /// [`check_data`] allows.
    Json(Bytes),
    /// Anything else; travels as `data_base64`.
    Binary(Bytes),
}

/// Why bytes are not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Not JSON where JSON is due; the parser's words, with line and column.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// A CloudEvents attribute is missing, empty or of the wrong type.
    #[error("attribute `{name}` {problem}")]
    Attribute {
        /// The attribute.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A mapping expression or template failed.
    #[error("{0}")]
    Mapping(#[from] crate::expression::ExpressionError),
    /// None of the envelopes fits, and why.
    #[error("{0}")]
    Envelope(String),
}

impl Event {
    /// The CloudEvents JSON object (JSON format 1.0.2), data spliced in as it came.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Base64 is a third longer; most attributes fit into the rest.
        let mut json = Vec::with_capacity(512 + self.data_len() / 3 * 4);
        json.extend_from_slice(b"{\"specversion\":\"1.0\",");
        self.write_attributes(&mut json);
        match &self.data {
            Data::Absent => {}
            Data::Json(data) => {
                json.extend_from_slice(b",\"data\":");
                json.extend_from_slice(data);
            }
            Data::Binary(data) => {
                let text = base64::engine::general_purpose::STANDARD.encode(data);
                json.extend_from_slice(b",\"data_base64\":\"");
                json.extend_from_slice(text.as_bytes());
                json.push(b'"');
            }
        }
        json.push(b'}');
        json
    }

    /// The bytes of the data; empty when absent.
    #[must_use]
    pub fn data_bytes(&self) -> Bytes {
        match &self.data {
            Data::Absent => Bytes::new(),
            Data::Json(data) | Data::Binary(data) => data.clone(),
        }
    }

    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        let optional = [&self.subject, &self.time, &self.datacontenttype, &self.dataschema];
        let optional: usize = optional.into_iter().flatten().map(String::len).sum();
        let required = self.id.len() + self.source.len() + self.kind.len();
        let extensions = self
            .extensions
            .iter()
            .map(|(name, value)| 96 + name.len() + value.as_str().map_or(0, str::len));
        size_of::<Self>() + required + optional + extensions.sum::<usize>() + self.data_len()
    }

    fn data_len(&self) -> usize {
        match &self.data {
            Data::Absent => 0,
            Data::Json(data) | Data::Binary(data) => data.len(),
        }
    }

    /// Writes all attributes but `specversion`, separated by commas.
    fn write_attributes(&self, json: &mut Vec<u8>) {
        write_member(json, "id", &self.id);
        json.push(b',');
        write_member(json, "source", &self.source);
        json.push(b',');
        write_member(json, "type", &self.kind);
        let optional = [
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                json.push(b',');
                write_member(json, name, value);
            }
        }
        for (name, value) in &self.extensions {
            json.push(b',');
            write_member(json, name, value);
        }
    }
}

fn write_member(json: &mut Vec<u8>, name: &str, value: &(impl serde::Serialize + ?Sized)) {
    const TO_MEMORY: &str = "strings and JSON values always serialise to memory";
    serde_json::to_writer(&mut *json, name).expect(TO_MEMORY);
    json.push(b':');
    serde_json::to_writer(&mut *json, value).expect(TO_MEMORY);
}

/// Fails when `json` nests deeper than [`DEPTH_MAX`]. One pass, no recursion, strings skipped.
///
/// What is not JSON may pass: this is a guard for the parser that comes after it.
///
/// # Errors
/// [`EventError::TooDeep`].
pub fn check_depth(json: &[u8]) -> Result<(), EventError> {
    check_depth_within(json, DEPTH_MAX)
}

fn check_depth_within(json: &[u8], most: usize) -> Result<(), EventError> {
    let mut depth = 0_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                if depth > most {
                    return Err(EventError::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Goes past the end of a string whose opening quote was just read.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            // Whatever is escaped is one byte as far as the end of the string is concerned.
            b'\\' => _ = bytes.next(),
            _ => {}
        }
    }
}

/// Fails unless `text` is one well-formed JSON text (RFC 8259) in UTF-8, without a byte order
/// mark, and not too deep. Builds nothing.
///
/// # Errors
/// [`EventError::TooDeep`] or [`EventError::NotJson`].
pub fn check_json(text: &[u8]) -> Result<(), EventError> {
    check_json_within(text, DEPTH_MAX)
}

/// As [`check_json`], for the data of an event: the event, which it lies in one level down, nests
/// at most [`DEPTH_MAX`] deep, or nobody could read it who keeps to the same limit.
///
/// # Errors
/// [`EventError::TooDeep`] or [`EventError::NotJson`].
pub fn check_data(text: &[u8]) -> Result<(), EventError> {
    check_json_within(text, DEPTH_MAX - 1)
}

fn check_json_within(text: &[u8], most: usize) -> Result<(), EventError> {
    let text = json_text_within(text, most)?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(drop).map_err(not_json)
}

/// What every parser here is given: UTF-8, no byte order mark, not too deep.
fn json_text(text: &[u8]) -> Result<&str, EventError> {
    json_text_within(text, DEPTH_MAX)
}

fn json_text_within(text: &[u8], most: usize) -> Result<&str, EventError> {
    check_depth_within(text, most)?;
    if text.starts_with(b"\xef\xbb\xbf") {
        let why = "it starts with a byte order mark, which RFC 8259 forbids";
        return Err(EventError::NotJson(why.to_owned()));
    }
    // As text first: the parser itself lets broken UTF-8 pass where it only skips.
    std::str::from_utf8(text).map_err(|error| EventError::NotJson(error.to_string()))
}

/// The parser's words are of lines and columns, never of what stood there.
fn not_json(error: serde_json::Error) -> EventError {
    EventError::NotJson(error.to_string())
}

#[cfg(test)]
mod tests;
