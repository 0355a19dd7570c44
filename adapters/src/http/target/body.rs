//! Bodies other than JSON, made from JSON text. Numbers keep their text: `12.50` stays `12.50`.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use url::form_urlencoded;

/// `application/x-www-form-urlencoded` from an object of scalars or lists of them, in its order:
/// lists repeat the name, nulls are left out.
pub(super) fn form(json: &[u8]) -> Result<Bytes, String> {
    let Fields(fields) = serde_json::from_slice(json)
        .map_err(|_| "is not an object: a form needs names and values".to_owned())?;
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &fields {
        let nested = || format!("`{name}` is nested: a form takes scalars and lists of them");
        if value.get().starts_with('[') {
            let items: Vec<&RawValue> =
                serde_json::from_str(value.get()).map_err(|error| error.to_string())?;
            for item in items {
                if let Some(text) = scalar(item).ok_or_else(nested)? {
                    form.append_pair(name, &text);
                }
            }
        } else if let Some(text) = scalar(value).ok_or_else(nested)? {
            form.append_pair(name, &text);
        }
    }
    Ok(form.finish().into())
}

/// Plain text from a string, number or boolean.
pub(super) fn text(json: &[u8]) -> Result<Bytes, String> {
    let value: &RawValue = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    match scalar(value) {
        Some(Some(text)) => Ok(text.into()),
        Some(None) => Err("is null: text needs a string".to_owned()),
        None => Err("is an object or a list: text needs a string".to_owned()),
    }
}

/// The text of a scalar, `Some(None)` for null, `None` for an object or a list.
fn scalar(value: &RawValue) -> Option<Option<String>> {
    match value.get().as_bytes().first() {
        Some(b'{' | b'[') => None,
        Some(b'n') => Some(None),
        // The one string that well-formed JSON may hold and text may not is a lone surrogate.
        Some(b'"') => Some(Some(serde_json::from_str(value.get()).ok()?)),
        _ => Some(Some(value.get().to_owned())),
    }
}

/// An object's members in their order, repeated names included.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        from.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_keeps_order_repeats_and_the_text_of_numbers() {
        let json = br#" {"b": 12.50, "a": "x y&=\u00e9", "big": 12345678901234567890, "t": true,
            "gone": null, "list": [1, "two", null], "empty": [], "b": 1e400} "#;
        let expected = "b=12.50&a=x+y%26%3D%C3%A9&big=12345678901234567890&t=true\
                        &list=1&list=two&b=1e400";
        assert_eq!(form(json).unwrap(), expected);
        assert_eq!(form(b"{}").unwrap(), "");
    }

    #[test]
    fn a_form_refuses_what_has_no_place_in_it() {
        for (json, word) in [
            (r#""text""#, "not an object"),
            ("[1]", "not an object"),
            ("null", "not an object"),
            (r#"{"a": {"b": 1}}"#, "`a` is nested"),
            (r#"{"a": [[1]]}"#, "`a` is nested"),
        ] {
            let problem = form(json.as_bytes()).unwrap_err();
            assert!(problem.contains(word), "{json}: {problem}");
        }
    }

    #[test]
    fn text_is_the_string_itself() {
        assert_eq!(text(br#""line\n\"quoted\" \u00e9""#).unwrap(), "line\n\"quoted\" é");
        assert_eq!(text(b"12.50").unwrap(), "12.50");
        for json in ["null", "{}", "[]", r#""\ud800""#] {
            assert!(text(json.as_bytes()).is_err(), "{json}");
        }
    }
}
