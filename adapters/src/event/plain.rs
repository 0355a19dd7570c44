//! A message in no envelope at all: its routing key is the type, its body the data.

use bytes::Bytes;

use super::{Data, EventError, attribute::is_json, check_data, mapping::Draft, message::Message};

/// The extension that names the encoding of data that came compressed.
pub(super) const CONTENT_ENCODING: &str = "contentencoding";

/// Reads it.
///
/// # Errors
/// When it says it is JSON and is not, or nests too deep.
pub fn read(message: &Message) -> Result<Draft, EventError> {
    let mut draft = Draft::default();
    let content_type = message.content_type.clone();
    fill_data(&mut draft, &message.body, message.encoding(), content_type)?;
    Ok(draft)
}

/// The body as data: JSON keeps its bytes; anything else is binary under its own media type.
///
/// A body with a content `encoding` is never decompressed and never parsed (a bomb of 16 MiB holds
/// gigabytes): it is binary data, and the extension `contentencoding` names the encoding.
///
/// # Errors
/// When it says it is JSON and is not, or looks like JSON and nests too deep.
pub fn fill_data(
    draft: &mut Draft,
    body: &Bytes,
    encoding: Option<&str>,
    content_type: Option<String>,
) -> Result<(), EventError> {
    if let Some(encoding) = encoding {
        let extension = draft.extensions.entry(CONTENT_ENCODING.to_owned());
        extension.or_insert_with(|| encoding.into());
    }
    let claimed = content_type.as_deref().map(is_json);
    draft.datacontenttype = content_type;
    if body.is_empty() {
        return Ok(());
    }
    if encoding.is_none() && claimed != Some(false) {
        match check_data(body) {
            Ok(()) => {
                draft.data = Data::Json(body.clone());
                return Ok(());
            }
            // It need not be JSON; but what looks like an attack on parsers is one.
            Err(EventError::NotJson(_)) if claimed.is_none() => {}
            Err(error) => return Err(error),
        }
    }
    draft.data = Data::Binary(body.clone());
    draft.datacontenttype.get_or_insert_with(|| "application/octet-stream".to_owned());
    Ok(())
}
