//! From paths to a [`Config`], or to everything that is wrong with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tidegate_adapters::{http::webhook::VerifyConfig, secret::Mask};

use super::{
    self as config, Config, Loaded, OnDead, RetryConfig, RouteConfig, Target, TestConfig,
    check::{Check, build},
    environment::{self, Environment},
    fingerprint::{self, Fingerprints},
    interpolate::{interpolate, join},
    report::{Place, Problem, Report, in_order},
    schema::{NAMED_SECTIONS, ROOT, is_settings_section, publisher},
    tree::{self, Entry, FILE_MAX, Kind, Node, Source},
    walk::{Places, Walk, defaults},
};

/// Loads and validates what `paths` hold: files, or folders whose `*.yaml` and `*.yml` are merged.
/// Connects to nothing; reads the files that the configuration names.
///
/// # Errors
/// Every problem at once.
pub fn load(paths: &[PathBuf], env: &Environment) -> Result<Loaded, Report> {
    load_over(paths, env, Mask::default())
}

/// As [`load`], with the secrets known so far: what is in flight may still hold one that the new
/// configuration no longer has.
///
/// # Errors
/// Every problem at once.
pub fn load_over(paths: &[PathBuf], env: &Environment, mask: Mask) -> Result<Loaded, Report> {
    let mut problems = Vec::new();
    let sources = read_all(paths, &mut problems);
    let mut roots: Vec<Node> = sources.iter().map(|source| parse(source, &mut problems)).collect();
    // With a file missing or unreadable, names that do not resolve mean nothing.
    let complete = problems.is_empty();
    for root in &mut roots {
        interpolate(root, "", env, &mask, &mut problems);
    }
    let merged = merge_all(roots, &mut problems);
    let layered = layer(&merged, env, &mut problems);
    let mut walk = Walk::new(&mask);
    let value = walk.read(&ROOT, &layered, "", &layered.place);
    problems.append(&mut walk.problems);
    let mut value = value.unwrap_or_default();
    complete_routes(&mut value);
    let mut check = Check::new(&value, &walk.places);
    check.run();
    let warnings = check.warnings;
    if complete {
        problems.append(&mut check.problems);
    }
    if problems.is_empty() {
        let files = fingerprint::files(&sources, &value);
        match fill(value, &mask, &walk.places) {
            Ok(config) => {
                problems = build::check(&config, &walk.places);
                if problems.is_empty() {
                    let warnings = in_order(warnings, &mask);
                    return Ok(Loaded { config, warnings, files });
                }
            }
            Err(problem) => problems.push(problem),
        }
    }
    Err(Report::new(problems, warnings, &mask))
}

/// Every file once, in the order of `paths`, those of a folder by name.
fn read_all(paths: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<Arc<Source>> {
    let mut sources = Vec::new();
    let mut known = BTreeSet::new();
    if paths.is_empty() {
        let place = Place::Path("configuration".into());
        problems.push(Problem::new(
            &place,
            "",
            "none given: name a file or folder with -c, or in TIDEGATE_CONFIG",
        ));
    }
    for path in paths {
        let files = if path.is_dir() { files_in(path) } else { Ok(vec![path.clone()]) };
        match files {
            Ok(files) => {
                for file in files {
                    // The same file by two ways is one file.
                    let real = file.canonicalize().unwrap_or_else(|_| file.clone());
                    if known.insert(real) {
                        match read(&file) {
                            Ok(source) => sources.push(Arc::new(source)),
                            Err(message) => problems.push(about(&file, message)),
                        }
                    }
                }
            }
            Err(message) => problems.push(about(path, message)),
        }
    }
    sources
}

fn about(path: &Path, message: String) -> Problem {
    Problem::new(&Place::Path(path.display().to_string().into()), "", message)
}

/// The configuration files of a folder, by name. Not recursive, and without dotfiles: a mounted
/// Kubernetes ConfigMap keeps its files in folders whose names begin with `..`, and links to them.
///
/// # Errors
/// When it cannot be read, or holds none.
pub(crate) fn files_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("the folder cannot be read: {error}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        let yaml = path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml");
        if yaml && !hidden && !path.is_dir() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err("the folder holds no *.yaml or *.yml file".into());
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Source, String> {
    use std::io::Read as _;

    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("is larger than {} MiB", FILE_MAX >> 20));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("is not UTF-8 text: see line {line}")
    })?;
    Ok(Source { file: path.display().to_string().into(), text })
}

