//! Which events were seen within a route's repeat window.
//!
//! A route remembers so many ids at most. Beyond that the oldest go first, by the bucket, and what
//! is left of the window is shown to whoever asks: a window that is silently shorter than promised
//! would be found out by a duplicate.

use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use tidegate_adapters::Event;

use super::transaction::{Transaction, half, state_number};
use crate::queue::State;

/// A repeat window is kept in so many buckets, of which the oldest are dropped whole.
const BUCKETS: i64 = 4;

impl Transaction<'_> {
    /// The id under which the event was seen within the window, unless that delivery was given up.
    pub(super) fn seen(
        &self,
        index: usize,
        key: &[u8; 16],
        window: std::time::Duration,
    ) -> rusqlite::Result<Option<i64>> {
        let row = self.ledger.get(index);
        let clock = row.clock_ms(self.now);
        let oldest = clock - i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(
            "SELECT id, at FROM seen WHERE route = ?1 AND bucket = ?2 AND key = ?3",
        )?;
        for bucket in &row.buckets {
            let found: Option<(i64, i64)> = statement
                .query_row(params![row.no, bucket, &key[..]], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((id, at)) = found {
                let given_up = id != 0 && self.given_up(id)?;
                return Ok((at > oldest && !given_up).then_some(id));
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

    pub(super) fn remember(
        &mut self,
        index: usize,
        key: &[u8; 16],
        id: i64,
        window: std::time::Duration,
    ) -> rusqlite::Result<()> {
        let row = self.ledger.get(index);
        let (clock, width) = (row.clock_ms(self.now), bucket_width(window));
        let values = params![row.no, clock.div_euclid(width), &key[..], id, clock];
        let insert = "INSERT OR IGNORE INTO seen (route, bucket, key, id, at)
                      VALUES (?1, ?2, ?3, ?4, ?5)";
        if self.connection.prepare_cached(insert)?.execute(values)? == 0 {
            // Known in this bucket, of a delivery that was given up: now it stands for this one.
            let replace =
                "UPDATE seen SET id = ?4, at = ?5 WHERE route = ?1 AND bucket = ?2 AND key = ?3";
            self.connection.prepare_cached(replace)?.execute(values)?;
            return Ok(());
        }
        let row = self.ledger.change(index);
        row.seen += 1;
        let bucket = clock.div_euclid(width);
        // The highest first: that is where it is, but for the first id of a bucket.
        if let Err(place) = row.buckets.binary_search_by(|known| bucket.cmp(known)) {
            row.buckets.insert(place, bucket);
        }
        if row.seen > self.caps.seen {
            self.forget_oldest(index, width)?;
        }
        Ok(())
    }

    /// Makes room for one more id: two of the oldest bucket go, so that it gets better.
    fn forget_oldest(&mut self, index: usize, width: i64) -> rusqlite::Result<()> {
        let no = self.ledger.get(index).no;
        let Some(bucket) = self.ledger.get(index).buckets.last().copied() else { return Ok(()) };
        let forgotten = self
            .connection
            .prepare_cached(
                "DELETE FROM seen WHERE (route, bucket, key) IN
                 (SELECT route, bucket, key FROM seen WHERE route = ?1 AND bucket = ?2 LIMIT 2)",
            )?
            .execute(params![no, bucket])?;
        let now = self.now;
        let row = self.ledger.change(index);
        row.seen = row.seen.saturating_sub(forgotten as u64);
        if forgotten < 2 {
            row.buckets.pop();
        }
        let from = bucket.saturating_add(1).saturating_mul(width).min(row.clock_ms(now));
        if row.seen_from_ms == 0 {
            tracing::warn!(
                route = %row.name,
                "more ids than there is room for: the oldest are forgotten before the repeat \
                 window ends; raise queue.max_size or shorten dedupe"
            );
        }
        row.seen_from_ms = row.seen_from_ms.max(from).max(1);
        Ok(())
    }

    /// Forgets up to `most` ids that have left the repeat windows of their routes.
    pub(super) fn forget_seen(&mut self, most: usize) -> rusqlite::Result<usize> {
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
        let gone = self
            .connection
            .prepare_cached(
                "DELETE FROM seen WHERE (route, bucket, key) IN
                 (SELECT route, bucket, key FROM seen WHERE route = ?1 AND bucket = ?2 LIMIT ?3)",
            )?
            .execute(params![no, bucket, i64::try_from(most).unwrap_or(i64::MAX)])?;
        let row = self.ledger.change(index);
        row.seen = row.seen.saturating_sub(gone as u64);
        if gone < most {
            row.buckets.retain(|known| *known != bucket);
        }
        Ok(gone)
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
