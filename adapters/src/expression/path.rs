//! Bare paths: `.`, `.data`, `.data.total`, `.data["a b"]`, `.items[0]`, `.items[-1]`.
//!
//! They slice the raw JSON: what they give is what came, duplicate keys, number text and spacing
//! included. Of duplicate keys the last counts, as in jq. Nothing is parsed twice and nothing
//! recurses; what is skipped is skipped by serde_json's own iterative skipper.

use bytes::Bytes;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{ExpressionError, From, Input};
use crate::event::Data;

/// A path of keys and indices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct BarePath(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Step {
    Key(String),
    Index(i64),
}

impl BarePath {
    /// `None`: not a bare path, so jq is to look at it.
    pub(super) fn parse(code: &str) -> Option<Self> {
        let mut rest = code.trim();
        rest = rest.strip_prefix('.')?;
        let mut steps = Vec::new();
        let mut first = true;
        while !rest.is_empty() {
            if let Some(inside) = rest.strip_prefix('[') {
                let end = closing(inside)?;
                steps.push(bracketed(inside[..end].trim())?);
                rest = &inside[end + 1..];
            } else {
                let name = if first { rest } else { rest.strip_prefix('.')? };
                if let Some(inside) = name.strip_prefix('[').filter(|_| !first) {
                    let end = closing(inside)?;
                    steps.push(bracketed(inside[..end].trim())?);
                    rest = &inside[end + 1..];
                } else {
                    let end = name.bytes().take_while(|byte| is_word(*byte)).count();
                    let word = &name[..end];
                    if word.is_empty() || word.as_bytes()[0].is_ascii_digit() {
                        return None;
                    }
                    steps.push(Step::Key(word.to_owned()));
                    rest = &name[end..];
                }
            }
            first = false;
        }
        Some(Self(steps))
    }

    /// The path of `….items[]`; `None`: something else.
    pub(super) fn parse_each(code: &str) -> Option<Self> {
        let path = code.trim().strip_suffix("[]")?.trim_end();
        // `.items.[]` is the same as `.items[]`; `..[]` is another thing.
        Self::parse(path.strip_suffix('.').filter(|path| path.len() > 1).unwrap_or(path))
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.0
    }

    /// The first `most` items of the array that the path leads to; `None` if it leads to none.
    ///
    /// # Errors
    /// As [`BarePath::slice`].
    pub(super) fn items(
        &self,
        input: &Input,
        most: usize,
    ) -> Result<Option<Vec<Bytes>>, ExpressionError> {
        let array = self.slice(input)?;
        let trimmed = array.trim_ascii();
        if !trimmed.starts_with(b"[") {
            return Ok(None);
        }
        let items = pick(trimmed, Items { most })?;
        Ok(Some(items.into_iter().map(|item| array.slice_ref(item.get().as_bytes())).collect()))
    }

    /// What the path leads to; `null` where there is nothing.
    ///
    /// # Errors
    /// Where a string indexes what is no object, or a number what is no array.
    pub(super) fn slice(&self, input: &Input) -> Result<Bytes, ExpressionError> {
        // The common case costs no copy of the event: straight into its data.
        if let (From::Event(event), Some(Step::Key(key))) = (&input.from, self.0.first())
            && key == "data"
        {
            return match &event.data {
                Data::Json(data) => walk(data, &self.0[1..]),
                Data::Absent | Data::Binary(_) => Ok(Bytes::from_static(b"null")),
            };
        }
        if let From::Object(object) = &input.from {
            return object.slice(self);
        }
        walk(&input.text(), &self.0)
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where the bracket closes; strings in it may hold brackets.
fn closing(inside: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b']' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn bracketed(inside: &str) -> Option<Step> {
    if inside.starts_with('"') {
        // An interpolation is jq's business.
        let plain = !inside.contains("\\(");
        return plain.then(|| serde_json::from_str(inside).ok().map(Step::Key)).flatten();
    }
    let digits = inside.strip_prefix('-').unwrap_or(inside);
    let whole = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    whole.then(|| inside.parse().ok().map(Step::Index)).flatten()
}

pub(super) fn walk(text: &Bytes, steps: &[Step]) -> Result<Bytes, ExpressionError> {
    let mut at: &[u8] = text;
    for step in steps {
        at = at.trim_ascii();
        let found = match (step, at.first()) {
            (_, Some(b'n')) => None,
            (Step::Key(key), Some(b'{')) => pick(at, Picker::Key(key))?.map(bytes_of),
            (Step::Index(index), Some(b'[')) => pick(at, Picker::Index(*index))?.map(bytes_of),
            (Step::Key(key), _) => return Err(cannot(at, &format!("\"{key}\""))),
            (Step::Index(index), _) => return Err(cannot(at, &index.to_string())),
        };
        match found {
            Some(found) => at = found,
            None => return Ok(Bytes::from_static(b"null")),
        }
    }
    Ok(text.slice_ref(at))
}

fn cannot(at: &[u8], index: &str) -> ExpressionError {
    let what = match at.first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        _ => "a number",
    };
    ExpressionError::new(format!("cannot index {what} with {index}"))
}

fn bytes_of(raw: &RawValue) -> &[u8] {
    raw.get().as_bytes()
}

fn pick<'a, P>(text: &'a [u8], picker: P) -> Result<P::Value, ExpressionError>
where
    P: DeserializeSeed<'a>,
{
    let text = std::str::from_utf8(text)
        .map_err(|error| ExpressionError::new(format!("not JSON: {error}")))?;
    let mut parser = serde_json::Deserializer::from_str(text);
    picker
        .deserialize(&mut parser)
        .map_err(|error| ExpressionError::new(format!("not JSON: {error}")))
}

/// Takes one member or item and skips the others.
enum Picker<'k> {
    Key(&'k str),
    Index(i64),
}

impl<'de> DeserializeSeed<'de> for Picker<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Picker<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self {
                Self::Key(wanted) if key == wanted => found = Some(map.next_value()?),
                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let Self::Index(wanted) = self else { return Ok(None) };
        let mut all: Vec<&'de RawValue> = Vec::new();
        let mut at = 0;
        let mut found = None;
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            if at == wanted {
                found = Some(item);
            }
            // From the end: only then all are needed.
            if wanted < 0 {
                all.push(item);
            }
            at += 1;
        }
        if wanted < 0 {
            let from_start = usize::try_from(at + wanted).ok();
            found = from_start.and_then(|index| all.get(index).copied());
        }
        Ok(found)
    }
}

/// Takes the first items of an array and skips the others.
struct Items {
    most: usize,
}

impl<'de> DeserializeSeed<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut first = Vec::new();
        while first.len() < self.most {
            match items.next_element()? {
                Some(item) => first.push(item),
                None => return Ok(first),
            }
        }
        while items.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(first)
    }
}
