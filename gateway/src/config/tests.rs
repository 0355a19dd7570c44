//! What is accepted, what is refused, and in which words.

mod accepted;
mod bounds;
mod cases;
mod layers;
mod publishing;
mod refused;
mod webhooks;

use std::path::Path;

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
        load(&[self.path().to_owned()], &env.iter().copied().collect())
    }

    /// `text` without this folder's own path.
    fn strip(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.path().display()), "")
    }
}

fn load_text(yaml: &str) -> Result<Loaded, Report> {
    Folder::new(&[("a.yaml", yaml)]).load(&[])
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
