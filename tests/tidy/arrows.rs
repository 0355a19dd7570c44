//! Who may import whom: `ARCHITECTURE.md`, "The tree".

use super::source::{Finding, Source, is_word};

/// Crates that have a place, the modules that are it, and why.
const PLACES: &[(&[&str], &[&str], &str)] = &[
    (&["lapin"], &["adapters/src/rabbitmq"], "only the RabbitMQ ends speak AMQP"),
    (&["reqwest"], &["adapters/src/otlp"], "one constructor sets what its defaults leave open"),
    (
        &["hyper", "hyper_util"],
        &[
            "gateway/src/admin",
            "gateway/src/mock",
            "adapters/src/http/receiver",
            "adapters/src/http/caller",
        ],
        "only where something listens, and in the one HTTP client",
    ),
    (&["rusqlite"], &["gateway/src/queue/sqlite"], "the rest knows the Queue contract"),
    (&["config"], &["gateway/src/config"], "the rest reads the Config it makes"),
    (
        &["jaq_core", "jaq_json", "jaq_std"],
        &["adapters/src/expression"],
        "what could run away is refused in one place",
    ),
    (&["clap"], &["gateway/src/cli", "gateway/src/main"], "arguments are read in one place"),
];

/// Modules, and paths that never occur in them.
const STRANGERS: &[(&str, &[&str])] = &[
    ("adapters/src/", &["tidegate", "tidegate_tests"]),
    ("gateway/src/", &["tidegate_tests"]),
    ("adapters/src/rabbitmq", &["crate::http"]),
    ("adapters/src/http", &["crate::rabbitmq"]),
    ("gateway/src/queue", &["crate::protect"]),
    ("gateway/src/protect", &["crate::queue"]),
    ("gateway/src/admin", &["crate::delivery"]),
    ("gateway/src/delivery", &["crate::admin"]),
];

/// What a stranger may import all the same: (importer, path, why).
const INTRODUCED: &[(&str, &str, &str)] = &[
    ("adapters/src/rabbitmq", "crate::http::TlsConfig", "`tls:` means the same in both"),
    ("adapters/src/rabbitmq", "crate::http::tls", "one TLS configuration for all that dials out"),
];

/// Uses of a crate outside its place.
pub(crate) fn misplaced_crates(source: &Source) -> Vec<Finding> {
    // The gateway has a module of the same name as the crate `config`.
    let own_config = paths(source).iter().any(|(_, path)| path.ends_with("::config"))
        || source.lines.iter().any(|line| line.code.contains("mod config;"));
    let shipped = paths(source).into_iter().filter(|(line, _)| !source.lines[*line].test);
    let mut findings = Vec::new();
    for (line, path) in shipped.filter(|_| !source.path.starts_with("tests/")) {
        let first = path.split("::").next().unwrap_or_default();
        for (crates, places, why) in PLACES {
            let at_home = places.iter().any(|place| source.is_under(place));
            let own = first == "config" && own_config;
            if crates.contains(&first) && !at_home && !own {
                let places = places.join(", ");
                findings.push(Finding::new(
                    &source.path,
                    line,
                    format!("`{path}`: the place of `{first}` is {places}: {why}"),
                ));
            }
        }
    }
    findings
}

/// Imports of modules that must not know each other.
pub(crate) fn strangers_met(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (module, strangers) in STRANGERS.iter().filter(|(module, _)| source.is_under(module)) {
        let introduced = |path: &str| {
            INTRODUCED.iter().any(|(to, known, _)| to == module && begins_with(path, known))
        };
        for (line, path) in paths(source) {
            let stranger = strangers.iter().find(|stranger| begins_with(&path, stranger));
            if let Some(stranger) = stranger.filter(|_| !introduced(&path)) {
                let what = format!("`{path}`: {module} does not know `{stranger}`");
                findings.push(Finding::new(&source.path, line, what));
            }
        }
    }
    findings
}

/// Whether `path` is `prefix` or lies within it.
fn begins_with(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Every path of two names or more, `use` trees spread out, `self` and `super` resolved, with its
/// line.
fn paths(source: &Source) -> Vec<(usize, String)> {
    let code = source.characters();
    let module = source.module();
    let mut paths = Vec::new();
    let mut at = 0;
    while at < code.len() {
        if !is_word(code[at].0) {
            at += 1;
            continue;
        }
        let line = code[at].1;
        let path = path_at(&code, at);
        at += path.chars().count();
        if path == "use" {
            let end = code[at..].iter().position(|(c, _)| *c == ';').map_or(code.len(), |n| at + n);
            let tree: String = code[at..end].iter().map(|(c, _)| *c).collect();
            let mut spread = Vec::new();
            spread_use(String::new(), &tree, &mut spread);
            paths.extend(spread.into_iter().map(|path| (line, path)));
            at = end;
        } else if path.contains("::") {
            paths.push((line, path.trim_end_matches(':').to_owned()));
        }
    }
    paths.into_iter().map(|(line, path)| (line, absolute(&module, &path))).collect()
}

/// The names and `::` that follow each other from `from`.
fn path_at(code: &[(char, usize)], from: usize) -> String {
    let mut path = String::new();
    for (n, (c, _)) in code[from..].iter().enumerate() {
        let colon = |n: usize| code.get(from + n).is_some_and(|(c, _)| *c == ':');
        let within = is_word(*c) || (*c == ':' && (colon(n + 1) || path.ends_with(':')));
        if !within || path.ends_with(":::") {
            break;
        }
        path.push(*c);
    }
    path
}

/// Adds every path of a `use` tree to `paths`.
fn spread_use(prefix: String, tree: &str, paths: &mut Vec<String>) {
    for branch in branches(tree) {
        if let Some((head, rest)) = branch.split_once('{') {
            let inner = rest.strip_suffix('}').unwrap_or(rest);
            spread_use(format!("{prefix}{}", head.trim()), inner, paths);
        } else {
            let name = branch.split(" as ").next().unwrap_or(branch).trim();
            let path = format!("{prefix}{name}");
            let path = path.trim_start_matches("::");
            paths.push(path.strip_suffix("::self").unwrap_or(path).to_owned());
        }
    }
}

/// `tree` cut at its outermost commas.
fn branches(tree: &str) -> Vec<&str> {
    let (mut depth, mut start, mut branches) = (0_usize, 0, Vec::new());
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                branches.push(tree[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    branches.push(tree[start..].trim());
    branches.retain(|branch| !branch.is_empty());
    branches
}

/// `path` seen from the crate's root, where it begins with `self` or `super`.
fn absolute(module: &[&str], path: &str) -> String {
    let names: Vec<&str> = path.split("::").collect();
    let supers = names.iter().take_while(|name| **name == "super").count();
    let (up, rest) = match (names.first(), supers) {
        (Some(&"self"), _) => (0, &names[1..]),
        (_, 0) => return path.to_owned(),
        _ => (supers, &names[supers..]),
    };
    let kept = &module[..module.len().saturating_sub(up)];
    std::iter::once("crate").chain(kept.iter().chain(rest).copied()).collect::<Vec<_>>().join("::")
}