fn parse(source: &Arc<Source>, problems: &mut Vec<Problem>) -> Node {
    let (node, found) = tree::parse(source);
    problems.extend(found);
    match node.kind {
        Kind::Map(_) => node,
        kind => {
            if !(Node { place: node.place.clone(), kind }).is_null() {
                problems.push(Problem::new(
                    &node.place,
                    "",
                    "a configuration is a map of sections (`upstreams:`, `routes:` …)",
                ));
            }
            Node::map(Place::start_of(&source.file), Vec::new())
        }
    }
}

/// All files as one tree. What two of them set is a problem, told at the later one.
fn merge_all(roots: Vec<Node>, problems: &mut Vec<Problem>) -> Node {
    let mut roots = roots.into_iter();
    let nowhere = || Node::map(Place::Default, Vec::new());
    let mut merged = roots.next().unwrap_or_else(nowhere);
    for root in roots {
        merge(&mut merged, root, "", problems);
    }
    merged
}

fn merge(into: &mut Node, from: Node, path: &str, problems: &mut Vec<Problem>) {
    let (Kind::Map(old), Kind::Map(new)) = (&mut into.kind, from.kind) else { return };
    for entry in new {
        let below = join(path, &entry.key);
        let Some(first) = old.iter_mut().find(|e| e.key == entry.key) else {
            old.push(entry);
            continue;
        };
        match (&first.value.kind, &entry.value.kind) {
            // An upstream or a route is one thing: its keys are not gathered from several files.
            (Kind::Map(_), Kind::Map(_)) if !NAMED_SECTIONS.contains(&path) => {
                merge(&mut first.value, entry.value, &below, problems);
            }
            (_, _) if entry.value.is_null() && path.is_empty() => {}
            (_, _) if first.value.is_null() && path.is_empty() => *first = entry,
            _ => problems.push(twice(first, &entry, below)),
        }
    }
}

fn twice(first: &Entry, second: &Entry, path: String) -> Problem {
    let message = format!("is set in two files; the other one is at {}", first.place);
    Problem::new(&second.place, path, message)
}

/// The settings with the environment's overrides over them; upstreams and routes as they are.
fn layer(merged: &Node, env: &Environment, problems: &mut Vec<Problem>) -> Node {
    let Kind::Map(entries) = &merged.kind else { return merged.clone() };
    // Only settings are laid over, by keys that the overlay cannot take for paths.
    let (settings, others): (Vec<Entry>, Vec<Entry>) =
        entries.iter().cloned().partition(|e| is_settings_section(&e.key));
    let settings = Node::map(merged.place.clone(), settings);
    let mut layered = environment::overlay(&settings, env, problems);
    if let Kind::Map(entries) = &mut layered.kind {
        // Overrides that named a route or an upstream come out as sections of their own.
        entries.retain(|entry| {
            let misplaced = NAMED_SECTIONS.contains(&&*entry.key);
            if misplaced {
                let message = format!(
                    "overrides are for settings only; write {} in a file, with ${{VAR}} where a \
                     value comes from the environment",
                    entry.key
                );
                problems.push(Problem::new(&entry.place, "", message));
            }
            !misplaced
        });
        entries.extend(others);
    }
    layered
}

