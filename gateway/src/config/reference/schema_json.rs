//! `config/schema.json`: the configuration as JSON Schema (2020-12), for editors.
//!
//! It knows shapes and words. What only `tidegate check` knows is whether an expression compiles,
//! whether names that are named are there, and what goes with what.

use serde_json::{Map, Value, json};

use super::{
    super::schema::{Key, Kind, NameRule, Presence, ROOT, Shape},
    about::{about, line},
    every_key::alternatives,
};

/// The schema.
#[must_use]
pub fn schema_json() -> Value {
    let mut root = shape(&ROOT, "");
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "Tidegate configuration".into();
    root["description"] =
        "A file, or one of several that are merged. See README.md beside it.".into();
    root
}

fn shape(of: &Shape, path: &str) -> Value {
    match of {
        Shape::Map(keys) => map(keys, path),
        Shape::OneOf(keys, meant) => {
            let mut one = map(keys, path);
            one["maxProperties"] = 1.into();
            if meant.is_none() {
                one["type"] = "object".into();
                one["minProperties"] = 1.into();
            }
            one
        }
        Shape::Named(rule, below) => {
            let mut named = json!({
                "type": ["object", "null"],
                "additionalProperties": shape(below, &join(path, "<name>")),
            });
            if *rule == NameRule::Name {
                named["propertyNames"] = json!({ "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$" });
            }
            named
        }
        Shape::List(below) => json!({ "type": ["array", "null"], "items": shape(below, path) }),
        Shape::ListOrOne(below) => {
            let one = shape(below, path);
            json!({ "anyOf": [{ "type": "array", "items": one }, one] })
        }
        Shape::Off(below) => json!({ "anyOf": [off(), interpolated(), shape(below, path)] }),
        Shape::Scalar(kind) => json!({ "anyOf": [scalar(*kind), interpolated()] }),
        Shape::Any => json!({}),
    }
}

fn map(keys: &[Key], path: &str) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys.iter().filter(|key| key.is_offered()) {
        let path = join(path, key.name);
        let mut below = shape(&key.shape, &path);
        if about(&path).is_some() {
            below["description"] = line(&path).into();
        }
        match key.presence {
            Presence::Required => required.push(key.name),
            Presence::Default(default) if default != "{}" => {
                below["default"] = serde_saphyr::from_str(default).unwrap_or(Value::Null);
            }
            _ => {}
        }
        properties.insert(key.name.to_owned(), below);
    }
    let mut map = json!({
        "type": if required.is_empty() { json!(["object", "null"]) } else { json!("object") },
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        map["required"] = json!(required);
    }
    let pairs = exclusive_pairs(keys, path);
    if !pairs.is_empty() {
        map["not"] = json!({ "anyOf": pairs });
    }
    map
}

/// What may not be there together, where a map takes more than one of its keys. A map that is left
/// empty is null, of which `required` alone would hold.
fn exclusive_pairs(keys: &[Key], path: &str) -> Vec<Value> {
    let mut pairs = Vec::new();
    for key in keys {
        let Some(group) = alternatives(&join(path, key.name)) else { continue };
        let others = group.iter().skip_while(|name| **name != key.name).skip(1);
        pairs
            .extend(others.map(|other| json!({ "type": "object", "required": [key.name, other] })));
    }
    pairs
}

fn off() -> Value {
    json!({ "enum": ["off", "false", false] })
}

/// `${VAR}` stands for any value.
fn interpolated() -> Value {
    json!({ "type": "string", "pattern": r"\$\{" })
}

fn scalar(kind: Kind) -> Value {
    const DURATION: &str = "^([0-9]+(ms|s|m|h|d)|0)$";
    match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Whole(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Number(least, most) => {
            json!({ "type": "number", "minimum": least, "maximum": most })
        }
        Kind::Share => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }),
        Kind::Duration(..) => {
            json!({ "anyOf": [{ "type": "string", "pattern": DURATION }, { "enum": [0] }] })
        }
        Kind::DurationOrOff => {
            json!({ "anyOf": [{ "type": "string", "pattern": DURATION }, off()] })
        }
        Kind::Size(..) => json!({ "anyOf": [
            { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)?$" },
            { "type": "integer", "minimum": 0 },
        ] }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Attempts => json!({ "anyOf": [
            { "type": "integer", "minimum": 1 }, { "enum": ["unlimited"] },
        ] }),
        Kind::HeaderOrOff => json!({ "anyOf": [{ "type": "string", "minLength": 1 }, off()] }),
        Kind::Status => json!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5]([0-9]{2}|xx)$" },
        ] }),
        Kind::RetryOn => json!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^([1-5]([0-9]{2}|xx)|connect|ambiguous|default)$" },
        ] }),
        Kind::RequestPath | Kind::WebhookPath => json!({ "type": "string", "pattern": "^/" }),
        // Empty too: `description:` and nothing behind it.
        Kind::AnyText => json!({ "type": ["string", "number", "boolean", "null"] }),
        // YAML types what is not quoted; it is read as the text it was written as.
        _ => json!({ "type": ["string", "number", "boolean"] }),
    }
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}
