//! What a request's body is, by its content type: JSON, a form, a CloudEvent, a batch of them, or
//! bytes.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::{EVENTS_MAX, Malformed, Received, form, headers};
use crate::{
    Data,
    event::{
        Draft, EventError, EventMapping,
        attribute::{is_json, media_type},
        cloudevents, plain,
    },
};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// What a request holds.
pub(super) struct Content {
    /// `.body` as JSON: what was sent where that is JSON, a form's fields, else null.
    pub(super) body: Bytes,
    /// What its sender says of an event, or of several.
    pub(super) drafts: Drafts,
}

/// One event, or several.
pub(super) enum Drafts {
    /// One; `split` may make many of it.
    One(Box<Draft>),
    /// A CloudEvents batch, each with the JSON it came as.
    Batch(Vec<(Draft, Bytes)>),
}

/// Looks at `request`. What a CloudEvent lacks is no fault where `mapping` sets it.
///
/// # Errors
/// When the body is not what its content type says.
pub(super) fn read(request: &Received, mapping: &EventMapping) -> Result<Content, Malformed> {
    check_encoding(&request.headers)?;
    let content_type = content_type(&request.headers)?;
    let kind = content_type.as_deref().map_or("", media_type).to_ascii_lowercase();
    let raw = &request.raw;
    if kind.starts_with("application/cloudevents") {
        let drafts = match &*kind {
            "application/cloudevents+json" => {
                Drafts::One(Box::new(cloudevents::structured(raw).map_err(event)?))
            }
            "application/cloudevents-batch+json" => {
                Drafts::Batch(cloudevents::batch(raw, EVENTS_MAX).map_err(event)?)
            }
            _ => return Err(unread_format(&kind)),
        };
        check(&drafts, mapping)?;
        return Ok(Content { body: raw.clone(), drafts });
    }
    let envelope = headers::binary(&request.headers).map_err(event)?;
    let is_event = envelope.is_some();
    let mut draft = envelope.unwrap_or_default();
    let content_type = content_type.or_else(|| draft.datacontenttype.take());
    plain::fill_data(&mut draft, raw, None, content_type.clone())
        .map_err(|error| not_json(&error, content_type.as_deref()))?;
    let body = match &draft.data {
        Data::Json(json) => json.clone(),
        Data::Absent | Data::Binary(_) if kind == FORM => {
            form::form(raw).map_err(|problem| Malformed::new(format!("the form {problem}")))?
        }
        Data::Absent | Data::Binary(_) => Bytes::from_static(b"null"),
    };
    // A CloudEvent's data is the body as it is; of anything else a form means its fields.
    if kind == FORM && !is_event && !raw.is_empty() {
        draft.data = Data::Json(body.clone());
        draft.datacontenttype = Some(JSON.to_owned());
    }
    let drafts = Drafts::One(Box::new(draft));
    check(&drafts, mapping)?;
    Ok(Content { body, drafts })
}

/// CloudEvents have to be ones before `event:` looks at them: what is wrong then is its fault, not
/// the sender's.
fn check(drafts: &Drafts, mapping: &EventMapping) -> Result<(), Malformed> {
    match drafts {
        Drafts::One(draft) if draft.complete => draft.check(mapping).map_err(event),
        Drafts::One(_) => Ok(()),
        Drafts::Batch(drafts) => {
            for (index, (draft, _)) in drafts.iter().enumerate() {
                draft.check(mapping).map_err(|error| {
                    Malformed::new(format!("CloudEvents: event {index} of the batch: {error}"))
                })?;
            }
            Ok(())
        }
    }
}

/// Nothing is ever decompressed: a bomb of 1 MiB holds a gigabyte.
fn check_encoding(headers: &HeaderMap) -> Result<(), Malformed> {
    let codings = headers.get_all(header::CONTENT_ENCODING).into_iter();
    let codings = codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    if codings.all(|coding| coding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let why = "a body with a Content-Encoding is not read; send it as it is".to_owned();
    Err(Malformed { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, why })
}

fn content_type(headers: &HeaderMap) -> Result<Option<String>, Malformed> {
    let mut values = headers.get_all(header::CONTENT_TYPE).into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed::new("there is more than one Content-Type"));
    }
    let text = value.to_str().ok().map(str::trim).filter(|text| !text.contains('\t'));
    let text = text.ok_or_else(|| Malformed::new("Content-Type is not printable ASCII"))?;
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn event(error: EventError) -> Malformed {
    Malformed::new(format!("CloudEvents: {error}"))
}

fn not_json(error: &EventError, content_type: Option<&str>) -> Malformed {
    match (error, content_type.filter(|content_type| is_json(content_type))) {
        (EventError::NotJson(problem), Some(content_type)) => {
            let kind: String = media_type(content_type).chars().take(255).collect();
            Malformed::new(format!("the body is not JSON, as Content-Type {kind} says: {problem}"))
        }
        _ => Malformed::new(format!("the body: {error}")),
    }
}

fn unread_format(kind: &str) -> Malformed {
    let kind: String = kind.chars().take(255).collect();
    let why = format!(
        "`{kind}` is not read; send application/cloudevents+json or \
         application/cloudevents-batch+json"
    );
    Malformed { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, why }
}
