//! CloudEvents on AMQP 0-9-1: structured (JSON event format 1.0.2 in the body) and binary
//! (attributes in headers).
//!
//! There is no CloudEvents binding for AMQP 0-9-1. The one for AMQP 1.0 (1.0.2, §3) is taken over:
//! its header prefixes `cloudEvents:` and `cloudEvents_` (§3.1.3.1), `content_type` for
//! `datacontenttype` (§3.1.1), the body for the data (§3.1.2), `application/cloudevents+json` for
//! structured mode (§3.2.1). Besides them `ce-`, which many senders carry over from HTTP.
//!
//! Strict where guessing would change an event: version, doubles, types. Lenient where it harms
//! nobody: upper case in names, an optional attribute that is empty (it counts as absent), an
//! extension that is a fraction (it becomes its text).

use std::borrow::Cow;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use super::{
    Data, EventError,
    attribute::{extension_value, is_core, is_extension_name, is_json, unix_time, wrong},
    check_json, json_text,
    mapping::Draft,
    members::Members,
    message::Message,
    not_json, plain,
};

const PREFIXES: [&str; 3] = ["cloudEvents:", "cloudEvents_", "ce-"];

/// Standard Base64, with its padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads `body` as one event in the JSON format. Its data stays the bytes it came as.
///
/// # Errors
/// What is wrong with it.
pub fn structured(body: &Bytes) -> Result<Draft, EventError> {
    let text = json_text(body)?;
    if !text.trim_start().starts_with('{') {
        check_json(body)?;
        let why = "a structured CloudEvent is a JSON object; the body is something else";
        return Err(EventError::Envelope(why.to_owned()));
    }
    let Members(members) = serde_json::from_str(text).map_err(not_json)?;
    let mut event = Reader::default();
    let mut data = None;
    for (name, raw) in members {
        let name = lower_case(name);
        match &*name {
            "data" | "data_base64" if data.is_some() => {
                return Err(wrong("data", "is there twice, or beside `data_base64`"));
            }
            "data" => data = Some(Data::Json(body.slice_ref(raw.get().as_bytes()))),
            "data_base64" => data = from_base64(raw)?,
            _ => event.put(&name, scalar(&name, raw)?)?,
        }
    }
    let mut draft = event.finish()?;
    draft.data = data.unwrap_or_default();
    // Data of another media type comes as a JSON string and means its text (JSON format §3.1.1).
    if let (Data::Json(raw), Some(content_type)) = (&draft.data, &draft.datacontenttype)
        && !is_json(content_type)
        && let Ok(text) = serde_json::from_slice::<String>(raw)
    {
        draft.data = Data::Binary(text.into_bytes().into());
    }
    Ok(draft)
}

/// Reads `body` as events in the JSON batch format (JSON event format 1.0.2, §4), each with the
/// bytes it came as.
///
/// # Errors
/// What is wrong with it, or with which of its events; more than `most` events.
pub fn batch(body: &Bytes, most: usize) -> Result<Vec<(Draft, Bytes)>, EventError> {
    let text = json_text(body)?;
    if !text.trim_start().starts_with('[') {
        check_json(body)?;
        let why = "a CloudEvents batch is a JSON array; the body is something else";
        return Err(EventError::Envelope(why.to_owned()));
    }
    let events: Vec<&RawValue> = serde_json::from_str(text).map_err(not_json)?;
    if events.len() > most {
        let why = format!("a batch of {} events; at most {most} are taken", events.len());
        return Err(EventError::Envelope(why));
    }
    let events = events.into_iter().enumerate().map(|(index, event)| {
        let event = body.slice_ref(event.get().as_bytes());
        match structured(&event) {
            Ok(draft) => Ok((draft, event)),
            Err(error) => Err(EventError::Envelope(format!("event {index} of the batch: {error}"))),
        }
    });
    events.collect()
}

/// Reads a message whose attributes are headers; `None` when `specversion` is not among them.
///
/// # Errors
/// What is wrong with it.
pub fn binary(message: &Message) -> Result<Option<Draft>, EventError> {
    let attributes = || {
        message.headers.iter().filter_map(|(name, value)| {
            let attribute = PREFIXES.iter().find_map(|prefix| strip_prefix(name, prefix))?;
            Some((attribute.to_ascii_lowercase(), value))
        })
    };
    if !attributes().any(|(name, _)| name == "specversion") {
        return Ok(None);
    }
    let attributes = attributes().map(|(name, value)| {
        let value = match value {
            // An AMQP timestamp; whole seconds in 0-9-1.
            Value::Number(number) if name == "time" => {
                number.as_i64().and_then(unix_time).map_or_else(|| value.clone(), Value::from)
            }
            other => other.clone(),
        };
        (name, value)
    });
    let mut draft = from_attributes(attributes)?;
    let content_type = message.content_type.clone().or_else(|| draft.datacontenttype.take());
    plain::fill_data(&mut draft, &message.body, message.encoding(), content_type)?;
    Ok(Some(draft))
}

