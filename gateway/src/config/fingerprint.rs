//! What tells one configuration from another: which files it was read from, what of it is
//! different, and a hash that people can compare.
//!
//! A fingerprint covers every key, secrets and the contents of certificates included, so that a
//! reload finds all that changed whoever wrote the code that uses it. It is kept in memory and
//! shown to nobody. The hash is shown, and holds no secret of 8 characters or more.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tidegate_adapters::secret::Mask;

use super::tree::Source;

/// Of each setting, upstream and route, by key path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprints(BTreeMap<String, [u8; 32]>);

impl Fingerprints {
    /// Of a configuration as the walk leaves it: every default filled in.
    pub(crate) fn new(root: &Value) -> Self {
        let mut prints = BTreeMap::new();
        for (section, value) in root.as_object().into_iter().flatten() {
            for (name, value) in value.as_object().into_iter().flatten() {
                let path = format!("{section}.{name}");
                if let Some(from) = value.get("from").filter(|_| section == "routes") {
                    prints.insert(format!("{path}.from"), print(from, false));
                }
                // What those of the listener hold the listener looks at itself.
                prints.insert(path, print(value, section != "server"));
            }
        }
        Self(prints)
    }

    /// Key paths of what `other` has, has not, or has differently: `queue.keep`, `routes.x`.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Vec<String> {
        let paths: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        let differs = |path: &&String| self.0.get(*path) != other.0.get(*path);
        let of_a_source = |path: &str| path.starts_with("routes.") && path.ends_with(".from");
        let paths = paths.into_iter().filter(|path| !of_a_source(path)).filter(differs);
        paths.cloned().collect()
    }

    /// Whether what stands at `path` is the same in both, or in neither.
    #[must_use]
    pub fn agree(&self, other: &Self, path: &str) -> bool {
        self.0.get(path) == other.0.get(path)
    }
}

fn print(value: &Value, with_files: bool) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(value.to_string());
    if with_files {
        for path in tls_files(value) {
            // One that cannot be read is a problem of its own.
            let content = std::fs::read(&path).unwrap_or_default();
            hash.update((content.len() as u64).to_be_bytes());
            hash.update(content);
        }
    }
    hash.finalize().into()
}

/// The hash that is shown: 16 hexadecimal digits.
pub(crate) fn hash(root: &Value, mask: &Mask) -> String {
    let digest = Sha256::digest(mask.apply(&root.to_string()));
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every file that `sources` were read from or name: theirs, those of `${file:…}`, certificates
/// and keys.
pub(crate) fn files(sources: &[std::sync::Arc<Source>], root: &Value) -> BTreeSet<PathBuf> {
    let mut files: BTreeSet<PathBuf> = tls_files(root).collect();
    for source in sources {
        files.insert(PathBuf::from(&*source.file));
        let named = source.text.split("${file:").skip(1);
        files.extend(named.filter_map(|rest| rest.split_once('}')).map(|(path, _)| path.into()));
    }
    files
}

/// What `tls:` names, wherever it stands.
fn tls_files(value: &Value) -> Box<dyn Iterator<Item = PathBuf> + '_> {
    match value {
        Value::Object(members) => Box::new(members.iter().flat_map(|(name, member)| {
            let tls = member.as_object().filter(|_| name == "tls");
            let own = tls.into_iter().flat_map(|tls| tls.values());
            let own = own.filter_map(Value::as_str).map(PathBuf::from);
            own.chain(tls_files(member))
        })),
        Value::Array(items) => Box::new(items.iter().flat_map(tls_files)),
        _ => Box::new(std::iter::empty()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named_by_its_path() {
        let before = json!({
            "queue": { "max_size": 1, "keep": { "dead": 1 } },
            "routes": { "a": { "from": { "x": 1 } }, "b": { "from": { "x": 1 } } },
        });
        let after = json!({
            "queue": { "max_size": 2, "keep": { "dead": 1 } },
            "routes": { "a": { "from": { "x": 1 }, "when": "." }, "c": {} },
        });
        let (before, after) = (Fingerprints::new(&before), Fingerprints::new(&after));
        assert_eq!(before.changed(&after), ["queue.max_size", "routes.a", "routes.b", "routes.c"]);
        assert_eq!(before.changed(&before), Vec::<String>::new());
        assert!(before.agree(&after, "routes.a.from") && before.agree(&after, "queue.keep"));
        assert!(!before.agree(&after, "routes.b.from"));
    }

    #[test]
    fn another_certificate_in_the_same_file_is_another_upstream() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, "one").unwrap();
        let root = json!({ "upstreams": { "u": { "tls": { "ca": ca } } } });
        let before = Fingerprints::new(&root);
        std::fs::write(&ca, "two").unwrap();
        assert_eq!(Fingerprints::new(&root).changed(&before), ["upstreams.u"]);
        assert!(files(&[], &root).contains(&ca));
    }

    #[test]
    fn the_hash_tells_nothing_of_a_secret() {
        let mask = Mask::default();
        mask.add("old-secret");
        mask.add("new-secret");
        let of = |token: &str| hash(&json!({ "upstreams": { "u": { "bearer": token } } }), &mask);
        assert_eq!(of("old-secret"), of("new-secret"));
        assert_ne!(of("old-secret"), of("plain"));
        assert_eq!(of("plain").len(), 16);
    }
}
