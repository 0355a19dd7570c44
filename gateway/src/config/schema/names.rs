//! Every key there is, by path, for whoever has to name them all: the reference page is held
//! against this list.

use super::{Key, Presence, ROOT, Shape};

/// A key that may be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName {
    /// Its path, as `queue.keep.dead`; what users name themselves is `<name>`.
    pub path: String,
    /// Its default, as YAML; `None` where it has none or is required.
    pub default: Option<&'static str>,
    /// Whether it must be written.
    pub required: bool,
}

/// Every key of a configuration that may be written, its sections included, in the order of the
/// schema.
#[must_use]
pub fn key_names() -> Vec<KeyName> {
    let mut names = Vec::new();
    below(&ROOT, "", &mut names);
    names
}

fn below(shape: &Shape, path: &str, names: &mut Vec<KeyName>) {
    match shape {
        Shape::Map(keys) | Shape::OneOf(keys, _) => {
            for key in keys.iter().filter(|key| key.is_offered()) {
                name(key, path, names);
            }
        }
        // Names of headers and the like hold one value each, which has no keys.
        Shape::Named(_, shape) => below(shape, &format!("{path}.<name>"), names),
        Shape::List(shape) | Shape::ListOrOne(shape) | Shape::Off(shape) => {
            below(shape, path, names);
        }
        Shape::Scalar(_) | Shape::Any => {}
    }
}

fn name(key: &Key, path: &str, names: &mut Vec<KeyName>) {
    let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
    let default = match key.presence {
        Presence::Default(default) => Some(default),
        _ => None,
    };
    let required = matches!(key.presence, Presence::Required);
    names.push(KeyName { path: path.clone(), default, required });
    below(&key.shape, &path, names);
}
