//! Events: immutable facts, as CloudEvents 1.0 (<https://github.com/cloudevents/spec>, v1.0.2).
//!
//! JSON data is kept as the bytes that arrived, never re-serialised: numbers keep their text,
//! keys their order, duplicates their place. Everything that needs the event as one JSON object
//! (expressions, envelopes) gets [`Event::to_json`], which splices those bytes in.

pub mod cloudevents;
pub mod metadata_data;
pub mod plain;

use std::collections::BTreeMap;

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
        todo!()
    }

    /// What the queue stores beside the data: attributes, trace context and the kind of data, as
    /// one JSON object.
    #[must_use]
    pub fn encode_attributes(&self) -> Vec<u8> {
        todo!()
    }

    /// The bytes of the data; empty when absent.
    #[must_use]
    pub fn data_bytes(&self) -> Bytes {
        todo!()
    }

    /// Reads back what [`Event::encode_attributes`] and [`Event::data_bytes`] gave.
    ///
    /// # Errors
    /// When the bytes are not of that form: the store is damaged.
    pub fn decode(attributes: &[u8], data: Bytes) -> Result<Self, EventError> {
        let _ = (attributes, data);
        todo!()
    }
}

/// Fails when `json` nests deeper than [`DEPTH_MAX`]. One pass, no recursion, strings skipped.
///
/// # Errors
/// [`EventError::TooDeep`].
pub fn check_depth(json: &[u8]) -> Result<(), EventError> {
    let _ = json;
    todo!()
}

impl Event {
    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn size_hint(&self) -> usize {
        todo!()
    }
}
