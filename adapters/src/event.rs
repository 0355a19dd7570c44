//! Events: immutable facts, as CloudEvents 1.0 (<https://github.com/cloudevents/spec>, v1.0.2).
//!
//! JSON data is kept as the bytes that arrived, never re-serialised: numbers keep their text,
//! keys their order, duplicates their place. Everything that needs the event as one JSON object
//! (expressions, envelopes) gets [`Event::to_json`], which splices those bytes in.

pub mod cloudevents;
pub mod message;
pub mod metadata_data;
pub mod plain;

use std::collections::BTreeMap;

use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;

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
    /// Extension attributes: strings, booleans and integers.
    pub extensions: BTreeMap<String, Value>,
    /// W3C `traceparent` it travelled with, when that came beside the event rather than in it.
    pub traceparent: Option<String>,
    /// The fact itself.
    pub data: Data,
}

/// The data of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Data {
    /// None at all.
    #[default]
    Absent,
    /// A JSON text, byte for byte as it arrived. Known to be well-formed and at most
    /// [`DEPTH_MAX`] deep.
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
        let mut json = Vec::with_capacity(256 + self.data_len());
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

    /// What the queue stores beside the data: attributes, trace context and the kind of data, as
    /// one JSON object.
    #[must_use]
    pub fn encode_attributes(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(256);
        self.write_attributes(&mut json);
        // Names that no CloudEvents attribute can have, so that they cannot be mistaken for one.
        if let Some(traceparent) = &self.traceparent {
            write_member(&mut json, TRACEPARENT, traceparent);
        }
        let kind = match self.data {
            Data::Absent => "absent",
            Data::Json(_) => "json",
            Data::Binary(_) => "binary",
        };
        write_member(&mut json, DATA_KIND, kind);
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

    /// Reads back what [`Event::encode_attributes`] and [`Event::data_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are not of that form: the store is damaged.
    pub fn decode(attributes: &[u8], data: Bytes) -> Result<Self, EventError> {
        let stored: Stored = serde_json::from_slice(attributes)
            .map_err(|error| EventError::NotJson(error.to_string()))?;
        let data = match stored.data_kind {
            DataKind::Absent => Data::Absent,
            DataKind::Json => Data::Json(data),
            DataKind::Binary => Data::Binary(data),
        };
        Ok(Self {
            id: stored.id,
            source: stored.source,
            kind: stored.kind,
            subject: stored.subject,
            time: stored.time,
            datacontenttype: stored.datacontenttype,
            dataschema: stored.dataschema,
            extensions: stored.extensions,
            traceparent: stored.traceparent,
            data,
        })
    }

    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        256 + self.id.len()
            + self.source.len()
            + self.kind.len()
            + self.extensions.len() * 64
            + self.data_len()
    }

    fn data_len(&self) -> usize {
        match &self.data {
            Data::Absent => 0,
            Data::Json(data) | Data::Binary(data) => data.len(),
        }
    }

    /// `{` and all attributes, without the closing brace.
    fn write_attributes(&self, json: &mut Vec<u8>) {
        json.extend_from_slice(b"{\"specversion\":\"1.0\"");
        write_member(json, "id", &self.id);
        write_member(json, "source", &self.source);
        write_member(json, "type", &self.kind);
        let optional = [
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                write_member(json, name, value);
            }
        }
        for (name, value) in &self.extensions {
            write_member(json, name, value);
        }
    }
}

const TRACEPARENT: &str = "$traceparent";
const DATA_KIND: &str = "$data";

/// The stored form, for reading.
#[derive(serde::Deserialize)]
struct Stored {
    #[serde(rename = "specversion")]
    _specversion: serde::de::IgnoredAny,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Option<String>,
    time: Option<String>,
    datacontenttype: Option<String>,
    dataschema: Option<String>,
    #[serde(rename = "$traceparent")]
    traceparent: Option<String>,
    #[serde(rename = "$data")]
    data_kind: DataKind,
    #[serde(flatten)]
    extensions: BTreeMap<String, Value>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum DataKind {
    Absent,
    Json,
    Binary,
}

fn write_member(json: &mut Vec<u8>, name: &str, value: &(impl serde::Serialize + ?Sized)) {
    const TO_MEMORY: &str = "strings and JSON values always serialise to memory";
    json.push(b',');
    serde_json::to_writer(&mut *json, name).expect(TO_MEMORY);
    json.push(b':');
    serde_json::to_writer(&mut *json, value).expect(TO_MEMORY);
}

/// Fails when `json` nests deeper than [`DEPTH_MAX`]. One pass, no recursion, strings skipped.
///
/// # Errors
/// [`EventError::TooDeep`].
pub fn check_depth(json: &[u8]) -> Result<(), EventError> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in json {
        if quoted {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => quoted = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => quoted = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(EventError::TooDeep);
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Fails unless `text` is one well-formed JSON text, not too deep. Builds nothing.
///
/// # Errors
/// [`EventError::TooDeep`] or [`EventError::NotJson`].
pub fn check_json(text: &[u8]) -> Result<(), EventError> {
    check_depth(text)?;
    // As text first: the parser itself would let broken UTF-8 pass where it only skips.
    let text = std::str::from_utf8(text).map_err(|error| EventError::NotJson(error.to_string()))?;
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(drop)
        .map_err(|error| EventError::NotJson(error.to_string()))
}

#[cfg(test)]
mod tests;
