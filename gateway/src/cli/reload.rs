//! `tidegate reload`: what changed, or every problem as `check` tells it.

use std::fmt::Write as _;

use http::StatusCode;
use serde_json::Value;

use super::{
    Failure,
    client::Admin,
    serve::complain,
    table::{clean, items, print, text},
};

/// Has the gateway read its configuration again.
pub(super) async fn reload(admin: &Admin, json: bool) -> Result<(), Failure> {
    let (status, body) = admin.post_whatever("/api/v1/reload", None).await?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let known = status.is_success() || !answer["problems"].is_null() || !answer["keys"].is_null();
    if json && known {
        print(&format!("{answer}\n"))?;
    }
    if status == StatusCode::UNPROCESSABLE_ENTITY {
        return Err(Failure::Config(problems(&answer)));
    }
    admin.read(status, &body)?;
    if !json {
        for warning in items(&answer["warnings"]) {
            complain(&format!("warning: {}", lines(&warning_text(warning))));
        }
        print(&changes(&answer))?;
    }
    Ok(())
}

fn warning_text(warning: &Value) -> String {
    warning.as_str().map_or_else(|| warning.to_string(), str::to_owned)
}

/// What is in force now.
fn changes(answer: &Value) -> String {
    let (generation, hash) = (text(&answer["generation"]), text(&answer["hash"]));
    let changed: Vec<String> = items(&answer["changed"]).map(text).collect();
    if changed.is_empty() {
        return format!("nothing has changed: generation {generation}, {hash}\n");
    }
    let mut said = format!("in force: generation {generation}, {hash}; changed:\n");
    for path in changed {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(said, "  {path}");
    }
    said
}

/// One block a problem, a blank line between two, and that nothing has changed.
fn problems(answer: &Value) -> String {
    let mut said = String::new();
    for problem in items(&answer["problems"]) {
        said.push_str(&block(problem));
        said.push_str("\n\n");
    }
    said.push_str(&text(&answer["detail"]));
    said
}

fn block(problem: &Value) -> String {
    let mut said = match (&problem["file"], &problem["line"], &problem["variable"]) {
        (Value::String(file), Value::Number(line), _) => {
            format!("{}:{line}:{}", clean(file), text(&problem["column"]))
        }
        (Value::String(file), _, _) => clean(file),
        (_, _, Value::String(variable)) => format!("environment variable {}", clean(variable)),
        _ => "default".to_owned(),
    };
    if let Some(key) = problem["key"].as_str().filter(|key| !key.is_empty()) {
        let _ = write!(said, "  {}", clean(key));
    }
    for line in problem["message"].as_str().unwrap_or_default().lines() {
        let _ = write!(said, "\n    {}", clean(line));
    }
    said
}

/// Text of several lines, none of which drives the terminal.
fn lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changed_is_told_line_by_line() {
        let changed = json!({ "generation": 2, "hash": "ab", "changed": ["routes.a", "admin"] });
        let expected = "in force: generation 2, ab; changed:\n  routes.a\n  admin\n";
        assert_eq!(changes(&changed), expected);
        let same = json!({ "generation": 1, "hash": "ab", "changed": [] });
        assert_eq!(changes(&same), "nothing has changed: generation 1, ab\n");
    }

    #[test]
    fn problems_read_as_check_tells_them() {
        let path = tempfile::NamedTempFile::with_suffix(".yaml").unwrap();
        std::fs::write(path.path(), "routes: { r: { form: {} } }\nqueue: { max_size: 1 }\n")
            .unwrap();
        let environment = crate::config::Environment::default();
        let report = crate::config::load(&[path.path().to_owned()], &environment).unwrap_err();
        let answer = json!({ "problems": report.to_json()["problems"], "detail": "nothing" });
        assert_eq!(problems(&answer), format!("{report}\n\nnothing"));
    }

    #[test]
    fn nothing_that_came_from_outside_drives_the_terminal() {
        let evil = "\u{1b}[2J";
        let said = problems(&json!({ "detail": evil, "problems": [
            { "file": evil, "line": 1, "column": 2, "key": evil, "message": evil },
            { "variable": evil, "key": "", "message": "a\nb" },
        ] }));
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
        assert!(said.contains("environment variable ?[2J\n    a\n    b"), "{said}");
    }
}
