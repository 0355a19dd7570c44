//! Folding the write-ahead log into the database, on a thread and a connection of its own: on the
//! writer it would be a pause that every waiting yes feels.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

/// So much is written before a checkpoint is due.
const DUE: u64 = 4 << 20;

/// With so much not folded in, the writer waits.
const MOST: u64 = 64 << 20;

/// What the writer and the checkpoint thread share.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    /// Bytes written since the last complete checkpoint, about.
    written: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    due: bool,
    stop: bool,
}

impl Pressure {
    /// The writer has committed about so many bytes. Waits when too much has gathered.
    pub(super) fn committed(&self, bytes: u64) {
        let written = self.written.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if written < DUE {
            return;
        }
        let mut state = self.state.lock();
        state.due = true;
        self.changed.notify_all();
        if written > MOST {
            // A reader may hold the checkpoint back for its 40 ms; not much longer.
            self.changed.wait_for(&mut state, Duration::from_millis(200));
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
            let before = pressure.written.load(Ordering::Relaxed);
            let folded = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                let (log, done): (i64, i64) = (row.get(1)?, row.get(2)?);
                Ok(log == done)
            });
            match folded {
                Ok(true) => {
                    pressure.written.fetch_sub(before, Ordering::Relaxed);
                }
                // A reader is in the way: what is left is folded in next time.
                Ok(false) => {}
                // The writer meets the same trouble, and knows what to do about it.
                Err(error) => tracing::warn!(%error, "checkpoint failed"),
            }
            pressure.changed.notify_all();
        }
    })
}
