//! The two little languages of a configuration, both jq: expressions and templates.
//!
//! Compiled once, when the configuration loads; run many times.
//!
//! # No program and no input can stop the process
//!
//! jq is Turing-complete and the interpreter promises no limits, so they are made here:
//!
//! - deep input overflows the stack: depth is checked over raw bytes before any parser sees them,
//!   and so it is for texts that a program reads as JSON (`fromjson`, `tonumber`);
//! - a program runs for ever: self-calling definitions and `range repeat while until recurse(f)`
//!   are refused by name when it compiles;
//! - a program runs too long: every step of a loop costs fuel, and the runs over the items of one
//!   input share a tank;
//! - values grow without bound (`reduce … (. + .)`, `"x" * 1e9`): every value that is made is
//!   weighed, and the first that is too heavy ends the run;
//! - the program itself is a bomb: its text is at most 16 KiB and nests at most 64 deep;
//! - it reads or stops its surroundings: `env input halt debug import …` do not exist.
//!
//! A bare path (`.`, `.data.total`, `.items[0]`) is not run at all: it slices the raw JSON, so what
//! it gives is what came, byte for byte. So are the items that a bare path and `[]` give.

mod guard;
mod library;
mod object;
mod path;
mod program;
mod rendering;
mod template;
mod weigh;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jaq_json::Val;

use crate::{
    Delivery,
    event::{Event, check_json},
};
pub use object::Member;
use path::BarePath;
use program::Program;
pub(crate) use rendering::Rendering;
pub use template::{Place, Template};

/// The most an expression may give, in bytes of JSON.
pub const OUTPUT_MAX: usize = 1 << 20;

/// A jq program with exactly one output.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    how: How,
}

#[derive(Clone)]
enum How {
    Path(Arc<BarePath>),
    /// A bare path and `[]`: each item of an array as it came. What is no array is jq's business.
    Each(Arc<BarePath>, Arc<Program>),
    Program(Arc<Program>),
}

/// What an expression or template works on: `.`, parsed at most once and only when needed.
pub struct Input {
    from: From,
    value: OnceLock<Result<Val, ExpressionError>>,
}

enum From {
    Event(Arc<Event>),
    Json(Bytes),
    Object(object::Object),
}

/// The variables `$route $delivery $attempt $idempotency_key $event`; an absent one is null.
#[derive(Default, Clone)]
pub struct Variables {
    /// `$route`: the route's name.
    pub route: Arc<str>,
    /// `$delivery`: the delivery's id, a string.
    pub delivery: String,
    /// `$attempt`: 1 for the first.
    pub attempt: u32,
    /// `$idempotency_key`.
    pub idempotency_key: String,
    /// `$event`: the CloudEvents JSON object, where `.` is something else.
    pub event: Option<Arc<Event>>,
}

impl Variables {
    /// Those of attempt number `attempt` (1 for the first) of `delivery`.
    #[must_use]
    pub fn of(delivery: &Delivery, attempt: u32) -> Self {
        Self {
            route: Arc::clone(&delivery.route),
            delivery: delivery.id.to_string(),
            attempt,
            idempotency_key: delivery.idempotency_key().to_string(),
            event: Some(Arc::clone(&delivery.event)),
        }
    }
}

/// A JSON value that came out of an expression. Numbers keep their text (`12.50` stays `12.50`).
#[derive(Debug, Clone)]
pub struct Output(Bytes);

/// Why an expression does not compile, or failed on an input. Messages name the place within the
/// expression where one is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// One sentence: what is wrong and what to write instead.
    pub message: String,
    /// Byte offset in the expression's or template's text, where known.
    pub offset: Option<usize>,
}

impl ExpressionError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: None }
    }

    pub(crate) fn at(offset: usize, message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: Some(offset) }
    }
}

