//! CloudEvents on AMQP 0-9-1: structured (JSON event format 1.0.2 in the body) and binary
//! (attributes in headers).
//!
//! Binary attributes are looked for under `cloudEvents:` and `cloudEvents_` (AMQP binding 1.0.2
//! §3.1.3) and under `ce-`, which many senders carry over from HTTP.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Value, value::RawValue};

use super::{
    Data, EventError, check_depth,
    message::{Draft, Message, is_json},
    plain,
};

const PREFIXES: [&str; 3] = ["cloudEvents:", "cloudEvents_", "ce-"];

/// Whether `name` is an attribute of the core specification, or the data.
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

/// Reads the body as one event in the JSON format.
///
/// # Errors
/// What is wrong with it.
pub fn structured(message: &Message) -> Result<Draft, EventError> {
    check_depth(&message.body)?;
    let text = std::str::from_utf8(&message.body)
        .map_err(|error| EventError::NotJson(error.to_string()))?;
    let members: Members<'_> =
        serde_json::from_str(text).map_err(|error| EventError::NotJson(error.to_string()))?;
    let mut attributes = BTreeMap::new();
    let mut data = Data::Absent;
    for (name, raw) in members.0 {
        match &*name {
            "data" | "data_base64" if data != Data::Absent => {
                return Err(wrong("data", "is there twice, or beside `data_base64`"));
            }
            "data" if raw.get() == "null" => {}
            "data" => data = Data::Json(message.body.slice_ref(raw.get().as_bytes())),
            "data_base64" => data = from_base64(raw)?,
            _ => {
                let value = serde_json::from_str(raw.get())
                    .map_err(|error| EventError::NotJson(error.to_string()))?;
                if attributes.insert(name.into_owned(), value).is_some() {
                    return Err(EventError::Envelope(
                        "an attribute is there twice".to_owned(),
                    ));
                }
            }
        }
    }
    let mut draft = draft(attributes)?;
    if draft.datacontenttype.is_none() && matches!(data, Data::Json(_)) {
        draft.datacontenttype = Some("application/json".to_owned());
    }
    // Data of another media type comes as a JSON string and means its text (JSON format §3.1).
    if let (Data::Json(raw), Some(media_type)) = (&data, &draft.datacontenttype)
        && !is_json(media_type)
        && let Ok(text) = serde_json::from_slice::<String>(raw)
    {
        data = Data::Binary(text.into_bytes().into());
    }
    draft.data = data;
    Ok(draft)
}

/// Reads an event whose attributes are headers; `None` when they are not there.
///
/// # Errors
/// What is wrong with it.
pub fn binary(message: &Message) -> Result<Option<Draft>, EventError> {
    let mut attributes = BTreeMap::new();
    for (name, value) in &message.headers {
        let attribute = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix));
        if let Some(attribute) = attribute {
            let attribute = attribute.to_ascii_lowercase();
            if is_core(&attribute) && attribute.starts_with("data_") {
                continue;
            }
            attributes.insert(attribute, value.clone());
        }
    }
    if !attributes.contains_key("specversion") {
        return Ok(None);
    }
    // The message's own content type is the data's (AMQP binding §3.1.1).
    if let Some(content_type) = &message.content_type {
        attributes.insert("datacontenttype".to_owned(), content_type.clone().into());
    }
    let mut draft = draft(attributes)?;
    let (data, media_type) = plain::data(message)?;
    draft.data = data;
    draft.datacontenttype = draft.datacontenttype.or(media_type);
    Ok(Some(draft))
}

fn draft(mut attributes: BTreeMap<String, Value>) -> Result<Draft, EventError> {
    match attributes.remove("specversion") {
        Some(Value::String(version)) if version == "1.0" => {}
        Some(_) => {
            return Err(wrong(
                "specversion",
                "is not 1.0, the only version read here",
            ));
        }
        None => return Err(wrong("specversion", "is missing")),
    }
    let mut text = |name: &str, required: bool| match attributes.remove(name) {
        None | Some(Value::Null) if !required => Ok(None),
        None | Some(Value::Null) => Err(wrong(name, "is missing")),
        Some(Value::String(text)) if text.is_empty() => Err(wrong(name, "is empty")),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(name, "is not a string")),
    };
    let mut draft = Draft {
        id: text("id", true)?,
        source: text("source", true)?,
        kind: text("type", true)?,
        subject: text("subject", false)?,
        time: text("time", false)?,
        datacontenttype: text("datacontenttype", false)?,
        dataschema: text("dataschema", false)?,
        ..Draft::default()
    };
    for (name, value) in attributes {
        // Upper case is against the specification, and common; it means the same.
        let lower = name.to_ascii_lowercase();
        if lower.is_empty() || !lower.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(wrong(
                &name,
                "is no attribute name: lower-case letters and digits",
            ));
        }
        match value {
            Value::Null => {}
            Value::String(_) | Value::Bool(_) | Value::Number(_) => {
                draft.extensions.insert(lower, value);
            }
            Value::Array(_) | Value::Object(_) => {
                return Err(wrong(
                    &name,
                    "is an array or object; attributes are scalars",
                ));
            }
        }
    }
    Ok(draft)
}

fn from_base64(raw: &RawValue) -> Result<Data, EventError> {
    let text: String =
        serde_json::from_str(raw.get()).map_err(|_| wrong("data_base64", "is not a string"))?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    bytes
        .map(|bytes| Data::Binary(bytes.into()))
        .map_err(|_| wrong("data_base64", "is not Base64"))
}

fn wrong(name: &str, problem: &'static str) -> EventError {
    EventError::Attribute {
        name: name.to_owned(),
        problem,
    }
}

/// The members of an object in their order, doubles included, values unparsed.
struct Members<'a>(Vec<(std::borrow::Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a CloudEvents JSON object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    members.push((name.into(), map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        from.deserialize_map(Visitor)
    }
}
