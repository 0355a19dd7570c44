//! What became of an attempt.

use rusqlite::params;
use tidegate_adapters::Delivery;

use super::transaction::{Transaction, delivery_bytes, lane_of};
use crate::queue::{AttemptRecord, Outcome, QueueError, Reply, Settlement, Space, State};

/// Attempts kept of each delivery.
const ATTEMPTS_KEPT: u32 = 3;

impl Transaction<'_> {
    /// Records what became of a delivery. `Err` inside: it is not pending.
    pub(super) fn settle(
        &mut self,
        settlement: &Settlement,
    ) -> rusqlite::Result<Result<(), QueueError>> {
        let Settlement { delivery, outcome, attempt, reply, .. } = settlement;
        let id = delivery.id.0;
        let Some(index) = self.ledger.position(&delivery.route) else {
            return Ok(Err(QueueError::Missing(delivery.id)));
        };
        let no = self.ledger.get(index).no;
        let sql = "DELETE FROM due WHERE route = ?1 AND at = ?2 AND id = ?3";
        let removed = self.often.delete_due.of(self.connection, sql)?.execute(params![
            no,
            delivery.due_at.0,
            id
        ])?;
        if removed == 0 {
            return Ok(Err(QueueError::Missing(delivery.id)));
        }
        let tries = attempt.as_ref().map_or(delivery.tries, |attempt| attempt.number);
        let paused = self.ledger.get(index).paused_for(self.wall);
        let first_attempt =
            delivery.first_attempt_at.or(attempt.as_ref().map(|first| first.at.before(paused)));
        let mut bytes = delivery_bytes(delivery);
        if let Some(attempt) = attempt {
            bytes += self.record(id, attempt)?;
        }
        match outcome {
            Outcome::Retry { at, attempts } => {
                self.insert_due(no, *at, id, *attempts, tries, first_attempt)?;
            }
            Outcome::Delivered => {
                self.insert_settled(index, id, State::Delivered, bytes, tries, None)?;
                self.leave_pending(index, delivery);
                self.ledger.change(index).enter(State::Delivered, bytes);
                self.leave_lane_of(index, delivery)?;
            }
            Outcome::Dead { reason, detail } => {
                let dead = Some((*reason, detail.as_str()));
                self.insert_settled(index, id, State::Dead, bytes, tries, dead)?;
                self.leave_pending(index, delivery);
                self.ledger.change(index).enter(State::Dead, bytes);
                let hold = self.ledger.get(index).settings.as_ref().is_some_and(|s| s.hold);
                if !hold {
                    self.leave_lane_of(index, delivery)?;
                }
            }
        }
        if let Some(Reply { route, append }) = reply
            && self.append(route, std::slice::from_ref(append), Space::Exempt)?.is_err()
        {
            // Its route went with the configuration that the call was begun under.
            tracing::warn!(route = %route, delivery = id, "nobody delivers replies: not kept");
        }
        Ok(Ok(()))
    }

    fn leave_pending(&mut self, index: usize, delivery: &Delivery) {
        self.ledger.change(index).leave(State::Pending, delivery_bytes(delivery));
    }

    fn leave_lane_of(&mut self, index: usize, delivery: &Delivery) -> rusqlite::Result<()> {
        let Some(key) = &delivery.key else { return Ok(()) };
        self.leave_lane(index, &lane_of(key), delivery.id.0)
    }

    /// Forgets what became of a delivery, its attempts included.
    pub(super) fn forget_outcome(&self, id: i64) -> rusqlite::Result<()> {
        for sql in [
            "DELETE FROM settled WHERE id = ?1",
            "DELETE FROM attempt WHERE slot BETWEEN ?1 << 2 AND (?1 << 2) | 3",
        ] {
            self.connection.prepare_cached(sql)?.execute([id])?;
        }
        Ok(())
    }

    /// Keeps the attempt, and no more than the last three. Answers its size.
    fn record(&mut self, id: i64, attempt: &AttemptRecord) -> rusqlite::Result<u64> {
        let exchange = &attempt.exchange;
        self.often
            .insert_attempt
            .of(
                self.connection,
                "INSERT OR REPLACE INTO attempt
                 (slot, n, at, us, result, detail, status, request, response)
                 VALUES ((?1 << 2) | (?2 & 3), ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                id,
                attempt.number,
                attempt.at.0,
                i64::try_from(attempt.duration.as_micros()).unwrap_or(i64::MAX),
                attempt.result.as_str(),
                attempt.detail,
                exchange.status,
                exchange.request,
                exchange.response
            ])?;
        if attempt.number > ATTEMPTS_KEPT {
            self.connection
                .prepare_cached("DELETE FROM attempt WHERE slot = (?1 << 2) | (?2 & 3)")?
                .execute(params![id, attempt.number - ATTEMPTS_KEPT])?;
        }
        let bytes =
            (exchange.request.len() + exchange.response.len() + attempt.detail.len()) as u64;
        Ok(bytes)
    }
}
