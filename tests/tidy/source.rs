//! Reading the repository: its files, and of Rust as much as the rules need.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Folders of the root that tools or a running gateway write; so are hidden ones, but for one.
const SKIPPED: [&str; 2] = ["target", "data"];
/// What fuzzing has kept, which is anything.
const KEPT: [&str; 2] = ["fuzz/corpus/", "fuzz/crashes/"];
const HIDDEN: &str = ".ci";

/// One Rust file.
pub(crate) struct Source {
    /// Relative to the repository's root, with `/`.
    pub(crate) path: String,
    pub(crate) lines: Vec<Line>,
}

/// One line of it, three times; columns agree.
pub(crate) struct Line {
    /// As written.
    pub(crate) raw: String,
    /// Comments and the insides of literals blanked out.
    pub(crate) code: String,
    /// Comments blanked out.
    pub(crate) uncommented: String,
    /// Whether it is compiled for tests only.
    pub(crate) test: bool,
}

/// Something a rule objects to.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) path: String,
    line: usize,
    what: String,
}

impl Finding {
    /// On `line`, counted from 0; said from 1.
    pub(crate) fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: line + 1, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}:{}  {}", self.path, self.line, self.what)
    }
}

impl Source {
    /// Reads `text` as the file at `path`.
    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let (code, uncommented) = blank(text);
        let lines = text.lines().zip(code.lines()).zip(uncommented.lines());
        let lines = lines.map(|((raw, code), uncommented)| Line {
            raw: raw.to_owned(),
            code: code.to_owned(),
            uncommented: uncommented.to_owned(),
            test: false,
        });
        let mut source = Self { path: path.to_owned(), lines: lines.collect() };
        for (from, to) in source.test_items() {
            source.lines[from..=to].iter_mut().for_each(|line| line.test = true);
        }
        source
    }

    /// Lines by number from 0 that are part of what ships.
    pub(crate) fn shipped(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().filter(|(_, line)| !line.test)
    }

    /// Whether the path is `module` (without `.rs`) or lies beneath it.
    pub(crate) fn is_under(&self, module: &str) -> bool {
        let rest = self.path.strip_prefix(module);
        rest.is_some_and(|rest| rest == ".rs" || rest.starts_with('/') || module.ends_with('/'))
    }

    /// The module's segments within its crate: `http/caller/api.rs` is `[http, caller, api]`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let within = self.path.split_once("/src/").map_or("", |(_, within)| within);
        let within = within.strip_suffix(".rs").unwrap_or(within);
        within.split('/').filter(|name| !["", "lib", "main"].contains(name)).collect()
    }

    /// All of the blanked-out code, and for each of its characters the line it is on.
    pub(crate) fn characters(&self) -> Vec<(char, usize)> {
        let lines = self.lines.iter().enumerate();
        lines.flat_map(|(n, line)| line.code.chars().chain(['\n']).map(move |c| (c, n))).collect()
    }

    /// First and last line of every item behind `#[cfg(test)]`.
    fn test_items(&self) -> Vec<(usize, usize)> {
        let code = self.characters();
        let starts = self.lines.iter().enumerate();
        let starts = starts.filter(|(_, line)| line.code.trim_start().starts_with("#[cfg(test)]"));
        starts
            .map(|(first, _)| {
                let from = code.iter().position(|(_, line)| *line == first).unwrap_or(0);
                let last = end_of_item(&code, from).map_or(self.lines.len() - 1, |end| code[end].1);
                (first, last)
            })
            .collect()
    }

    /// Paths (without `.rs`) of the modules declared here for tests only.
    fn test_modules(&self) -> impl Iterator<Item = String> {
        let folder = match self.path.strip_suffix(".rs").unwrap_or(&self.path) {
            root if root.ends_with("/lib") || root.ends_with("/main") => {
                root.rsplit_once('/').map_or("", |(folder, _)| folder)
            }
            module => module,
        };
        let lines = self.lines.iter().filter(|line| line.test);
        let names = lines.filter_map(|line| {
            line.code
                .trim()
                .trim_start_matches("pub(crate) ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
        });
        names.map(move |name| format!("{folder}/{name}"))
    }
}

/// Where the item that starts at `from` ends: at its `;` or its closing brace.
pub(crate) fn end_of_item(code: &[(char, usize)], from: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, (c, _)) in code.iter().enumerate().skip(from) {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 && *c == '}' {
                    return Some(at);
                }
            }
            ';' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// Every Rust file of the repository, read once.
