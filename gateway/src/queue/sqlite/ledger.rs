//! Counters of every route: in memory, and in the `route` table by every commit that changed them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rusqlite::Connection;
use tidegate_adapters::Timestamp;
use tokio::time::Instant;

use super::{recent::Recent, seen::Bucket, transaction::state_number};
use crate::queue::{Counts, RouteSettings, RouteStatus, State};

/// What the writer knows of one route.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) no: i64,
    pub(super) name: Arc<str>,
    /// All pauses that are over, together.
    paused_ms: i64,
    /// Since when it is paused, by wall clock: a pause goes on while we are down.
    pub(super) paused_since: Option<Timestamp>,
    pub(super) counts: Counts,
    /// Of pending and dead deliveries.
    pub(super) live_bytes: u64,
    /// Of delivered and discarded ones.
    pub(super) history_bytes: u64,
    /// Ids remembered.
    pub(super) seen: u64,
    /// The buckets in which there are remembered ids, the newest first.
    pub(super) buckets: Vec<Bucket>,
    /// By the repeat clock: what was seen before this may have been forgotten for want of room.
    pub(super) seen_from_ms: i64,
    /// The repeat clock: milliseconds the source was connected, all runs together.
    clock_ms: i64,
    running_since: Option<Instant>,
    /// By state: no settled delivery that may be pruned has a lower id.
    oldest: [i64; 4],
    pub(super) settings: Option<RouteSettings>,
}

/// All routes. Changes since the last commit can be undone.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    rows: Vec<Row>,
    by_name: HashMap<Arc<str>, usize>,
    before: Vec<(usize, Row)>,
}

impl Row {
    /// The repeat clock now.
    pub(super) fn clock_ms(&self, now: Instant) -> i64 {
        let running = self.running_since.map_or(0, |since| {
            i64::try_from(now.saturating_duration_since(since).as_millis()).unwrap_or(i64::MAX)
        });
        self.clock_ms.saturating_add(running)
    }

    /// The repeat window that is really kept: the configured one, or less where ids were forgotten
    /// for want of room.
    fn window(&self, now: Instant) -> Option<Duration> {
        let configured = self.settings.as_ref()?.dedupe?;
        if self.seen_from_ms == 0 {
            return Some(configured);
        }
        let kept = self.clock_ms(now).saturating_sub(self.seen_from_ms);
        Some(configured.min(Duration::from_millis(u64::try_from(kept).unwrap_or(0))))
    }

    /// Pauses it, or ends its pause. False when nothing changes.
    pub(super) fn pause(&mut self, paused: bool, wall: Timestamp) -> bool {
        match (paused, self.paused_since) {
            (true, None) => self.paused_since = Some(wall),
            (false, Some(since)) => {
                let ms = wall.since(since).as_millis();
                self.paused_ms = self.paused_ms.saturating_add(i64::try_from(ms).unwrap_or(0));
                self.paused_since = None;
            }
            (true, Some(_)) | (false, None) => return false,
        }
        true
    }

    /// All pauses that are over, together, and the beginning of the one that is not.
    pub(super) fn pauses(&self) -> (Duration, Option<Timestamp>) {
        (Duration::from_millis(u64::try_from(self.paused_ms).unwrap_or(0)), self.paused_since)
    }

    /// For how long it has been paused by `wall`, all its pauses together.
    pub(super) fn paused_for(&self, wall: Timestamp) -> Duration {
        let (over, since) = self.pauses();
        over.saturating_add(since.map_or(Duration::ZERO, |since| wall.since(since)))
    }

    /// Delivery `id` is settled so: pruning looks from there.
    pub(super) fn settled(&mut self, state: State, id: i64) {
        let oldest = &mut self.oldest[state as usize];
        *oldest = id.min(*oldest);
    }

    /// Nothing below `id` in that state may be pruned.
    pub(super) fn oldest_is(&mut self, state: State, id: i64) {
        self.oldest[state as usize] = id;
    }

    pub(super) fn count(&mut self, state: State) -> &mut u64 {
        match state {
            State::Pending => &mut self.counts.pending,
            State::Delivered => &mut self.counts.delivered,
            State::Dead => &mut self.counts.dead,
            State::Discarded => &mut self.counts.discarded,
        }
    }

