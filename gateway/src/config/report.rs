//! What is wrong with a configuration, and where: all of it at once.

use std::{cmp::Ordering, fmt, sync::Arc};

use serde_json::{Value, json};
use tidegate_adapters::secret::Mask;

/// Where something of a configuration was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file; line and column count from 1, columns in characters.
    File {
        /// The path as it was reached.
        file: Arc<str>,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// A file or folder as a whole.
    Path(Arc<str>),
    /// An environment variable.
    Variable(Arc<str>),
    /// Nowhere: a built-in default.
    Default,
}

/// One thing that is wrong, or (as a warning) odd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The key path, `routes.award-points.to.http.upstream`; empty when it is about a whole file.
    pub key: String,
    /// What is wrong and what to write instead. Holds no secret.
    pub message: String,
}

/// Why a configuration is refused: at least one problem, sorted by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// All of them.
    pub problems: Vec<Problem>,
    /// What was odd besides.
    pub warnings: Vec<Problem>,
}

impl Place {
    /// The beginning of `file`.
    pub(crate) fn start_of(file: &Arc<str>) -> Self {
        Self::File { file: Arc::clone(file), line: 1, column: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Path(path) => f.write_str(path),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Problem {
    /// `message` about `key` at `place`.
    pub(crate) fn new(place: &Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.clone(), key: key.into(), message: message.into() }
    }

    /// As `check --json` prints it; `line` and `column` only for places in files.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = json!({ "key": self.key, "message": self.message });
        match &self.place {
            Place::File { file, line, column } => {
                json["file"] = json!(file);
                json["line"] = json!(line);
                json["column"] = json!(column);
            }
            Place::Path(path) => json["file"] = json!(path),
            Place::Variable(name) => json["variable"] = json!(name),
            Place::Default => {}
        }
        json
    }
}

/// A block of two or more lines: place and key path, then the message, indented.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if !self.key.is_empty() {
            write!(f, "  {}", self.key)?;
        }
        for line in self.message.lines() {
            write!(f, "\n    {line}")?;
        }
        Ok(())
    }
}

impl Report {
    /// Sorts, drops repeats, and masks whatever secret slipped into a message.
    pub(crate) fn new(problems: Vec<Problem>, warnings: Vec<Problem>, mask: &Mask) -> Self {
        Self { problems: in_order(problems, mask), warnings: in_order(warnings, mask) }
    }

    /// As `check --json` prints it: `{"valid": false, "problems": […], "warnings": […]}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        to_json(&self.problems, &self.warnings)
    }
}

/// One block a problem, a blank line between two.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let gap = if n == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// What `check --json` prints, for a valid configuration too.
#[must_use]
pub fn to_json(problems: &[Problem], warnings: &[Problem]) -> Value {
    let list = |of: &[Problem]| of.iter().map(Problem::to_json).collect::<Vec<_>>();
    json!({
        "valid": problems.is_empty(),
        "problems": list(problems),
        "warnings": list(warnings),
    })
}

/// Sorted by place, without repeats, masked.
pub(crate) fn in_order(mut problems: Vec<Problem>, mask: &Mask) -> Vec<Problem> {
    problems.sort_by(by_place);
    problems.dedup();
    for problem in &mut problems {
        problem.message = mask.apply(&problem.message);
    }
    problems
}

fn by_place(a: &Problem, b: &Problem) -> Ordering {
    a.place.cmp(&b.place).then_with(|| a.key.cmp(&b.key))
}

/// The valid name nearest to `wrong`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(
    wrong: &str,
    valid: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    valid
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len().min(wrong.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// `; did you mean `x`?`, or nothing.
pub(crate) fn did_you_mean<'a>(wrong: &str, valid: impl IntoIterator<Item = &'a str>) -> String {
    nearest(wrong, valid).map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// `` `a`, `b` or `c` ``.
pub(crate) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => String::new(),
    }
}
