use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    about::{ABOUT, about},
    every_key::{alternatives, page},
    *,
};
use crate::config::{Environment, key_names, load};

/// Of a line's key one of these is part where it is about `tests:`.
const TESTS_ONLY: [&str; 9] =
    ["tests", "given", "message", "answers", "expect", "requests", "published", "answer", "sign"];

/// `config/`, as it is shipped.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")
}

/// Holds a file of `config/` against what is made here, or writes it.
fn is_current(name: &str, made: &str) {
    let path = shipped().join(name);
    if std::env::var_os("TIDEGATE_WRITE_REFERENCE").is_some() {
        std::fs::write(&path, made).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let write = "TIDEGATE_WRITE_REFERENCE=1 cargo test -p tidegate reference";
    assert!(there == made, "config/{name} is not current; write it: {write}");
}

fn pretty(schema: &Value) -> String {
    format!("{schema:#}\n")
}

#[test]
fn the_files_in_config_are_current() {
    is_current("schema.json", &pretty(&schema_json()));
    is_current("every-key.yaml", &every_key());
}

#[test]
fn every_key_has_a_line_and_every_line_a_key() {
    let mut used = BTreeSet::new();
    for path in key_names().iter().map(|name| &name.path) {
        let (key, line, _) = about(path).unwrap_or_else(|| panic!("nothing is said of {path}"));
        assert!(!line.is_empty() && line.len() <= 90, "{path}: {line}");
        // A line of a route's key that ends alike says nothing of a test's.
        let of_a_test = TESTS_ONLY.iter().any(|part| key.split('.').any(|name| name == *part));
        assert_eq!(path.starts_with("tests"), of_a_test, "{path} is told by `{key}`");
        used.insert(*key);
    }
    let all: BTreeSet<&str> = ABOUT.iter().map(|(key, ..)| *key).collect();
    assert_eq!(all.len(), ABOUT.len(), "one line a key");
    assert_eq!(all.difference(&used).collect::<Vec<_>>(), Vec::<&&str>::new(), "of no key");
}

#[test]
fn every_key_is_written_and_the_page_is_good_as_it_stands() {
    let page = every_key();
    for name in key_names() {
        let key = name.path.rsplit('.').next().unwrap();
        let written = page.lines().any(|line| {
            let line = line.trim_start().trim_start_matches("#: ").trim_start();
            let line = line.trim_start_matches("- ");
            line.starts_with(&format!("{key}:")) || line.contains(&format!("{{ {key}:"))
        });
        assert!(written, "{}", name.path);
    }
    accepted(&page).unwrap_or_else(|report| panic!("{report}"));
}

#[test]
fn every_alternative_is_good_in_its_turn() {
    for name in key_names() {
        let Some(group) = alternatives(&name.path) else { continue };
        if group[0] == name.path.rsplit('.').next().unwrap() || name.path == "broker.embedded" {
            // The first is the one that is written. On the embedded broker messages have neither
            // headers nor an envelope, which the page has to show.
            continue;
        }
        let page = page(Some(&name.path));
        assert_ne!(page, every_key(), "{} changes nothing", name.path);
        accepted(&page).unwrap_or_else(|report| panic!("{}: {report}", name.path));
    }
}

/// As somebody would who deletes the marks, and has the files. Blocks that exclude what is written
/// beside them are [`every_alternative_is_good_in_its_turn`]'s.
#[test]
fn every_block_that_names_files_is_good_once_its_marks_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("ca.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();

    let page = every_key();
    let lines: Vec<&str> = page.lines().collect();
    let blocks = commented(&lines);
    let named = |block: &&Block| block.name == "tls";
    assert_eq!(blocks.iter().filter(named).count(), 3, "server, broker and upstream");
    for block in blocks.iter().filter(named) {
        let mut text = uncommented(&lines, block);
        for of in ["tls", "loyalty"] {
            let here = folder.path().display().to_string();
            text = text.replace(&format!("/run/secrets/{of}"), &here);
        }
        // The broker's is for amqps, as its comment says; the page has the default.
        text = text.replace("url: amqp://", "url: amqps://");
        accepted(&text).unwrap_or_else(|report| panic!("line {}: {report}", block.first + 1));
    }
}

/// Lines `first..end` of the page are comments that begin with a mark.
struct Block<'a> {
    name: &'a str,
    first: usize,
    end: usize,
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The outermost blocks, one key each, their lines of explanation left where they are.
fn commented<'a>(lines: &[&'a str]) -> Vec<Block<'a>> {
    let key = |line: &'a str| {
        let text = line.trim_start().strip_prefix("#: ")?;
        (!text.starts_with('#')).then(|| text.split(':').next().unwrap())
    };
    let mut blocks: Vec<Block> = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let Some(name) = key(line) else { continue };
        if blocks.last().is_some_and(|block| first < block.end) {
            continue;
        }
        let below = lines[first + 1..].iter();
        let of_it =
            |below: &&&str| below.trim_start().starts_with("#: ") && indent(below) > indent(line);
        let end = first + 1 + below.take_while(of_it).count();
        blocks.push(Block { name, first, end });
    }
    blocks
}

