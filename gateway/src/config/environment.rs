//! The process's environment as the configuration sees it: `${VAR}` and `TIDEGATE__…`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use config::{Config, Map, Source, Value, ValueKind};
use parking_lot::Mutex;

use super::{
    report::{Place, Problem, did_you_mean},
    tree::{Entry, Kind, Node, Scalar},
};

/// How names of overrides begin. One underscore (`TIDEGATE_CONFIG`) is not an override.
const PREFIX: &str = "TIDEGATE__";

/// Environment variables by name; handed in, so that tests bring their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    /// Those that stood in for something, where they may.
    stand_ins: Option<Arc<Mutex<BTreeSet<String>>>>,
}

impl Environment {
    /// The process's own. Names that are not UTF-8 cannot be referred to and are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        Self { variables: std::env::vars_os().filter_map(named).collect(), stand_ins: None }
    }

    /// The same, and what is missing in it has a stand-in, as is every file that `${file:}` names:
    /// `test-NAME`, or what such a name most likely has to be. A configuration can so be looked at
    /// where its secrets are not, with the same result everywhere.
    #[must_use]
    pub fn with_stand_ins(self) -> Self {
        Self { stand_ins: Some(Arc::default()), ..self }
    }

    /// What stood in for something so far.
    #[must_use]
    pub fn stood_in(&self) -> Vec<String> {
        let names = |names: &Arc<Mutex<BTreeSet<String>>>| names.lock().iter().cloned().collect();
        self.stand_ins.as_ref().map(names).unwrap_or_default()
    }

    /// What stands in for `name`, a variable or a file, where something may.
    pub(crate) fn stand_in(&self, name: &str) -> Option<String> {
        self.stand_ins.as_ref()?.lock().insert(name.to_owned());
        let is = |end: &str| name.to_ascii_uppercase().ends_with(end);
        Some(match name {
            // The host is in a domain that will never be anybody's (RFC 2606 §2).
            _ if is("_URL") => {
                format!("https://{}.test", name.to_ascii_lowercase().replace('_', "-"))
            }
            _ if is("WEBHOOK_SECRET") => {
                let key = format!("test-{name:-<24}");
                format!("whsec_{}", STANDARD.encode(&key.as_bytes()[..key.len().min(64)]))
            }
            _ => format!("test-{}", name.trim_start_matches('/').replace('/', "-")),
        })
    }

    /// The value of `name`; `None` when it is not set.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, String> {
        self.variables
            .get(name)
            .map(|value| {
                value
                    .to_str()
                    .ok_or_else(|| format!("the environment variable {name} is not UTF-8 text"))
            })
            .transpose()
    }

    /// All names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().map(String::as_str)
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(variables: T) -> Self {
        let variables = variables.into_iter().map(|(n, v)| (n.into(), v.into())).collect();
        Self { variables, stand_ins: None }
    }
}

/// Lays the overrides of `env` over the settings in `files`, a map. Keys that are no settings
/// come along: the walk that follows knows which ones there are, and names the variable.
pub(crate) fn overlay(files: &Node, env: &Environment, problems: &mut Vec<Problem>) -> Node {
    let mut overrides = Map::new();
    for name in env.names().filter(|name| name.starts_with(PREFIX)) {
        let place = Place::Variable(name.into());
        match env.get(name) {
            _ if name.bytes().any(|b| b.is_ascii_lowercase()) => {
                let message = format!("overrides are written in capitals: {}", name.to_uppercase());
                problems.push(Problem::new(&place, "", message));
            }
            Err(message) => problems.push(Problem::new(&place, "", message)),
            Ok(value) => {
                overrides.insert(name.to_owned(), value.unwrap_or_default().to_owned());
            }
        }
    }
    let variables =
        config::Environment::with_prefix("TIDEGATE").separator("__").source(Some(overrides));
    let layered = Config::builder().add_source(Files::new(files)).add_source(variables).build();
    match layered {
        Ok(layered) => rebuild(&layered.cache, Some(files), "", &files.place),
        Err(error) => {
            problems.push(Problem::new(&Place::Variable(PREFIX.into()), "", error.to_string()));
            files.clone()
        }
    }
}

/// The variable that overrides the setting at `path`.
pub(crate) fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace('.', "__"))
}

/// What to say of an override that no setting has the name of.
pub(crate) fn unknown_override<'a>(name: &str, settings: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = settings.map(variable_of).collect();
    let near = did_you_mean(name, names.iter().map(String::as_str));
    format!("no setting has this name{near}")
}

/// The files' settings as the bottom layer.
#[derive(Debug, Clone)]
struct Files(Map<String, Value>);

/// Marks a value that comes from a file, as against the environment.
const FROM_FILE: &str = "file";

impl Files {
    fn new(files: &Node) -> Self {
        match value_of(files).kind {
            ValueKind::Table(table) => Self(table),
            _ => Self(Map::new()),
        }
    }
}

impl Source for Files {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, config::ConfigError> {
        Ok(self.0.clone())
    }
}

/// Leaves stay behind as markers: what they hold is taken from the tree again, place and all.
fn value_of(node: &Node) -> Value {
    let kind = match &node.kind {
        Kind::Map(entries) => ValueKind::Table(
            entries.iter().map(|e| (e.key.to_string(), value_of(&e.value))).collect(),
        ),
        _ => ValueKind::Nil,
    };
    Value::new(Some(&FROM_FILE.to_owned()), kind)
}

/// The layered values as a tree again: each leaf is the file's own node or an override.
fn rebuild(value: &Value, file: Option<&Node>, path: &str, around: &Place) -> Node {
    match (&value.kind, file) {
        (ValueKind::Table(table), _) => {
            let place = file.map_or(around, |node| &node.place);
            let mut entries: Vec<Entry> =
                table.iter().map(|(key, value)| entry(key, value, file, path, place)).collect();
            entries.sort_by(|a, b| a.place.cmp(&b.place).then_with(|| a.key.cmp(&b.key)));
            Node::map(place.clone(), entries)
        }
        (_, Some(node)) if value.origin() == Some(FROM_FILE) => node.clone(),
        (kind, _) => {
            let text = match kind {
                ValueKind::String(text) => text.clone(),
                _ => String::new(),
            };
            let kind = Kind::Scalar(Scalar {
                text,
                plain: false,
                literal: false,
                secret: false,
                parts: Vec::new(),
                origin: None,
            });
            Node { place: Place::Variable(variable_of(path).into()), kind }
        }
    }
}

fn entry(key: &str, value: &Value, file: Option<&Node>, path: &str, around: &Place) -> Entry {
    let path = super::interpolate::join(path, key);
    let written = match file.map(|node| &node.kind) {
        Some(Kind::Map(entries)) => entries.iter().find(|e| &*e.key == key),
        _ => None,
    };
    match written {
        Some(e) => Entry {
            key: Arc::clone(&e.key),
            place: e.place.clone(),
            value: rebuild(value, Some(&e.value), &path, &e.place),
        },
        None => {
            let variable = first_variable(value, &path);
            let place = variable.map_or_else(|| around.clone(), |v| Place::Variable(v.into()));
            Entry { key: key.into(), value: rebuild(value, None, &path, &place), place }
        }
    }
}

/// The variable that brought a key into being: its own, or the first one below it.
fn first_variable(value: &Value, path: &str) -> Option<String> {
    match &value.kind {
        ValueKind::Table(table) => table
            .iter()
            .filter_map(|(key, value)| first_variable(value, &format!("{path}.{key}")))
            .min(),
        _ => Some(variable_of(path)),
    }
}