impl Expression {
    /// Compiles `source`.
    ///
    /// # Errors
    /// Syntax, unknown names, and what could run away.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        let how = match BarePath::parse(source) {
            Some(path) => How::Path(Arc::new(path)),
            None => {
                let program = Arc::new(Program::compile(source)?);
                match BarePath::parse_each(source) {
                    Some(path) => How::Each(Arc::new(path), program),
                    None => How::Program(program),
                }
            }
        };
        Ok(Self { source: source.into(), how })
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it may ask for a variable.
    fn uses_variables(&self) -> bool {
        !matches!(self.how, How::Path(_))
    }

    /// Runs on `input` and gives its one output.
    ///
    /// # Errors
    /// When it fails, has no output or more than one, or the output exceeds [`OUTPUT_MAX`].
    pub fn run(&self, input: &Input, variables: &Variables) -> Result<Output, ExpressionError> {
        let mut outputs = self.run_many(input, variables, 1)?;
        outputs.pop().ok_or_else(|| {
            ExpressionError::new(format!(
                "`{}` has no output; write `… // null` for a default",
                self.source
            ))
        })
    }

    /// Runs on `input` and gives all its outputs.
    ///
    /// # Errors
    /// As [`Expression::run`]; more than `most` outputs too.
    pub fn run_many(
        &self,
        input: &Input,
        variables: &Variables,
        most: usize,
    ) -> Result<Vec<Output>, ExpressionError> {
        let outputs = self.run_first(input, variables, most.saturating_add(1))?;
        if outputs.len() > most {
            let why = match most {
                1 => "it has more than one output; collect them with [ … ]".to_owned(),
                _ => format!("it has more than {most} outputs"),
            };
            return Err(self.failed(&why));
        }
        Ok(outputs)
    }

    /// Runs on `input` until it has given `most` outputs, or all it has (`split`).
    ///
    /// # Errors
    /// As [`Expression::run`].
    pub fn run_first(
        &self,
        input: &Input,
        variables: &Variables,
        most: usize,
    ) -> Result<Vec<Output>, ExpressionError> {
        let program = match &self.how {
            // What came in may go out, however large: it was bounded when it came in.
            How::Path(path) => return Ok(vec![Output(path.slice(input)?)]),
            How::Each(path, program) => match path.items(input, most)? {
                Some(items) => return Ok(items.into_iter().map(Output).collect()),
                None => program,
            },
            How::Program(program) => program,
        };
        let (value, length) = (input.value()?.clone(), input.len());
        let allowance = weigh::allowance(length).min(input.fuel());
        weigh::refuel(allowance);
        let outputs = program.run(value, length, variables, most);
        input.burn(allowance - weigh::left());
        let outputs = outputs.map_err(|error| self.failed(&error.message))?;
        Ok(outputs.into_iter().map(Output).collect())
    }

    fn failed(&self, why: &str) -> ExpressionError {
        ExpressionError::new(format!("`{}` failed: {why}", self.source))
    }
}

impl Input {
    /// The CloudEvents JSON object of `event`.
    #[must_use]
    pub fn event(event: Arc<Event>) -> Self {
        Self { from: From::Event(event), value: OnceLock::new() }
    }

    /// Any JSON text.
    ///
    /// # Errors
    /// When it is not JSON or nests too deep.
    pub fn json(text: Bytes) -> Result<Self, ExpressionError> {
        check_json(&text).map_err(|error| ExpressionError::new(error.to_string()))?;
        Ok(Self { from: From::Json(text), value: OnceLock::new() })
    }

    /// An object of `members`, whose names are plain words.
    #[must_use]
    pub fn object(members: Vec<(&'static str, Member)>) -> Self {
        Self { from: From::Object(object::Object::new(members, None)), value: OnceLock::new() }
    }

    /// This object, which nothing of is copied, and `members` that it has not got.
    #[must_use]
    pub fn with(self: &Arc<Self>, members: Vec<(&'static str, Member)>) -> Self {
        let object = object::Object::new(members, Some(Arc::clone(self)));
        Self { from: From::Object(object), value: OnceLock::new() }
    }

    /// The whole input as JSON text.
    fn text(&self) -> Bytes {
        match &self.from {
            From::Event(event) => event.to_json().into(),
            From::Json(text) => text.clone(),
            From::Object(object) => object.text(),
        }
    }

    /// About how long the JSON text is, in bytes.
    fn len(&self) -> usize {
        match &self.from {
            From::Event(event) => event.size_hint(),
            From::Json(text) => text.len(),
            From::Object(object) => object.len(),
        }
    }

    /// How much fuel there is for all runs on what it lies over.
    fn fuel(&self) -> u64 {
        match &self.from {
            From::Object(object) => object.fuel(),
            From::Event(_) | From::Json(_) => u64::MAX,
        }
    }

    fn burn(&self, fuel: u64) {
        if let From::Object(object) = &self.from {
            object.burn(fuel);
        }
    }

    fn value(&self) -> Result<&Val, ExpressionError> {
        let parse = || match &self.from {
            From::Object(object) => object.value(),
            _ => jaq_json::read::parse_single(&self.text())
                .map_err(|error| ExpressionError::new(format!("not JSON: {error}"))),
        };
        self.value.get_or_init(parse).as_ref().map_err(Clone::clone)
    }
}

impl Output {
    /// The JSON text, compact, numbers as they were written. For a bare path: the very bytes of
    /// the input.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        self.0.clone()
    }

    /// A plain `serde_json` value, for looking at shapes; big numbers may lose precision here.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.0).unwrap_or_default()
    }

    /// The text, if it is a string.
    #[must_use]
    pub fn as_text(&self) -> Option<String> {
        self.0.starts_with(b"\"").then(|| serde_json::from_slice(&self.0).ok()).flatten()
    }

    /// jq's truth: everything but `false` and `null`.
    #[must_use]
    pub fn is_true(&self) -> bool {
        !matches!(self.0.trim_ascii(), b"false" | b"null")
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.trim_ascii() == b"null"
    }
}

#[cfg(test)]
mod tests;

macro_rules! compiled_from_text {
    ($kind:ty) => {
        impl std::fmt::Debug for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "`{}`", self.source())
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let source = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                Self::compile(&source).map_err(serde::de::Error::custom)
            }
        }
    };
}
compiled_from_text!(Expression);
compiled_from_text!(Template);
