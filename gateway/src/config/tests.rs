//! What is accepted, what is refused, and in which words.

mod accepted;
mod bounds;
mod cases;
mod layers;
mod publishing;
mod refused;
mod webhooks;

use std::path::Path;

use serde_json::{Value, json};

use super::*;

/// A folder of files, gone when dropped.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn load(&self, env: &[(&str, &str)]) -> Result<Loaded, Report> {
        let loaded = load(&[self.path().to_owned()], &env.iter().copied().collect());
        self.agrees_with_the_schema(&loaded);
        loaded
    }

    /// What is accepted an editor must not underline, and what has the wrong shape it must.
    #[track_caller]
    fn agrees_with_the_schema(&self, loaded: &Result<Loaded, Report>) {
        let mut refusals = Vec::new();
        for entry in std::fs::read_dir(self.path()).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            let is_read = [".yaml", ".yml"].iter().any(|ending| name.ends_with(ending));
            if !is_read || name.starts_with('.') || path.is_dir() {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            // What is not YAML, or not text, no schema is asked about.
            let Ok(value) = serde_saphyr::from_str::<Option<Value>>(&text) else { return };
            refusals.extend(reference::refusals(&value.unwrap_or_else(|| json!({}))));
        }
        match loaded {
            Ok(_) => assert_eq!(refusals, Vec::<String>::new(), "the schema refuses it"),
            Err(report) => {
                let misshapen = report.problems.iter().find(|problem| is_of_shape(problem));
                let missed = misshapen.filter(|_| refusals.is_empty());
                assert_eq!(missed, None, "the schema accepts it");
            }
        }
    }

    /// `text` without this folder's own path.
    fn strip(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path().display()), "")
    }
}

/// Whether it is about keys and kinds of value, which a schema can tell, in a file.
fn is_of_shape(problem: &Problem) -> bool {
    let told = ["there is no such key", "must be a map (", "must be a list (", "takes one of "];
    let in_file = matches!(problem.place, Place::File { .. });
    in_file && told.iter().any(|words| problem.message.starts_with(words))
}

fn load_text(yaml: &str) -> Result<Loaded, Report> {
    Folder::new(&[("a.yaml", yaml)]).load(&[])
}

/// The same without asking the schema, for text that comes about by chance: how it reads what YAML
/// leaves open is its own affair.
fn load_chance(yaml: &str) -> Result<Loaded, Report> {
    let folder = Folder::new(&[("a.yaml", yaml)]);
    load(&[folder.path().to_owned()], &Environment::default())
}

/// The configuration in `yaml`, which must be valid.
fn accepted(yaml: &str) -> Config {
    load_text(yaml).unwrap_or_else(|report| panic!("refused:\n{report}")).config
}

/// The report on `yaml`, which must be invalid.
fn refused(yaml: &str) -> String {
    refused_with(yaml, &[])
}

fn refused_with(yaml: &str, env: &[(&str, &str)]) -> String {
    let folder = Folder::new(&[("a.yaml", yaml)]);
    match folder.load(env) {
        Ok(_) => panic!("accepted:\n{yaml}"),
        Err(report) => folder.strip(&report.to_string()),
    }
}

#[track_caller]
fn refuses(yaml: &str, blocks: &[&str]) {
    assert_eq!(refused(yaml), blocks.join("\n\n"), "for:\n{yaml}");
}

/// What `yaml`, which must be valid, is warned of.
fn warned(yaml: &str) -> Vec<String> {
    let folder = Folder::new(&[("a.yaml", yaml)]);
    let loaded = folder.load(&[]).unwrap_or_else(|report| panic!("refused:\n{report}"));
    loaded.warnings.iter().map(|warning| folder.strip(&warning.to_string())).collect()
}

/// A valid configuration with `upstream` and `route` added to what each must have. Both are
/// indented by four; lines of the upstream begin at 4, those of the route follow.
fn with(upstream: &str, route: &str) -> String {
    format!(
        "upstreams:\n  api:\n    url: https://api.example\n{upstream}\
         routes:\n  r:\n    from: {{ rabbitmq: {{ bind: [{{ exchange: e, key: k }}] }} }}\n    \
         to: {{ http: {{ upstream: api }} }}\n{route}"
    )
}

/// A webhook route `h` with these keys of source and target, each in one line, and more of it.
fn hook(webhook: &str, rabbitmq: &str, route: &str) -> String {
    format!(
        "routes:\n  h:\n    from: {{ webhook: {{ {webhook} }} }}\n    \
         to: {{ rabbitmq: {{ {rabbitmq} }} }}\n{route}"
    )
}