/// An event without data, of `attributes` under their names in lower case.
///
/// # Errors
/// When the version is missing or another; when an attribute is there twice or of a wrong type.
pub fn from_attributes(
    attributes: impl Iterator<Item = (String, Value)>,
) -> Result<Draft, EventError> {
    let mut event = Reader::default();
    for (name, value) in attributes {
        event.put(&name, value)?;
    }
    event.finish()
}

/// Names in upper case are against the specification, and common; they mean the same.
fn lower_case(name: Cow<'_, str>) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => name,
    }
}

/// Prefixes are compared without case: HTTP headers, which `ce-` comes from, have none.
fn strip_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// A draft that is filled attribute by attribute.
#[derive(Default)]
struct Reader {
    draft: Draft,
    version: Option<String>,
}

impl Reader {
    /// Takes one attribute; null is the same as none (JSON format §2.2).
    fn put(&mut self, name: &str, value: Value) -> Result<(), EventError> {
        let attribute = match name {
            "specversion" => &mut self.version,
            "id" => &mut self.draft.id,
            "source" => &mut self.draft.source,
            "type" => &mut self.draft.kind,
            "subject" => &mut self.draft.subject,
            "time" => &mut self.draft.time,
            "datacontenttype" => &mut self.draft.datacontenttype,
            "dataschema" => &mut self.draft.dataschema,
            _ => return self.put_extension(name, value),
        };
        match value {
            Value::Null => return Ok(()),
            Value::String(_) if attribute.is_some() => return Err(wrong(name, "is there twice")),
            Value::String(text) => *attribute = Some(text),
            _ => return Err(wrong(name, "is not a string")),
        }
        Ok(())
    }

    fn put_extension(&mut self, name: &str, value: Value) -> Result<(), EventError> {
        if is_core(name) {
            return Err(wrong(name, "belongs into the body, not among the attributes"));
        }
        if !is_extension_name(name) {
            return Err(wrong(name, "is no attribute name: letters and digits only"));
        }
        let value = extension_value(value)
            .map_err(|_| wrong(name, "is an array or object; attributes are scalars"))?;
        let Some(value) = value else { return Ok(()) };
        if self.draft.extensions.contains_key(name) {
            return Err(wrong(name, "is there twice"));
        }
        self.draft.extensions.insert(name.to_owned(), value);
        Ok(())
    }

    /// Whether what is required is there is asked later: `event:` may still give it.
    fn finish(self) -> Result<Draft, EventError> {
        let Self { mut draft, version } = self;
        match version.as_deref() {
            Some("1.0") => {}
            Some(_) => return Err(wrong("specversion", "is not 1.0, the only one read here")),
            None => return Err(wrong("specversion", "is missing")),
        }
        let optional = [
            &mut draft.subject,
            &mut draft.time,
            &mut draft.datacontenttype,
            &mut draft.dataschema,
        ];
        for attribute in optional {
            attribute.take_if(|text| text.is_empty());
        }
        draft.complete = true;
        Ok(draft)
    }
}

/// An attribute's value. Arrays and objects are not even parsed.
fn scalar(name: &str, raw: &RawValue) -> Result<Value, EventError> {
    let text = raw.get();
    if text.starts_with(['[', '{']) {
        return Err(wrong(name, "is an array or object; attributes are scalars"));
    }
    match serde_json::from_str(text).map_err(not_json)? {
        // CloudEvents has whole numbers only; of others the text is kept, digit by digit.
        Value::Number(number) if number.is_f64() && !is_core(name) => Ok(text.into()),
        value => Ok(value),
    }
}

fn from_base64(raw: &RawValue) -> Result<Option<Data>, EventError> {
    let text: Option<String> =
        serde_json::from_str(raw.get()).map_err(|_| wrong("data_base64", "is not a string"))?;
    let Some(text) = text else { return Ok(None) };
    let bytes = BASE64.decode(text).map_err(|_| wrong("data_base64", "is not Base64"))?;
    Ok(Some(Data::Binary(bytes.into())))
}
