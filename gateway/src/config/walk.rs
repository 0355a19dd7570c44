//! Reads a tree against the schema: every problem is told, every default filled in, and what
//! remains is JSON that serde fills the types from.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};
use tidegate_adapters::secret::Mask;

use super::{
    environment::unknown_override,
    interpolate::join,
    names, quoting,
    report::{Place, Problem, did_you_mean, one_of},
    scalar,
    schema::{Key, Kind, NameRule, Presence, Shape, setting_paths},
    tree::{self, Entry, Node, Source},
};

/// Where each key path was written.
pub(crate) type Places = BTreeMap<String, Place>;

/// Where `path` was written, or the nearest thing around it that was.
pub(crate) fn place_of(places: &Places, path: &str) -> Place {
    let mut path = path;
    loop {
        match places.get(path) {
            Some(place) if *place != Place::Default => return place.clone(),
            _ if path.is_empty() => return Place::Default,
            _ => path = path.rfind(['.', '[']).map_or("", |at| &path[..at]),
        }
    }
}

/// What `shape` is when nothing is written.
pub(crate) fn defaults(shape: &Shape) -> Value {
    let nothing = Node::map(Place::Default, Vec::new());
    let read = Walk::new(&Mask::default()).read(shape, &nothing, "", &Place::Default);
    read.unwrap_or_default()
}

/// One pass over one tree.
pub(crate) struct Walk<'w> {
    /// Learns every secret that is met.
    pub(crate) mask: &'w Mask,
    /// Filled on the way.
    pub(crate) places: Places,
    /// Filled on the way.
    pub(crate) problems: Vec<Problem>,
}

impl<'w> Walk<'w> {
    /// A pass that has not begun.
    pub(crate) fn new(mask: &'w Mask) -> Self {
        Self { mask, places: Places::new(), problems: Vec::new() }
    }

    /// Reads `node`, which stands at `path` below a key at `place`. `None` when it is not usable,
    /// and a problem says why.
    pub(crate) fn read(
        &mut self,
        shape: &Shape,
        node: &Node,
        path: &str,
        place: &Place,
    ) -> Option<Value> {
        self.places.insert(path.to_owned(), place.clone());
        if matches!(node.kind, tree::Kind::Failed) {
            return None;
        }
        match shape {
            Shape::Map(keys) => self.map(keys, node, path, place),
            Shape::OneOf(keys, meant) => self.one_of(keys, *meant, node, path, place),
            Shape::Named(rule, shape) => self.named(*rule, shape, node, path),
            Shape::List(shape) => self.list(shape, node, path),
            Shape::ListOrOne(shape) => match node.kind {
                tree::Kind::List(_) => self.list(shape, node, path),
                _ => self.read(shape, node, path, place).map(|one| Value::Array(vec![one])),
            },
            Shape::Off(shape) => match &node.kind {
                tree::Kind::Scalar(s) if scalar::is_off(&s.text) => Some(Value::Null),
                tree::Kind::Scalar(_) if !node.is_null() => {
                    self.tell(node, path, "must be a map, or `off`");
                    None
                }
                _ => self.read(shape, node, path, place),
            },
            Shape::Scalar(kind) => self.scalar(*kind, node, path),
            Shape::Any => any(node),
        }
    }

