//! Secrets: values that never show.
//!
//! A [`Secret`] has a blind `Debug` and no `Display`. Every secret of 8 characters and more is
//! also known to a [`Mask`], which finds it in text of other origin: an API that echoes our token,
//! an error that prints a URL.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::Arc,
};

use aho_corasick::{AhoCorasick, MatchKind};
use parking_lot::RwLock;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

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
///
/// One automaton finds all values in one pass over the text, however many there are. It is built
/// when a text is masked for the first time after a value was added, so that loading a
/// configuration builds it once.
#[derive(Clone, Default)]
pub struct Mask(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    /// From the configuration: as many as it holds, for good.
    kept: HashSet<Arc<str>>,
    /// Obtained at run time, the oldest first.
    passing: VecDeque<Arc<str>>,
    /// What finds them; `None` when one was added since it was built.
    finder: Option<Arc<AhoCorasick>>,
}

impl Mask {
    /// The shortest value that is masked in free text, in characters; shorter ones would mask
    /// ordinary words.
    pub const SHORTEST: usize = 8;

    /// The most values kept of those obtained at run time; the oldest go first, so that hourly
    /// tokens do not pile up.
    pub const PASSING_MOST: usize = 1024;

    /// Adds `value` for good, and the forms it takes on the wire: percent-encoded, JSON-escaped,
    /// Base64. For what the configuration holds.
    pub fn add(&self, value: &str) {
        if value.chars().count() < Self::SHORTEST {
            return;
        }
        let known = &mut *self.0.write();
        if known.kept.insert(value.into()) {
            known.finder = None;
        }
    }

    /// As [`Mask::add`], for what is obtained at run time and replaced in time: access tokens. The
    /// newest [`Mask::PASSING_MOST`] are known; one that is added again counts as new.
    pub fn add_passing(&self, value: &str) {
        if value.chars().count() < Self::SHORTEST {
            return;
        }
        let known = &mut *self.0.write();
        if known.kept.contains(value) {
            return;
        }
        match known.passing.iter().position(|passing| **passing == *value) {
            Some(place) => _ = known.passing.remove(place),
            None => known.finder = None,
        }
        known.passing.push_back(value.into());
        if known.passing.len() > Self::PASSING_MOST {
            known.passing.pop_front();
        }
    }

    /// `text` with every known secret replaced by `***`; secrets that overlap by one `***`.
    #[must_use]
    pub fn apply(&self, text: &str) -> String {
        let finder = self.finder();
        let mut masked = String::with_capacity(text.len());
        let mut copied = 0;
        for (start, end) in spans(&finder, text) {
            masked.push_str(&text[copied..start]);
            masked.push_str(MASKED);
            copied = end;
        }
        masked.push_str(&text[copied..]);
        masked
    }

    fn finder(&self) -> Arc<AhoCorasick> {
        if let Some(finder) = &self.0.read().finder {
            return Arc::clone(finder);
        }
        let known = &mut *self.0.write();
        // Another may have built it between the two locks.
        let finder = known.finder.take().unwrap_or_else(|| {
            let values = known.kept.iter().chain(&known.passing);
            let forms: HashSet<String> = values.flat_map(|value| wire_forms(value)).collect();
            let finder = AhoCorasick::builder().match_kind(MatchKind::Standard).build(forms);
            Arc::new(finder.expect("a configuration's secrets are far from 2^31 bytes together"))
        });
        Arc::clone(known.finder.insert(finder))
    }
}

/// Where secrets stand in `text`: byte ranges in order, those that overlap joined. Every match
/// counts, not only the longest: two secrets may share their end and beginning.
fn spans(finder: &AhoCorasick, text: &str) -> Vec<(usize, usize)> {
    let mut spans: Vec<(usize, usize)> = Vec::new();
    // Matches come in the order of their ends.
    for found in finder.find_overlapping_iter(text) {
        let mut start = found.start();
        while let Some(last) = spans.pop_if(|last| last.1 > start) {
            start = start.min(last.0);
        }
        spans.push((start, found.end()));
    }
    spans
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.read();
        write!(f, "Mask({} values)", known.kept.len() + known.passing.len())
    }
}

/// `value` as it is, and as it may stand in JSON, in a URL, in a form, in Base64.
fn wire_forms(value: &str) -> Vec<String> {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
    };

    let in_json = |text: &str| {
        let json = serde_json::Value::from(text).to_string();
        json[1..json.len() - 1].to_owned()
    };
    let json = in_json(value);
    let percent = utf8_percent_encode(value, UNRESERVED).to_string();
    let form: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
    vec![
        value.to_owned(),
        // Some write `/` as `\/`.
        json.replace('/', "\\/"),
        // JSON as a text in JSON: a body within an answer, a debugged value in a line of the log.
        in_json(&json),
        json,
        utf8_percent_encode(value, NON_ALPHANUMERIC).to_string(),
        utf8_percent_encode(value, COMPONENT).to_string(),
        utf8_percent_encode(value, SUB_DELIMS).to_string(),
        with_lower_case_hex(&percent),
        percent,
        with_lower_case_hex(&form),
        form,
        // Padding, where there is any, comes behind it.
        STANDARD_NO_PAD.encode(value),
        URL_SAFE_NO_PAD.encode(value),
    ]
}

/// What RFC 3986 §2.3 says needs no encoding.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What JavaScript's `encodeURIComponent` leaves besides.
const COMPONENT: &AsciiSet =
    &UNRESERVED.remove(b'!').remove(b'\'').remove(b'(').remove(b')').remove(b'*');

/// What a path or user part may hold besides (RFC 3986 §2.2).
const SUB_DELIMS: &AsciiSet =
    &COMPONENT.remove(b'$').remove(b'&').remove(b'+').remove(b',').remove(b';').remove(b'=');

/// `%2B` as `%2b`.
fn with_lower_case_hex(percent: &str) -> String {
    let mut parts = percent.split('%');
    let mut text = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        text.push('%');
        text.push_str(&hex.to_ascii_lowercase());
        text.push_str(rest);
    }
    text
}

#[cfg(test)]
mod tests;
