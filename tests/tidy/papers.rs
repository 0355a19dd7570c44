//! Rules about what is not Rust: manifests, lists of exceptions, pages.

use super::{
    source::{self, Finding},
    text::{has_word, is_reminder},
};

const MANIFEST: &str = "Cargo.toml";
const MEMBERS: [&str; 3] = ["adapters/Cargo.toml", "gateway/Cargo.toml", "tests/Cargo.toml"];
const ARCHITECTURE_LINES_MAX: usize = 150;

/// Absolute paths of somebody's machine, in any text file.
pub(crate) fn machine_paths() -> Vec<Finding> {
    let folders =
        ["home", "Users", "root", "work", "tmp/wt", "mnt"].map(|name| format!("/{name}/"));
    let mut findings = Vec::new();
    for path in source::files().into_iter().filter(|path| path != "Cargo.lock") {
        for (n, line) in lines(&path) {
            let found = folders.iter().flat_map(|folder| line.match_indices(folder.as_str()));
            // Within an address or a longer path it is only a word.
            let whole = |at: usize| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "_-./*}$".contains(c))
            };
            if found.map(|(at, _)| at).any(whole) {
                findings.push(Finding::new(&path, n, line.trim()));
            }
        }
    }
    findings
}

/// Reminders in what is not Rust.
pub(crate) fn reminders() -> Vec<Finding> {
    let files = source::files().into_iter();
    let mut findings = Vec::new();
    for path in files.filter(|path| !path.ends_with(".rs") && path != "Cargo.lock") {
        let reminders = lines(&path).filter(|(_, line)| is_reminder(line));
        findings.extend(reminders.map(|(n, line)| Finding::new(&path, n, line.trim())));
    }
    findings
}

/// Members that bring versions, features of their own or lints of their own.
pub(crate) fn manifests_apart() -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in MEMBERS {
        let mut inherits_lints = false;
        for (section, n, line) in sections(path) {
            let dependency = section.ends_with("dependencies") && line.contains('=');
            if dependency && !line.contains("workspace = true") {
                findings.push(Finding::new(path, n, "write its version in the root manifest"));
            }
            if section == "features" {
                findings.push(Finding::new(path, n, "no features of our own"));
            }
            inherits_lints |= section == "lints" && line.trim() == "workspace = true";
        }
        if !inherits_lints {
            findings.push(Finding::new(path, 0, "add `[lints] workspace = true`"));
        }
    }
    findings
}

/// Dependencies that no line of their package names.
pub(crate) fn unused_dependencies() -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in MEMBERS {
        let folder = path.trim_end_matches(MANIFEST);
        let dependencies = sections(path).into_iter();
        for (_, n, line) in dependencies.filter(|(section, ..)| section.ends_with("dependencies")) {
            let name = name_of(&line).replace('-', "_");
            let mut code = source::repository().iter().filter(|source| source.is_under(folder));
            let named = code.any(|file| file.lines.iter().any(|line| has_word(&line.code, &name)));
            if !named {
                findings.push(Finding::new(path, n, format!("no line names `{name}`")));
            }
        }
    }
    findings
}

/// Dependencies nobody uses, or that the table in `CONTRIBUTING.md` does not know; and rows of it
/// for what is no dependency.
pub(crate) fn unexplained_dependencies() -> Vec<Finding> {
    let members: Vec<String> = MEMBERS
        .iter()
        .flat_map(|path| sections(path))
        .filter(|(section, ..)| section.ends_with("dependencies"))
        .map(|(.., line)| name_of(&line))
        .collect();
    let page = "CONTRIBUTING.md";
    let rows = lines(page).skip_while(|(_, line)| !line.starts_with("## Dependencies")).skip(1);
    let rows = rows.take_while(|(_, line)| !line.starts_with("## "));
    let first_cells = rows.filter_map(|(n, line)| {
        let cell = line.strip_prefix("| ")?.split(" | ").next()?.to_owned();
        Some((n, cell))
    });
    let explained: Vec<(usize, String)> = first_cells
        .flat_map(|(n, cell)| quoted(&cell).into_iter().map(move |name| (n, name)))
        .collect();

    let mut findings = Vec::new();
    let mut known = Vec::new();
    for (section, n, line) in sections(MANIFEST) {
        let name = name_of(&line);
        if section != "workspace.dependencies" || line.contains("path =") || name.is_empty() {
            continue;
        }
        if !members.contains(&name) {
            findings.push(Finding::new(MANIFEST, n, format!("nobody uses `{name}`")));
        }
        if !explained.iter().any(|(_, explained)| *explained == name) {
            let what = format!("say in {page}, \"Dependencies\", why `{name}` and not its rival");
            findings.push(Finding::new(MANIFEST, n, what));
        }
        known.push(name);
    }
    let gone = explained.into_iter().filter(|(_, name)| !known.contains(name));
    findings.extend(gone.map(|(n, name)| Finding::new(page, n, format!("no dependency: {name}"))));
    findings
}

