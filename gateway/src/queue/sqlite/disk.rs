//! The queue's files beside the database: the lock and the ballast.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::queue::QueueError;

/// The ballast's size, unless the queue is small.
const BALLAST: u64 = 16 << 20;

/// Says that this process owns the queue file, for as long as it lives; the system forgets it when
/// the process dies, however it dies.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// Makes the folder and the file, readable by us alone.
///
/// # Errors
/// What the system says; and when the file is gone and its log is not, for SQLite would remove what
/// is left.
pub(super) fn prepare(path: &Path) -> Result<(), QueueError> {
    let failed =
        |error: std::io::Error| QueueError::Store(format!("{}: {error}", path.display()).into());
    let len = |path: &Path| std::fs::metadata(path).map_or(0, |known| known.len());
    let log = with_ending(path, "-wal");
    if len(path) == 0 && len(&log) > 0 {
        return Err(QueueError::Store(
            format!(
                "{}: missing or empty, and its log {} is not: put the file back, or both away",
                path.display(),
                log.display()
            )
            .into(),
        ));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let made = folder.ancestors().take_while(|folder| !folder.exists()).count();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        // A folder is a name in its parent, and names outlast a loss of power once the parent is
        // synced. The last one always: whoever made it may have been killed before it came to that.
        for folder in folder.ancestors().take(made.max(1)) {
            sync_parent(folder).map_err(failed)?;
        }
    }
    private().create(true).append(true).open(path).map(drop).map_err(failed)
}

fn sync_parent(folder: &Path) -> std::io::Result<()> {
    let parent = match folder.parent() {
        None => return Ok(()),
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
    };
    // A parent that we may pass and not read was there before us.
    let Ok(parent) = File::open(parent) else { return Ok(()) };
    match parent.sync_all() {
        // There are file systems that sync no folders.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

impl Lock {
    /// Takes the lock of the queue file at `path`.
    ///
    /// # Errors
    /// [`QueueError::Owned`] with the owner's process id.
    pub(super) fn take(path: &Path) -> Result<Self, QueueError> {
        let lock_path = beside(path, "lock");
        let failed = |error: std::io::Error| {
            QueueError::Store(format!("{}: {error}", lock_path.display()).into())
        };
        let mut file =
            private().create(true).read(true).write(true).open(&lock_path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner).map_err(failed)?;
                let owner = owner.trim().to_owned();
                return Err(QueueError::Owned { path: path.display().to_string(), owner });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// A file that takes up room, to be given up when the disk is full: settlements need some to make
/// more.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    size: u64,
}

impl Ballast {
    pub(super) fn new(path: &Path, max_size: u64) -> Self {
        Self { path: beside(path, "ballast"), size: ballast_size(max_size) }
    }

    /// The queue may now take `max_size`; [`Ballast::take_up`] makes it so.
    pub(super) fn resize(&mut self, max_size: u64) {
        self.size = ballast_size(max_size);
    }

    /// Takes up the room, if there is any; a full disk is no error here.
    pub(super) fn take_up(&self) -> bool {
        if std::fs::metadata(&self.path).is_ok_and(|known| known.len() == self.size) {
            return true;
        }
        let written = private().create(true).write(true).truncate(true).open(&self.path).and_then(
            |mut file| {
                // Written, not only sized: a sparse file takes up nothing.
                let zeros = vec![0; 1 << 16];
                let mut left = self.size;
                while left > 0 {
                    let step = left.min(zeros.len() as u64);
                    let step_len = usize::try_from(step).unwrap_or(zeros.len());
                    file.write_all(&zeros[..step_len])?;
                    left -= step;
                }
                file.sync_all()
            },
        );
        if written.is_err() {
            self.give_up();
        }
        written.is_ok()
    }

    /// Gives the room back to the disk.
    pub(super) fn give_up(&self) {
        // If even this fails there is nothing more to give.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn ballast_size(max_size: u64) -> u64 {
    BALLAST.min(max_size / 16)
}

/// `<path>.<ending>`
fn beside(path: &Path, ending: &str) -> PathBuf {
    with_ending(path, &format!(".{ending}"))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}
