//! Attributes of a CloudEvent in HTTP headers, the binary mode: HTTP binding 1.0.2, §3.1,
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode;
use serde_json::Value;

use crate::event::{Draft, EventError, cloudevents::from_attributes};

const PREFIX: &str = "ce-";

/// Reads it, all but the data; `None` when the headers are no CloudEvent's.
///
/// They are when `ce-specversion` is there, or everything else that is required: whoever sends
/// those and forgets the version is told so.
///
/// # Errors
/// What is wrong with it.
pub(super) fn binary(headers: &HeaderMap) -> Result<Option<Draft>, EventError> {
    let required = ["ce-id", "ce-source", "ce-type"];
    let is_event = headers.contains_key("ce-specversion")
        || required.iter().all(|name| headers.contains_key(*name));
    if !is_event {
        return Ok(None);
    }
    let mut attributes = Vec::with_capacity(8);
    for (name, value) in headers {
        if let Some(attribute) = name.as_str().strip_prefix(PREFIX) {
            let value = text(value).map_err(|problem| EventError::Attribute {
                name: attribute.chars().take(64).collect(),
                problem,
            })?;
            attributes.push((attribute.to_owned(), Value::from(value)));
        }
    }
    from_attributes(attributes.into_iter()).map(Some)
}

/// A header's value as an attribute's: quotes taken off, then percent-decoded once (§3.1.3.2). A
/// `%` that two hexadecimal digits do not follow stands for itself.
fn text(value: &HeaderValue) -> Result<String, &'static str> {
    let unquoted = unquoted(value.as_bytes()).ok_or("has a quote that is never closed")?;
    let decoded = percent_decode(&unquoted).decode_utf8();
    decoded.map(Into::into).map_err(|_| "is not UTF-8 once percent-decoded")
}

/// Without the quotes and backslashes of quoted strings (RFC 7230, §3.2.6).
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(value.len());
    let mut quoted = false;
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b'\\' if quoted => text.push(*bytes.next()?),
            byte => text.push(*byte),
        }
    }
    (!quoted).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of §3.1.3.2, what it says of decoding, and older senders' quotes.
    #[test]
    fn values_are_unquoted_and_decoded_once() {
        let table = [
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", Some("Euro € 😀")),
            ("%e2%82%ac", Some("€")),
            ("Euro € 😀", Some("Euro € 😀")),
            ("%41bc", Some("Abc")),
            ("%2520", Some("%20")),
            ("100%", Some("100%")),
            ("\"a b\"", Some("a b")),
            (r#""say \"hi\" %41 \\""#, Some(r#"say "hi" A \"#)),
            (r"a\b", Some(r"a\b")),
            ("", Some("")),
            ("%C0%A0", None),
            ("%ff", None),
            ("\"open", None),
            ("\"open\\", None),
        ];
        for (value, expected) in table {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            assert_eq!(text(&value).ok().as_deref(), expected, "{value:?}");
        }
    }
}
