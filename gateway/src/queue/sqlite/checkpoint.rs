//! Folding the write-ahead log into the database, on a thread and a connection of its own: on the
//! writer it would be a pause that every waiting yes feels.
//!
//! # Why the log does not grow for ever
//!
//! SQLite begins the log anew only at a commit that finds all of it folded in and nobody reading
//! it. A fold on another thread never gets that far while the writer goes on: whatever it folds,
//! a few commits are there behind it. So, once the log is long ([`LONG`]), the thread folds until
//! little is left, and that little the writer folds itself, between two commits; the next one
//! begins the log anew. How much is left is what was written during one fold, so the pause is
//! short. One who reads for long holds that up; the log grows then, and by [`MOST`] the writer
//! waits for whatever can be folded.
//!
//! What is counted are the log's pages, not what was put into rows: a commit writes every page it
//! has touched.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

/// So much of the log is not folded in when a fold is due, in bytes.
const DUE: u64 = 4 << 20;

/// With a log as long as this it is time to begin it anew.
const LONG: u64 = 16 << 20;

/// Little enough for the writer to fold by itself.
const LITTLE: u64 = 1 << 20;

/// With a log as long as this the writer folds whatever is left.
const MOST: u64 = 4 * LONG;

/// What the writer and the checkpoint thread share.
#[derive(Debug)]
pub(super) struct Pressure {
    page: u64,
    /// Pages in the log after the last commit.
    log: AtomicU64,
    /// Of those, the pages folded in.
    folded: AtomicU64,
    /// Pages in the log when the writer last folded in vain.
    tried: AtomicU64,
    /// Held by whoever folds: SQLite turns a second one away.
    folding: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: bool,
    stop: bool,
}

impl Pressure {
    /// Counts the log of `writer`'s database from now on.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn watch(writer: &mut Connection) -> rusqlite::Result<Arc<Self>> {
        let page: i64 = writer.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pressure = Arc::new(Self {
            page: u64::try_from(page).unwrap_or(4096),
            log: AtomicU64::new(0),
            folded: AtomicU64::new(0),
            tried: AtomicU64::new(0),
            folding: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let counting = Arc::clone(&pressure);
        writer.wal_hook(Some(move |_: &mut _, pages| {
            counting.counted(u64::try_from(pages).unwrap_or(0));
            Ok(())
        }))?;
        Ok(pressure)
    }

    /// The log holds so many pages.
    fn counted(&self, pages: u64) {
        if pages < self.log.swap(pages, Ordering::Relaxed) {
            // It was begun anew.
            self.folded.store(0, Ordering::Relaxed);
            self.tried.store(0, Ordering::Relaxed);
        }
    }

    /// Bytes of the log, and of those not folded in.
    fn sizes(&self) -> (u64, u64) {
        let log = self.log.load(Ordering::Relaxed);
        let left = log.saturating_sub(self.folded.load(Ordering::Relaxed));
        (log * self.page, left * self.page)
    }

    /// The writer has committed: sees to the log.
    pub(super) fn committed(&self, writer: &Connection) {
        let (log, left) = self.sizes();
        if left >= DUE || (log >= LONG && left > LITTLE) {
            self.state.lock().due = true;
            self.changed.notify_all();
        }
        if log < LONG || (left > LITTLE && log < MOST) {
            return;
        }
        // Somebody reads: not again with every commit.
        let tried = self.tried.load(Ordering::Relaxed);
        if tried > 0 && log < tried * self.page + LITTLE {
            return;
        }
        self.tried.store(log / self.page, Ordering::Relaxed);
        self.fold(writer);
    }

    /// Folds in all of it and gives the log's space back, if nobody reads. Best effort.
    pub(super) fn truncate(&self, writer: &Connection) {
        let _folding = self.folding.lock();
        let _ = writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    /// Folds in what can be.
    fn fold(&self, connection: &Connection) {
        let _folding = self.folding.lock();
        let before = self.log.load(Ordering::Relaxed);
        let folded =
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(2));
        match folded {
            Ok(folded) => {
                let folded = u64::try_from(folded).unwrap_or(0);
                // Unless the log was begun anew meanwhile: then this is about another one.
                if before <= self.log.load(Ordering::Relaxed) {
                    self.folded.store(folded, Ordering::Relaxed);
                }
            }
            // The writer meets the same trouble, and knows what to do about it.
            Err(error) => tracing::warn!(%error, "checkpoint failed"),
        }
    }

    /// The checkpoint thread is to end.
    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }

    /// True when one is due, false when it is time to end.
    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while !state.due && !state.stop {
            self.changed.wait(&mut state);
        }
        state.due = false;
        !state.stop
    }
}

/// Starts the thread; it ends after [`Pressure::stop`].
///
/// # Errors
/// When the system gives no thread.
pub(super) fn start(
    connection: Connection,
    pressure: Arc<Pressure>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("queue-checkpoint".to_owned()).spawn(move || {
        while pressure.wait() {
            pressure.fold(&connection);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_written_without_a_pause_does_not_grow_beyond_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let mut writer = super::super::schema::open_writer(&path).unwrap();
        let other = super::super::schema::open_writer(&path).unwrap();
        let pressure = Pressure::watch(&mut writer).unwrap();
        let thread = start(other, Arc::clone(&pressure)).unwrap();
        // Five times the length at which it is to begin anew.
        let (mut longest, mut anew, text) = (0, 0, "x".repeat(1 << 20));
        for n in 0..5 * (LONG >> 20) {
            let before = pressure.sizes().0;
            writer
                .execute(
                    "INSERT OR REPLACE INTO note (name, text) VALUES (?1, ?2)",
                    (n.to_string(), &text),
                )
                .unwrap();
            anew += u64::from(pressure.sizes().0 < before);
            longest = longest.max(pressure.sizes().0);
            pressure.committed(&writer);
        }
        pressure.stop();
        thread.join().unwrap();
        assert!(longest <= MOST + (4 << 20), "{longest}");
        assert!(anew > 0, "it never began anew");
        let count: i64 =
            writer.query_row("SELECT count(*) FROM note", [], |row| row.get(0)).unwrap();
        assert_eq!(u64::try_from(count), Ok(5 * (LONG >> 20)));
    }
}
