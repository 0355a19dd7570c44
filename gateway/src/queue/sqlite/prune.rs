//! Making room: what is finished with goes, the oldest first, in small steps.

use std::{ops::Range, sync::Arc};

use rusqlite::{OptionalExtension as _, params};
use tidegate_adapters::Timestamp;

use super::transaction::{Transaction, state_number};
use crate::queue::State;

/// So many are looked at in one go.
const STEP: usize = 256;

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

    /// Removes up to `most`, and no more than one step looks at, of those settled so before then:
    /// by their age over all routes.
    fn remove_oldest(
        &mut self,
        state: State,
        before: Timestamp,
        most: usize,
    ) -> rusqlite::Result<usize> {
        let (mut removed, mut looked_at) = (0, 0);
        while removed < most && looked_at < STEP {
            let Some((index, from, rival)) = self.ledger.oldest(state) else { break };
            let no = self.ledger.get(index).no;
            let (found, more_from) =
                self.oldest_of(no, state, from..rival, before, most - removed)?;
            for (id, bytes) in &found {
                looked_at += 1;
                // An operator's decision is pending; a key must not come free by age.
                if state == State::Dead && self.holds_its_key(no, *id)? {
                    continue;
                }
                self.remove(index, state, *id, *bytes)?;
                removed += 1;
            }
            if more_from != from {
                self.ledger.change(index).oldest_is(state, more_from);
            } else if found.is_empty() {
                break;
            }
        }
        Ok(removed)
    }

    /// The oldest of one route, and where those begin that are left.
    fn oldest_of(
        &self,
        no: i64,
        state: State,
        ids: Range<i64>,
        before: Timestamp,
        most: usize,
    ) -> rusqlite::Result<(Vec<(i64, i64)>, i64)> {
        let mut oldest = self.connection.prepare_cached(
            "SELECT id, bytes, at FROM settled WHERE route = ?1 AND state = ?2 AND id >= ?3
             ORDER BY id",
        )?;
        let mut rows = oldest.query(params![no, state_number(state), ids.start])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let is_young = row.get::<_, i64>(2)? >= before.0;
            if is_young || id > ids.end || found.len() >= most.min(STEP) {
                return Ok((found, id));
            }
            found.push((id, row.get(1)?));
        }
        Ok((found, i64::MAX))
    }

    fn remove(&mut self, index: usize, state: State, id: i64, bytes: i64) -> rusqlite::Result<()> {
        if id >= *self.next_id {
            // The newest of all: the next start could not tell from the rows which ids are used.
            self.keep_last_id(id)?;
        }
        if matches!(state, State::Dead | State::Discarded) {
            self.forget_given_up(index, id)?;
        }
        self.forget_outcome(id)?;
        self.connection.prepare_cached("DELETE FROM delivery WHERE id = ?1")?.execute([id])?;
        let row = self.ledger.change(index);
        row.leave(state, u64::try_from(bytes).unwrap_or(0));
        self.effects.pruned.push((Arc::clone(&row.name), 1));
        Ok(())
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
