//! A disk that loses power: what a process wrote, played back as if only what was synced had
//! reached the platter for certain, and of the rest whatever part one likes.
//!
//! strace writes down every call that changes the folder; [`read`] makes them [`Step`]s, and
//! [`Disk`] plays them. A sync makes durable what was written before it began. Of later writes any
//! subset of the 512-byte sectors may have reached the disk, in any order; of names made or
//! removed since the folder was synced, any; a new folder is itself a name in its parent. Memory
//! that files are mapped to (`-shm`) is never durable, and neither lock nor ballast hold anything
//! that is owed.

mod record;

pub use record::{CALLS, Step, read};

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// What one write to a disk can tear.
const SECTOR: usize = 512;

/// A disk under one folder.
pub struct Disk {
    root: PathBuf,
    ignored: Ignored,
    files: Vec<File>,
    /// The names as the process sees them, and as they are on the disk for certain.
    names: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// What happened to names and is not synced.
    renamed: Vec<(usize, PathBuf, Option<Node>)>,
    clock: usize,
    begun: BTreeMap<u32, usize>,
}

/// Which syncs the disk pretends to have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// None: an honest disk.
    None,
    /// All: to show that a loss is noticed.
    All,
    /// Those of the write-ahead log: what is acknowledged by nothing else.
    Log,
}

/// What of the unsynced is on the disk after all.
#[derive(Debug, Clone)]
pub enum Kept {
    /// Nothing.
    Nothing,
    /// Everything, as after a kill.
    Everything,
    /// Everything but the names.
    NoNames,
    /// Any sector, any name.
    Some(fastrand::Rng),
    /// All up to some write, which is torn; and the names.
    UpTo(fastrand::Rng),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Default)]
struct File {
    durable: Vec<u8>,
    pending: Vec<(usize, Change)>,
}

enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Disk {
    /// An empty one, whose `root` is there.
    #[must_use]
    pub fn new(root: &Path, ignored: Ignored) -> Self {
        Self {
            root: root.to_owned(),
            ignored,
            files: Vec::new(),
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            renamed: Vec::new(),
            clock: 0,
            begun: BTreeMap::new(),
        }
    }

    /// Plays one step.
    pub fn play(&mut self, step: &Step) {
        self.clock += 1;
        match step {
            Step::Folder(path) => self.name(path, Some(Node::Folder)),
            Step::Open(path) if !self.names.contains_key(path) => {
                self.files.push(File::default());
                self.name(path, Some(Node::File(self.files.len() - 1)));
            }
            Step::Remove(path) => self.name(path, None),
            Step::Write(path, at, bytes) => self.change(path, Change::Write(*at, bytes.clone())),
            Step::Resize(path, len) => self.change(path, Change::Resize(*len)),
            Step::SyncBegins(thread) => {
                self.begun.insert(*thread, self.clock);
            }
            Step::Synced(thread, path) => {
                let begun = self.begun.remove(thread).expect("it began");
                self.sync(path, begun);
            }
            Step::Open(_) | Step::Sent(_) => {}
        }
    }

    fn name(&mut self, path: &Path, node: Option<Node>) {
        if !path.starts_with(&self.root) {
            return;
        }
        match node {
            Some(node) => self.names.insert(path.to_owned(), node),
            None => self.names.remove(path),
        };
        self.renamed.push((self.clock, path.to_owned(), node));
    }

    fn change(&mut self, path: &Path, change: Change) {
        if let Some(Node::File(file)) = self.names.get(path) {
            self.files[*file].pending.push((self.clock, change));
        }
    }

    fn sync(&mut self, path: &Path, begun: usize) {
        let log = path.to_string_lossy().ends_with("-wal");
        if self.ignored == Ignored::All || (self.ignored == Ignored::Log && log) {
            return;
        }
        if path == self.root || self.names.get(path) == Some(&Node::Folder) {
            let inside =
                |(at, name, _): &(usize, PathBuf, _)| *at < begun && name.parent() == Some(path);
            for (_, name, node) in self.renamed.extract_if(.., |renamed| inside(renamed)) {
                set(&mut self.durable, name, node);
            }
        } else if let Some(Node::File(file)) = self.names.get(path) {
            let file = &mut self.files[*file];
            for (_, change) in file.pending.extract_if(.., |(at, _)| *at < begun) {
                change.apply(&mut file.durable, |_| true);
            }
        }
    }

    /// Writes what is left after power was lost into `folder`, as if it were the root.
    pub fn write(&self, folder: &Path, mut kept: Kept) {
        let mut names = self.durable.clone();
        for (_, name, node) in &self.renamed {
            if kept.name() {
                set(&mut names, name.clone(), *node);
            }
        }
        for (name, node) in &names {
            let there = folder.join(name.strip_prefix(&self.root).expect("under the root"));
            let parent = name.parent().expect("under the root");
            let reachable = parent == self.root || names.contains_key(parent);
            match node {
                _ if !reachable => {}
                Node::Folder => std::fs::create_dir_all(&there).expect("writable"),
                Node::File(file) => {
                    let bytes = self.files[*file].left(&mut kept);
                    std::fs::write(&there, bytes).expect("writable");
                }
            }
        }
    }
}

fn set(names: &mut BTreeMap<PathBuf, Node>, name: PathBuf, node: Option<Node>) {
    match node {
        Some(node) => names.insert(name, node),
        None => names.remove(&name),
    };
}

impl File {
    fn left(&self, kept: &mut Kept) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let last = match kept {
            Kept::UpTo(rng) => rng.usize(0..=self.pending.len()),
            _ => 0,
        };
        for (number, (_, change)) in self.pending.iter().enumerate() {
            match kept {
                Kept::Nothing => {}
                Kept::Everything | Kept::NoNames => change.apply(&mut bytes, |_| true),
                Kept::Some(rng) => change.apply(&mut bytes, |_| rng.bool()),
                Kept::UpTo(_) if number < last => change.apply(&mut bytes, |_| true),
                Kept::UpTo(rng) if number == last => {
                    let torn = rng.usize(0..=16);
                    change.apply(&mut bytes, |sector| sector < torn);
                }
                Kept::UpTo(_) => {}
            }
        }
        bytes
    }
}

impl Change {
    /// Applies the sectors, counted within the change, that `keep` wants.
    fn apply(&self, bytes: &mut Vec<u8>, mut keep: impl FnMut(usize) -> bool) {
        match self {
            Self::Resize(len) if keep(0) => bytes.resize(*len, 0),
            Self::Resize(_) => {}
            Self::Write(at, new) => {
                let (mut from, mut number) = (0, 0);
                while from < new.len() {
                    // To the end of the sector of the disk.
                    let to = new.len().min((at + from) / SECTOR * SECTOR + SECTOR - at);
                    if keep(number) {
                        bytes.resize(bytes.len().max(at + to), 0);
                        bytes[at + from..at + to].copy_from_slice(&new[from..to]);
                    }
                    (from, number) = (to, number + 1);
                }
            }
        }
    }
}

impl Kept {
    fn name(&mut self) -> bool {
        match self {
            Self::Nothing | Self::NoNames => false,
            Self::Everything | Self::UpTo(_) => true,
            Self::Some(rng) => rng.bool(),
        }
    }
}