    fn bytes(&mut self, state: State) -> &mut u64 {
        match state {
            State::Pending | State::Dead => &mut self.live_bytes,
            State::Delivered | State::Discarded => &mut self.history_bytes,
        }
    }

    /// One delivery of `bytes` is now in `state`.
    pub(super) fn enter(&mut self, state: State, bytes: u64) {
        *self.count(state) += 1;
        *self.bytes(state) += bytes;
    }

    /// One delivery of `bytes` is no longer in `state`.
    pub(super) fn leave(&mut self, state: State, bytes: u64) {
        let count = self.count(state);
        *count = count.saturating_sub(1);
        let held = self.bytes(state);
        *held = held.saturating_sub(bytes);
    }
}

/// The highest any of a route's counters is taken for, in deliveries or bytes: what is higher is
/// damaged, and the sum of all routes' has to fit.
const COUNT_MAX: u64 = 1 << 48;

/// The same of its clocks, in milliseconds: some thousand years.
const CLOCK_MAX: i64 = 1 << 48;

/// A counter of the table `route`.
pub(super) fn counter(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0).min(COUNT_MAX)
}

impl Ledger {
    pub(super) fn load(connection: &Connection, recent: &Recent) -> rusqlite::Result<Self> {
        let (mut ledger, recent) = (Self::default(), recent.buckets());
        let mut statement = connection.prepare(
            "SELECT no, name, paused_ms, clock_ms, pending, delivered, dead, discarded, live_bytes,
                    history_bytes, seen, seen_from_ms, paused_since FROM route ORDER BY no",
        )?;
        let unsigned = |row: &rusqlite::Row<'_>, column| row.get::<_, i64>(column).map(counter);
        let clock = |row: &rusqlite::Row<'_>, column| {
            row.get::<_, i64>(column).map(|ms| ms.clamp(0, CLOCK_MAX))
        };
        let rows = statement.query_map([], |row| {
            Ok(Row {
                no: row.get(0)?,
                name: row.get::<_, String>(1)?.into(),
                paused_ms: clock(row, 2)?,
                paused_since: row.get::<_, Option<i64>>(12)?.map(Timestamp),
                clock_ms: clock(row, 3)?,
                counts: Counts {
                    pending: unsigned(row, 4)?,
                    delivered: unsigned(row, 5)?,
                    dead: unsigned(row, 6)?,
                    discarded: unsigned(row, 7)?,
                },
                live_bytes: unsigned(row, 8)?,
                history_bytes: unsigned(row, 9)?,
                seen: unsigned(row, 10)?,
                buckets: Vec::new(),
                seen_from_ms: clock(row, 11)?,
                running_since: None,
                oldest: [i64::MAX; 4],
                settings: None,
            })
        })?;
        let mut oldest =
            connection.prepare("SELECT min(id) FROM settled WHERE route = ?1 AND state = ?2")?;
        for row in rows {
            let mut row = row?;
            let recent = recent.get(&row.no);
            row.buckets = super::seen::buckets(connection, row.no, row.clock_ms, recent)?;
            for state in [State::Delivered, State::Dead, State::Discarded] {
                let id = oldest.query_row((row.no, state_number(state)), |row| row.get(0))?;
                row.oldest_is(state, Option::unwrap_or(id, i64::MAX));
            }
            ledger.push(row);
        }
        Ok(ledger)
    }

    /// The route of that name, added when it is new.
    pub(super) fn index(
        &mut self,
        connection: &Connection,
        name: &Arc<str>,
    ) -> rusqlite::Result<usize> {
        if let Some(index) = self.by_name.get(name) {
            return Ok(*index);
        }
        connection.execute("INSERT INTO route (name) VALUES (?1)", [&**name])?;
        let row = Row {
            no: connection.last_insert_rowid(),
            name: Arc::clone(name),
            paused_ms: 0,
            paused_since: None,
            counts: Counts::default(),
            live_bytes: 0,
            history_bytes: 0,
            seen: 0,
            buckets: Vec::new(),
            seen_from_ms: 0,
            clock_ms: 0,
            running_since: None,
            oldest: [i64::MAX; 4],
            settings: None,
        };
        Ok(self.push(row))
    }

    fn push(&mut self, row: Row) -> usize {
        let index = self.rows.len();
        self.by_name.insert(Arc::clone(&row.name), index);
        self.rows.push(row);
        index
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn get(&self, index: usize) -> &Row {
        &self.rows[index]
    }

    pub(super) fn find(&self, name: &str) -> Option<&Row> {
        self.by_name.get(name).map(|index| &self.rows[*index])
    }

    /// Where the route of that name is.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The route whose settled deliveries in `state` begin with the lowest id, that id, and where
    /// those of the others begin.
    pub(super) fn oldest(&self, state: State) -> Option<(usize, i64, i64)> {
        let (mut first, mut rival) = (None, i64::MAX);
        for (index, row) in self.rows.iter().enumerate() {
            let id = row.oldest[state as usize];
            match first {
                _ if id == i64::MAX => {}
                Some((_, lowest)) if lowest <= id => rival = rival.min(id),
                _ => {
                    rival = first.map_or(i64::MAX, |(_, lowest)| lowest);
                    first = Some((index, id));
                }
            }
        }
        first.map(|(index, id)| (index, id, rival))
    }

    pub(super) fn by_no(&self, no: i64) -> Option<usize> {
        self.rows.iter().position(|row| row.no == no)
    }

    /// For changing, until the next commit or undo.
    pub(super) fn change(&mut self, index: usize) -> &mut Row {
        if !self.before.iter().any(|(changed, _)| *changed == index) {
            self.before.push((index, self.rows[index].clone()));
        }
        &mut self.rows[index]
    }

    pub(super) fn connected(&mut self, name: &str, up: bool, now: Instant) {
        let Some(index) = self.by_name.get(name) else { return };
        let row = &mut self.rows[*index];
        match (up, row.running_since) {
            (true, None) => row.running_since = Some(now),
            (false, Some(_)) => {
                row.clock_ms = row.clock_ms(now);
                row.running_since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    pub(super) fn configure(&mut self, settings: Vec<RouteSettings>) {
        for row in &mut self.rows {
            row.settings = None;
        }
        for settings in settings {
            if let Some(index) = self.by_name.get(&settings.name) {
                self.rows[*index].settings = Some(settings);
            }
        }
    }

    /// Writes what changed, as part of the transaction.
    pub(super) fn write(&self, connection: &Connection, now: Instant) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "UPDATE route SET clock_ms = ?2, pending = ?3, delivered = ?4, dead = ?5,
                    discarded = ?6, live_bytes = ?7, history_bytes = ?8, seen = ?9,
                    seen_from_ms = ?10, paused_ms = ?11, paused_since = ?12 WHERE no = ?1",
        )?;
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (index, _) in &self.before {
            let row = &self.rows[*index];
            statement.execute((
                row.no,
                row.clock_ms(now),
                signed(row.counts.pending),
                signed(row.counts.delivered),
                signed(row.counts.dead),
                signed(row.counts.discarded),
                signed(row.live_bytes),
                signed(row.history_bytes),
                signed(row.seen),
                row.seen_from_ms,
                row.paused_ms,
                row.paused_since.map(|at| at.0),
            ))?;
        }
        Ok(())
    }

    /// The transaction was committed.
    pub(super) fn committed(&mut self) {
        self.before.clear();
    }

    /// The transaction was rolled back.
    pub(super) fn undo(&mut self) {
        for (index, row) in self.before.drain(..) {
            self.rows[index] = row;
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.live_bytes + row.history_bytes).sum()
    }

    pub(super) fn history_bytes(&self) -> u64 {
        self.rows.iter().map(|row| row.history_bytes).sum()
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(super) fn statuses(&self, now: Instant) -> Vec<RouteStatus> {
        let status = |row: &Row| RouteStatus {
            name: Arc::clone(&row.name),
            counts: row.counts,
            bytes: row.live_bytes,
            paused: row.paused_since.is_some(),
            configured: row.settings.is_some(),
            dedupe: row.window(now),
        };
        self.rows.iter().map(status).collect()
    }
}
