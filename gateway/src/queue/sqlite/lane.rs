//! Lanes: the deliveries of one order key that are not finished with, one behind the other. Only
//! the first of a lane is due; one that is dead and holds its key is first and not due.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};

use super::{reader, transaction::Transaction};

impl Transaction<'_> {
    /// The first of a lane.
    pub(super) fn lane_head(&self, no: i64, lane: &[u8]) -> rusqlite::Result<Option<i64>> {
        self.connection
            .prepare_cached(
                "SELECT id FROM lane WHERE route = ?1 AND lane = ?2 ORDER BY pos LIMIT 1",
            )?
            .query_row(params![no, lane], |row| row.get(0))
            .optional()
    }

    /// Puts a delivery at a place of its lane, the last so far. True when it is the first.
    pub(super) fn enter_lane(
        &self,
        no: i64,
        lane: &[u8],
        pos: i64,
        id: i64,
    ) -> rusqlite::Result<bool> {
        let behind = self.lane_head(no, lane)?.is_some();
        self.connection
            .prepare_cached("INSERT INTO lane (route, lane, pos, id) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![no, lane, pos, id])?;
        if pos != id {
            self.connection
                .prepare_cached("INSERT OR REPLACE INTO moved (id, pos) VALUES (?1, ?2)")?
                .execute([id, pos])?;
        }
        Ok(!behind)
    }

    /// The delivery is finished with: out of its lane, if it is in it. When it was the first, the
    /// next may go: it is due now, and the feed is told.
    pub(super) fn leave_lane(
        &mut self,
        index: usize,
        lane: &[u8],
        id: i64,
    ) -> rusqlite::Result<()> {
        let no = self.ledger.get(index).no;
        let front: Vec<(i64, i64)> = self
            .connection
            .prepare_cached(
                "SELECT id, pos FROM lane WHERE route = ?1 AND lane = ?2 ORDER BY pos LIMIT 2",
            )?
            .query_map(params![no, lane], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let first = front.first().filter(|(first, _)| *first == id);
        let pos = match first {
            Some((_, pos)) => *pos,
            None => self.place(id)?,
        };
        self.connection
            .prepare_cached(
                "DELETE FROM lane WHERE route = ?1 AND lane = ?2 AND pos = ?3 AND id = ?4",
            )?
            .execute(params![no, lane, pos, id])?;
        if pos != id {
            self.connection.prepare_cached("DELETE FROM moved WHERE id = ?1")?.execute([id])?;
        }
        match (first, front.get(1)) {
            (Some(_), Some((next, _))) => self.make_due(index, *next),
            _ => Ok(()),
        }
    }

    /// Due now and for the first time; the feed is told.
    pub(super) fn make_due(&mut self, index: usize, id: i64) -> rusqlite::Result<()> {
        let row = self.ledger.get(index);
        let (no, route) = (row.no, Arc::clone(&row.name));
        self.insert_due(no, self.wall, id, 0, 0, None)?;
        if self.bulk {
            self.effects.behind.insert(route);
            return Ok(());
        }
        let due = reader::Due { id, at: self.wall.0, attempts: 0, tries: 0, first_attempt: None };
        let delivery = reader::delivery(self.connection, &route, &due)?;
        self.effects.fresh.extend(delivery.map(Arc::new));
        Ok(())
    }

    fn place(&self, id: i64) -> rusqlite::Result<i64> {
        let moved = self
            .connection
            .prepare_cached("SELECT pos FROM moved WHERE id = ?1")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        Ok(moved.unwrap_or(id))
    }
}
