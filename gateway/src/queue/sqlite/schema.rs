//! The on-disk format, and opening a connection to it.
//!
//! ```text
//! meta      the highest number ever given that no row tells: of a pruned delivery, of a place
//! route     small numbers for names, counters, pauses, the repeat clock: updated once a commit
//! delivery  append-only; id is the order of our yes
//! due       what may be attempted: unordered deliveries and the heads of lanes
//! lane      ordered routes: every delivery not finished with, by order key and place; the place
//!           of a fresh one is its id, that of a replayed one is drawn from the same numbers
//! moved     places in lanes that are not the id
//! settled   what became of a delivery; no row means pending
//! attempt   the last three of each delivery: attempt n of delivery d is in the slot 4 d + n mod 4
//! seen      ids within the repeat window, in buckets of the route's clock
//! recent    those that came last, a row a commit; in time they are moved there
//! stopped   upstreams that an operator has paused
//! note      texts that the process keeps
//! ```
//!
//! A file of format 2 or 3 is taken over when it is opened, in one transaction: after a crash half
//! way it is still of that format. Any other is refused untouched.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::queue::QueueError;

/// `TDGT`: tells the file from other SQLite databases.
const APPLICATION_ID: i64 = 0x5444_4754;

/// The format this version reads and writes.
const FORMAT: i64 = 4;

