//! The house rules, held against the repository's own files. `CONTRIBUTING.md` says what they are
//! and why; a finding says where: `file:line  what it is`.
//!
//! The reading is by text, not by syntax tree: comments and the insides of literals are blanked
//! out first, and that is as much of Rust as these rules need. Every rule is also shown something
//! it must catch (`bait`), or a rule that finds nothing would look like a rule that is kept.

mod arrows;
mod bait;
mod papers;
mod source;
mod text;

use self::source::{Finding, Source};

/// Where a rule does not hold, and why. One that is not needed any more is a finding itself.
const EXCEPTIONS: &[Exception] = &[
    Exception {
        rule: "tests do not sleep",
        path: "tests/world/wait.rs",
        reason: "`eventually` polls what has no notification to wait for: another process",
    },
    Exception {
        rule: "crates stay in their place",
        path: "gateway/src/cli/client.rs",
        reason: "asks our own admin listener, one request a process: no pool, no TLS, no redirects",
    },
];

/// One file that one rule does not hold for.
struct Exception {
    rule: &'static str,
    path: &'static str,
    reason: &'static str,
}

/// Fails with every finding, unless its file is excepted from `rule`; and with every exception
/// that excuses nothing.
#[track_caller]
fn hold(rule: &str, findings: Vec<Finding>) {
    let exceptions: Vec<&str> =
        EXCEPTIONS.iter().filter(|e| e.rule == rule).map(|e| e.path).collect();
    let (excused, left): (Vec<Finding>, Vec<Finding>) =
        findings.into_iter().partition(|finding| exceptions.contains(&finding.path.as_str()));
    let said: Vec<String> = left.iter().map(Finding::to_string).collect();
    assert!(left.is_empty(), "\n{} findings: {rule}\n{}\n", left.len(), said.join("\n"));

    let needed = |path: &str| excused.iter().any(|finding| finding.path == path);
    let needless: Vec<&str> = exceptions.into_iter().filter(|path| !needed(path)).collect();
    assert!(needless.is_empty(), "\nexceptions not needed: {rule}: {needless:?}\n");
}

/// Holds a rule that looks at one file at a time against all of them.
#[track_caller]
fn hold_each(rule: &str, findings: fn(&Source) -> Vec<Finding>) {
    hold(rule, source::repository().iter().flat_map(findings).collect());
}

#[test]
fn every_exception_gives_its_reason() {
    for exception in EXCEPTIONS {
        assert!(exception.reason.len() > 20, "{}: why?", exception.path);
    }
}

// ===== arrows =====

#[test]
fn s3_crates_stay_in_their_place() {
    hold_each("crates stay in their place", arrows::misplaced_crates);
}

#[test]
fn modules_that_are_strangers_do_not_import_each_other() {
    hold_each("modules that are strangers do not import each other", arrows::strangers_met);
}

// ===== sizes =====

#[test]
fn a_file_has_at_most_400_lines_without_its_tests() {
    hold_each("a file has at most 400 lines without its tests", text::long_files);
}

#[test]
fn a_function_has_at_most_70_lines() {
    hold_each("a function has at most 70 lines", text::long_functions);
}

#[test]
fn a_line_has_at_most_100_columns() {
    hold_each("a line has at most 100 columns", text::wide_lines);
}

// ===== words =====

#[test]
fn every_file_opens_by_saying_what_it_is() {
    hold_each("every file opens by saying what it is", text::silent_files);
}

#[test]
fn nothing_is_left_unfinished_or_skipped() {
    let code = source::repository().iter().flat_map(text::unfinished);
    let findings = code.chain(papers::reminders()).collect();
    hold("nothing is left unfinished or skipped", findings);
}

#[test]
fn comments_cite_what_a_reader_has() {
    hold_each("comments cite what a reader has", text::absent_pages);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    hold_each("nothing is unwrapped outside tests", text::unwrapped);
}

#[test]
fn channels_are_bounded() {
    hold_each("channels are bounded", text::unbounded_channels);
}

#[test]
fn lints_are_lifted_with_a_reason() {
    hold_each("lints are lifted with a reason", text::lints_lifted_silently);
}

#[test]
fn log_messages_are_lowercase_and_without_a_full_stop() {
    hold_each("log messages are lowercase and without a full stop", text::loud_messages);
}

#[test]
fn tests_do_not_sleep() {
    hold_each("tests do not sleep", text::sleeping_tests);
}

// ===== papers: manifests, lists and pages =====

#[test]
fn no_path_belongs_to_one_machine() {
    hold("no path belongs to one machine", papers::machine_paths());
}

#[test]
fn versions_and_lints_are_written_once() {
    hold("versions and lints are written once", papers::manifests_apart());
}

#[test]
fn every_dependency_has_a_use_and_a_line_that_says_why() {
    let findings = papers::unused_dependencies().into_iter();
    let findings = findings.chain(papers::unexplained_dependencies()).collect();
    hold("every dependency has a use and a line that says why", findings);
}

#[test]
fn every_ban_and_every_ignored_advisory_has_a_reason() {
    hold("every ban and every ignored advisory has a reason", papers::lists_without_reasons());
}

#[test]
fn pages_link_to_what_is_there() {
    hold("pages link to what is there", papers::dead_links());
}

#[test]
fn the_readme_shows_the_quickstart_as_it_is() {
    let rule = "the readme shows the quickstart as it is";
    hold(rule, papers::readme_apart_from_quickstart());
}

#[test]
fn the_architecture_fits_150_lines() {
    hold("the architecture fits 150 lines", papers::long_architecture());
}
