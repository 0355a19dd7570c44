//! Which events were seen within a route's repeat window.
//!
//! A route remembers so many ids at most. Beyond that the oldest go first, by the bucket, and what
//! is left of the window is shown to whoever asks: a window that is silently shorter than promised
//! would be found out by a duplicate.

use std::collections::BTreeMap;

use bytes::Bytes;
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

/// In a delivery's stead: nothing is left of it, and its repeat is to be taken anew.
const GONE: i64 = -1;

/// Ids that were seen one after the other: all of them before those of any bucket of a higher
/// number, also when the window, and with it the width of buckets, was another then.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    /// The repeat clock when it began, rounded down.
    number: i64,
    /// By the repeat clock: none of it was seen after this.
    last_ms: i64,
}

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
        let void = found.id == GONE || found.id != 0 && self.given_up(found.id)?;
        if found.at > oldest && !void {
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
        for bucket in row.buckets.iter().map(|bucket| bucket.number) {
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
        let (at, width) = (row.clock_ms(self.now), bucket_width(window));
        let newest = row.buckets.first().map_or(i64::MIN, |newest| newest.number);
        let bucket = (at - at.rem_euclid(width)).max(newest);
        match row.buckets.first_mut() {
            Some(newest) if newest.number == bucket => newest.last_ms = at,
            _ => row.buckets.insert(0, Bucket { number: bucket, last_ms: at }),
        }
        let new = self.recent.remember(row.no, key, Sighting { bucket, id, at });
        // In the same bucket, of a delivery that was given up: now it stands for this one.
        if new && !matches!(known, Known::Void(void) if *void == bucket) {
            row.seen += 1;
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
                let gone = self.forget_bucket(index, bucket.number, most)?;
                most = most.saturating_sub(gone.max(1));
                self.window_is_short(index, bucket);
            }
        }
        Ok(())
    }

    /// Ids of `bucket` are forgotten before their time.
    fn window_is_short(&mut self, index: usize, bucket: Bucket) {
        let row = self.ledger.change(index);
        if row.seen_from_ms == 0 {
            tracing::warn!(
                route = %row.name,
                "more ids than there is room for: the oldest are forgotten before the repeat \
                 window ends; raise queue.max_size or shorten dedupe"
            );
        }
        row.seen_from_ms = row.seen_from_ms.max(bucket.last_ms).max(1);
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
        if let Some(recent) = self.recent.get(row.no, &key) {
            if recent.id == id {
                self.recent.remember(row.no, &key, Sighting { id: GONE, ..recent });
            }
            return Ok(());
        }
        let mut forget = self.connection.prepare_cached(
            "DELETE FROM seen WHERE route = ?1 AND bucket = ?2 AND key = ?3 AND id = ?4",
        )?;
        for bucket in &row.buckets {
            let forgotten = forget.execute(params![row.no, bucket.number, &key[..], id])?;
            row.seen = row.seen.saturating_sub(forgotten as u64);
        }
        Ok(())
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
            let seen_from_ms = row.seen_from_ms;
            while let Some(bucket) = self.ledger.get(index).buckets.last().copied()
                && bucket.last_ms <= oldest
                && forgotten < most
                && !(full && self.recent.holds(self.ledger.get(index).no, bucket.number))
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
        // What is in both would come back after a crash.
        self.recent.empty_into_tree(self.connection, no, bucket)?;
        let gone = self.delete_seen(no, bucket, most)?;
        let row = self.ledger.change(index);
        row.seen = row.seen.saturating_sub(gone as u64);
        if gone < most {
            row.buckets.retain(|known| known.number != bucket);
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

/// The buckets of the route `no`, whose repeat clock is at `clock_ms`, the newest first: those in
/// the tree, with one short look each, and the `recent` ones, each with a time out of it.
pub(super) fn buckets(
    connection: &Connection,
    no: i64,
    clock_ms: i64,
    recent: Option<&BTreeMap<i64, i64>>,
) -> rusqlite::Result<Vec<Bucket>> {
    let mut below = connection.prepare_cached(
        "SELECT bucket, at FROM seen WHERE route = ?1 AND bucket < ?2
         ORDER BY bucket DESC LIMIT 1",
    )?;
    let mut all = recent.cloned().unwrap_or_default();
    let mut below_this = i64::MAX;
    let look = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
    while let Some((number, at)) = below.query_row([no, below_this], look).optional()? {
        all.entry(number).or_insert(at);
        below_this = number;
    }
    let mut last_ms = clock_ms;
    let buckets = all.into_iter().rev().map(|(number, at)| {
        // Any of this one was seen after all of the next.
        Bucket { number, last_ms: std::mem::replace(&mut last_ms, at) }
    });
    Ok(buckets.collect())
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
