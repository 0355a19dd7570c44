//! `config/README.md`, the page that explains every key, held against the code: it names all keys
//! there are and no others, with the defaults they have, and its examples are accepted, by the
//! schema for editors too.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use serde_json::{Value, json};
use tidegate::config::{Environment, KeyName, key_names, load};
use tidegate_tests::clients;

/// What a row of a table says of a key.
struct Row {
    line: usize,
    cells: Vec<String>,
}

/// A fenced example.
struct Example {
    line: usize,
    kind: String,
    text: String,
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/README.md");
    std::fs::read_to_string(path).expect("the page is in the repository")
}

#[test]
fn the_reference_names_every_key_with_its_default_and_no_other() {
    let page = page();
    let (sections, rows) = documented(&page);
    let mut wrong = String::new();
    let keys: Vec<KeyName> =
        key_names().into_iter().filter(|key| !key.path.starts_with("tests")).collect();
    for key in &keys {
        let parts: Vec<KeyName> =
            keys.iter().filter(|other| within(&other.path, &key.path)).cloned().collect();
        match rows.get(&key.path) {
            Some(row) => {
                let said = row.cells.get(1).map_or("", String::as_str);
                if let Some(due) = due(key)
                    && said != due
                {
                    let line = row.line;
                    let _ = writeln!(wrong, "line {line}: {} is {due}, not {said}", key.path);
                }
            }
            // What only holds others is told by them, and a section by its heading.
            None if sections.contains(&key.path) || !parts.is_empty() => {}
            None => {
                let _ = writeln!(wrong, "{} is missing", key.path);
            }
        }
    }
    for (path, row) in &rows {
        if !keys.iter().any(|key| key.path == *path)
            && !key_names().iter().any(|key| within(&key.path, path))
        {
            let _ = writeln!(wrong, "line {}: there is no key {path}", row.line);
        }
    }
    assert!(wrong.is_empty(), "config/README.md:\n{wrong}");
}

#[test]
fn the_page_on_tests_names_every_key_of_a_test() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/TESTING.md");
    let page = std::fs::read_to_string(path).unwrap();
    let missing: Vec<String> = key_names()
        .into_iter()
        .filter_map(|key| key.path.strip_prefix("tests.<name>.").map(str::to_owned))
        .filter(|path| {
            let name = path.rsplit('.').next().unwrap();
            ["`", " "].iter().all(|before| {
                ["`", ":"].iter().all(|after| !page.contains(&format!("{before}{name}{after}")))
            })
        })
        .collect();
    assert!(missing.is_empty(), "config/TESTING.md lacks {missing:?}");
}

#[test]
fn every_example_of_the_reference_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("example.yaml");
    let examples = examples(&page());
    assert!(examples.len() > 30, "only {} examples", examples.len());
    for Example { line, kind, text } in examples {
        let whole = whole(line, &kind, text);
        std::fs::write(&file, &whole).unwrap();
        let environment = Environment::default().with_stand_ins();
        if let Err(report) = load(std::slice::from_ref(&file), &environment) {
            panic!("config/README.md:{line}: refused:\n{report}\n\n{whole}");
        }
    }
}

#[tokio::test]
async fn a_validator_takes_what_is_shipped_by_the_schema_and_refuses_what_is_broken() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let text = std::fs::read_to_string(config.join("schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();

    let mut good: Vec<(String, Value)> = Vec::new();
    for Example { line, kind, text } in examples(&page()) {
        let value = serde_saphyr::from_str(&whole(line, &kind, text)).unwrap();
        good.push((format!("config/README.md:{line}"), value));
    }
    for folder in [config.clone(), config.join("plant-based-pizza"), config.join("products")] {
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            if file.extension().is_some_and(|extension| extension == "yaml") {
                let text = std::fs::read_to_string(&file).unwrap();
                good.push((file.display().to_string(), serde_saphyr::from_str(&text).unwrap()));
            }
        }
    }
    let values: Vec<Value> = good.iter().map(|(_, value)| value.clone()).collect();
    for ((name, _), wrong) in good.iter().zip(clients::validate(&schema, &values).await) {
        assert_eq!(wrong, Vec::<String>::new(), "{name}");
    }

    let broken = broken();
    for (value, wrong) in broken.iter().zip(clients::validate(&schema, &broken).await) {
        assert!(!wrong.is_empty(), "{value}");
    }
}

