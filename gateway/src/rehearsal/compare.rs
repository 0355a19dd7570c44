//! What was expected beside what was seen.
//!
//! Both become lines. What `expect` does not mention is in neither; what it leaves open (`'*'`) is
//! written as it was seen, so that only what is wrong stands out.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::HeaderMap;
use serde_json::{Map, Value};
use tidegate_adapters::{DeadReason, http::caller::script::Sent, rabbitmq::publisher::Published};

use super::{Difference, play::Seen};
use crate::config::{Expect, ExpectedAnswer, ExpectedMessage, ExpectedRequest, in_words};

/// Stands for whatever is there.
const ANY: &str = "*";

/// How a body is looked at.
#[derive(Clone, Copy)]
enum Body<'e> {
    Json(&'e Value),
    Form(&'e BTreeMap<String, String>),
    Raw(&'e str),
    /// Not at all.
    Unmentioned,
}

/// Lines expected, and lines seen.
type Lines = (Vec<String>, Vec<String>);

/// Everything that is not as expected.
pub(super) fn compare(expect: &Expect, seen: &Seen) -> Vec<Difference> {
    let mut sections = vec![("outcome", outcomes(expect, seen))];
    if let Some(key) = &expect.key {
        sections.push(("key", keys(key, seen)));
    }
    if let Some(answer) = &expect.answer {
        sections.push(("answer", answers(answer, seen)));
    }
    if let Some(requests) = &expect.requests {
        sections.push(("requests", each(requests, &seen.requests, request)));
    }
    if let Some(published) = &expect.published {
        sections.push(("published", each(published, &seen.published, message)));
    }
    if let Some(waits) = &expect.waits {
        let words = |waits: &[Duration]| waits.iter().copied().map(in_words).collect();
        sections.push(("waits", (words(waits), words(&seen.waits))));
    }
    let differ = sections.into_iter().filter(|(_, (expected, got))| expected != got);
    differ.map(|(what, (expected, got))| Difference { what, expected, got }).collect()
}

// ===== sections =====

/// One word for all, or one for each.
fn outcomes(expect: &Expect, seen: &Seen) -> Lines {
    let with_reason = |outcome: &str, reason: Option<&str>| match (outcome, reason) {
        ("dead", Some(reason)) => format!("dead: {reason}"),
        _ => outcome.to_owned(),
    };
    let expected = expect.outcome.iter().map(|word| with_reason(word, expect.reason.as_deref()));
    let mut expected: Vec<String> = expected.collect();
    let got: Vec<String> = match (seen.refused, &seen.ends[..]) {
        (true, _) => vec!["refused".to_owned()],
        (false, []) => vec!["nothing".to_owned()],
        (false, ends) => ends
            .iter()
            .map(|end| {
                let reason = end.reason.map(DeadReason::as_str);
                // Any reason will do for whoever names none.
                let asked = expect.reason.is_some() || !expect.outcome.iter().any(|o| o == "dead");
                with_reason(end.outcome, reason.filter(|_| asked))
            })
            .collect(),
    };
    if let [one] = &expected[..]
        && !matches!(&**one, "refused" | "nothing")
    {
        expected = vec![one.clone(); got.len()];
    }
    (expected, got)
}

fn keys(expected: &Value, seen: &Seen) -> Lines {
    let text = |value: &Value| match value {
        Value::Null => "unordered".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let got = seen.ends.iter().map(|end| end.key.as_deref().unwrap_or("unordered").to_owned());
    let got: Vec<String> = got.collect();
    let expected = match expected {
        Value::Array(each) => each.iter().map(text).collect(),
        one => vec![text(one); got.len().max(1)],
    };
    (open(expected, &got), got)
}

fn answers(expected: &ExpectedAnswer, seen: &Seen) -> Lines {
    let Some(got) = &seen.answer else {
        return (vec!["an answer".to_owned()], vec!["none".to_owned()]);
    };
    let mut lines = Lines::default();
    if let Some(status) = expected.status {
        lines.0.push(status.to_string());
        lines.1.push(got.status.as_u16().to_string());
    }
    let by_name = |name: &str| values(&got.headers, name);
    headers(&mut lines, &expected.headers, by_name);
    let form = None;
    body(&mut lines, body_of(&expected.body, form, &expected.raw), &got.body);
    lines
}

/// Each of a list beside its counterpart, numbered where there are several.
fn each<E, G>(expected: &[E], got: &[G], lines: impl Fn(Option<&E>, Option<&G>) -> Lines) -> Lines {
    let mut all = Lines::default();
    let count = expected.len().max(got.len());
    for n in 0..count {
        let (e, g) = lines(expected.get(n), got.get(n));
        for (all, lines, there) in
            [(&mut all.0, e, n < expected.len()), (&mut all.1, g, n < got.len())]
        {
            if there && count > 1 {
                all.push(format!("#{}", n + 1));
            }
            all.extend(lines);
        }
    }
    all
}

fn request(expected: Option<&ExpectedRequest>, got: Option<&Sent>) -> Lines {
    let mut lines = Lines::default();
    let got_path = got.map(|got| &got.url[url::Position::BeforePath..url::Position::AfterQuery]);
    let got_method = got.map(|got| got.method.as_str());
    if let Some(expected) = expected {
        let method = open_text(expected.method.as_deref(), got_method);
        let path = open_text(expected.path.as_deref(), got_path);
        lines.0.push(format!("{method} {path}"));
    }
    if let Some((method, path)) = got_method.zip(got_path) {
        lines.1.push(format!("{method} {path}"));
    }
    let by_name = |name: &str| got.and_then(|got| values(&got.headers, name));
    let how = match expected {
        Some(expected) => {
            headers(&mut lines, &expected.headers, by_name);
            body_of(&expected.body, expected.form.as_ref(), &expected.raw)
        }
        None => Body::Raw(""),
    };
    beside(&mut lines, how, expected.is_some(), got.map(|got| &got.body));
    lines
}

fn message(expected: Option<&ExpectedMessage>, got: Option<&(Published, Value)>) -> Lines {
    let mut lines = Lines::default();
    let parts = [
        ("exchange", expected.map(|e| e.exchange.as_deref()), got.map(|(g, _)| &*g.exchange)),
        ("key", expected.map(|e| e.key.as_deref()), got.map(|(g, _)| &*g.key)),
    ];
    for (name, expected, got) in parts {
        lines.0.extend(expected.map(|e| format!("{name}: {}", open_text(e, got))));
        lines.1.extend(got.map(|got| format!("{name}: {got}")));
    }
    let Some(expected) = expected else {
        lines.1.extend(got.iter().flat_map(|(_, event)| pretty(event)));
        return lines;
    };
    if let Some(content_type) = &expected.content_type {
        let there = got.and_then(|(got, _)| got.content_type.clone());
        lines.0.push(format!("content_type: {}", open_text(Some(content_type), there.as_deref())));
        lines.1.extend(there.map(|there| format!("content_type: {there}")));
    }
    let by_name = |name: &str| {
        let mut headers = got?.0.headers.iter();
        headers.find(|(known, _)| known == name).map(|(_, value)| value.clone())
    };
    headers(&mut lines, &expected.headers, by_name);
    if let Some(event) = &expected.event {
        let (wanted, there) = named(event, got.map(|(_, event)| event));
        lines.0.extend(pretty(&wanted));
        lines.1.extend(there.iter().flat_map(pretty));
    }
    let how = body_of(&expected.body, None, &expected.raw);
    beside(&mut lines, how, true, got.map(|(got, _)| &got.body));
    lines
}

// ===== parts =====

/// The members named, of both; null means that there is none.
fn named(expected: &Map<String, Value>, got: Option<&Value>) -> (Value, Option<Value>) {
    let mut wanted = Map::new();
    let mut there = Map::new();
    for (name, value) in expected {
        let found = got.and_then(|got| got.get(name));
        if !value.is_null() {
            wanted.insert(name.clone(), resolved(value, found));
        }
        there.extend(found.map(|found| (name.clone(), found.clone())));
    }
    (Value::Object(wanted), got.map(|_| Value::Object(there)))
}

fn headers(lines: &mut Lines, expected: &Map<String, Value>, got: impl Fn(&str) -> Option<String>) {
    for (name, value) in expected {
        let there = got(name);
        let text = match value {
            Value::Null => None,
            Value::String(text) => Some(open_text(Some(text), there.as_deref())),
            other => Some(other.to_string()),
        };
        lines.0.extend(text.map(|text| format!("{name}: {text}")));
        lines.1.extend(there.map(|there| format!("{name}: {there}")));
    }
}

fn body_of<'e>(
    json: &'e Option<Value>,
    form: Option<&'e BTreeMap<String, String>>,
    raw: &'e Option<String>,
) -> Body<'e> {
    match (json, form, raw) {
        (Some(json), _, _) => Body::Json(json),
        (None, Some(form), _) => Body::Form(form),
        (None, None, Some(raw)) => Body::Raw(raw),
        (None, None, None) => Body::Unmentioned,
    }
}

/// The body's lines on the sides that there are.
fn beside(lines: &mut Lines, how: Body<'_>, expected: bool, got: Option<&Bytes>) {
    let mut both = Lines::default();
    body(&mut both, how, got.unwrap_or(&Bytes::new()));
    if expected {
        lines.0.append(&mut both.0);
    }
    if got.is_some() {
        lines.1.append(&mut both.1);
    }
}

fn body((expected, got): &mut Lines, how: Body<'_>, there: &Bytes) {
    let text = || String::from_utf8_lossy(there).into_owned();
    let as_text = |got: &mut Vec<String>| got.extend(text().lines().map(str::to_owned));
    match how {
        Body::Unmentioned => {}
        Body::Json(wanted) => match serde_json::from_slice::<Value>(there) {
            Ok(there) => {
                expected.extend(pretty(&resolved(wanted, Some(&there))));
                got.extend(pretty(&there));
            }
            Err(_) => {
                expected.extend(pretty(wanted));
                as_text(got);
            }
        },
        Body::Form(wanted) => {
            let mut fields: Vec<(String, String)> =
                url::form_urlencoded::parse(there).into_owned().collect();
            fields.sort_unstable();
            for (name, value) in wanted {
                let found = fields.iter().find(|(known, _)| known == name);
                let value = open_text(Some(value), found.map(|(_, value)| &**value));
                expected.push(format!("{name}={value}"));
            }
            got.extend(fields.iter().map(|(name, value)| format!("{name}={value}")));
        }
        Body::Raw(wanted) => {
            expected.extend(wanted.lines().map(str::to_owned));
            as_text(got);
        }
    }
}

/// `wanted`, and where it leaves something open what is there.
fn resolved(wanted: &Value, there: Option<&Value>) -> Value {
    match (wanted, there) {
        (Value::String(any), Some(there)) if any == ANY => there.clone(),
        (Value::Object(wanted), Some(Value::Object(there))) => {
            let member =
                |(name, value): (&String, &Value)| (name.clone(), resolved(value, there.get(name)));
            wanted.iter().map(member).collect::<Map<_, _>>().into()
        }
        (Value::Array(wanted), Some(Value::Array(there))) => {
            let item = |(n, value): (usize, &Value)| resolved(value, there.get(n));
            wanted.iter().enumerate().map(item).collect()
        }
        // 12 and 12.0 are one number, however they are written.
        (Value::Number(wanted), Some(Value::Number(found)))
            if wanted.as_f64() == found.as_f64() && (wanted.is_f64() || found.is_f64()) =>
        {
            Value::Number(found.clone())
        }
        _ => wanted.clone(),
    }
}

fn open_text(expected: Option<&str>, got: Option<&str>) -> String {
    match (expected, got) {
        (None | Some(ANY), Some(got)) => got.to_owned(),
        (expected, _) => expected.unwrap_or(ANY).to_owned(),
    }
}

/// `*` among lines is whatever stands there.
fn open(expected: Vec<String>, got: &[String]) -> Vec<String> {
    let line = |(n, line): (usize, String)| open_text(Some(&line), got.get(n).map(|got| &**got));
    expected.into_iter().enumerate().map(line).collect()
}

fn values(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all(name).iter();
    let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    values.reduce(|all, value| format!("{all}, {value}"))
}

fn pretty(value: &Value) -> Vec<String> {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
