//! YAML as a tree that knows where everything was written, and types nothing.
//!
//! A scalar stays text and remembers whether it was quoted: `off`, `0123` and `12:30` mean what
//! the place that uses them says, not what some YAML version says. What a hostile or clumsy file
//! could do is bounded: its size, its depth, and how far its aliases expand.

use std::{collections::HashMap, sync::Arc};

use serde_saphyr::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span, Tag,
};

use super::report::{Place, Problem};

/// The largest file read, in bytes.
pub(crate) const FILE_MAX: u64 = 16 << 20;
/// How deep maps and lists may nest, aliases expanded.
const DEPTH_MAX: usize = 64;
/// The most nodes of one file, aliases expanded.
const NODES_MAX: usize = 500_000;
/// The most text of one file in bytes, aliases expanded.
const TEXT_MAX: usize = 64 << 20;

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
    let mut builder = Builder::new(source);
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
        let text = &origin.source.text;
        let at = if before.contains('\n') || text[origin.start..].starts_with(['|', '>']) {
            // A block: find its line by number and its indentation by what the line holds.
            let (row, line) = before.split('\n').enumerate().last()?;
            let whole = self.text.split('\n').nth(row)?;
            let header = text[origin.start..].find('\n')? + 1;
            let mut at = origin.start + header;
            for _ in 0..row {
                at += text[at..].find('\n')? + 1;
            }
            let written = text[at..].lines().next()?;
            at + written.strip_suffix(whole)?.len() + line.len()
        } else {
            let quote = usize::from(!self.plain);
            let at = origin.start + quote;
            text[at..].starts_with(before).then_some(at + before.len())?
        };
        Some(place_at(&origin.source, at))
    }

    /// Whether a comment follows it on its line: part of it may have been meant.
    pub(crate) fn comment_follows(&self) -> bool {
        self.plain
            && self.origin.as_ref().is_some_and(|origin| {
                let rest = origin.source.text[origin.end..].lines().next().unwrap_or_default();
                rest.trim_start().starts_with('#')
            })
    }
}

fn place_at(source: &Source, at: usize) -> Place {
    let before = &source.text[..at];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place::File {
        file: Arc::clone(&source.file),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}

/// Builds the tree from the parser's events, without recursion.
struct Builder<'s> {
    source: &'s Arc<Source>,
    open: Vec<Open>,
    root: Option<Node>,
    /// Finished anchored nodes, by anchor id.
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    text: usize,
    problems: Vec<Problem>,
}

/// A node that aliases may repeat, and what repeating it costs.
struct Anchored {
    node: Node,
    height: usize,
    nodes: usize,
    text: usize,
}

/// A list or map not yet at its end.
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        seen: HashMap<Arc<str>, Place>,
        key: Option<Key>,
    },
}

enum Key {
    Good(Arc<str>, Place),
    /// A repeated or impossible one: its value is read and dropped.
    Bad,
}

impl<'s> Builder<'s> {
    fn new(source: &'s Arc<Source>) -> Self {
        Self {
            source,
            open: Vec::new(),
            root: None,
            anchors: HashMap::new(),
            nodes: 0,
            text: 0,
            problems: Vec::new(),
        }
    }

