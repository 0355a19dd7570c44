//! Templates: text with `{jq}` placeholders; `{{` and `}}` are literal braces.

use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Expression, ExpressionError, Input, Output, Variables};

/// What stays as it is in a path segment or query value: RFC 3986's unreserved characters.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Text with `{jq}` placeholders.
#[derive(Clone)]
pub struct Template {
    pub(super) source: Arc<str>,
    parts: Arc<[Piece]>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(String),
    Placeholder(Expression),
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

impl Template {
    /// Compiles `source`.
    ///
    /// # Errors
    /// As [`Expression::compile`], and unbalanced braces.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut at = 0;
        while let Some(next) = source[at..].chars().next() {
            let rest = &source[at..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                text.push(next);
                at += 2;
            } else if next == '{' {
                let length = placeholder(&rest[1..]).ok_or_else(|| {
                    ExpressionError::at(at, "`{` is never closed; a literal brace is `{{`")
                })?;
                let code = &rest[1..=length];
                let expression = Expression::compile(code).map_err(|error| ExpressionError {
                    offset: error.offset.map(|offset| at + 1 + offset).or(Some(at)),
                    ..error
                })?;
                if !text.is_empty() {
                    parts.push(Piece::Text(std::mem::take(&mut text)));
                }
                parts.push(Piece::Placeholder(expression));
                at += length + 2;
            } else if next == '}' {
                return Err(ExpressionError::at(at, "`}` closes nothing; a literal brace is `}}`"));
            } else {
                text.push(next);
                at += next.len_utf8();
            }
        }
        if !text.is_empty() {
            parts.push(Piece::Text(text));
        }
        Ok(Self { source: source.into(), parts: parts.into() })
    }

    /// The text it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it has no placeholder at all.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        !self.parts.iter().any(|part| matches!(part, Piece::Placeholder(_)))
    }

    /// Refuses what could never be right in `place`, whatever the input.
    ///
    /// # Errors
    /// Control characters; dot segments, `?` and `#` in a path; routing keys over 255 bytes.
    pub fn check_place(&self, place: Place) -> Result<(), ExpressionError> {
        for part in self.parts.iter() {
            let Piece::Text(text) = part else { continue };
            if place != Place::Query && text.chars().any(char::is_control) {
                return Err(ExpressionError::new("has control characters"));
            }
            if place == Place::Path && text.contains(['?', '#']) {
                let why = "a path holds no `?` or `#`: write parameters under `query`";
                return Err(ExpressionError::new(why));
            }
        }
        match place {
            Place::Path if self.is_literal() => check_path(&self.literal(), false),
            Place::RoutingKey if self.literal().len() > 255 => {
                Err(ExpressionError::new("a routing key has at most 255 bytes"))
            }
            _ => Ok(()),
        }
    }

    /// Whether it may ask for a variable.
    pub(super) fn uses_variables(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Piece::Text(_) => false,
            Piece::Placeholder(expression) => expression.uses_variables(),
        })
    }

    /// Renders for `place`. `None` only where the place says a null leaves the value out.
    ///
    /// # Errors
    /// When a placeholder fails, is null, an array or an object, or what comes out does not fit
    /// `place`.
    pub fn render(
        &self,
        input: &Input,
        variables: &Variables,
        place: Place,
    ) -> Result<Option<String>, ExpressionError> {
        let optional = matches!(place, Place::Query | Place::Header | Place::OptionalField);
        let mut rendered = String::new();
        for part in self.parts.iter() {
            let expression = match part {
                Piece::Text(text) => {
                    rendered.push_str(text);
                    continue;
                }
                Piece::Placeholder(expression) => expression,
            };
            let output = expression.run(input, variables)?;
            if output.is_null() && optional && self.parts.len() == 1 {
                return Ok(None);
            }
            let value = scalar(&output, expression)?;
            match place {
                Place::Path => rendered.extend(utf8_percent_encode(&value, RESERVED)),
                _ => rendered.push_str(&value),
            }
        }
        match place {
            Place::Path => check_path(&rendered, !self.is_literal())?,
            Place::Header | Place::RoutingKey if rendered.chars().any(char::is_control) => {
                let why = format!("`{}` came out with control characters", self.source);
                return Err(ExpressionError::new(why));
            }
            Place::RoutingKey if rendered.len() > 255 => {
                let why = format!("`{}` came out longer than 255 bytes", self.source);
                return Err(ExpressionError::new(why));
            }
            _ => {}
        }
        Ok(Some(rendered))
    }

    fn literal(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Piece::Text(text) => Some(&**text),
            Piece::Placeholder(_) => None,
        });
        texts.collect()
    }
}

