//! Rules about one file's text: sizes, words, habits.

use super::source::{Finding, Source, end_of_item, is_word};

const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Files whose shipped lines are too many to proofread.
pub(crate) fn long_files(source: &Source) -> Vec<Finding> {
    let lines = source.shipped().count();
    let what = format!("{lines} lines without tests, {FILE_LINES_MAX} at most: find the seam");
    (lines > FILE_LINES_MAX).then(|| Finding::new(&source.path, 0, what)).into_iter().collect()
}

/// Shipped functions longer than a screen.
pub(crate) fn long_functions(source: &Source) -> Vec<Finding> {
    let code = source.characters();
    let mut findings = Vec::new();
    for (at, (c, first)) in code.iter().enumerate() {
        let before = at.checked_sub(1).map_or(' ', |n| code[n].0);
        let word = code[at..].iter().map(|(c, _)| *c).take(4).collect::<String>();
        let named = code.get(at + 3).is_some_and(|(c, _)| is_word(*c));
        if *c != 'f' || !word.starts_with("fn ") || is_word(before) || !named {
            continue;
        }
        let last = end_of_item(&code, at).map_or(source.lines.len() - 1, |end| code[end].1);
        let lines = last - first + 1;
        if lines > FUNCTION_LINES_MAX && !source.lines[*first].test {
            let name: String =
                code[at + 3..].iter().map(|(c, _)| *c).take_while(|c| is_word(*c)).collect();
            let what = format!("`{name}` has {lines} lines, {FUNCTION_LINES_MAX} at most");
            findings.push(Finding::new(&source.path, *first, what));
        }
    }
    findings
}

/// Lines that need a wide window; rustfmt breaks neither comments nor text.
pub(crate) fn wide_lines(source: &Source) -> Vec<Finding> {
    let wide = source.lines.iter().enumerate().map(|(n, line)| (n, line.raw.chars().count()));
    wide.filter(|(_, columns)| *columns > COLUMNS_MAX)
        .map(|(n, columns)| Finding::new(&source.path, n, format!("{columns} columns")))
        .collect()
}

/// Files without module documentation. Tests beside their module are documented by it.
pub(crate) fn silent_files(source: &Source) -> Vec<Finding> {
    let beside = source.path.contains("/src/") && source.lines.iter().all(|line| line.test);
    let says = source.lines.first().is_some_and(|line| line.raw.starts_with("//! "));
    let what = "begin with `//!`: what this file is, before the first `use`";
    (!beside && !says).then(|| Finding::new(&source.path, 0, what)).into_iter().collect()
}

/// Reminders, placeholders and tests that do not run.
pub(crate) fn unfinished(source: &Source) -> Vec<Finding> {
    let placeholders = ["todo!(", "unimplemented!(", "dbg!(", "#[ignore"];
    let found = source.lines.iter().enumerate().filter(|(_, line)| {
        let comment = line.raw != line.uncommented;
        (comment && is_reminder(&line.raw))
            || placeholders.iter().any(|placeholder| line.code.contains(placeholder))
    });
    found.map(|(n, line)| Finding::new(&source.path, n, line.raw.trim())).collect()
}

/// Comments that cite a page no reader of the repository has.
pub(crate) fn absent_pages(source: &Source) -> Vec<Finding> {
    let cites = |comment: &str| comment.contains(concat!("contract", " §"));
    let found = source.lines.iter().enumerate().filter(|(_, line)| cites(&line.raw));
    found.map(|(n, line)| Finding::new(&source.path, n, line.raw.trim())).collect()
}

/// Whether a comment puts something off. The words are put together here, or this file would be
/// its own finding.
pub(crate) fn is_reminder(comment: &str) -> bool {
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|word| word.concat());
    let spoken = ["to be", "written)"].join(" ");
    words.iter().any(|word| has_word(comment, word)) || comment.contains(&spoken)
}

/// `unwrap()`, and `expect` without an invariant. clippy knows the first; not in macros.
pub(crate) fn unwrapped(source: &Source) -> Vec<Finding> {
    let bare = |line: &str| line.contains(".unwrap()") || line.contains(".expect(\"\")");
    let found = source.shipped().filter(|(_, line)| bare(&line.code));
    found.map(|(n, line)| Finding::new(&source.path, n, line.raw.trim())).collect()
}

