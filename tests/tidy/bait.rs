//! What each rule must catch, and what it must let pass.

use super::{
    arrows,
    source::{Finding, Source},
    text,
};

type Rule = fn(&Source) -> Vec<Finding>;

/// How often `rule` objects to `text` at `path`.
fn count(rule: Rule, path: &str, text: &str) -> usize {
    rule(&Source::parse(path, text)).len()
}

#[track_caller]
fn catches(rule: Rule, path: &str, text: &str) {
    assert_eq!(count(rule, path, text), 1, "not caught in {path}:\n{text}");
}

#[track_caller]
fn lets_pass(rule: Rule, path: &str, text: &str) {
    assert_eq!(count(rule, path, text), 0, "caught in {path}:\n{text}");
}

#[test]
fn a_crate_outside_its_place_is_caught_however_it_is_written() {
    let rule: Rule = arrows::misplaced_crates;
    catches(rule, "gateway/src/app.rs", "use lapin::Channel;");
    catches(rule, "gateway/src/app.rs", "use {\n    std::fmt,\n    reqwest::{Client as C},\n};");
    catches(rule, "gateway/src/app.rs", "fn f() -> rusqlite::Connection { g() }");
    catches(rule, "gateway/src/app.rs", "use config::Config;");
    catches(rule, "adapters/src/rabbitmq_other.rs", "use lapin::Channel;");
    lets_pass(rule, "adapters/src/rabbitmq/session.rs", "use lapin::Channel;");
    lets_pass(rule, "adapters/src/rabbitmq.rs", "use lapin::Channel;");
    lets_pass(rule, "gateway/src/app.rs", "use crate::config;\nfn f(_: config::Config) {}");
    lets_pass(rule, "gateway/src/app.rs", "// lapin::Channel\nfn f() { g(\"lapin::Channel\") }");
    lets_pass(rule, "gateway/src/app.rs", "#[cfg(test)]\nmod tests {\n    use lapin::Channel;\n}");
}

#[test]
fn strangers_are_caught_in_use_trees_by_super_and_in_the_text() {
    let rule: Rule = arrows::strangers_met;
    catches(rule, "gateway/src/queue/sqlite.rs", "use crate::{app, protect::Upstream};");
    catches(rule, "gateway/src/queue/sqlite.rs", "use super::super::protect;");
    catches(rule, "gateway/src/admin/api.rs", "fn f() { crate::delivery::now() }");
    catches(rule, "adapters/src/rabbitmq.rs", "use crate::http::caller;");
    catches(rule, "adapters/src/lib.rs", "use tidegate::config::Config;");
    lets_pass(rule, "adapters/src/rabbitmq.rs", "use crate::http::TlsConfig;");
    lets_pass(rule, "gateway/src/app.rs", "use crate::{delivery, admin};");
    lets_pass(rule, "gateway/src/queue.rs", "use super::config;");
}

#[test]
fn sizes_are_counted_without_tests() {
    let long = "let _ = 1;\n".repeat(401);
    catches(text::long_files, "gateway/src/app.rs", &long);
    let tests = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    lets_pass(text::long_files, "gateway/src/app.rs", &tests);

    let body = "    g(\"}\");\n".repeat(69);
    catches(text::long_functions, "gateway/src/app.rs", &format!("pub fn f() {{\n{body}}}\n"));
    let body = "    g('}');\n".repeat(68);
    lets_pass(text::long_functions, "gateway/src/app.rs", &format!("pub fn f() {{\n{body}}}\n"));
    lets_pass(text::long_functions, "gateway/src/app.rs", &"fn f();\n".repeat(80));

    catches(text::wide_lines, "gateway/src/app.rs", &format!("// {}", "ü".repeat(98)));
    lets_pass(text::wide_lines, "gateway/src/app.rs", &format!("// {}", "ü".repeat(97)));
}

