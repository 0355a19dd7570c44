//! What is fuzzed: a function an input language, which takes any bytes and asserts what must hold
//! whatever they are.
//!
//! Two call them: the targets of cargo-fuzz (`fuzz/`), which search for bytes that break them, and
//! the replay, which plays to them what the search has kept: `fuzz/corpus/` and `fuzz/crashes/`.
//!
//! Inputs are text where they can be, so that a person reads them and a fuzzer splices them:
//!
//! ```text
//! name: value
//! name: value
//!
//! the rest, any bytes
//! ```

mod answers;
mod configuration;
mod envelopes;
mod expressions;
mod listener;
mod queue_file;
mod signatures;
mod sound;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use tidegate_adapters::Timestamp;
use tokio::runtime::Runtime;

pub use self::{
    answers::answers,
    configuration::configuration,
    envelopes::{envelopes_amqp, envelopes_http},
    expressions::expressions,
    listener::listener,
    queue_file::queue_file,
    signatures::signatures,
};

/// One target.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folders.
pub const TARGETS: [(&str, Target); 8] = [
    ("answers", answers),
    ("configuration", configuration),
    ("envelopes_amqp", envelopes_amqp),
    ("envelopes_http", envelopes_http),
    ("expressions", expressions),
    ("listener", listener),
    ("queue_file", queue_file),
    ("signatures", signatures),
];

/// When everything arrives: 2026-01-31T12:00:00.5Z.
const NOW: Timestamp = Timestamp(1_769_860_800_500);

/// For the targets that have more than one thread.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().expect("threads can be had")
});

fn now() -> Timestamp {
    NOW
}

/// The inputs kept for `target`, by name.
///
/// # Panics
/// When they cannot be read, or there are none.
#[must_use]
pub fn kept(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut inputs = Vec::new();
    for folder in ["corpus", "crashes"] {
        // Not every target has crashed.
        let files = fs::read_dir(root.join(folder).join(target)).into_iter().flatten();
        for file in files {
            let path = file.expect("a readable folder").path();
            let input = fs::read(&path).expect("a readable file");
            inputs.push((path, input));
        }
    }
    assert!(!inputs.is_empty(), "no corpus of {target}");
    inputs.sort();
    inputs
}

/// An input as its lines and what comes after them.
struct Parts<'a> {
    lines: Vec<(&'a str, &'a [u8])>,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(input: &'a [u8]) -> Self {
        let (mut lines, mut rest) = (Vec::new(), input);
        while !rest.is_empty() {
            let (line, after) = split_once(rest, b"\n").unwrap_or((rest, &[]));
            rest = after;
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = split_once(line, b":") else { continue };
            if let Ok(name) = std::str::from_utf8(name) {
                lines.push((name.trim(), value.trim_ascii()));
            }
        }
        Self { lines, rest }
    }

    /// The value of the last line called `name`, as text.
    fn text(&self, name: &str) -> Option<String> {
        let line = self.lines.iter().rev().find(|(known, _)| *known == name)?;
        Some(String::from_utf8_lossy(line.1).into_owned())
    }
}

/// What is before the first `separator`, and what is after it.
fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = find(bytes, separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}

/// Where `wanted` first is.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
