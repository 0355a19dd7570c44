//! Headers that prove something: there once, and in text everyone reads alike.

use http::{HeaderMap, HeaderName};

use super::Unverified;
use crate::http::ConfigError;

/// Reads a header name that stands at `key` of the configuration.
///
/// # Errors
/// When it is no name.
pub(super) fn name(key: &str, name: &str) -> Result<HeaderName, ConfigError> {
    HeaderName::try_from(name).map_err(|_| {
        ConfigError::new(key, format!("`{name}` is not a header name: write one like X-Signature"))
    })
}

/// The bytes of a header that must be there, once: of two values one would be verified, and
/// whoever reads the request later might take the other.
///
/// # Errors
/// It is missing, empty or there twice.
pub(super) fn one_raw<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a [u8], Unverified> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Unverified(format!("header `{name}` is missing"))),
        (Some(_), Some(_)) => {
            Err(Unverified(format!("header `{name}` is there more than once: send it once")))
        }
        (Some(value), None) if value.is_empty() => {
            Err(Unverified(format!("header `{name}` is empty")))
        }
        (Some(value), None) => Ok(value.as_bytes()),
    }
}

/// As [`one_raw`], as text.
///
/// # Errors
/// It is missing, empty, there twice, or not visible ASCII.
pub(super) fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Unverified> {
    let value = one_raw(headers, name)?;
    match std::str::from_utf8(value) {
        Ok(text) if value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) => Ok(text),
        _ => Err(Unverified(format!("header `{name}` holds other than visible ASCII"))),
    }
}

/// The provider's own id of a message, in a header it does not sign. A genuine request without one
/// is still genuine; it is then never taken for a repeat.
pub(super) fn id(headers: &HeaderMap, name: &str) -> Option<String> {
    one(headers, name).ok().map(str::to_owned)
}
