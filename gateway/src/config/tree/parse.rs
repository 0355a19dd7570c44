//! From the parser's events to a tree, within bounds.

use std::{collections::HashMap, sync::Arc};

use serde_saphyr::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span, Tag,
};

use super::{Entry, Kind, Node, Origin, Place, Problem, Scalar, Source};

/// How deep maps and lists may nest, aliases expanded.
const DEPTH_MAX: usize = 64;
/// The most nodes of one file, aliases expanded.
const NODES_MAX: usize = 500_000;
/// The most text of one file in bytes, aliases expanded.
const TEXT_MAX: usize = 64 << 20;

/// Builds the tree from the parser's events, without recursion.
pub(super) struct Builder<'s> {
    source: &'s Arc<Source>,
    open: Vec<Open>,
    /// What was read, once it was.
    pub(super) root: Option<Node>,
    /// Finished anchored nodes, by anchor id.
    anchors: HashMap<usize, Anchored>,
    nodes: usize,
    text: usize,
    /// What is wrong and left the rest readable.
    pub(super) problems: Vec<Problem>,
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
    Map { entries: Vec<Entry>, seen: HashMap<Arc<str>, Place>, key: Option<Key> },
}

enum Key {
    Good(Arc<str>, Place),
    /// A repeated or impossible one: its value is read and dropped.
    Bad,
}

impl<'s> Builder<'s> {
    pub(super) fn new(source: &'s Arc<Source>) -> Self {
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

    /// Reads the whole file; an error is what nothing can be read after.
    pub(super) fn read(&mut self) -> Result<(), Problem> {
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
                        return Err(self.problem(
                            &span,
                            "a second document begins here: Tidegate reads one a file; write it \
                             into a file of its own, in one folder",
                        ));
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
                    let message = format!(
                        "`*{name}` refers to an anchor `&{name}` that is not there; if it is \
                         text, quote it: '*{name}'"
                    );
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
            let message = format!(
                "YAML reads `{}` as a tag, and tags mean nothing here; if it is text, quote it",
                tag.original()
            );
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
        // The parser says `~` where nothing was written.
        let nothing = style == ScalarStyle::Plain && bytes.is_some_and(|(start, end)| start == end);
        let scalar = Scalar {
            text: if nothing { String::new() } else { text.to_owned() },
            plain: style == ScalarStyle::Plain && !tagged,
            literal: style == ScalarStyle::Literal,
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
            return Err(self.problem(
                span,
                "the file is too large once its aliases (`*…`) are expanded: repeat less, or \
                 split it",
            ));
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
            ErrorKind::UnknownQuotedScalarEscape => {
                "; in single quotes ('…') a backslash stands for itself"
            }
            ErrorKind::DirectiveDisallowed => "; quote a value that begins with `%`",
            _ if looks_unquoted(written) => {
                "; if a value on this line holds `{`, `: `, ` #` or begins with one of `*&!%@[`, \
                 quote it: '…'"
            }
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
