//! JSON Schema 2020-12, as much of it as the description uses; a keyword that it does not know is
//! a failure, and so is a member that is not described: what is said shall be all there is.

use serde_json::Value;

/// What a `$ref` stands for.
pub(super) fn resolve<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        None => value,
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("references stay in the document");
            document.pointer(pointer).unwrap_or_else(|| panic!("{reference} is nowhere"))
        }
    }
}

/// Where and how `value` is not what `schema` says.
pub(super) fn violations(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolve(document, schema);
    let mut wrong = Vec::new();
    let mut expect = |holds: bool, what: &str| {
        if !holds {
            wrong.push(format!("{at}: {value} is not of {what}"));
        }
    };
    for (keyword, says) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "type" => {
                let kinds = says.as_array().cloned().unwrap_or_else(|| vec![says.clone()]);
                expect(kinds.iter().any(|kind| is(value, kind)), &format!("type {says}"));
            }
            "enum" => expect(says.as_array().unwrap().contains(value), &format!("enum {says}")),
            "const" => expect(says == value, &format!("const {says}")),
            "minimum" => {
                let small = value.as_f64().is_some_and(|value| value < says.as_f64().unwrap());
                expect(!small, &format!("minimum {says}"));
            }
            "maximum" => {
                let large = value.as_f64().is_some_and(|value| value > says.as_f64().unwrap());
                expect(!large, &format!("maximum {says}"));
            }
            "pattern" => {
                assert_eq!(says, "^[0-9a-f]{16}$", "the only one there is");
                let hash = value.as_str().unwrap_or_default();
                let hex = |c: char| c.is_ascii_hexdigit() && !c.is_ascii_uppercase();
                expect(hash.len() == 16 && hash.chars().all(hex), "16 hexadecimal digits");
            }
            "format" => {
                assert_eq!(says, "date-time", "the only one there is");
                let rfc3339 = &time::format_description::well_known::Rfc3339;
                let time = value.as_str().map(|text| time::OffsetDateTime::parse(text, rfc3339));
                expect(time.is_none_or(|parsed| parsed.is_ok()), "RFC 3339");
            }
            "oneOf" => {
                let fit = says.as_array().unwrap().iter();
                let fit = fit.filter(|one| violations(document, one, value, at).is_empty()).count();
                expect(fit == 1, &format!("one and only one of {says}"));
            }
            "required" => {
                for name in says.as_array().unwrap() {
                    let there = value.get(name.as_str().unwrap()).is_some();
                    expect(there || !value.is_object(), &format!("those that have {name}"));
                }
            }
            "properties" | "items" | "additionalProperties" | "description" | "default" => {}
            unknown => panic!("{at}: what is `{unknown}`?"),
        }
    }
    wrong.extend(within(document, schema, value, at));
    wrong
}

/// The same of its members and items.
fn within(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(described), _) => wrong.extend(violations(document, described, member, &at)),
            (None, Some(Value::Bool(true))) => {}
            (None, Some(described @ Value::Object(_))) => {
                wrong.extend(violations(document, described, member, &at));
            }
            // An alternative describes it.
            (None, None) if schema.get("oneOf").is_some() => {}
            (None, _) => wrong.push(format!("{at} is not described")),
        }
    }
    if let Some(items) = schema.get("items") {
        for (n, item) in value.as_array().into_iter().flatten().enumerate() {
            wrong.extend(violations(document, items, item, &format!("{at}[{n}]")));
        }
    }
    wrong
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("what is a `{unknown}`?"),
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let schema = serde_json::json!({
        "type": "object",
        "required": ["id", "at"],
        "properties": {
            "id": { "type": ["string", "null"] },
            "at": { "type": "string", "format": "date-time" },
            "n": { "type": "array", "items": { "type": "integer", "minimum": 0 } },
            "one": { "oneOf": [{ "type": "null" }, { "type": "string", "enum": ["a"] }] },
        },
    });
    let at = "2026-01-31T12:00:00Z";
    for (value, fits) in [
        (serde_json::json!({ "id": null, "at": at, "n": [1], "one": "a" }), true),
        (serde_json::json!({ "id": "x", "at": at, "one": null }), true),
        (serde_json::json!({ "id": 1, "at": at }), false),
        (serde_json::json!({ "id": null }), false),
        (serde_json::json!({ "id": null, "at": "today" }), false),
        (serde_json::json!({ "id": null, "at": at, "n": [-1] }), false),
        (serde_json::json!({ "id": null, "at": at, "n": [0.5] }), false),
        (serde_json::json!({ "id": null, "at": at, "one": "b" }), false),
        (serde_json::json!({ "id": null, "at": at, "more": 1 }), false),
        (serde_json::json!([]), false),
    ] {
        let wrong = violations(&schema, &schema, &value, "$");
        assert_eq!(wrong.is_empty(), fits, "{value}: {wrong:?}");
    }
}