fn uncommented(lines: &[&str], block: &Block) -> String {
    let mut text = String::new();
    for (n, line) in lines.iter().enumerate() {
        let line = if (block.first..block.end).contains(&n) {
            line.replacen("#: ", "", 1)
        } else {
            (*line).to_owned()
        };
        text.push_str(&line);
        text.push('\n');
    }
    text
}

#[test]
fn the_schema_takes_every_configuration_that_is_shipped() {
    let schema = schema_json();
    let mut files = Vec::new();
    yaml_files(&shipped(), &mut files);
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let value: Value = serde_saphyr::from_str(&text).unwrap();
        let wrong = wrong(&schema, &value, "");
        assert_eq!(wrong, Vec::<String>::new(), "{}", file.display());
    }
}

#[test]
fn the_schema_refuses_what_has_another_shape() {
    let schema = schema_json();
    let upstream = |more: Value| {
        let mut upstream = json!({ "url": "https://a.example" });
        upstream.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "upstreams": { "a": upstream } })
    };
    let oauth2 = json!({ "token_url": "https://a.example/t", "client_id": "c",
        "client_secret": "s" });
    let hmac = json!({ "header": "X-Signature", "secret": "s" });
    for good in [
        json!({ "timeout": "5s" }),
        json!({ "breaker": "off" }),
        json!({ "breaker": "${BREAKER:-off}" }),
        json!({ "auth": { "oauth2": oauth2, "headers": { "X-A": "b" }, "hmac": hmac } }),
    ] {
        assert_eq!(wrong(&schema, &upstream(good), ""), Vec::<String>::new());
    }
    for bad in [
        json!({ "upstream": {} }),
        json!({ "upstreams": { "a": {} } }),
        json!({ "upstreams": { "A b": { "url": "https://a.example" } } }),
        upstream(json!({ "timeout": "5 seconds" })),
        upstream(json!({ "timeout": "5" })),
        upstream(json!({ "concurrency": 0 })),
        upstream(json!({ "concurrency": "many" })),
        upstream(json!({ "breaker": { "failure": 5 } })),
        upstream(json!({ "rate_limit": [{ "period": "1s" }] })),
        json!({ "broker": { "rabbitmq": {}, "embedded": {} } }),
        upstream(json!({ "auth": { "bearer": "t", "oauth2": oauth2 } })),
        upstream(json!({ "auth": { "standard_webhooks": { "secret": "s" }, "hmac": hmac } })),
        json!({ "routes": { "r": { "to": { "http": { "upstream": "a" } } } } }),
        json!({ "log": { "level": "loud" } }),
        json!({ "queue": { "max_size": "8GB" } }),
    ] {
        assert!(!wrong(&schema, &bad, "").is_empty(), "{bad}");
    }
}