/// The text of a string, number or boolean.
fn scalar(output: &Output, expression: &Expression) -> Result<String, ExpressionError> {
    let json = output.to_json();
    let wrong = |what| ExpressionError::new(format!("`{}` is {what}", expression.source()));
    match json.trim_ascii().first() {
        Some(b'"') => output.as_text().ok_or_else(|| wrong("no valid text")),
        Some(b'{') => Err(wrong("an object; write `| tojson` or pick a member")),
        Some(b'[') => Err(wrong("an array; write `| tojson`, `| join(\",\")` or pick an item")),
        Some(b'n') => Err(wrong("null; write `// \"default\"` where it may be missing")),
        _ => Ok(String::from_utf8_lossy(json.trim_ascii()).into_owned()),
    }
}

/// A path that cannot climb. URL parsers take `%2e` for a dot.
fn check_path(path: &str, rendered: bool) -> Result<(), ExpressionError> {
    let segments: Vec<&str> = path.split('/').collect();
    let last = segments.len() - 1;
    for (at, segment) in segments.iter().enumerate() {
        let dots = segment.replace("%2e", ".").replace("%2E", ".");
        if dots == "." || dots == ".." {
            return Err(ExpressionError::new(format!("path `{path}` has the segment `{dots}`")));
        }
        // The one before the leading slash, and a trailing slash the author wrote, are no gaps.
        let gap = segment.is_empty() && at != 0 && (rendered || at != last);
        if gap && !(at == last && segments.len() <= 2) {
            let why = format!("path `{path}` has an empty segment");
            return Err(ExpressionError::new(why));
        }
    }
    Ok(())
}

/// The length of the jq program up to its closing brace; strings, comments and nested braces are
/// jq's own.
fn placeholder(code: &str) -> Option<usize> {
    let bytes = code.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = string_end(bytes, at + 1)?,
            b'#' => at += bytes[at..].iter().position(|byte| *byte == b'\n')?,
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where the string that began before `from` ends, interpolations within it included.
fn string_end(bytes: &[u8], from: usize) -> Option<usize> {
    // How many parentheses are open in each interpolation around; innermost last.
    let mut parens: Vec<usize> = Vec::new();
    let (mut quoted, mut at) = (true, from);
    while at < bytes.len() {
        match (quoted, bytes[at]) {
            (true, b'\\') if bytes.get(at + 1) == Some(&b'(') => {
                parens.push(0);
                quoted = false;
                at += 1;
            }
            (true, b'\\') => at += 1,
            (true, b'"') if parens.is_empty() => return Some(at),
            (true, b'"') => quoted = false,
            (false, b'"') => {
                // A string within an interpolation: recursion by hand is not worth its depth.
                at = string_end_flat(bytes, at + 1)?;
            }
            (false, b'(') => *parens.last_mut()? += 1,
            (false, b')') => match parens.last_mut()? {
                0 => {
                    parens.pop();
                    quoted = true;
                }
                open => *open -= 1,
            },
            _ => {}
        }
        at += 1;
    }
    None
}

/// As [`string_end`], for a string without interpolations.
fn string_end_flat(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}