/// The formats before it that are taken over.
const BEFORE: std::ops::RangeInclusive<i64> = 2..=3;

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE route (
    no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,
    clock_ms INTEGER NOT NULL DEFAULT 0, pending INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
    discarded INTEGER NOT NULL DEFAULT 0, live_bytes INTEGER NOT NULL DEFAULT 0,
    history_bytes INTEGER NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0,
    seen_from_ms INTEGER NOT NULL DEFAULT 0, paused_ms INTEGER NOT NULL DEFAULT 0,
    paused_since INTEGER
);
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY, route INTEGER NOT NULL, at INTEGER NOT NULL, key TEXT, lane BLOB,
    invalid INTEGER NOT NULL, attrs BLOB NOT NULL, data BLOB NOT NULL
);
CREATE TABLE due (
    route INTEGER NOT NULL, at INTEGER NOT NULL, id INTEGER NOT NULL, attempts INTEGER NOT NULL,
    tries INTEGER NOT NULL, first_attempt INTEGER, PRIMARY KEY (route, at, id)
) WITHOUT ROWID;
CREATE INDEX due_by_id ON due (id);
CREATE TABLE lane (
    route INTEGER NOT NULL, lane BLOB NOT NULL, pos INTEGER NOT NULL, id INTEGER NOT NULL,
    PRIMARY KEY (route, lane, pos)
) WITHOUT ROWID;
CREATE TABLE moved (id INTEGER PRIMARY KEY, pos INTEGER NOT NULL);
CREATE TABLE settled (
    id INTEGER PRIMARY KEY, route INTEGER NOT NULL, state INTEGER NOT NULL, at INTEGER NOT NULL,
    bytes INTEGER NOT NULL, tries INTEGER NOT NULL, reason INTEGER, detail TEXT
);
CREATE INDEX settled_by_route ON settled (route, state, id);
CREATE TABLE attempt (
    slot INTEGER PRIMARY KEY, n INTEGER NOT NULL, at INTEGER NOT NULL, us INTEGER NOT NULL,
    result TEXT NOT NULL, detail TEXT NOT NULL, status INTEGER, request TEXT NOT NULL,
    response TEXT NOT NULL
);
CREATE TABLE seen (
    route INTEGER NOT NULL, bucket INTEGER NOT NULL, key BLOB NOT NULL, id INTEGER NOT NULL,
    at INTEGER NOT NULL, PRIMARY KEY (route, bucket, key)
) WITHOUT ROWID;
CREATE TABLE recent (n INTEGER PRIMARY KEY, ids BLOB NOT NULL);
CREATE TABLE stopped (upstream TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE note (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
";

/// From format 2 to 3.
pub(super) const FROM_2: &str = "
CREATE TABLE lane_by_place (
    route INTEGER NOT NULL, lane BLOB NOT NULL, pos INTEGER NOT NULL, id INTEGER NOT NULL,
    PRIMARY KEY (route, lane, pos)
) WITHOUT ROWID;
INSERT INTO lane_by_place SELECT route, lane, id, id FROM lane ORDER BY route, lane, id;
DROP TABLE lane;
ALTER TABLE lane_by_place RENAME TO lane;
CREATE TABLE moved (id INTEGER PRIMARY KEY, pos INTEGER NOT NULL);
ALTER TABLE route DROP COLUMN paused;
ALTER TABLE route ADD COLUMN paused_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE route ADD COLUMN paused_since INTEGER;
DROP INDEX settled_by_state;
CREATE INDEX settled_by_route ON settled (route, state, id);
CREATE TABLE stopped (upstream TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE note (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
";

/// From format 3 to 4.
const FROM_3: &str = "
CREATE TABLE recent (n INTEGER PRIMARY KEY, ids BLOB NOT NULL);
CREATE TABLE attempt_by_slot (
    slot INTEGER PRIMARY KEY, n INTEGER NOT NULL, at INTEGER NOT NULL, us INTEGER NOT NULL,
    result TEXT NOT NULL, detail TEXT NOT NULL, status INTEGER, request TEXT NOT NULL,
    response TEXT NOT NULL
);
INSERT INTO attempt_by_slot
SELECT (delivery << 2) | (n & 3), n, at, us, result, detail, status, request, response
FROM attempt ORDER BY delivery, n;
DROP TABLE attempt;
ALTER TABLE attempt_by_slot RENAME TO attempt;
";

/// Opens the file for writing, making it when missing.
///
/// # Errors
/// When it is not ours, of another format, or cannot be opened.
pub(super) fn open_writer(path: &Path) -> Result<Connection, QueueError> {
    let connection = Connection::open(path).map_err(store)?;
    connection
        .execute_batch(
            "PRAGMA page_size = 8192;
             PRAGMA auto_vacuum = INCREMENTAL;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 0;
             PRAGMA journal_size_limit = 33554432;
             PRAGMA cache_size = -16384;
             PRAGMA temp_store = MEMORY;
             PRAGMA cell_size_check = ON;",
        )
        .map_err(store)?;
    connection.set_prepared_statement_cache_capacity(64);
    let format = number(&connection, "PRAGMA user_version")?;
    let application = number(&connection, "PRAGMA application_id")?;
    match (application, format) {
        (0, 0) if number(&connection, "SELECT count(*) FROM sqlite_schema")? == 0 => {
            let create = format!(
                "BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; \
                 PRAGMA user_version = {FORMAT}; COMMIT;"
            );
            connection.execute_batch(&create).map_err(store)?;
            Ok(connection)
        }
        (APPLICATION_ID, FORMAT) => Ok(connection),
        (APPLICATION_ID, before) if BEFORE.contains(&before) => {
            take_over(&connection, path, before)?;
            Ok(connection)
        }
        (APPLICATION_ID, found) => {
            let path = path.display().to_string();
            Err(QueueError::Format { path, found, known: FORMAT })
        }
        _ => Err(foreign(path)),
    }
}

/// Brings a file of format `before` up to this one.
fn take_over(connection: &Connection, path: &Path, before: i64) -> Result<(), QueueError> {
    tracing::info!(path = %path.display(), from = before, to = FORMAT, "taking the queue over");
    let first = if before == 2 { FROM_2 } else { "" };
    let steps =
        format!("BEGIN IMMEDIATE; {first} {FROM_3} PRAGMA user_version = {FORMAT}; COMMIT;");
    if let Err(error) = connection.execute_batch(&steps) {
        // Fails when SQLite has rolled back by itself already.
        let _ = connection.execute_batch("ROLLBACK");
        return Err(store(error));
    }
    // A large file leaves a large log, that no later commit asks to fold in.
    let folded = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    folded.map_err(store)
}

/// Refuses a file of another format, or of somebody else, before anything in it is touched.
///
/// # Errors
/// [`QueueError::Format`], or whose it is not.
pub(super) fn check_format(path: &Path) -> Result<(), QueueError> {
    if !path.exists() {
        return Ok(());
    }
    let (application, found, tables) = match marks(path, OpenFlags::SQLITE_OPEN_READ_ONLY) {
        // It was being made when the process or the machine went down: what was half done is
        // undone first, and that takes writing.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            marks(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        }
        marks => marks,
    }
    .map_err(store)?;
    let ours = application == APPLICATION_ID;
    let fresh = (application, found, tables) == (0, 0, 0);
    if !ours && !fresh {
        return Err(foreign(path));
    }
    if ours && found != FORMAT && !BEFORE.contains(&found) {
        let path = path.display().to_string();
        return Err(QueueError::Format { path, found, known: FORMAT });
    }
    Ok(())
}

fn foreign(path: &Path) -> QueueError {
    QueueError::Store(format!("{}: a database, but not a Tidegate queue", path.display()).into())
}

/// Whose file it is, of which format, and how much is in it.
fn marks(path: &Path, flags: OpenFlags) -> rusqlite::Result<(i64, i64, i64)> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    let mark = |sql| connection.query_row(sql, [], |row| row.get(0));
    Ok((
        mark("PRAGMA application_id")?,
        mark("PRAGMA user_version")?,
        mark("SELECT count(*) FROM sqlite_schema")?,
    ))
}

/// Opens the file for reading.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn open_reader(path: &Path) -> Result<Connection, QueueError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(store)?;
    connection.execute_batch("PRAGMA cache_size = -4096;").map_err(store)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

fn number(connection: &Connection, sql: &str) -> Result<i64, QueueError> {
    connection.query_row(sql, [], |row| row.get(0)).map_err(store)
}

/// SQLite's words, as our error.
pub(super) fn store(error: rusqlite::Error) -> QueueError {
    QueueError::Store(error.to_string().into())
}