/// Loads `page` as a file of its own, with nothing in the environment.
fn accepted(page: &str) -> Result<(), crate::config::Report> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("every-key.yaml");
    std::fs::write(&file, page).unwrap();
    load(&[file], &Environment::default()).map(drop)
}

fn yaml_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => yaml_files(&path, files),
            false if path.extension().is_some_and(|ext| ext == "yaml") => files.push(path),
            false => {}
        }
    }
}

/// What of `value` does not fit: the part of JSON Schema that the generator writes.
fn wrong(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !schema["not"].is_null() && wrong(&schema["not"], value, at).is_empty() {
        found.push(format!("{at}: these exclude each other"));
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let tries: Vec<Vec<String>> = any.iter().map(|one| wrong(one, value, at)).collect();
        if tries.iter().all(|tried| !tried.is_empty()) {
            found.push(format!("{at}: none of {} fits: {tries:?}", any.len()));
        }
    }
    if !schema["type"].is_null() {
        let types = schema["type"].as_array().cloned();
        let types = types.unwrap_or_else(|| vec![schema["type"].clone()]);
        if !types.iter().any(|one| is(one.as_str().unwrap(), value)) {
            found.push(format!("{at}: {value} is not {types:?}"));
        }
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{at}: {value} is not one of {words:?}"));
    }
    let number = |key: &str| schema[key].as_f64();
    if let Some(n) = value.as_f64()
        && (number("minimum").is_some_and(|least| n < least)
            || number("maximum").is_some_and(|most| n > most)
            || number("exclusiveMinimum").is_some_and(|least| n <= least))
    {
        found.push(format!("{at}: {n} is out of bounds"));
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !fits(pattern, text)
    {
        found.push(format!("{at}: {text:?} does not fit {pattern}"));
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(wrong(&schema["items"], item, &format!("{at}[]")));
    }
    if let Some(members) = value.as_object() {
        found.extend(members_wrong(schema, members, at));
    }
    found
}

fn members_wrong(
    schema: &Value,
    members: &serde_json::Map<String, Value>,
    at: &str,
) -> Vec<String> {
    let mut found = Vec::new();
    for name in schema["required"].as_array().into_iter().flatten() {
        if !members.contains_key(name.as_str().unwrap()) {
            found.push(format!("{at}: {name} is missing"));
        }
    }
    let count = members.len() as u64;
    if schema["maxProperties"].as_u64().is_some_and(|most| count > most)
        || schema["minProperties"].as_u64().is_some_and(|least| count < least)
    {
        found.push(format!("{at}: {count} of what there may be one of"));
    }
    for (name, member) in members {
        let below = format!("{at}.{name}");
        if let Some(pattern) = schema["propertyNames"]["pattern"].as_str()
            && !fits(pattern, name)
        {
            found.push(format!("{below}: not a name"));
        }
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => found.push(format!("{below}: unknown")),
            (Value::Null, Value::Null) => {}
            (Value::Null, further) => found.extend(wrong(further, member, &below)),
            (property, _) => found.extend(wrong(property, member, &below)),
        }
    }
    found
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("{other}"),
    }
}

/// By jq's own regular expressions, which are those of the product.
fn fits(pattern: &str, text: &str) -> bool {
    use tidegate_adapters::expression::{Expression, Input, Variables};

    let program = format!(". | test({})", Value::from(pattern));
    let program = Expression::compile(&program).unwrap();
    let input = Input::json(Value::from(text).to_string().into()).unwrap();
    program.run(&input, &Variables::default()).unwrap().is_true()
}

/// What `config/schema.json` finds wrong with `value`.
pub(in crate::config) fn refusals(value: &Value) -> Vec<String> {
    static SCHEMA: std::sync::LazyLock<Value> = std::sync::LazyLock::new(schema_json);
    wrong(&SCHEMA, value, "")
}
