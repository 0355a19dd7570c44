//! YAML as a tree that knows where everything was written, and types nothing.
//!
//! A scalar stays text and remembers whether it was quoted: `off`, `0123` and `12:30` mean what
//! the place that uses them says, not what some YAML version says. What a hostile or clumsy file
//! could do is bounded: its size, its depth, and how far its aliases expand.

mod parse;

use std::sync::Arc;

use super::report::{Place, Problem};

/// The largest file read, in bytes.
pub(crate) const FILE_MAX: u64 = 16 << 20;

/// A file's name and text, kept for pointing into it.
#[derive(Debug)]
pub(crate) struct Source {
    /// As it was reached.
    pub(crate) file: Arc<str>,
    /// All of it.
    pub(crate) text: String,
}

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where it begins.
    pub(crate) place: Place,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a [`Node`] is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Text.
    Scalar(Scalar),
    /// `[…]` or `- …`.
    List(Vec<Node>),
    /// `{…}` or `key: …`; no key twice.
    Map(Vec<Entry>),
    /// Something whose problem has been told; nothing more is to be said about it.
    Failed,
}

/// A scalar as written.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    /// Its text: unquoted, escapes resolved and, later, interpolated.
    pub(crate) text: String,
    /// Neither quoted nor a block: YAML's own meanings of characters apply.
    pub(crate) plain: bool,
    /// A literal block (`|`): its lines are the text's lines, indented.
    pub(crate) literal: bool,
    /// Whether its text is a secret, for it came from a file.
    pub(crate) secret: bool,
    /// What interpolation made of it, in order; empty when there was none.
    pub(crate) parts: Vec<Part>,
    /// Where in the file it stands; `None` when it came from elsewhere.
    pub(crate) origin: Option<Origin>,
}

/// A piece of an interpolated scalar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// Written in the file.
    Written(String),
    /// Put in by `${…}`.
    Inserted(String),
}

/// Byte range of a scalar in its file, quotes included.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The file.
    pub(crate) source: Arc<Source>,
    start: usize,
    end: usize,
}

/// `key: value`.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key.
    pub(crate) key: Arc<str>,
    /// Where the key stands.
    pub(crate) place: Place,
    /// The value.
    pub(crate) value: Node,
}

/// Reads one file. An empty one is an empty map. What could be read is given even when there
/// are problems; after a syntax error that is an empty map.
pub(crate) fn parse(source: &Arc<Source>) -> (Node, Vec<Problem>) {
    let mut builder = parse::Builder::new(source);
    let read = builder.read();
    let empty = Node::map(Place::start_of(&source.file), Vec::new());
    match read {
        Ok(()) => (builder.root.unwrap_or(empty), builder.problems),
        Err(problem) => {
            builder.problems.push(problem);
            (empty, builder.problems)
        }
    }
}

impl Node {
    /// A map.
    pub(crate) fn map(place: Place, entries: Vec<Entry>) -> Self {
        Self { place, kind: Kind::Map(entries) }
    }

    /// Whether it is a plain scalar that stands for nothing: absent, `~` or `null`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(s) if s.plain && matches!(&*s.text, "" | "~" | "null"))
    }

    /// The value of `key`, when this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|e| &*e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// For messages: what kind of thing it is.
    pub(crate) fn what(&self) -> &'static str {
        match &self.kind {
            Kind::Scalar(_) if self.is_null() => "nothing",
            Kind::Scalar(_) => "text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
            Kind::Failed => "an error",
        }
    }
}

impl Scalar {
    /// Where byte `offset` of its text stands in the file, when that can be told: not after
    /// interpolation, escapes or folding changed the text.
    pub(crate) fn place_of(&self, offset: usize) -> Option<Place> {
        let origin = self.origin.as_ref()?;
        if !self.parts.is_empty() {
            return None;
        }
        let before = self.text.get(..offset)?;
        let text = origin.source.text.get(origin.start..)?;
        let at = if self.literal {
            // Its line by number, its indentation by what the line holds.
            let (row, line) = before.split('\n').enumerate().last()?;
            let whole = self.text.split('\n').nth(row)?;
            let mut at = 0;
            for _ in 0..row {
                at += text.get(at..)?.find('\n')? + 1;
            }
            let written = text.get(at..)?.lines().next()?;
            at + written.strip_suffix(whole)?.len() + line.len()
        } else {
            let quote = usize::from(!self.plain);
            text.get(quote..)?.starts_with(before).then_some(quote + before.len())?
        };
        place_at(&origin.source, origin.start + at)
    }

    /// Whether a comment follows it on its line: part of it may have been meant.
    pub(crate) fn comment_follows(&self) -> bool {
        self.plain
            && self.origin.as_ref().is_some_and(|origin| {
                let rest = origin.source.text.get(origin.end..).unwrap_or_default();
                let rest = rest.lines().next().unwrap_or_default();
                // Where nothing was written, the parser points at the `:` before it.
                rest.trim_start_matches([':', '-', ' ', '\t']).starts_with('#')
            })
    }
}

fn place_at(source: &Source, at: usize) -> Option<Place> {
    let before = source.text.get(..at)?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some(Place::File {
        file: Arc::clone(&source.file),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    })
}
