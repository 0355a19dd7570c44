//! Which events were seen within a route's repeat window.
//!
//! A route remembers so many ids at most. Beyond that the oldest go first, by the bucket, and what
//! is left of the window is shown to whoever asks: a window that is silently shorter than promised
//! would be found out by a duplicate.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};
use tidegate_adapters::Event;

use super::transaction::{Transaction, half, state_number};
use crate::queue::State;

/// A repeat window is kept in so many buckets, of which the oldest are dropped whole.
const BUCKETS: i64 = 4;

/// Ids that were seen one after the other: all of them before those of any bucket of a higher
/// number, also when the window, and with it the width of buckets, was another then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// The repeat clock when it began, rounded down.
    number: i64,
    /// By the repeat clock: none of it was seen after this.
    last_ms: i64,
}

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
                .query_row(params![row.no, bucket.number, &key[..]], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
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
        let newest = row.buckets.first().map_or(i64::MIN, |newest| newest.number);
        let number = (clock - clock.rem_euclid(width)).max(newest);
        let values = params![row.no, number, &key[..], id, clock];
        let insert = "INSERT OR IGNORE INTO seen (route, bucket, key, id, at)
                      VALUES (?1, ?2, ?3, ?4, ?5)";
        let is_new = self.connection.prepare_cached(insert)?.execute(values)? != 0;
        if !is_new {
            // Known in this bucket, of a delivery that was given up: now it stands for this one.
            let replace =
                "UPDATE seen SET id = ?4, at = ?5 WHERE route = ?1 AND bucket = ?2 AND key = ?3";
            self.connection.prepare_cached(replace)?.execute(values)?;
        }
        let row = self.ledger.change(index);
        row.seen += u64::from(is_new);
        match row.buckets.first_mut() {
            Some(newest) if newest.number == number => newest.last_ms = clock,
            _ => row.buckets.insert(0, Bucket { number, last_ms: clock }),
        }
        if row.seen > self.caps.seen {
            self.forget_oldest(index)?;
        }
        Ok(())
    }

    /// Makes room for one more id: two of the oldest bucket go, so that it gets better.
    fn forget_oldest(&mut self, index: usize) -> rusqlite::Result<()> {
        let no = self.ledger.get(index).no;
        let Some(oldest) = self.ledger.get(index).buckets.last().copied() else { return Ok(()) };
        let forgotten = self
            .connection
            .prepare_cached(
                "DELETE FROM seen WHERE (route, bucket, key) IN
                 (SELECT route, bucket, key FROM seen WHERE route = ?1 AND bucket = ?2 LIMIT 2)",
            )?
            .execute(params![no, oldest.number])?;
        let row = self.ledger.change(index);
        row.seen = row.seen.saturating_sub(forgotten as u64);
        if forgotten < 2 {
            row.buckets.pop();
        }
        if row.seen_from_ms == 0 {
            tracing::warn!(
                route = %row.name,
                "more ids than there is room for: the oldest are forgotten before the repeat \
                 window ends; raise queue.max_size or shorten dedupe"
            );
        }
        row.seen_from_ms = row.seen_from_ms.max(oldest.last_ms).max(1);
        Ok(())
    }

    /// Forgets that the event of delivery `id`, which was given up and goes, was ever seen: when
    /// nothing is left of it, nothing tells that its repeat is to be taken anew.
    pub(super) fn forget_given_up(&mut self, index: usize, id: i64) -> rusqlite::Result<()> {
        let attributes: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT attrs FROM delivery WHERE id = ?1 AND NOT invalid")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        let event = attributes.and_then(|bytes| Event::decode(&bytes, Bytes::new()).ok());
        let Some(event) = event else { return Ok(()) };
        let (key, row) = (event_key(&event), self.ledger.change(index));
        let mut forget = self.connection.prepare_cached(
            "DELETE FROM seen WHERE route = ?1 AND bucket = ?2 AND key = ?3 AND id = ?4",
        )?;
        for bucket in &row.buckets {
            let forgotten = forget.execute(params![row.no, bucket.number, &key[..], id])?;
            row.seen = row.seen.saturating_sub(forgotten as u64);
        }
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
            let seen_from_ms = row.seen_from_ms;
            while let Some(bucket) = self.ledger.get(index).buckets.last().copied()
                && bucket.last_ms <= oldest
                && forgotten < most
            {
                forgotten += self.forget_bucket(index, bucket.number, most - forgotten)?;
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
            row.buckets.retain(|known| known.number != bucket);
        }
        Ok(gone)
    }
}

/// The buckets of the route `no`, whose repeat clock is at `clock_ms`, the newest first;
/// one short look each.
pub(super) fn buckets(
    connection: &Connection,
    no: i64,
    clock_ms: i64,
) -> rusqlite::Result<Vec<Bucket>> {
    let mut below = connection.prepare_cached(
        "SELECT bucket, at FROM seen WHERE route = ?1 AND bucket < ?2
         ORDER BY bucket DESC LIMIT 1",
    )?;
    let mut buckets = Vec::new();
    let (mut below_this, mut last_ms) = (i64::MAX, clock_ms);
    let look = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    while let Some((number, at)) = below.query_row([no, below_this], look).optional()? {
        buckets.push(Bucket { number, last_ms });
        // Any of this one was seen after all of the next.
        (below_this, last_ms) = (number, at);
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
