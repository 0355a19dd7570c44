//! A message in no envelope at all: its routing key is the type, its body the data.

use super::{
    Data, EventError, check_json,
    message::{Draft, Message},
};

/// Reads it.
///
/// # Errors
/// When it says it is JSON and is not, or nests too deep.
pub fn read(message: &Message) -> Result<Draft, EventError> {
    let kind = Some(message.routing_key.clone()).filter(|key| !key.is_empty());
    let (data, datacontenttype) = data(message)?;
    Ok(Draft {
        id: message.property("message_id").map(str::to_owned),
        kind,
        datacontenttype,
        data,
        ..Draft::default()
    })
}

/// The body as data: JSON keeps its bytes; anything else is binary under its own media type.
///
/// # Errors
/// When it says it is JSON and is not, or nests too deep.
pub(super) fn data(message: &Message) -> Result<(Data, Option<String>), EventError> {
    let content_type = message.content_type.clone();
    if message.body.is_empty() {
        return Ok((Data::Absent, content_type));
    }
    if message.may_be_json() {
        match check_json(&message.body) {
            Ok(()) => {
                let media_type = content_type.or_else(|| Some("application/json".to_owned()));
                return Ok((Data::Json(message.body.clone()), media_type));
            }
            // It never claimed to be JSON; but what looks like an attack on parsers is one.
            Err(error @ EventError::TooDeep) => return Err(error),
            Err(error) if content_type.is_some() => return Err(error),
            Err(_) => {}
        }
    }
    let media_type = content_type.or_else(|| Some("application/octet-stream".to_owned()));
    Ok((Data::Binary(message.body.clone()), media_type))
}
