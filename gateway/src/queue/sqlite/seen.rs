//! Which events were seen within a route's repeat window.
//!
//! A route remembers so many ids at most. Beyond that the oldest go first, by the bucket, and what
//! is left of the window is shown to whoever asks: a window that is silently shorter than promised
//! would be found out by a duplicate.

use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use tidegate_adapters::Event;

use super::{
    recent::Sighting,
    transaction::{Transaction, half, state_number},
};
use crate::queue::State;

/// A repeat window is kept in so many buckets, of which the oldest are dropped whole.
const BUCKETS: i64 = 4;

/// So many ids are forgotten beyond those for which there is no room, at most.
const SPARE_MAX: u64 = 1024;

/// What is known of an event.
pub(super) enum Known {
    /// Nothing.
    Never,
    /// It was seen within the window, as the delivery of this id.
    Repeat(i64),
    /// Only what does not count any more, and in which bucket.
    Void(i64),
}

impl Transaction<'_> {
    /// Whether the event was seen within the window, as a delivery that was not given up.
    pub(super) fn seen(
        &self,
        index: usize,
        key: &[u8; 16],
        window: std::time::Duration,
    ) -> rusqlite::Result<Known> {
        let Some(found) = self.sighting(index, key)? else { return Ok(Known::Never) };
        let clock = self.ledger.get(index).clock_ms(self.now);
        let oldest = clock - i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        if found.at > oldest && !(found.id != 0 && self.given_up(found.id)?) {
            return Ok(Known::Repeat(found.id));
        }
        Ok(Known::Void(found.bucket))
    }

    /// The last that is remembered of the event.
    fn sighting(&self, index: usize, key: &[u8; 16]) -> rusqlite::Result<Option<Sighting>> {
        let row = self.ledger.get(index);
        if let Some(found) = self.recent.get(row.no, key) {
            return Ok(Some(found));
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT id, at FROM seen WHERE route = ?1 AND bucket = ?2 AND key = ?3",
        )?;
        for bucket in row.buckets.iter().copied() {
            let found = statement.query_row(params![row.no, bucket, &key[..]], |row| {
                Ok(Sighting { bucket, id: row.get(0)?, at: row.get(1)? })
            });
            if let Some(found) = found.optional()? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn given_up(&self, id: i64) -> rusqlite::Result<bool> {
        let state: Option<i64> = self
            .connection
            .prepare_cached("SELECT state FROM settled WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        Ok(state.is_some_and(|state| {
            state == state_number(State::Dead) || state == state_number(State::Discarded)
        }))
    }

    /// Remembers it as delivery `id`; `known` is what [`Transaction::seen`] said of it.
    pub(super) fn remember(
        &mut self,
        index: usize,
        key: &[u8; 16],
        id: i64,
        window: std::time::Duration,
        known: &Known,
    ) {
        let row = self.ledger.change(index);
        let at = row.clock_ms(self.now);
        let bucket = at.div_euclid(bucket_width(window));
        let new = self.recent.remember(row.no, key, Sighting { bucket, id, at });
        // In the same bucket, of a delivery that was given up: now it stands for this one.
        if !new || matches!(known, Known::Void(void) if *void == bucket) {
            return;
        }
        row.seen += 1;
        // The highest first: that is where it is, but for the first id of a bucket.
        if let Err(place) = row.buckets.binary_search_by(|known| bucket.cmp(known)) {
            row.buckets.insert(place, bucket);
        }
    }

    /// Makes room for what this transaction has remembered: at most two of the oldest go for each,
    /// so that it gets better, and a few more, so that it is not to be done again at once.
    fn forget_surplus(&mut self) -> rusqlite::Result<()> {
        let remembered = self.recent.remembered() as u64;
        if remembered == 0 {
            return Ok(());
        }
        for index in 0..self.ledger.len() {
            let surplus = self.ledger.get(index).seen.saturating_sub(self.caps.seen);
            if surplus == 0 {
                continue;
            }
            let spare = (self.caps.seen / 16).min(SPARE_MAX);
            let most = surplus.min(remembered * 2) + spare;
            let mut most = usize::try_from(most).unwrap_or(usize::MAX);
            while most > 0
                && let Some(bucket) = self.ledger.get(index).buckets.last().copied()
            {
                let gone = self.forget_bucket(index, bucket, most)?;
                most = most.saturating_sub(gone.max(1));
                self.window_is_short(index, bucket);
            }
        }
        Ok(())
    }

    /// Ids of `bucket` are forgotten before their time.
    fn window_is_short(&mut self, index: usize, bucket: i64) {
        let now = self.now;
        let row = self.ledger.change(index);
        let window = row.settings.as_ref().and_then(|settings| settings.dedupe).unwrap_or_default();
        let width = bucket_width(window);
        let from = bucket.saturating_add(1).saturating_mul(width).min(row.clock_ms(now));
        if row.seen_from_ms == 0 {
            tracing::warn!(
                route = %row.name,
                "more ids than there is room for: the oldest are forgotten before the repeat \
                 window ends; raise queue.max_size or shorten dedupe"
            );
        }
        row.seen_from_ms = row.seen_from_ms.max(from).max(1);
    }

    /// Writes what was remembered, moves up to `most` ids into their tree, and forgets what has no
    /// room, and up to `most` ids that have left the window. On a full disk nothing is moved: that
    /// takes pages, and the ids are as safe where they are.
    pub(super) fn keep_window(&mut self, most: usize, full: bool) -> rusqlite::Result<()> {
        self.recent.write(self.connection, if full { 0 } else { most })?;
        if !full {
            self.forget_surplus()?;
        }
        self.forget_seen(most, full)?;
        Ok(())
    }

    /// Forgets up to `most` ids that have left the repeat windows of their routes.
    fn forget_seen(&mut self, most: usize, full: bool) -> rusqlite::Result<usize> {
        let mut forgotten = 0;
        for index in 0..self.ledger.len() {
            let row = self.ledger.get(index);
            let Some(settings) = &row.settings else { continue };
            let window = settings.dedupe.unwrap_or_default();
            let oldest =
                row.clock_ms(self.now) - i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
            let first = oldest.div_euclid(bucket_width(window));
            let seen_from_ms = row.seen_from_ms;
            while let Some(bucket) = self.ledger.get(index).buckets.last().copied()
                && bucket < first
                && forgotten < most
                && !(full && self.recent.holds(self.ledger.get(index).no, bucket))
            {
                forgotten += self.forget_bucket(index, bucket, most - forgotten)?;
            }
            if seen_from_ms != 0 && seen_from_ms < oldest {
                self.ledger.change(index).seen_from_ms = 0;
            }
        }
        Ok(forgotten)
    }

    /// Forgets up to `most` ids of a bucket, and the bucket when it is empty then.
    fn forget_bucket(&mut self, index: usize, bucket: i64, most: usize) -> rusqlite::Result<usize> {
        let no = self.ledger.get(index).no;
        // What is in both would come back after a crash.
        self.recent.empty_into_tree(self.connection, no, bucket)?;
        let gone = self.delete_seen(no, bucket, most)?;
        let row = self.ledger.change(index);
        row.seen = row.seen.saturating_sub(gone as u64);
        if gone < most {
            row.buckets.retain(|known| *known != bucket);
        }
        Ok(gone)
    }

    fn delete_seen(&self, no: i64, bucket: i64, most: usize) -> rusqlite::Result<usize> {
        self.connection
            .prepare_cached(
                "DELETE FROM seen WHERE (route, bucket, key) IN
                 (SELECT route, bucket, key FROM seen WHERE route = ?1 AND bucket = ?2 LIMIT ?3)",
            )?
            .execute(params![no, bucket, i64::try_from(most).unwrap_or(i64::MAX)])
    }
}

/// The buckets of the route `no`, the highest first; one short look each.
pub(super) fn buckets(connection: &Connection, no: i64) -> rusqlite::Result<Vec<i64>> {
    let mut below = connection.prepare_cached(
        "SELECT bucket FROM seen WHERE route = ?1 AND bucket < ?2 ORDER BY bucket DESC LIMIT 1",
    )?;
    let mut buckets = Vec::new();
    let mut last = i64::MAX;
    while let Some(bucket) = below.query_row([no, last], |row| row.get(0)).optional()? {
        buckets.push(bucket);
        last = bucket;
    }
    Ok(buckets)
}

/// 128 bits of SHA-256: ids come from outside, and a collision that can be made would make an
/// event vanish as a repeat.
pub(super) fn event_key(event: &Event) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update((event.source.len() as u64).to_le_bytes());
    hash.update(event.source.as_bytes());
    hash.update(event.id.as_bytes());
    half(hash)
}

fn bucket_width(window: std::time::Duration) -> i64 {
    (i64::try_from(window.as_millis()).unwrap_or(i64::MAX) / BUCKETS).max(1)
}
