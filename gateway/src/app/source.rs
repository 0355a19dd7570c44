//! Where the configuration is read from, again and again, and how it is noticed that it changed.
//!
//! Files are looked at, not watched: a mounted Kubernetes ConfigMap changes by a link to a link,
//! which every kind of watch misses in its own way. What is compared is which files there are and
//! what the system knows of each (which one it is, its size and times), behind all links. A change
//! is taken up once two looks in a row agree, so that a half-written file is not read; and what was
//! read while something changed is read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tidegate_adapters::secret::Mask;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Environment, Loaded, Report};

/// How often the files are looked at; and again, while they change.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// How often it is read anew when something changed meanwhile.
const READS: u32 = 5;

/// Where a configuration comes from.
pub struct ConfigSource {
    paths: Vec<PathBuf>,
    environment: Environment,
    watched: bool,
    seen: Mutex<Seen>,
}

/// What the last read saw.
#[derive(Default)]
struct Seen {
    /// Every file that it read or that was named there.
    files: BTreeSet<PathBuf>,
    look: Look,
}

/// What the system knows of each file; `None` is that there is none.
type Look = BTreeMap<PathBuf, Option<File>>;

/// What tells a file from what it was: device, inode, size, times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct File {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl ConfigSource {
    /// The files and folders of `-c`, and the process's environment. Unless they are `watched` it
    /// is read again only when somebody asks for it.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>, environment: Environment, watched: bool) -> Self {
        Self { paths, environment, watched, seen: Mutex::default() }
    }

    /// Reads it, with the secrets known so far in `mask`. Blocks.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load(&self, mask: &Mask) -> Result<Loaded, Report> {
        let mut reads = 1;
        loop {
            let files = self.seen.lock().files.clone();
            let before = self.look(&files);
            let loaded = config::load_over(&self.paths, &self.environment, mask.clone());
            let files = match &loaded {
                Ok(loaded) => loaded.files.clone(),
                // What it named before is still worth a look: it may be what mends it.
                Err(_) => files,
            };
            let after = self.look(&files);
            let whole = before.iter().all(|(path, file)| after.get(path).unwrap_or(file) == file);
            *self.seen.lock() = Seen { files, look: after };
            if whole || reads == READS {
                return loaded;
            }
            reads += 1;
        }
    }

    /// Resolves when the files are others than at the last read, and have come to rest. Never,
    /// once `stop` is cancelled.
    pub(super) async fn changed(self: &Arc<Self>, stop: &CancellationToken) {
        if !self.watched {
            std::future::pending().await
        }
        let mut last = None;
        loop {
            let pause = if last.is_some() { LOOK_AGAIN } else { LOOK };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => std::future::pending().await,
            }
            let source = Arc::clone(self);
            let looked = tokio::task::spawn_blocking(move || {
                let seen = source.seen.lock();
                let now = source.look(&seen.files);
                (now != seen.look).then_some(now)
            });
            // It panics only with us.
            let Ok(now) = looked.await else { continue };
            if now.is_some() && now == last {
                return;
            }
            last = now;
        }
    }

    fn look(&self, files: &BTreeSet<PathBuf>) -> Look {
        let mut all = files.clone();
        for path in &self.paths {
            match config::files_in(path) {
                Ok(found) if path.is_dir() => all.extend(found),
                _ => _ = all.insert(path.clone()),
            }
        }
        all.into_iter().map(|path| (path.clone(), known(&path))).collect()
    }
}

fn known(path: &Path) -> Option<File> {
    let file = std::fs::metadata(path).ok()?;
    Some(File {
        device: file.dev(),
        inode: file.ino(),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}
