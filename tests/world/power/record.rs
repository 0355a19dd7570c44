//! Reading what strace wrote down.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// The calls to be written down.
pub const CALLS: &str = "openat,pwrite64,ftruncate,fsync,fdatasync,unlink,mkdir,rename,fallocate,\
                         sendto,writev,sendmsg";

/// What one call did.
#[derive(Debug)]
pub enum Step {
    /// Made a folder.
    Folder(PathBuf),
    /// Opened a file, and made it if it was not there.
    Open(PathBuf),
    /// Removed a name.
    Remove(PathBuf),
    /// Wrote bytes to a place in a file.
    Write(PathBuf, usize, Vec<u8>),
    /// Cut a file, or made it longer.
    Resize(PathBuf, usize),
    /// A thread began to sync something.
    SyncBegins(u32),
    /// It has synced a file or a folder.
    Synced(u32, PathBuf),
    /// Sent bytes to somebody; from here on they may know.
    Sent(Vec<u8>),
}

/// The steps that `log` tells about what lies under `root`, and what was sent, in their order. A
/// write counts from when it began, a sync from when it had ended.
///
/// # Panics
/// At a call that [`Disk`](super::Disk) could not play.
#[must_use]
pub fn read(log: &str, root: &Path) -> Vec<Step> {
    let mut steps = Vec::new();
    // What a thread has begun: its call, and what was known then.
    let mut begun: HashMap<u32, String> = HashMap::new();
    for line in log.lines() {
        let Some((thread, said)) = line.split_once(' ') else { continue };
        let thread: u32 = thread.parse().expect("a thread first");
        let said = said.trim_start();
        if let Some(resumed) = said.strip_prefix("<... ") {
            let Some(call) = begun.remove(&thread) else { continue };
            let end = resumed.split_once("resumed>").expect("it says so").1;
            ended(&call, end, thread, root, &mut steps);
        } else if let Some(call) = said.strip_suffix(" <unfinished ...>") {
            began(call, thread, root, &mut steps);
            begun.insert(thread, call.to_owned());
        } else if said.contains('(') && !said.starts_with("+++") {
            began(said, thread, root, &mut steps);
            ended(said, said, thread, root, &mut steps);
        }
    }
    steps
}

/// What counts from its beginning: a write may reach the disk, and a message its reader, before
/// the call returns.
fn began(call: &str, thread: u32, root: &Path, steps: &mut Vec<Step>) {
    let (name, arguments) = call.split_once('(').expect("a call");
    let file = descriptor(arguments);
    let ours = file.as_deref().is_some_and(|path| durable(path, root));
    match (name, file) {
        ("sendto" | "writev" | "sendmsg", _) => {
            steps.push(Step::Sent(quoted(arguments).concat()));
        }
        ("pwrite64", Some(path)) if ours => {
            let bytes = quoted(arguments).concat();
            let mut rest = arguments.rsplit('"').next().expect("after the bytes").split(", ");
            let mut number = || rest.next().map(digits).expect("a number");
            number();
            let (len, at) = (number(), number());
            assert_eq!(bytes.len(), len, "strace cut it short");
            steps.push(Step::Write(path, at, bytes));
        }
        ("ftruncate", Some(path)) if ours => {
            let len = arguments.rsplit_once(">, ").expect("a length").1;
            let len = len.split([')', ' ']).next().expect("a length");
            let hex = len.strip_prefix("0x").map(|hex| usize::from_str_radix(hex, 16));
            let len = hex.unwrap_or_else(|| len.parse()).expect("a length");
            steps.push(Step::Resize(path, len));
        }
        ("fsync" | "fdatasync", Some(_)) => steps.push(Step::SyncBegins(thread)),
        ("rename" | "fallocate", _) if arguments.contains(&hex(root)) => {
            panic!("this is not played yet: {call}");
        }
        _ => {}
    }
}

/// What counts once it has been done.
fn ended(call: &str, end: &str, thread: u32, root: &Path, steps: &mut Vec<Step>) {
    let (name, arguments) = call.split_once('(').expect("a call");
    let done = end.rsplit_once(" = ").is_some_and(|(_, result)| !result.starts_with(['-', '?']));
    if !done {
        return;
    }
    let named = || PathBuf::from(text(&quoted(arguments).swap_remove(0)));
    match name {
        "mkdir" if named().starts_with(root) => steps.push(Step::Folder(named())),
        "unlink" if durable(&named(), root) => steps.push(Step::Remove(named())),
        "openat" if arguments.contains("O_CREAT") => {
            let path = named();
            if durable(&path, root) {
                assert!(!arguments.contains("O_TRUNC"), "this is not played yet: {path:?}");
                steps.push(Step::Open(path));
            }
        }
        "fsync" | "fdatasync" => {
            let path = descriptor(arguments).expect("what was synced");
            steps.push(Step::Synced(thread, path));
        }
        _ => {}
    }
}

/// Whether it lies under `root` and is meant to last.
fn durable(path: &Path, root: &Path) -> bool {
    let name = path.to_string_lossy();
    let passing = ["-shm", ".lock", ".ballast"].iter().any(|ending| name.ends_with(ending));
    path.starts_with(root) && !passing
}

/// The path of the first argument, a descriptor: `11<\x2f…>`.
fn descriptor(arguments: &str) -> Option<PathBuf> {
    let (number, rest) = arguments.split_once('<')?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    Some(PathBuf::from(text(&unhex(rest.split_once('>')?.0))))
}

/// The quoted arguments.
fn quoted(arguments: &str) -> Vec<Vec<u8>> {
    arguments.split('"').skip(1).step_by(2).map(unhex).collect()
}

/// `\x2f\x74` as bytes; what is not so written stands for itself.
fn unhex(written: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(written.len() / 4);
    let mut rest = written.as_bytes();
    while let Some(first) = rest.first() {
        match rest {
            [b'\\', b'x', high, low, ..] => {
                bytes.push(nibble(*high) << 4 | nibble(*low));
                rest = &rest[4..];
            }
            _ => {
                bytes.push(*first);
                rest = &rest[1..];
            }
        }
    }
    bytes
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => digit - b'a' + 10,
    }
}

fn hex(path: &Path) -> String {
    path.to_string_lossy().bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn digits(written: &str) -> usize {
    let end = written.find(|c: char| !c.is_ascii_digit()).unwrap_or(written.len());
    written[..end].parse().unwrap_or_default()
}
