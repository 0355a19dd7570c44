//! `tidegate test`: plays the tests of a configuration, and says what was not as expected.

use std::{
    io::{IsTerminal as _, stdout},
    process::ExitCode,
};

use clap::Args;
use serde_json::{Value, json};

use super::{ConfigArgs, EXIT_CONFIG, serve::complain, table};
use crate::{
    config::{self, Config, Environment, Place, TestConfig},
    rehearsal::{self, Difference, Line, Played, unified},
};

/// What to play, and how to tell of it.
#[derive(Debug, Args)]
pub(super) struct TestArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only tests whose name or route contains one of these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Fail when a route has no test
    #[arg(long)]
    require_tests: bool,
    /// What ${NAME} is; the environment is not looked at, and what is missing has a stand-in
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// How it all went.
struct Outcome {
    played: Vec<Played>,
    untested: Vec<String>,
    /// Whether routes without tests are a failure.
    strict: bool,
}

/// Exit codes: 0 all passed, 1 some did not, 78 the configuration is invalid.
pub(super) async fn test(arguments: TestArgs) -> ExitCode {
    let TestArgs { config, names, require_tests, variables, json } = arguments;
    let environment: Environment = variables.into_iter().collect();
    let environment = environment.with_stand_ins();
    let config = match config::load(&config.paths, &environment) {
        Ok(loaded) => loaded.config,
        Err(report) => {
            if json {
                return told(&format!("{}\n", report.to_json()), EXIT_CONFIG.into());
            }
            complain(report.to_string().trim_end());
            let stood_in = environment.stood_in();
            if !stood_in.is_empty() {
                complain(&format!(
                    "\nThese had stand-ins; where one of them will not do, set it, as --set \
                     NAME=VALUE: {}",
                    stood_in.join(", ")
                ));
            }
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let outcome = match play(&config, &names, require_tests).await {
        Ok(outcome) => outcome,
        Err(problem) => {
            complain(&problem);
            return ExitCode::FAILURE;
        }
    };
    let colour = stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let text = if json { format!("{}\n", outcome.to_json()) } else { outcome.to_text(colour) };
    told(&text, if outcome.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `code`, once `text` is out.
fn told(text: &str, code: ExitCode) -> ExitCode {
    match table::print(text) {
        Ok(()) => code,
        Err(problem) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

/// Plays those asked for, in the order in which they are written.
async fn play(config: &Config, names: &[String], strict: bool) -> Result<Outcome, String> {
    let asked = |(name, test): &(&String, &TestConfig)| {
        let named = |part: &String| name.contains(&**part) || test.route.contains(&**part);
        names.is_empty() || names.iter().any(named)
    };
    let mut tests: Vec<(&String, &TestConfig)> = config.tests.iter().filter(asked).collect();
    tests.sort_by_key(|(name, test)| (test.place.clone(), *name));
    if tests.is_empty() && !names.is_empty() {
        return Err(format!("no test's name or route contains {}", names.join(" or ")));
    }
    let mut played = Vec::with_capacity(tests.len());
    for (name, test) in tests {
        played.push(rehearsal::play(config, name, test).await);
    }
    let untested = rehearsal::untested(config).iter().map(ToString::to_string).collect();
    Ok(Outcome { played, untested, strict })
}

impl Outcome {
    fn passed(&self) -> bool {
        self.failed() == 0 && (self.untested.is_empty() || !self.strict)
    }

    fn failed(&self) -> usize {
        self.played.iter().filter(|played| !played.differences.is_empty()).count()
    }

    fn to_json(&self) -> Value {
        let tests: Vec<Value> = self.played.iter().map(as_json).collect();
        json!({
            "passed": self.played.len() - self.failed(),
            "failed": self.failed(),
            "tests": tests,
            "untested": self.untested,
        })
    }

    /// A line a test, what differs below it, and a line for all of them.
    fn to_text(&self, colour: bool) -> String {
        let mut text = String::new();
        for played in &self.played {
            let ms = played.took.as_millis();
            match &played.differences[..] {
                [] => {
                    let ok = painted("ok", GREEN, colour);
                    text.push_str(&format!("{ok}      {}  {ms} ms\n", played.name));
                }
                differences => {
                    let failed = painted("FAILED", RED, colour);
                    text.push_str(&format!("{failed}  {}  {ms} ms\n", played.name));
                    let place = played.place.as_ref().map_or(String::new(), Place::to_string);
                    text.push_str(&format!("    {place}  route {}\n", played.route));
                    text.push_str(&diff(differences, colour));
                    for note in &played.notes {
                        text.push_str(&format!("    note: {note}\n"));
                    }
                }
            }
        }
        if !self.untested.is_empty() {
            text.push_str(&format!("without tests: {}\n", self.untested.join(", ")));
        }
        let (passed, failed) = (self.played.len() - self.failed(), self.failed());
        text.push_str(&format!("{passed} passed, {failed} failed\n"));
        text
    }
}

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

fn diff(differences: &[Difference], colour: bool) -> String {
    let mut text = String::new();
    for Difference { what, expected, got } in differences {
        text.push_str(&format!("    {what}: - expected + got\n"));
        for line in unified(expected, got) {
            let line = match line {
                Line::Both(line) => format!("  {line}"),
                Line::Expected(line) => painted(&format!("- {line}"), RED, colour),
                Line::Got(line) => painted(&format!("+ {line}"), GREEN, colour),
                Line::Alike(lines) => format!("  … {lines} lines alike"),
            };
            text.push_str(&format!("      {line}\n"));
        }
    }
    text
}

fn painted(text: &str, colour: &str, wanted: bool) -> String {
    if wanted { format!("{colour}{text}{PLAIN}") } else { text.to_owned() }
}

fn as_json(played: &Played) -> Value {
    let differences = played.differences.iter().map(|difference| {
        let Difference { what, expected, got } = difference;
        json!({ "what": what, "expected": expected.join("\n"), "got": got.join("\n") })
    });
    let mut json = json!({
        "name": played.name,
        "route": played.route,
        "ok": played.differences.is_empty(),
        "ms": u64::try_from(played.took.as_millis()).unwrap_or(u64::MAX),
        "differences": differences.collect::<Vec<_>>(),
        "notes": played.notes,
    });
    if let Some(Place::File { file, line, .. }) = &played.place {
        (json["file"], json["line"]) = (json!(file), json!(line));
    }
    json
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests;