    fn tell(&mut self, node: &Node, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(&node.place, path, message));
    }

    /// The entries of a map; one that is left empty (`queue:` and nothing below) has none.
    fn entries<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Entry]> {
        match &node.kind {
            tree::Kind::Map(entries) => Some(entries),
            _ if node.is_null() => Some(&[]),
            _ => {
                self.tell(node, path, format!("must be a map (`key: value`), not {}", node.what()));
                None
            }
        }
    }

    fn map(&mut self, keys: &[Key], node: &Node, path: &str, place: &Place) -> Option<Value> {
        let entries = self.entries(node, path)?;
        let mut read = Map::new();
        for entry in entries {
            // What is good goes on even when a sibling is not: later checks look at what there is.
            if let Some((key, value)) = self.entry(keys, entry, path) {
                read.insert(key.name.to_owned(), value);
            }
        }
        for key in keys.iter().filter(|key| node.get(key.name).is_none()) {
            let below = join(path, key.name);
            match key.presence {
                Presence::Required => {
                    let message = format!("needs `{}`", key.name);
                    self.problems.push(Problem::new(place, path, message));
                }
                Presence::Default(text) => {
                    if let Some(value) = self.default(&key.shape, text, &below) {
                        read.insert(key.name.to_owned(), value);
                    }
                }
                Presence::Optional | Presence::Later(_) | Presence::Never(_) => {}
            }
        }
        Some(Value::Object(read))
    }

    /// Finds an entry's key and reads its value.
    fn entry<'k>(
        &mut self,
        keys: &'k [Key],
        entry: &Entry,
        path: &str,
    ) -> Option<(&'k Key, Value)> {
        let below = join(path, &entry.key);
        let Some(key) = keys.iter().find(|key| key.name == &*entry.key) else {
            let message = unknown(keys, entry);
            self.problems.push(Problem::new(&entry.place, below, message));
            return None;
        };
        let refused = match key.presence {
            Presence::Later(instead) => {
                Some(format!("not yet: `{}` is not in this version; {instead}", key.name))
            }
            Presence::Never(why) => Some(why.to_owned()),
            _ => None,
        };
        if let Some(message) = refused {
            self.problems.push(Problem::new(&entry.place, below, message));
            return None;
        }
        self.read(&key.shape, &entry.value, &below, &entry.place).map(|value| (key, value))
    }

    /// A default is read as if it had been written.
    fn default(&mut self, shape: &Shape, text: &str, path: &str) -> Option<Value> {
        let source = Source { file: "default".into(), text: text.to_owned() };
        let (mut node, problems) = tree::parse(&Arc::new(source));
        debug_assert!(problems.is_empty(), "the default of {path} is not YAML");
        node.place = Place::Default;
        self.read(shape, &node, path, &Place::Default)
    }

    fn one_of(
        &mut self,
        keys: &[Key],
        meant: Option<&str>,
        node: &Node,
        path: &str,
        place: &Place,
    ) -> Option<Value> {
        if let tree::Kind::Scalar(scalar) = &node.kind
            && let Some(key) = keys.iter().find(|key| key.name == scalar.text)
        {
            let message = format!("must be a map, not text: write `{}: {{}}` below it", key.name);
            self.tell(node, path, message);
            return None;
        }
        let entries = self.entries(node, path)?;
        let offered = offered(keys);
        if let [first, second, ..] = entries {
            let message =
                format!("takes one of {}, and `{}` is there already", one_of(&offered), first.key);
            self.problems.push(Problem::new(&second.place, join(path, &second.key), message));
        }
        let mut read = Map::new();
        for entry in entries {
            if let Some((key, value)) = self.entry(keys, entry, path) {
                read.insert(key.name.to_owned(), value);
            }
        }
        match (entries, keys.iter().find(|key| Some(key.name) == meant)) {
            ([], Some(key)) => {
                let value = self.default(&key.shape, "{}", &join(path, key.name))?;
                read.insert(key.name.to_owned(), value);
            }
            ([], None) => {
                let message = format!("needs {}", one_of(&offered));
                self.problems.push(Problem::new(place, path, message));
            }
            _ => {}
        }
        Some(Value::Object(read))
    }

    fn named(&mut self, rule: NameRule, shape: &Shape, node: &Node, path: &str) -> Option<Value> {
        let entries = self.entries(node, path)?;
        let mut read = Map::new();
        let mut seen: Vec<(String, &Place)> = Vec::new();
        for entry in entries {
            let below = join(path, &entry.key);
            if let Err(message) = names::check(rule, &entry.key) {
                self.problems.push(Problem::new(&entry.place, &*below, message));
            }
            if entry.key.contains("${") {
                let message = "`${…}` is put into values only, not into keys";
                self.problems.push(Problem::new(&entry.place, &*below, message));
            }
            // Header names know no case: two spellings of one are one header set twice.
            if rule == NameRule::Header {
                let folded = entry.key.to_ascii_lowercase();
                if let Some((_, first)) = seen.iter().find(|(name, _)| *name == folded) {
                    let message = format!("this header is set at {first} already");
                    self.problems.push(Problem::new(&entry.place, &*below, message));
                }
                seen.push((folded, &entry.place));
            }
            if let Some(value) = self.read(shape, &entry.value, &below, &entry.place) {
                read.insert(entry.key.to_string(), value);
            }
        }
        Some(Value::Object(read))
    }

    fn list(&mut self, shape: &Shape, node: &Node, path: &str) -> Option<Value> {
        match &node.kind {
            tree::Kind::List(items) => {
                let mut read = Vec::with_capacity(items.len());
                for (n, item) in items.iter().enumerate() {
                    read.extend(self.read(shape, item, &format!("{path}[{n}]"), &item.place));
                }
                Some(Value::Array(read))
            }
            _ if node.is_null() => Some(Value::Array(Vec::new())),
            _ => {
                self.tell(node, path, format!("must be a list (`[a, b]`), not {}", node.what()));
                None
            }
        }
    }

    fn scalar(&mut self, kind: Kind, node: &Node, path: &str) -> Option<Value> {
        let tree::Kind::Scalar(scalar) = &node.kind else {
            self.tell(node, path, quoting::not_a_scalar(kind, node));
            return None;
        };
        match scalar::read(kind, scalar, node.is_null(), self.mask) {
            Ok(value) => Some(value),
            Err(wrong) => {
                let place = wrong.offset.and_then(|offset| scalar.place_of(offset));
                let message = quoting::with_hint(scalar, wrong.message);
                let place = place.unwrap_or_else(|| node.place.clone());
                self.problems.push(Problem::new(&place, path, message));
                None
            }
        }
    }
}

