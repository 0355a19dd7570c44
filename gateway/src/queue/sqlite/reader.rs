//! Reading beside the writer: pages of what is due, single deliveries.
//!
//! A reader that stays open holds back the checkpoint and lets the write-ahead log grow. So every
//! read is bounded: pages by count and bytes, lists by time.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, Row};
use tidegate_adapters::{
    AttemptResult, Data, DeadReason, Delivery, DeliveryId, Event, Exchange, Timestamp,
};
use tokio::sync::Semaphore;

use super::schema;
use crate::queue::{AHEAD_MAX, AttemptRecord, Listed, PAGE_BYTES, Page, QueueError, State, is_due};

/// Connections for what the loops ask.
pub(super) const PAGE_READERS: usize = 2;

/// Connections for what people ask: lists take 20 ms at most, and less when others waited.
pub(super) const LIST_READERS: usize = 4;

/// No file has given so many numbers: one that says so is damaged, and counting on would overflow.
const LAST_ID_MAX: i64 = 1 << 62;

/// A pool of read-only connections.
pub(super) struct Readers {
    path: PathBuf,
    slots: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

/// A row of `due`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) id: i64,
    pub(super) at: i64,
    pub(super) attempts: u32,
    pub(super) tries: u32,
    pub(super) first_attempt: Option<i64>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, connections: usize) -> Self {
        Self { path, slots: Arc::new(Semaphore::new(connections)), idle: Arc::default() }
    }

    /// Runs `read` on a connection of the pool, on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| QueueError::Closed)?;
        let (idle, path) = (Arc::clone(&self.idle), self.path.clone());
        let done = tokio::task::spawn_blocking(move || {
            let _slot = slot;
            let kept = idle.lock().pop();
            let connection = kept.map_or_else(|| schema::open_reader(&path), Ok)?;
            let result = read(&connection).map_err(schema::store);
            // A connection that failed is dropped: the next read opens a new one.
            if result.is_ok() {
                idle.lock().push(connection);
            }
            result
        });
        done.await.map_err(|_| QueueError::Closed)?
    }

    pub(super) fn close(&self) {
        self.slots.close();
        self.idle.lock().clear();
    }
}

/// What of `route` is due at `now` and not held.
pub(super) fn page(
    connection: &Connection,
    route: &Arc<str>,
    now: Timestamp,
    limit: usize,
    held: &HashSet<DeliveryId>,
) -> rusqlite::Result<Page> {
    let mut page = Page::default();
    let Some(no) = route_no(connection, route)? else { return Ok(page) };
    // What is due; what a wall clock that was wrong has put off; what waits.
    let ahead = now.after(AHEAD_MAX);
    let spans = [(i64::MIN, now.0), (ahead.0, i64::MAX), (now.0, ahead.0)];
    let mut bytes = 0;
    for (after, until) in spans {
        let mut statement = connection.prepare_cached(
            "SELECT id, at, attempts, tries, first_attempt FROM due
             WHERE route = ?1 AND at > ?2 AND at <= ?3 ORDER BY at, id",
        )?;
        let mut rows = statement.query([no, after, until])?;
        while let Some(row) = rows.next()? {
            let due = Due {
                id: row.get(0)?,
                at: row.get(1)?,
                attempts: row.get(2)?,
                tries: row.get(3)?,
                first_attempt: row.get(4)?,
            };
            if held.contains(&DeliveryId(due.id)) {
                continue;
            }
            if !is_due(Timestamp(due.at), now) {
                page.next_at = Some(Timestamp(due.at));
                break;
            }
            if page.due.len() >= limit || bytes >= PAGE_BYTES {
                page.more = true;
                return Ok(page);
            }
            if let Some(delivery) = delivery(connection, route, &due)? {
                bytes += delivery.event.size_hint();
                page.due.push(Arc::new(delivery));
            }
        }
    }
    Ok(page)
}

/// The delivery that a row of `due` is about.
pub(super) fn delivery(
    connection: &Connection,
    route: &Arc<str>,
    due: &Due,
) -> rusqlite::Result<Option<Delivery>> {
    connection
        .prepare_cached("SELECT at, key, attrs, data FROM delivery WHERE id = ?1")?
        .query_row([due.id], |row| {
            Ok(Delivery {
                id: DeliveryId(due.id),
                route: Arc::clone(route),
                event: Arc::new(event(row, 2, Some(3))?),
                key: row.get::<_, Option<String>>(1)?.map(Into::into),
                accepted_at: Timestamp(row.get(0)?),
                due_at: Timestamp(due.at),
                attempts: due.attempts,
                tries: due.tries,
                first_attempt_at: due.first_attempt.map(Timestamp),
            })
        })
        .optional()
}

/// When the oldest due delivery of `route` became due.
pub(super) fn oldest_due(
    connection: &Connection,
    route: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Timestamp>> {
    let Some(no) = route_no(connection, route)? else { return Ok(None) };
    let oldest: Option<i64> = connection
        .prepare_cached("SELECT min(at) FROM due WHERE route = ?1")?
        .query_row([no], |row| row.get(0))?;
    Ok(oldest.filter(|at| *at <= now.0).map(Timestamp))
}

/// The upstreams that are paused in the file.
pub(super) fn stopped(connection: &Connection) -> rusqlite::Result<Vec<(Arc<str>, bool)>> {
    let mut statement = connection.prepare("SELECT upstream FROM stopped")?;
    let stopped = statement.query_map([], |row| Ok((row.get::<_, String>(0)?.into(), true)))?;
    stopped.collect()
}

/// The highest number ever given, to a delivery or a place in a lane.
///
/// # Errors
/// When it cannot be read, or cannot be.
pub(super) fn last_id(connection: &Connection) -> Result<i64, QueueError> {
    let last = connection.query_row(
        "SELECT max((SELECT coalesce(max(id), 0) FROM delivery),
                    (SELECT coalesce(max(value), 0) FROM meta WHERE name = 'last_id'))",
        [],
        |row| row.get(0),
    );
    match last.map_err(schema::store)? {
        last @ 0..LAST_ID_MAX => Ok(last),
        last => {
            let why = format!("the file is damaged: its last delivery has the number {last}");
            Err(QueueError::Store(why.into()))
        }
    }
}