/// Channels without a limit, of any library.
pub(crate) fn unbounded_channels(source: &Source) -> Vec<Finding> {
    let names = ["unbounded_channel", "UnboundedSender", "UnboundedReceiver"];
    let calls = ["::unbounded(", "::unbounded::<", "mpsc::channel()", "std::sync::mpsc::channel"];
    let found = source.lines.iter().enumerate().filter(|(_, line)| {
        names.iter().any(|name| has_word(&line.code, name))
            || calls.iter().any(|call| line.code.contains(call))
    });
    found.map(|(n, line)| Finding::new(&source.path, n, line.raw.trim())).collect()
}

/// `allow` and `expect` attributes that give no reason.
pub(crate) fn lints_lifted_silently(source: &Source) -> Vec<Finding> {
    let code = source.characters();
    let mut findings = Vec::new();
    for (n, line) in source.lines.iter().enumerate() {
        let attribute = line.code.trim_start();
        let lifts = ["allow(", "expect("].iter().any(|word| attribute.contains(word));
        if !attribute.starts_with("#[") && !attribute.starts_with("#![") || !lifts {
            continue;
        }
        let from = code.iter().position(|(c, at)| *at == n && *c == '[').unwrap_or(0);
        let mut depth = 0_usize;
        let end = code[from..].iter().position(|(c, _)| {
            depth = if *c == '[' { depth + 1 } else { depth - usize::from(*c == ']') };
            depth == 0
        });
        let end = end.map_or(code.len(), |end| from + end);
        let attribute: String = code[from..end].iter().map(|(c, _)| *c).collect();
        if !attribute.contains("reason =") {
            findings.push(Finding::new(&source.path, n, "add `reason = \"…\"`"));
        }
    }
    findings
}

/// Log messages that begin with a capital or end with a full stop.
pub(crate) fn loud_messages(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (n, line) in source.shipped() {
        for level in ["trace!(", "debug!(", "info!(", "warn!(", "error!("] {
            let Some(at) = line.code.find(level) else { continue };
            let before = line.code[..at].chars().next_back();
            if before.is_some_and(is_word) {
                continue;
            }
            let Some((at, message)) = message(source, n, at + level.len()) else { continue };
            // A name keeps its capitals: RabbitMQ, SIGTERM.
            let first: Vec<char> = message.chars().take_while(|c| is_word(*c)).collect();
            let name = first.iter().skip(1).any(|c| c.is_uppercase());
            let capital = first.first().is_some_and(|c| c.is_uppercase()) && !name;
            if capital || message.ends_with('.') {
                findings.push(Finding::new(&source.path, at, format!("\"{message}\"")));
            }
        }
    }
    findings
}

/// The message of the log macro whose arguments begin at `column` (in bytes) of line `n`: the
/// first outermost argument that is a literal; and the line it is on.
fn message(source: &Source, n: usize, column: usize) -> Option<(usize, String)> {
    let start = source.lines[n].code[..column].chars().count();
    let (mut depth, mut fresh) = (0_usize, true);
    for (at, line) in source.lines.iter().enumerate().skip(n) {
        let skipped = if at == n { start } else { 0 };
        for (place, c) in line.code.chars().enumerate().skip(skipped) {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => return None,
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                '"' if fresh && depth == 0 => {
                    let literal: String = line.uncommented.chars().skip(place + 1).collect();
                    let end = line.code.chars().skip(place + 1).position(|c| c == '"');
                    let literal = literal.chars().take(end.unwrap_or(usize::MAX)).collect();
                    return Some((at, literal));
                }
                c if !c.is_whitespace() => fresh = false,
                _ => {}
            }
        }
    }
    None
}

/// System tests and their world that wait for time to pass instead of for what they test.
pub(crate) fn sleeping_tests(source: &Source) -> Vec<Finding> {
    let sleeps = |code: &str| {
        let called = code.match_indices("sleep(").any(|(at, _)| !code[..at].ends_with(is_word));
        called || code.contains("sleep_until(") || code.contains("sleep_ms(")
    };
    let system = source.path.starts_with("tests/") && !source.path.starts_with("tests/bench");
    let found = source.lines.iter().enumerate().filter(|(_, line)| system && sleeps(&line.code));
    found.map(|(n, line)| Finding::new(&source.path, n, line.raw.trim())).collect()
}

/// Whether `word` occurs in `text` as a word of its own.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let (before, after) =
            (text[..at].chars().next_back(), text[at + word.len()..].chars().next());
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}