/// What the schema cannot fill in: a route's queue is named after it, and its `retry` is the
/// upstream's, or the broker's, with the route's own keys over it.
fn complete_routes(root: &mut Value) {
    let upstreams = root.get("upstreams").cloned().unwrap_or_default();
    let broker = defaults(&publisher::RETRY);
    let routes = root.get_mut("routes").and_then(Value::as_object_mut);
    for (name, route) in routes.into_iter().flatten() {
        if let Some(Value::Object(rabbitmq)) = route.pointer_mut("/from/rabbitmq") {
            rabbitmq.entry("queue").or_insert_with(|| format!("tidegate.{name}").into());
        }
        let upstream = route.pointer("/to/http/upstream").and_then(Value::as_str);
        let of_upstream = upstream.and_then(|name| upstreams.get(name)?.get("retry"));
        let of_broker = route.pointer("/to/rabbitmq").map(|_| &broker);
        let base = of_upstream.or(of_broker).and_then(Value::as_object);
        if let (Some(base), Some(own)) = (base, route.get_mut("retry")) {
            let mut whole = base.clone();
            whole.extend(own.as_object().cloned().unwrap_or_default());
            *own = Value::Object(whole);
        }
    }
}

/// Types from what is known good. A refusal here is a difference between schema and types, which
/// the tests look for; a user is told all the same.
fn fill(mut value: Value, mask: &Mask, places: &Places) -> Result<Config, Problem> {
    // Tests of a configuration are no part of what runs.
    let tests = value.as_object_mut().and_then(|root| root.remove("tests"));
    let fingerprints = Fingerprints::new(&value);
    let hash = fingerprint::hash(&value, mask);
    let upstreams = value.as_object_mut().and_then(|root| root.remove("upstreams"));
    let routes = value.as_object_mut().and_then(|root| root.remove("routes"));
    let mut routes = typed("routes", routes.unwrap_or_default())?;
    add_replies(&mut routes)?;
    routes.values().for_each(|route| learn_basic(route, mask));
    Ok(Config {
        settings: typed("settings", value)?,
        upstreams: typed("upstreams", upstreams.unwrap_or_default())?,
        routes,
        tests: placed(typed("tests", tests.unwrap_or_default())?, places),
        mask: mask.clone(),
        fingerprints,
        hash,
    })
}

/// Every `reply` is delivered by a route of its own, which pauses, retries and dies like the
/// others. It is called `<route>/reply`, and no name that is written can hold a `/`.
fn add_replies(routes: &mut BTreeMap<Arc<str>, RouteConfig>) -> Result<(), Problem> {
    let retry: RetryConfig = typed("routes", defaults(&publisher::RETRY))?;
    let of_replies = routes.iter().filter_map(|(name, route)| {
        let reply = RouteConfig {
            description: None,
            from: config::Source::Reply(Arc::clone(name)),
            when: None,
            order_by: None,
            on_dead: OnDead::Continue,
            to: Target::Rabbitmq(route.reply.as_ref()?.to.clone()),
            retry: retry.clone(),
            reply: None,
        };
        Some((Arc::from(format!("{name}/reply")), reply))
    });
    let of_replies: Vec<(Arc<str>, RouteConfig)> = of_replies.collect();
    routes.extend(of_replies);
    Ok(())
}

/// Each test knows where it is written, for whoever it fails.
fn placed(
    mut tests: BTreeMap<String, TestConfig>,
    places: &Places,
) -> BTreeMap<String, TestConfig> {
    for (name, test) in &mut tests {
        test.place = places.get(&join("tests", name)).cloned();
    }
    tests
}

/// A sender's Basic credentials arrive as one word, and an event may be made of headers.
fn learn_basic(route: &RouteConfig, mask: &Mask) {
    if let config::Source::Webhook(webhook) = &route.from
        && let VerifyConfig::Basic(basic) = &webhook.verify
    {
        mask.add(&STANDARD.encode(format!("{}:{}", basic.username, basic.password.expose())));
    }
}

fn typed<T: DeserializeOwned>(section: &str, value: Value) -> Result<T, Problem> {
    serde_json::from_value(value).map_err(|error| {
        let message = format!("cannot be used: {error}");
        Problem::new(&Place::Path("configuration".into()), section, message)
    })
}