/// A text kept under `name`.
pub(super) fn note(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT text FROM note WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

/// One delivery with everything that is known of it.
pub(super) fn show(connection: &Connection, id: DeliveryId) -> rusqlite::Result<Option<Listed>> {
    let Some(mut listed) = listed(connection, id.0, true)? else { return Ok(None) };
    let mut statement = connection.prepare_cached(
        "SELECT n, at, us, result, detail, status, request, response FROM attempt
         WHERE slot BETWEEN ?1 << 2 AND (?1 << 2) | 3 ORDER BY n",
    )?;
    let attempts = statement.query_map([id.0], |row| {
        Ok(AttemptRecord {
            number: row.get(0)?,
            at: Timestamp(row.get(1)?),
            duration: Duration::from_micros(u64::try_from(row.get::<_, i64>(2)?).unwrap_or(0)),
            result: result_named(&row.get::<_, String>(3)?),
            detail: row.get(4)?,
            exchange: Exchange { status: row.get(5)?, request: row.get(6)?, response: row.get(7)? },
        })
    })?;
    listed.attempts = attempts.collect::<rusqlite::Result<_>>()?;
    Ok(Some(listed))
}

/// One delivery without its attempts; its data and raw bytes only when `whole`.
pub(super) fn listed(
    connection: &Connection,
    id: i64,
    whole: bool,
) -> rusqlite::Result<Option<Listed>> {
    let settled: Option<(i64, u32, Option<i64>, Option<String>)> = connection
        .prepare_cached("SELECT state, tries, reason, detail FROM settled WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()?;
    let due: Option<Due> = match &settled {
        Some(_) => None,
        None => connection
            .prepare_cached("SELECT id, at, attempts, tries, first_attempt FROM due WHERE id = ?1")?
            .query_row([id], |row| {
                Ok(Due {
                    id: row.get(0)?,
                    at: row.get(1)?,
                    attempts: row.get(2)?,
                    tries: row.get(3)?,
                    first_attempt: row.get(4)?,
                })
            })
            .optional()?,
    };
    // Lists leave the data where it is: it may be many megabytes that nobody looks at.
    let data = if whole { "d.data" } else { "x''" };
    let sql = format!(
        "SELECT r.name, d.at, d.key, d.invalid, d.attrs, {data} FROM delivery d
         JOIN route r ON r.no = d.route WHERE d.id = ?1"
    );
    connection
        .prepare_cached(&sql)?
        .query_row([id], |row| {
            let invalid: bool = row.get(3)?;
            let event = if invalid { no_event(row)? } else { event(row, 4, Some(5))? };
            let (state, tries) = settled
                .as_ref()
                .map_or((State::Pending, 0), |(state, tries, ..)| (state_of(*state), *tries));
            let dead = settled.as_ref().and_then(|(_, _, reason, detail)| {
                let reason = DeadReason::ALL.get(usize::try_from((*reason)?).ok()?)?;
                Some((*reason, detail.clone().unwrap_or_default()))
            });
            let delivery = Delivery {
                id: DeliveryId(id),
                route: row.get::<_, String>(0)?.into(),
                event: Arc::new(event),
                key: row.get::<_, Option<String>>(2)?.map(Into::into),
                accepted_at: Timestamp(row.get(1)?),
                due_at: Timestamp(due.map_or(0, |due| due.at)),
                attempts: due.map_or(0, |due| due.attempts),
                tries: due.map_or(tries, |due| due.tries),
                first_attempt_at: due.and_then(|due| due.first_attempt).map(Timestamp),
            };
            let raw = match invalid && whole {
                true => Some(Bytes::from(row.get::<_, Vec<u8>>(5)?)),
                false => None,
            };
            let due_at = due.map(|due| Timestamp(due.at));
            Ok(Listed {
                delivery: Arc::new(delivery),
                state,
                dead,
                due_at,
                raw,
                attempts: Vec::new(),
            })
        })
        .optional()
}

fn event(row: &Row<'_>, attributes: usize, data: Option<usize>) -> rusqlite::Result<Event> {
    let bytes = data.map_or(Ok(Vec::new()), |data| row.get::<_, Vec<u8>>(data))?;
    let attributes = row.get_ref(attributes)?.as_blob()?;
    Event::decode(attributes, bytes.into()).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error))
    })
}

/// What stands for the event of something that is none: an operator sees where it came from.
fn no_event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let about = row.get_ref(4)?.as_blob()?;
    let about: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(about).unwrap_or_default();
    Ok(Event {
        id: String::new(),
        source: String::new(),
        kind: String::new(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: about,
        traceparent: None,
        hops: 0,
        data: Data::Absent,
    })
}

fn route_no(connection: &Connection, route: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT no FROM route WHERE name = ?1")?
        .query_row([route], |row| row.get(0))
        .optional()
}

pub(super) fn state_of(number: i64) -> State {
    match number {
        1 => State::Delivered,
        2 => State::Dead,
        3 => State::Discarded,
        _ => State::Pending,
    }
}

fn result_named(name: &str) -> AttemptResult {
    let found = AttemptResult::ALL.into_iter().find(|result| result.as_str() == name);
    found.unwrap_or(AttemptResult::Protocol)
}