    fn read(&mut self) -> Result<(), Problem> {
        let source = Arc::clone(self.source);
        let mut options = Options::default();
        options.set_emit_comments(false);
        options.emit_unresolved_aliases = true;
        options.disallow_directives = true;
        options.flow_nesting_limit = DEPTH_MAX;
        options.block_nesting_limit = DEPTH_MAX;
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(&source.text, options) {
            let (event, span) = event.map_err(|error| self.syntax(&error))?;
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        return Err(self.problem(&span, "a second document begins here: Tidegate \
                            reads one a file; write it into a file of its own, in one folder"));
                    }
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.tag(tag.as_deref(), &span);
                    let node = self.scalar(&text, style, tag.is_some(), &span)?;
                    self.add(node, anchor)?;
                }
                Event::SequenceStart(_, anchor, tag) => {
                    self.tag(tag.as_deref(), &span);
                    self.open(anchor, &span, Content::List(Vec::new()))?;
                }
                Event::MappingStart(_, anchor, tag) => {
                    self.tag(tag.as_deref(), &span);
                    let (entries, seen) = (Vec::new(), HashMap::new());
                    self.open(anchor, &span, Content::Map { entries, seen, key: None })?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                Event::Alias(id) => self.alias(id, &span)?,
                Event::UnresolvedAlias(name) => {
                    let message = format!("`*{name}` refers to an anchor `&{name}` that is not \
                        there; if it is text, quote it: '*{name}'");
                    self.problems.push(self.problem(&span, &message));
                    let failed = Node { place: self.place(&span), kind: Kind::Failed };
                    self.add(failed, 0)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn place(&self, span: &Span) -> Place {
        Place::File {
            file: Arc::clone(&self.source.file),
            line: span.start.line(),
            column: span.start.col() + 1,
        }
    }

    fn problem(&self, span: &Span, message: &str) -> Problem {
        Problem::new(&self.place(span), "", message)
    }

    fn tag(&mut self, tag: Option<&Tag>, span: &Span) {
        if let Some(tag) = tag
            && tag.core_suffix().is_none()
        {
            let message = format!("YAML reads `{}` as a tag, and tags mean nothing here; if it \
                is text, quote it", tag.original());
            self.problems.push(self.problem(span, &message));
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tagged: bool,
        span: &Span,
    ) -> Result<Node, Problem> {
        self.spend(1, text.len(), span)?;
        let bytes = span.start.byte_offset().zip(span.end.byte_offset());
        let scalar = Scalar {
            text: text.to_owned(),
            plain: style == ScalarStyle::Plain && !tagged,
            secret: false,
            parts: Vec::new(),
            origin: bytes.map(|(start, end)| Origin {
                source: Arc::clone(self.source),
                start,
                end,
            }),
        };
        Ok(Node { place: self.place(span), kind: Kind::Scalar(scalar) })
    }

    fn spend(&mut self, nodes: usize, text: usize, span: &Span) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.text = self.text.saturating_add(text);
        if self.nodes > NODES_MAX || self.text > TEXT_MAX {
            return Err(self.problem(span, "the file is too large once its aliases (`*…`) are \
                expanded: repeat less, or split it"));
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, span: &Span, content: Content) -> Result<(), Problem> {
        self.spend(1, 0, span)?;
        self.depth(1, span)?;
        self.open.push(Open { place: self.place(span), anchor, content });
        Ok(())
    }

    fn depth(&self, further: usize, span: &Span) -> Result<(), Problem> {
        if self.open.len() + further > DEPTH_MAX {
            let message = format!("nested deeper than {DEPTH_MAX} levels");
            return Err(self.problem(span, &message));
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let open = self.open.pop().expect("the parser closes only what it opened");
        let kind = match open.content {
            Content::List(items) => Kind::List(items),
            Content::Map { entries, .. } => Kind::Map(entries),
        };
        self.add(Node { place: open.place, kind }, open.anchor)
    }

    fn alias(&mut self, id: usize, span: &Span) -> Result<(), Problem> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(self.problem(span, "an alias (`*…`) inside the very thing it refers to"));
        };
        let (nodes, text, height) = (anchored.nodes, anchored.text, anchored.height);
        // Counted before it is copied: that is what bounds an alias bomb.
        self.spend(nodes, text, span)?;
        self.depth(height, span)?;
        let node = self.anchors[&id].node.clone();
        self.add(node, 0)
    }

    /// Puts a finished node where it belongs: a map's key or value, a list's item, the root.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Problem> {
        if anchor != 0 {
            let (height, nodes, text) = measure(&node);
            self.spend(nodes, text, &Span::default())
                .map_err(|problem| Problem { place: node.place.clone(), ..problem })?;
            let node = node.clone();
            self.anchors.insert(anchor, Anchored { node, height, nodes, text });
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key: key @ Some(_), .. }) => {
                if let Some(Key::Good(key, place)) = key.take() {
                    entries.push(Entry { key, place, value: node });
                }
            }
            Some(Content::Map { seen, key, .. }) => {
                let (good, problem) = read_key(&node, seen);
                *key = Some(good);
                self.problems.extend(problem);
            }
        }
        Ok(())
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        let mark = error.marker();
        let (line, column) = (mark.line(), mark.col() + 1);
        let place = Place::File { file: Arc::clone(&self.source.file), line, column };
        let written = self.source.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let remedy = match error.kind() {
            ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabAtBlockScalarStart => "; indent with spaces",
            ErrorKind::DirectiveDisallowed => "; quote a value that begins with `%`",
            _ if looks_unquoted(written) => "; if a value on this line holds `{`, `: `, ` #` or \
                begins with one of `*&!%@[`, quote it: '…'",
            _ => "",
        };
        Problem::new(&place, "", format!("this is not YAML: {}{remedy}", error.info()))
    }
}

/// Height, nodes and bytes of text.
fn measure(node: &Node) -> (usize, usize, usize) {
    let add = |(h, n, t): (usize, usize, usize), child: &Node| {
        let (height, nodes, text) = measure(child);
        (h.max(height + 1), n + nodes, t + text)
    };
    match &node.kind {
        Kind::Scalar(scalar) => (0, 1, scalar.text.len()),
        Kind::List(items) => items.iter().fold((1, 1, 0), add),
        Kind::Map(entries) => entries.iter().map(|e| &e.value).fold((1, 1, 0), add),
        Kind::Failed => (0, 1, 0),
    }
}

fn read_key(node: &Node, seen: &mut HashMap<Arc<str>, Place>) -> (Key, Option<Problem>) {
    let Kind::Scalar(scalar) = &node.kind else {
        let message = "a key must be text; if `{` or `[` begins a text here, quote it";
        let told = matches!(node.kind, Kind::Failed);
        return (Key::Bad, (!told).then(|| Problem::new(&node.place, "", message)));
    };
    let key: Arc<str> = scalar.text.as_str().into();
    if let Some(first) = seen.get(&key) {
        let message = format!("written twice in one map; the first one is at {first}");
        return (Key::Bad, Some(Problem::new(&node.place, &*key, message)));
    }
    seen.insert(Arc::clone(&key), node.place.clone());
    (Key::Good(key, node.place.clone()), None)
}

/// Whether a line has a plain value with characters that YAML gives a meaning of its own.
fn looks_unquoted(line: &str) -> bool {
    let value = line.split_once(": ").map_or(line, |(_, value)| value).trim_start();
    let value = value.trim_start_matches("- ");
    value.starts_with(['{', '[', '*', '&', '!', '%', '@', '`'])
        || (!value.starts_with(['\'', '"']) && value.contains(": "))
}