/// Entries of clippy's and cargo-deny's lists, and lints allowed for all, without a reason.
pub(crate) fn lists_without_reasons() -> Vec<Finding> {
    let mut findings = Vec::new();
    for path in ["clippy.toml", "deny.toml"] {
        for (n, line) in lines(path) {
            let entry = ["{ path =", "{ crate =", "{ id =", "{ name ="];
            let entry = entry.iter().any(|start| line.trim_start().starts_with(start));
            if entry && !line.contains("reason = \"") {
                findings.push(Finding::new(path, n, "add `reason = \"…\"`"));
            }
        }
    }
    for (section, n, line) in sections(MANIFEST) {
        let lifted = section.starts_with("workspace.lints") && line.contains("\"allow\"");
        if lifted && !line.contains("# ") {
            findings.push(Finding::new(MANIFEST, n, "say why in a comment on this line"));
        }
    }
    findings
}

/// Relative links to files that are not there.
pub(crate) fn dead_links() -> Vec<Finding> {
    let files = source::files();
    let mut findings = Vec::new();
    for page in files.iter().filter(|path| path.ends_with(".md")) {
        let folder =
            page.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        for (n, line) in lines(page) {
            for link in line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
                let target = resolved(&folder, link);
                let target = target.as_str();
                let there = files.iter().any(|file| {
                    file.strip_prefix(target).is_some_and(|r| r.is_empty() || r.starts_with('/'))
                });
                if !link.contains(':') && !link.is_empty() && !there {
                    findings.push(Finding::new(page, n, format!("no such file: {link}")));
                }
            }
        }
    }
    findings
}

/// The path, from the repository's root, that a link in `folder` leads to.
fn resolved(folder: &str, link: &str) -> String {
    let mut path: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(link.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(path.pop()),
            part => path.push(part),
        }
    }
    path.join("/")
}

/// Lines of the readme's YAML that the quickstart, which is validated elsewhere, does not have, or
/// has in another order.
pub(crate) fn readme_apart_from_quickstart() -> Vec<Finding> {
    let (page, file) = ("README.md", "config/quickstart.yaml");
    let mut quickstart = lines(file).map(|(_, line)| line);
    let example = lines(page).skip_while(|(_, line)| line != "```yaml").skip(1);
    let mut example = example.take_while(|(_, line)| line != "```").peekable();
    if example.peek().is_none() {
        return vec![Finding::new(page, 0, "shows no configuration")];
    }
    let apart = example.find(|(_, line)| !line.is_empty() && !quickstart.any(|l| l == *line));
    let apart = apart.map(|(n, line)| Finding::new(page, n, format!("not so in {file}: {line}")));
    apart.into_iter().collect()
}

/// An architecture page that has grown into a book.
pub(crate) fn long_architecture() -> Vec<Finding> {
    let page = "ARCHITECTURE.md";
    let count = lines(page).count();
    let fits = (1..=ARCHITECTURE_LINES_MAX).contains(&count);
    let what = format!("{count} lines: one to {ARCHITECTURE_LINES_MAX}, of what does not change");
    (!fits).then(|| Finding::new(page, 0, what)).into_iter().collect()
}

/// The lines of a file, from 0; none when it is not text.
fn lines(path: &str) -> impl Iterator<Item = (usize, String)> + use<> {
    let text = source::text(path).unwrap_or_default();
    text.lines().map(str::to_owned).enumerate().collect::<Vec<_>>().into_iter()
}

/// The lines of a manifest, each with its section and number, without blank ones and comments.
fn sections(path: &str) -> Vec<(String, usize, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for (n, line) in lines(path) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']', ' ']).to_owned();
        } else if !line.trim().is_empty() && !line.starts_with('#') {
            found.push((section.clone(), n, line));
        }
    }
    found
}

/// The key of a manifest's line: `tokio.workspace = true` is `tokio`.
fn name_of(line: &str) -> String {
    let key = line.split(['=', '.']).next().unwrap_or_default();
    key.trim().trim_matches('"').to_owned()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