#[test]
fn unfinished_work_is_caught_in_code_and_comments_but_not_in_text() {
    let rule: Rule = text::unfinished;
    let reminder = ["// TO", "DO: later"].concat();
    catches(rule, "gateway/src/app.rs", &reminder);
    catches(rule, "gateway/src/app.rs", "fn f() { todo!() }");
    catches(rule, "tests/a.rs", "#[ignore]");
    lets_pass(rule, "gateway/src/app.rs", "fn f() { g(\"todo!()\") }");
}

#[test]
fn a_page_that_is_not_here_is_caught() {
    let rule: Rule = text::absent_pages;
    catches(rule, "gateway/src/app.rs", concat!("//! The verbs (contract", " §3)."));
    lets_pass(rule, "gateway/src/app.rs", "//! Basic (RFC 7617 §2), by the Queue contract.");
}

#[test]
fn unwrap_is_caught_outside_tests_only() {
    let rule: Rule = text::unwrapped;
    catches(rule, "gateway/src/app.rs", "fn f() { g().unwrap(); }");
    catches(rule, "gateway/src/app.rs", "fn f() { g().expect(\"\"); }");
    lets_pass(rule, "gateway/src/app.rs", "fn f() { g().expect(\"held above\"); }");
    lets_pass(
        rule,
        "gateway/src/app.rs",
        "#[cfg(test)]\nmod tests {\n    fn f() { g().unwrap() }\n}",
    );
    catches(rule, "gateway/src/app.rs", "#[cfg(test)]\nmod tests;\n\nfn f() { g().unwrap() }");
}

#[test]
fn channels_without_a_limit_are_caught() {
    let rule: Rule = text::unbounded_channels;
    catches(rule, "gateway/src/app.rs", "let (a, b) = tokio::sync::mpsc::unbounded_channel();");
    catches(rule, "gateway/src/app.rs", "let (a, b) = mpsc::channel();");
    lets_pass(rule, "gateway/src/app.rs", "let (a, b) = mpsc::channel(8);");
}

#[test]
fn a_lint_lifted_without_a_reason_is_caught() {
    let rule: Rule = text::lints_lifted_silently;
    catches(rule, "gateway/src/app.rs", "#![allow(missing_docs)]");
    catches(rule, "gateway/src/app.rs", "#[expect(\n    clippy::todo,\n)]\nfn reason() {}");
    lets_pass(rule, "gateway/src/app.rs", "#[expect(\n    clippy::todo,\n    reason = \"]\"\n)]");
}

#[test]
fn loud_log_messages_are_caught_and_names_keep_their_capitals() {
    let rule: Rule = text::loud_messages;
    catches(rule, "gateway/src/app.rs", "info!(\"Started\");");
    catches(
        rule,
        "gateway/src/app.rs",
        "tracing::warn!(\n    a = f(\"x\"),\n    \"ends here.\"\n);",
    );
    lets_pass(rule, "gateway/src/app.rs", "info!(name = \"Me.\", \"RabbitMQ connected\");");
    lets_pass(rule, "gateway/src/app.rs", "eprintln_info!(\"Started.\");");
}

#[test]
fn sleep_is_caught_in_system_tests_and_their_world() {
    let rule: Rule = text::sleeping_tests;
    catches(rule, "tests/a.rs", "sleep(Duration::from_secs(1)).await;");
    catches(rule, "tests/world/api.rs", "std::thread::sleep(pause);");
    lets_pass(rule, "tests/a.rs", "eventually(\"asleep(\", within, || later_sleep(1));");
    lets_pass(rule, "gateway/src/app.rs", "tokio::time::sleep(pause).await;");
}

#[test]
fn a_file_that_does_not_say_what_it_is_is_caught() {
    let rule: Rule = text::silent_files;
    catches(rule, "gateway/src/app.rs", "use std::fmt;");
    lets_pass(rule, "gateway/src/app.rs", "//! What it is.\n\nuse std::fmt;");
}