pub(crate) fn repository() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let paths = files().into_iter().filter(|path| path.ends_with(".rs"));
        let read = |path: String| Source::parse(&path, &text(&path).unwrap_or_default());
        let mut sources: Vec<Source> = paths.map(read).collect();
        let tests: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut sources {
            let in_tests = source.path.starts_with("tests/") && !source.is_under("tests/world");
            if in_tests || tests.iter().any(|module| source.is_under(module)) {
                source.lines.iter_mut().for_each(|line| line.test = true);
            }
        }
        assert!(sources.len() > 20, "the repository is not where it was thought to be");
        sources
    })
}

/// Every file of the repository, relative to its root.
pub(crate) fn files() -> Vec<String> {
    let ours = |name: &str| !SKIPPED.contains(&name) && (!name.starts_with('.') || name == HIDDEN);
    let (mut files, mut folders) = (Vec::new(), vec![String::new()]);
    while let Some(folder) = folders.pop() {
        if KEPT.contains(&folder.as_str()) {
            continue;
        }
        for entry in std::fs::read_dir(root().join(&folder)).expect("a readable folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == ".git" {
                continue; // a folder, or in a linked work tree a file
            }
            if !entry.path().is_dir() {
                files.push(format!("{folder}{name}"));
            } else if !folder.is_empty() || ours(&name) {
                folders.push(format!("{folder}{name}/"));
            }
        }
    }
    files.sort();
    files
}

/// The text of the file at `path`; `None` when there is none, or it is not text.
pub(crate) fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(root().join(path)).ok()
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the package is a folder of the repository").to_owned()
}

/// `text` without comments and the insides of literals, and `text` without comments. Blanked out
/// characters become spaces, so that places stay.
fn blank(text: &str) -> (String, String) {
    let text: Vec<char> = text.chars().collect();
    let (mut code, mut uncommented) = (text.clone(), text.clone());
    let mut at = 0;
    while at < text.len() {
        let (end, comment) = match token(&text, at) {
            Token::Comment(end) => (end, true),
            Token::Literal(end) => (end, false),
            Token::Other => {
                at += 1;
                continue;
            }
        };
        // A literal keeps its quotes.
        let inside = if comment { at..end } else { at + 1..end.saturating_sub(1) };
        for i in inside.filter(|i| text[*i] != '\n') {
            code[i] = ' ';
            if comment {
                uncommented[i] = ' ';
            }
        }
        at = end;
    }
    (code.into_iter().collect(), uncommented.into_iter().collect())
}

/// What begins at a place, and the place after its end.
enum Token {
    Comment(usize),
    Literal(usize),
    Other,
}

fn token(text: &[char], at: usize) -> Token {
    let after = |n: usize| text.get(at + n).copied().unwrap_or(' ');
    let find = |from: usize, wanted: &[char]| {
        let places = from..text.len();
        let found = places.clone().find(|i| text[*i..].starts_with(wanted));
        found.map_or(text.len(), |i| i + wanted.len())
    };
    match (text[at], after(1)) {
        ('/', '/') => {
            let length = text[at..].iter().position(|c| *c == '\n');
            Token::Comment(length.map_or(text.len(), |length| at + length))
        }
        ('/', '*') => Token::Comment(find(at + 2, &['*', '/'])),
        ('r', '"' | '#') if at == 0 || !is_word(text[at - 1]) || text[at - 1] == 'b' => {
            let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
            if after(1 + hashes) != '"' {
                return Token::Other; // r#type
            }
            let close: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
            Token::Literal(find(at + 2 + hashes, &close))
        }
        ('"', _) => Token::Literal(after_quote(text, at, '"')),
        ('\'', '\\') => Token::Literal(after_quote(text, at, '\'')),
        ('\'', _) if after(2) == '\'' => Token::Literal(at + 3),
        _ => Token::Other, // a lifetime, or anything else
    }
}

/// The place after the literal that `quote` opens at `at`.
fn after_quote(text: &[char], at: usize, quote: char) -> usize {
    let mut i = at + 1;
    while i < text.len() && text[i] != quote {
        i += if text[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(text.len())
}

/// Whether `c` may be part of a name.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