/// An unknown key, a wrong type, a missing key, a word, a unit, a bound; two of what excludes.
fn broken() -> Vec<Value> {
    let upstream = |key: &str, value: Value| {
        let mut upstream = json!({ "url": "https://a.example" });
        upstream[key] = value;
        json!({ "upstreams": { "a": upstream } })
    };
    vec![
        json!({ "upstream": {} }),
        json!({ "upstreams": { "a": {} } }),
        json!({ "log": { "level": "loud" } }),
        json!({ "queue": { "max_size": "8GB" } }),
        json!({ "broker": { "rabbitmq": {}, "embedded": {} } }),
        json!({ "routes": { "r": { "from": { "rabbitmq": {} }, "to": {} } } }),
        upstream("timeout", json!("5 seconds")),
        upstream("concurrency", json!(0)),
        upstream("breaker", json!({ "failure": 5 })),
        upstream("auth", json!({ "bearer": "t", "basic": { "username": "u", "password": "p" } })),
    ]
}

/// The configuration that an example is, or is a part of.
fn whole(line: usize, kind: &str, text: String) -> String {
    match kind {
        "yaml" => text,
        "yaml upstream" => of_upstream(&text),
        "yaml route" => of_route(&text),
        other => panic!("config/README.md:{line}: a block of `{other}`"),
    }
}

/// What the second cell of a key must say; `None` where that is prose.
fn due(key: &KeyName) -> Option<String> {
    match key.default {
        Some("{}" | "[]") => None,
        Some(default) => Some(format!("`{default}`")),
        None => key.required.then(|| "required".to_owned()),
    }
}

fn within(path: &str, section: &str) -> bool {
    path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'))
}

/// The paths that headings name, and the rows of the tables below them by path. Cells name keys
/// relative to their heading.
fn documented(page: &str) -> (Vec<String>, BTreeMap<String, Row>) {
    let (mut sections, mut rows) = (Vec::new(), BTreeMap::new());
    let mut section = None;
    let mut fenced = false;
    for (line, text) in (1..).zip(page.lines()) {
        fenced ^= text.starts_with("```");
        if fenced {
            continue;
        }
        if text.starts_with('#') {
            section = quoted(text).into_iter().next();
            sections.extend(section.clone());
        }
        let Some(section) = &section else { continue };
        let Some(cells) = text.strip_prefix("| ") else { continue };
        let cells: Vec<String> = cells.split(" |").map(|cell| cell.trim().to_owned()).collect();
        for key in quoted(&cells[0]) {
            let row = Row { line, cells: cells.clone() };
            rows.insert(format!("{section}.{key}"), row);
        }
    }
    (sections, rows)
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut open = false;
    for (line, text) in (1..).zip(page.lines()) {
        match text.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(kind) => {
                open = true;
                examples.push(Example { line, kind: kind.to_owned(), text: String::new() });
            }
            None if open => {
                let example = examples.last_mut().expect("one was begun");
                let _ = writeln!(example.text, "{text}");
            }
            None => {}
        }
    }
    examples
}

/// A configuration of one upstream.
fn of_upstream(keys: &str) -> String {
    format!("upstreams:\n  example:\n{}", indented(keys))
}

/// A configuration of one route, which may leave out where it takes in, and calls `loyalty`.
fn of_route(keys: &str) -> String {
    let from = if keys.lines().any(|line| line.starts_with("from:")) {
        ""
    } else {
        "    from: { rabbitmq: { bind: [{ exchange: e, key: k }] } }\n"
    };
    format!(
        "upstreams:\n  loyalty: {{ url: 'https://api.loyalty.example' }}\n\
         routes:\n  example:\n{from}{}",
        indented(keys)
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
