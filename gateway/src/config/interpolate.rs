//! `${VAR}` and its kin, in scalar values, after YAML was parsed and before anything is typed.
//!
//! What is put in is never read again: not as YAML, for it stays within its scalar; not for
//! further `${…}`; and a [`Part`] remembers it, so that it stays literal text in a template.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use tidegate_adapters::secret::Mask;

use super::{
    Environment,
    report::{Problem, did_you_mean},
    tree::{Kind, Node, Part, Scalar},
};

/// The largest file `${file:…}` reads, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Interpolates every scalar below `node`, whose key path is `path`. A scalar that cannot be
/// becomes [`Kind::Failed`], so that nobody complains of it twice.
pub(crate) fn interpolate(
    node: &mut Node,
    path: &str,
    env: &Environment,
    mask: &Mask,
    problems: &mut Vec<Problem>,
) {
    match &mut node.kind {
        Kind::Failed => {}
        Kind::Scalar(scalar) => {
            if let Err(message) = scalar_in_place(scalar, env, mask) {
                problems.push(Problem::new(&node.place, path, message));
                node.kind = Kind::Failed;
            }
        }
        Kind::List(items) => {
            for (n, item) in items.iter_mut().enumerate() {
                interpolate(item, &format!("{path}[{n}]"), env, mask, problems);
            }
        }
        Kind::Map(entries) => {
            for entry in entries {
                let path = join(path, &entry.key);
                interpolate(&mut entry.value, &path, env, mask, problems);
            }
        }
    }
}

/// `path.key`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn scalar_in_place(scalar: &mut Scalar, env: &Environment, mask: &Mask) -> Result<(), String> {
    if !scalar.text.contains("${") {
        return Ok(());
    }
    let mut parts = Vec::new();
    let mut written = String::new();
    let mut rest = scalar.text.as_str();
    while let Some(at) = rest.find('$') {
        written.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            written.push_str("${");
            rest = after;
        } else if let Some(after) = rest.strip_prefix("${") {
            let end = closing_brace(after)
                .ok_or("`${` without its `}`; write `$${` where a literal `${` is meant")?;
            let (value, secret) = value_of(&after[..end], env)?;
            if secret {
                mask.add(&value);
                scalar.secret = true;
            }
            parts.push(Part::Written(std::mem::take(&mut written)));
            parts.push(Part::Inserted(value));
            rest = &after[end + 1..];
        } else {
            written.push('$');
            rest = &rest[1..];
        }
    }
    written.push_str(rest);
    if parts.is_empty() {
        scalar.text = written;
        return Ok(());
    }
    parts.push(Part::Written(written));
    scalar.text =
        parts.iter().map(|(Part::Written(text) | Part::Inserted(text))| &**text).collect();
    scalar.parts = parts;
    Ok(())
}

/// Where the `}` is that closes; braces in between are balanced.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The value, and whether it is a secret by its origin.
fn value_of(inside: &str, env: &Environment) -> Result<(String, bool), String> {
    if inside.contains("${") {
        return Err("`${…}` within `${…}` is not read: write one of them only".into());
    }
    if let Some(path) = inside.strip_prefix("file:") {
        return match env.stand_in(path) {
            Some(stand_in) => Ok((stand_in, true)),
            None => Ok((read(Path::new(path))?, true)),
        };
    }
    let length = inside.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    let (name, rest) = inside.split_at(length);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(not_understood(inside));
    }
    let value = env.get(name)?;
    let filled = value.filter(|value| !value.is_empty());
    match (rest.get(..2), rest) {
        (_, "") => value.map(str::to_owned).or_else(|| env.stand_in(name)).ok_or_else(|| {
            let near = did_you_mean(name, env.names());
            format!(
                "the environment variable {name} is not set{near}; set it, or give a default: \
                 ${{{name}:-default}}"
            )
        }),
        (Some(":-"), rest) => Ok(filled.unwrap_or(&rest[2..]).to_owned()),
        (Some(":?"), rest) => filled
            .map(str::to_owned)
            .or_else(|| env.stand_in(name))
            .ok_or_else(|| format!("the environment variable {name} is not set: {}", &rest[2..])),
        _ => return Err(not_understood(inside)),
    }
    .map(|value| (value, false))
}

fn not_understood(inside: &str) -> String {
    format!(
        "`${{{inside}}}` is not understood: write ${{VAR}}, ${{VAR:-default}}, ${{VAR:?message}} \
         or ${{file:/path}}, and `$${{` where a literal `${{` is meant"
    )
}

/// A secret's file: text, one trailing newline trimmed.
fn read(path: &Path) -> Result<String, String> {
    let name = path.display();
    if path == PathBuf::new() {
        return Err("`${file:}` names no file: write ${file:/path}".into());
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("the file {name} cannot be read: {error}"))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(format!("the file {name} is larger than 1 MiB: that is no setting"));
    }
    let mut text =
        String::from_utf8(bytes).map_err(|_| format!("the file {name} is not UTF-8 text"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
