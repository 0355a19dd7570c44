//! The two little languages of a configuration, both jq: expressions and templates.
//!
//! Compiled once, when the configuration loads; run many times, bounded. See [`Expression`] and
//! [`Template`]. What could run away is refused by `compile`, by name: see [`ExpressionError`].

use std::sync::Arc;

use bytes::Bytes;

use crate::event::Event;

/// A jq program with exactly one output.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
}

/// Text with `{jq}` placeholders; `{{` and `}}` are literal braces.
#[derive(Clone)]
pub struct Template {
    source: Arc<str>,
}

/// What an expression or template works on: `.`, parsed at most once and only when needed.
pub struct Input {}

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

/// A JSON value that came out of an expression. Numbers keep their text (`12.50` stays `12.50`).
#[derive(Debug, Clone)]
pub struct Output {}

/// Why an expression does not compile, or failed on an input. Messages name the place within the
/// expression where one is known. Never holds input data beyond a short excerpt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// One sentence: what is wrong and what to write instead.
    pub message: String,
    /// Byte offset in the expression's or template's text, where known.
    pub offset: Option<usize>,
}

/// How a template's result is used, which decides escaping and what is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Placeholders percent-encoded; an empty, `.` or `..` segment (also as `%2e`) is an error.
    Path,
    /// Percent-encoding is left to the caller; a lone null placeholder leaves the value out.
    Query,
    /// No control characters; a lone null placeholder leaves the header out.
    Header,
    /// No control characters, 255 bytes at most.
    RoutingKey,
    /// Required event field: null is an error.
    Field,
    /// Optional event field: a lone null placeholder leaves it out.
    OptionalField,
}

impl Expression {
    /// Compiles `source`.
    ///
    /// # Errors
    /// Syntax, unknown names, and what could run away.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        let _ = source;
        todo!()
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Runs on `input` and gives its one output.
    ///
    /// # Errors
    /// When it fails, has no output or more than one, or the output exceeds the cap.
    pub fn run(&self, input: &Input, variables: &Variables) -> Result<Output, ExpressionError> {
        let _ = (input, variables);
        todo!()
    }

    /// Runs on `input` and gives all its outputs, at most `most` of them (`split`).
    ///
    /// # Errors
    /// As [`Expression::run`].
    pub fn run_many(
        &self,
        input: &Input,
        variables: &Variables,
        most: usize,
    ) -> Result<Vec<Output>, ExpressionError> {
        let _ = (input, variables, most);
        todo!()
    }
}

impl Template {
    /// Compiles `source`.
    ///
    /// # Errors
    /// As [`Expression::compile`], and unbalanced braces.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        let _ = source;
        todo!()
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Renders for `place`. `None` only where the place says a null leaves the value out.
    ///
    /// # Errors
    /// When a placeholder fails, is null, an array or an object, or the result does not fit `place`.
    pub fn render(
        &self,
        input: &Input,
        variables: &Variables,
        place: Place,
    ) -> Result<Option<String>, ExpressionError> {
        let _ = (input, variables, place);
        todo!()
    }
}

impl Input {
    /// The CloudEvents JSON object of `event`.
    #[must_use]
    pub fn event(event: Arc<Event>) -> Self {
        let _ = event;
        todo!()
    }

    /// Any JSON text.
    ///
    /// # Errors
    /// When it is not JSON or nests too deep.
    pub fn json(text: Bytes) -> Result<Self, ExpressionError> {
        let _ = text;
        todo!()
    }
}

impl Output {
    /// The JSON text, compact, numbers as they were written. For a bare path on an event: the
    /// very bytes of the input.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        todo!()
    }

    /// A plain `serde_json` value, for looking at shapes; big numbers may lose precision here.
    #[must_use]
    pub fn to_value(&self) -> serde_json::Value {
        todo!()
    }

    /// jq's truth: everything but `false` and `null`.
    #[must_use]
    pub fn is_true(&self) -> bool {
        todo!()
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        todo!()
    }
}

macro_rules! compiled_from_text {
    ($kind:ty) => {
        impl std::fmt::Debug for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "`{}`", self.source)
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
