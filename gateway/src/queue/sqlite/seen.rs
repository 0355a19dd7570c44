//! Which events were seen within a route's repeat window.

use rusqlite::{OptionalExtension as _, params};
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
        let width = bucket_width(window);
        let oldest = clock - i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        let mut statement = self.connection.prepare_cached(
            "SELECT id, at FROM seen WHERE route = ?1 AND bucket = ?2 AND key = ?3",
        )?;
        for bucket in (oldest.div_euclid(width)..=clock.div_euclid(width)).rev() {
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
        self.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO seen (route, bucket, key, id, at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![row.no, clock.div_euclid(width), &key[..], id, clock])?;
        Ok(())
    }

    /// Forgets up to `most` ids of each route that have left its repeat window.
    pub(super) fn forget_seen(&mut self, most: usize) -> rusqlite::Result<usize> {
        let mut forgotten = 0;
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        for index in 0..self.ledger.len() {
            let row = self.ledger.get(index);
            let Some(settings) = &row.settings else { continue };
            let window = settings.dedupe.unwrap_or_default();
            let oldest =
                row.clock_ms(self.now) - i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
            let bucket = oldest.div_euclid(bucket_width(window));
            forgotten += self
                .connection
                .prepare_cached(
                    "DELETE FROM seen WHERE (route, bucket, key) IN
                     (SELECT route, bucket, key FROM seen WHERE route = ?1 AND bucket < ?2
                      LIMIT ?3)",
                )?
                .execute(params![row.no, bucket, limit])?;
        }
        Ok(forgotten)
    }
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
