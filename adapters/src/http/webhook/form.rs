//! Names and values as forms and queries write them (WHATWG URL, "application/x-www-form-
//! urlencoded parsing"), as a JSON object of texts. A name that comes again has a list of texts.

use std::{borrow::Cow, collections::HashMap};

use bytes::Bytes;
use percent_encoding::percent_decode_str;

/// The most fields read. Each takes many times its two bytes in memory.
const FIELDS_MAX: usize = 10_000;

/// One name's values, usually one.
struct Field {
    name: String,
    values: Vec<String>,
}

/// A form's fields.
///
/// # Errors
/// What is wrong with it: a `%` without two hexadecimal digits, what is not UTF-8, or more than
/// 10,000 fields.
pub(super) fn form(text: &[u8]) -> Result<Bytes, String> {
    let text = std::str::from_utf8(text).map_err(|error| format!("is not UTF-8: {error}"))?;
    let fields = text.split('&').filter(|field| !field.is_empty());
    if fields.clone().nth(FIELDS_MAX).is_some() {
        return Err(format!("has more than {FIELDS_MAX} fields"));
    }
    let pairs = fields.map(|field| {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        Ok((strict(name)?, strict(value)?))
    });
    object(pairs)
}

/// A query's parameters. What is broken in it stays as it is: an address names no format it could
/// fail. Of more than 10,000 the first count.
pub(super) fn query(text: &str) -> Bytes {
    let pairs = url::form_urlencoded::parse(text.as_bytes()).take(FIELDS_MAX);
    let pairs = pairs.map(|(name, value)| Ok((name.into_owned(), value.into_owned())));
    object(pairs).unwrap_or_else(|_| Bytes::from_static(b"{}"))
}

fn strict(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let digits = bytes.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Err("has a `%` that two hexadecimal digits do not follow".to_owned());
        }
    }
    let spaced: Cow<'_, str> = match text.contains('+') {
        true => text.replace('+', " ").into(),
        false => text.into(),
    };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| "is not UTF-8 once decoded".to_owned())
}

/// Fields in the order their names first came in.
fn object(pairs: impl Iterator<Item = Result<(String, String), String>>) -> Result<Bytes, String> {
    let mut fields: Vec<Field> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for pair in pairs {
        let (name, value) = pair?;
        match places.get(&name) {
            Some(place) => fields[*place].values.push(value),
            None => {
                places.insert(name.clone(), fields.len());
                fields.push(Field { name, values: vec![value] });
            }
        }
    }
    let mut json = Vec::with_capacity(64);
    json.push(b'{');
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        write(&mut json, &field.name);
        json.push(b':');
        match &*field.values {
            [value] => write(&mut json, value),
            values => write(&mut json, values),
        }
    }
    json.push(b'}');
    Ok(json.into())
}

pub(super) fn write(json: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(json, value).expect("texts always serialise to memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_an_object_of_texts_and_lists_of_them() {
        let table = [
            ("", "{}"),
            ("&&", "{}"),
            ("a", r#"{"a":""}"#),
            ("a=1&b=x+y%20z%C3%A9", r#"{"a":"1","b":"x y zé"}"#),
            ("b=2&a=1&b=%22&b=", r#"{"b":["2","\"",""],"a":"1"}"#),
            ("=x&a==b=c", r#"{"":"x","a":"=b=c"}"#),
            ("%61=%2B%26%3d+", r#"{"a":"+&= "}"#),
            ("n=12.50&é=ü", r#"{"n":"12.50","é":"ü"}"#),
        ];
        for (text, expected) in table {
            assert_eq!(form(text.as_bytes()).unwrap(), expected, "{text}");
            assert_eq!(query(text), expected, "{text}");
        }
    }

    #[test]
    fn a_broken_form_is_refused_and_a_broken_query_is_not() {
        for (text, word) in [("a=%", "`%`"), ("a=%4", "`%`"), ("%zz=1", "`%`"), ("a=%ff", "UTF-8")]
        {
            assert!(form(text.as_bytes()).unwrap_err().contains(word), "{text}");
        }
        assert!(form(b"a=\xff").unwrap_err().contains("UTF-8"));
        assert_eq!(query("a=%&b=%zz&c=%ff"), "{\"a\":\"%\",\"b\":\"%zz\",\"c\":\"\u{fffd}\"}");
    }

    #[test]
    fn fields_are_counted() {
        let fields = |count: usize| "a=1&".repeat(count);
        form(fields(FIELDS_MAX).as_bytes()).unwrap();
        let why = form(fields(FIELDS_MAX + 1).as_bytes()).unwrap_err();
        assert!(why.contains("10000 fields"), "{why}");
        assert_eq!(query(&fields(FIELDS_MAX + 1)), query(&fields(FIELDS_MAX)));
    }
}
