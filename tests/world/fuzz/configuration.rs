//! Configurations: one file, or two with a line of percent signs between them.

use std::{cell::RefCell, fs, path::PathBuf};

use tempfile::TempDir;
use tidegate::config::{Environment, Place, Problem, Report, load};

use super::split_once;

const BETWEEN: &[u8] = b"\n%%%%\n";

/// Configuration files.
///
/// # Panics
/// When they are read two ways, a refusal says nothing or points at nothing, or space at the end
/// of a line makes another configuration.
pub fn configuration(input: &[u8]) {
    thread_local! {
        static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
    }
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder"));
        let files: Vec<&[u8]> = match split_once(input, BETWEEN) {
            Some((first, second)) => vec![first, second],
            None => vec![input],
        };
        let paths: Vec<PathBuf> =
            (0..files.len()).map(|n| folder.path().join(format!("{n}.yaml"))).collect();
        let write = |end: &[u8]| {
            for (path, text) in paths.iter().zip(&files) {
                fs::write(path, [text, end].concat()).expect("a file can be written");
            }
        };
        write(b"");
        let first = read(&paths);
        if let Err(report) = &first {
            assert_report(report, &files);
        }
        assert_eq!(first, read(&paths), "the same files are the same configuration");
        if first.is_ok() {
            write(b"\n\n# the end\n");
            assert_eq!(first, read(&paths), "a comment is none of the configuration");
        }
    });
}

/// Its hash and what it holds by name, or all that is wrong.
fn read(paths: &[PathBuf]) -> Result<(String, Vec<String>), Report> {
    // Secrets and files that are named have stand-ins: nothing but the input is read.
    let loaded = load(paths, &Environment::default().with_stand_ins())?;
    let config = loaded.config;
    let names = config.routes.keys().chain(config.upstreams.keys()).map(ToString::to_string);
    Ok((config.hash, names.chain(config.tests.into_keys()).collect()))
}

fn assert_report(report: &Report, files: &[&[u8]]) {
    assert!(!report.problems.is_empty(), "refused for nothing");
    let all = report.problems.iter().chain(&report.warnings);
    for Problem { place, key, message } in all {
        assert!(!message.is_empty(), "{key}");
        if let Place::File { file, line, column } = place {
            let number = file.rsplit('/').next().and_then(|name| name.split('.').next());
            let file = number.and_then(|number| number.parse::<usize>().ok());
            let text = String::from_utf8_lossy(files[file.expect("one of ours")]);
            assert!(*line >= 1 && *column >= 1, "{place}");
            assert!(*line <= breaks(&text) + 1, "{place} is behind the end: {message}");
        }
    }
    assert!(!report.to_string().is_empty());
}

/// Line breaks, of any kind that YAML has.
fn breaks(text: &str) -> usize {
    text.chars().filter(|c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')).count()
}
