//! Secrets: values that never show.
//!
//! A [`Secret`] has a blind `Debug` and no `Display`. Every secret of 8 characters and more is
//! also known to a [`Mask`], which finds it in text of other origin: an API that echoes our token,
//! an error that prints a URL.

use std::{fmt, sync::Arc};

use parking_lot::RwLock;

/// What stands where a secret stood.
pub const MASKED: &str = "***";

/// A value that must not show in logs, errors, metrics, the admin API or stored attempts.
#[derive(Clone, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps `value`.
    #[must_use]
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that sends or compares it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASKED)
    }
}

/// All secret values known to the process, to be found and masked in any text.
///
/// Clones share one list: a token obtained at run time is masked everywhere from then on.
#[derive(Clone, Default)]
pub struct Mask(Arc<RwLock<Vec<Arc<str>>>>);

impl Mask {
    /// The shortest value that is masked in free text; shorter ones would mask ordinary words.
    pub const SHORTEST: usize = 8;

    /// The most values kept; the oldest go first, so that hourly tokens do not pile up.
    const MOST: usize = 4096;

    /// Adds `value`, and the forms it takes on the wire: percent-encoded, JSON-escaped, Base64.
    pub fn add(&self, value: &str) {
        if value.chars().count() < Self::SHORTEST {
            return;
        }
        let mut values = self.0.write();
        for form in wire_forms(value) {
            if !values.iter().any(|known| **known == *form) {
                values.push(form.into());
            }
        }
        // Longest first, so that a secret which contains another is masked whole.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        values.truncate(Self::MOST);
    }

    /// `text` with every known secret replaced by `***`.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for secret in self.0.read().iter() {
            if masked.contains(&**secret) {
                masked = masked.replace(&**secret, MASKED);
            }
        }
        masked
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} values)", self.0.read().len())
    }
}

fn wire_forms(value: &str) -> Vec<String> {
    use base64::Engine as _;

    let json = serde_json::Value::from(value).to_string();
    let mut forms = vec![
        value.to_owned(),
        json.trim_matches('"').to_owned(),
        percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC)
            .to_string(),
        url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
        base64::engine::general_purpose::STANDARD.encode(value),
    ];
    forms.dedup();
    forms
}