/// What to say of a key that is none of `keys`.
fn unknown(keys: &[Key], entry: &Entry) -> String {
    if let Place::Variable(name) = &entry.place {
        return unknown_override(name, setting_paths().iter().map(String::as_str));
    }
    if &*entry.key == "<<" {
        return "merge keys (`<<`) are not read; an alias (`*…`) may stand for a whole value"
            .into();
    }
    let valid = || keys.iter().map(|key| key.name);
    let near = did_you_mean(&entry.key, valid());
    if !near.is_empty() || keys.is_empty() {
        return format!("there is no such key{near}");
    }
    format!("there is no such key; there are {}", offered(keys).join(", "))
}

/// The names of the keys that may be written.
fn offered(keys: &[Key]) -> Vec<&'static str> {
    keys.iter().filter(|key| key.is_offered()).map(|key| key.name).collect()
}

/// Typed as YAML's core schema types it.
fn any(node: &Node) -> Option<Value> {
    match &node.kind {
        tree::Kind::Failed => None,
        tree::Kind::Scalar(s) if !s.plain || !s.parts.is_empty() => Some(s.text.as_str().into()),
        tree::Kind::Scalar(_) if node.is_null() => Some(Value::Null),
        tree::Kind::Scalar(s) => Some(match s.text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            text => number(text).unwrap_or_else(|| text.into()),
        }),
        tree::Kind::List(items) => items.iter().map(any).collect(),
        tree::Kind::Map(entries) => {
            let pairs = entries.iter().map(|e| Some((e.key.to_string(), any(&e.value)?)));
            pairs.collect::<Option<Map<_, _>>>().map(Value::Object)
        }
    }
}

/// Rust reads `inf` and `nan` as numbers too; JSON and AMQP have no use for them.
fn number(text: &str) -> Option<Value> {
    let whole = text.parse::<i64>().ok().map(Value::from);
    let real = || text.parse::<f64>().ok().filter(|n| n.is_finite()).map(Value::from);
    whole.or_else(real)
}
