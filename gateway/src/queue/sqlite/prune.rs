//! Making room: what is finished with goes, the oldest first, in small steps.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};
use tidegate_adapters::Timestamp;

use super::transaction::{Transaction, state_number};
use crate::queue::State;

impl Transaction<'_> {
    /// Removes up to `most` finished deliveries: those whose time has passed, and the oldest
    /// delivered ones while history is above its share.
    pub(super) fn prune(
        &mut self,
        delivered_before: Timestamp,
        dead_before: Timestamp,
        most: usize,
    ) -> rusqlite::Result<usize> {
        let mut pruned = 0;
        while pruned < most && self.ledger.history_bytes() > self.caps.history {
            let step = self.remove_oldest(State::Delivered, Timestamp(i64::MAX), most - pruned)?;
            let step = match step {
                0 => self.remove_oldest(State::Discarded, Timestamp(i64::MAX), most - pruned)?,
                step => step,
            };
            if step == 0 {
                break;
            }
            pruned += step;
        }
        for (state, before) in [
            (State::Delivered, delivered_before),
            (State::Discarded, delivered_before),
            (State::Dead, dead_before),
        ] {
            if pruned < most {
                pruned += self.remove_oldest(state, before, most - pruned)?;
            }
        }
        Ok(pruned)
    }

    /// Makes room for `missing` bytes out of the history, as far as it goes.
    pub(super) fn evict(&mut self, missing: u64) -> rusqlite::Result<()> {
        let target = self.ledger.history_bytes().saturating_sub(missing);
        while self.ledger.history_bytes() > target {
            if self.remove_oldest(State::Delivered, Timestamp(i64::MAX), 64)? == 0
                && self.remove_oldest(State::Discarded, Timestamp(i64::MAX), 64)? == 0
            {
                break;
            }
        }
        Ok(())
    }

    fn remove_oldest(
        &mut self,
        state: State,
        before: Timestamp,
        most: usize,
    ) -> rusqlite::Result<usize> {
        let connection = self.connection;
        let mut oldest = connection.prepare_cached(
            "SELECT id, route, bytes, at FROM settled WHERE state = ?1 ORDER BY id LIMIT ?2",
        )?;
        let limit = i64::try_from(most.min(256)).unwrap_or(256);
        let rows: Vec<(i64, i64, i64, i64)> = oldest
            .query_map(params![state_number(state), limit], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut removed = 0;
        for (id, no, bytes, at) in rows {
            if at >= before.0 {
                break;
            }
            let Some(index) = self.ledger.by_no(no) else { continue };
            if id >= *self.next_id {
                // The newest of all: the next start could not tell from the rows which ids are
                // used.
                connection
                    .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('last_id', ?1)")?
                    .execute([id])?;
            }
            let held = state == State::Dead && self.holds_its_key(no, id)?;
            if held {
                // An operator's decision is pending; a key must not come free by age.
                continue;
            }
            for sql in [
                "DELETE FROM settled WHERE id = ?1",
                "DELETE FROM delivery WHERE id = ?1",
                "DELETE FROM attempt WHERE delivery = ?1",
            ] {
                connection.prepare_cached(sql)?.execute([id])?;
            }
            let row = self.ledger.change(index);
            row.leave(state, u64::try_from(bytes).unwrap_or(0));
            self.effects.pruned.push((Arc::clone(&row.name), 1));
            removed += 1;
        }
        Ok(removed)
    }

    fn holds_its_key(&self, no: i64, id: i64) -> rusqlite::Result<bool> {
        let lane: Option<Vec<u8>> = self
            .connection
            .prepare_cached("SELECT lane FROM delivery WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?
            .flatten();
        let Some(lane) = lane else { return Ok(false) };
        Ok(self.lane_head(no, &lane)? == Some(id))
    }
}
