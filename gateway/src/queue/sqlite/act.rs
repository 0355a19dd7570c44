//! What an operator does to deliveries: replay and discard, one or many.
//!
//! # Beside the loop
//!
//! The loop claims a delivery before it attempts it, and what it may claim next it has read some
//! time ago. So whatever is discarded out of `pending` is claimed here first, as the loop does it:
//!
//! - the loop was first: it is being attempted, and is left alone;
//! - we were first: the loop finds it claimed and drops it. After the commit the feed's epoch goes
//!   up, and only then the claim is given back: a loop that still has it in hand and claims it now
//!   sees that what it holds is of another epoch, and reads again.
//!
//! When the commit fails the claims are given back, and the feed falls behind: the loop may have
//! dropped what is still pending.
//!
//! # Many
//!
//! A reader has found them and the writer looks at each again, since they may have moved on. It
//! stops after two milliseconds and says how far it came: fresh events wait for the same commit.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use rusqlite::{OptionalExtension as _, params};
use tidegate_adapters::{DeliveryId, Event};
use tokio::time::Instant;

use super::{
    reader::state_of,
    transaction::{ROW_BYTES, Transaction, state_number},
};
use crate::queue::{Action, QueueError, State};

/// The writer stops after this and says how far it came.
const STEP_TIME: Duration = Duration::from_millis(2);

/// What a step on many came to.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// How many it was done to, by route.
    pub(super) routes: BTreeMap<Arc<str>, u64>,
    /// The last one looked at, when time was up before the end.
    pub(super) stopped_at: Option<DeliveryId>,
}

/// A delivery as it stands.
struct Standing {
    index: usize,
    no: i64,
    lane: Option<Vec<u8>>,
    invalid: bool,
    state: State,
    /// What it weighs in the ledger, if it is settled.
    settled_bytes: u64,
    /// What it weighs while it is pending; nothing when its event cannot be read.
    bytes: Option<u64>,
}

impl Transaction<'_> {
    /// Replays or discards one. `Err` inside: it cannot be done to it.
    pub(super) fn act(
        &mut self,
        action: Action,
        id: DeliveryId,
    ) -> rusqlite::Result<Result<(), QueueError>> {
        let Some(standing) = self.standing(id)? else {
            return Ok(Err(QueueError::Missing(id)));
        };
        match action {
            Action::Replay => self.replay(id, &standing),
            Action::Discard => self.discard(id, &standing),
        }
    }

    /// Does it to those that still are in the state they were found in.
    pub(super) fn act_on_many(
        &mut self,
        action: Action,
        found: &[(DeliveryId, State)],
    ) -> rusqlite::Result<Step> {
        let began = Instant::now();
        let mut step = Step::default();
        self.bulk = true;
        for (id, state) in found {
            if let Some(standing) = self.standing(*id)?
                && standing.state == *state
            {
                let done = match action {
                    Action::Replay => self.replay(*id, &standing)?,
                    Action::Discard => self.discard(*id, &standing)?,
                };
                if done.is_ok() {
                    let route = Arc::clone(&self.ledger.get(standing.index).name);
                    *step.routes.entry(route).or_default() += 1;
                }
            }
            if began.elapsed() >= STEP_TIME {
                step.stopped_at = Some(*id);
                break;
            }
        }
        self.bulk = false;
        Ok(step)
    }

    /// Pending again, behind what its key holds; one that holds its key keeps its place.
    fn replay(
        &mut self,
        id: DeliveryId,
        standing: &Standing,
    ) -> rusqlite::Result<Result<(), QueueError>> {
        let Standing { index, no, state, .. } = *standing;
        match state {
            State::Dead if standing.invalid => {
                return Ok(Err(QueueError::Unfit { id, state: "dead and not an event" }));
            }
            State::Dead | State::Delivered => {}
            State::Pending | State::Discarded => return Ok(Err(self.unfit(id, state))),
        }
        let Some(bytes) = standing.bytes else { return Ok(Err(damaged(id))) };
        self.forget_outcome(id.0)?;
        let row = self.ledger.change(index);
        row.leave(state, standing.settled_bytes);
        row.enter(State::Pending, bytes);
        let route = Arc::clone(&row.name);
        let may_go = match &standing.lane {
            None => true,
            Some(lane) if self.lane_head(no, lane)? == Some(id.0) => true,
            Some(lane) => {
                *self.next_id += 1;
                let place = *self.next_id;
                // No row of `delivery` tells at the next start that this number is used.
                self.keep_last_id(place)?;
                self.enter_lane(no, lane, place, id.0)?
            }
        };
        if may_go {
            self.make_due(index, id.0)?;
        }
        self.effects.replayed.insert(route);
        Ok(Ok(()))
    }

    /// Given up, and out of the way of the next of its key.
    fn discard(
        &mut self,
        id: DeliveryId,
        standing: &Standing,
    ) -> rusqlite::Result<Result<(), QueueError>> {
        let Standing { index, no, state, .. } = *standing;
        let bytes = match state {
            State::Pending => {
                let Some(bytes) = standing.bytes else { return Ok(Err(damaged(id))) };
                if !self.take(index, id) {
                    return Ok(Err(QueueError::Unfit { id, state: "active" }));
                }
                let tries = self.leave_due(no, id.0)?;
                self.insert_settled(index, id.0, State::Discarded, bytes, tries, None)?;
                bytes
            }
            State::Dead => {
                self.connection
                    .prepare_cached("UPDATE settled SET state = ?2, at = ?3 WHERE id = ?1")?
                    .execute(params![id.0, state_number(State::Discarded), self.wall.0])?;
                self.ledger.change(index).settled(State::Discarded, id.0);
                standing.settled_bytes
            }
            State::Delivered | State::Discarded => return Ok(Err(self.unfit(id, state))),
        };
        let row = self.ledger.change(index);
        row.leave(state, bytes);
        row.enter(State::Discarded, bytes);
        if let Some(lane) = &standing.lane {
            self.leave_lane(index, lane, id.0)?;
        }
        Ok(Ok(()))
    }

    fn standing(&self, id: DeliveryId) -> rusqlite::Result<Option<Standing>> {
        // `length` of a blob reads none of it.
        let mut statement = self.connection.prepare_cached(
            "SELECT d.route, d.lane, d.invalid, d.attrs, length(d.data), s.state, s.bytes
             FROM delivery d LEFT JOIN settled s ON s.id = d.id WHERE d.id = ?1",
        )?;
        statement
            .query_row([id.0], |row| {
                let Some(index) = self.ledger.by_no(row.get(0)?) else { return Ok(None) };
                let data = u64::try_from(row.get::<_, i64>(4)?).unwrap_or(0);
                let invalid = row.get(2)?;
                let event = match invalid {
                    true => None,
                    false => Event::decode(row.get_ref(3)?.as_blob()?, Bytes::new()).ok(),
                };
                let settled_bytes = row.get::<_, Option<i64>>(6)?.unwrap_or(0);
                Ok(Some(Standing {
                    index,
                    no: row.get(0)?,
                    lane: row.get(1)?,
                    invalid,
                    state: row.get::<_, Option<i64>>(5)?.map_or(State::Pending, state_of),
                    settled_bytes: u64::try_from(settled_bytes).unwrap_or(0),
                    bytes: event.map(|event| event.size_hint() as u64 + data + ROW_BYTES),
                }))
            })
            .optional()
            .map(Option::flatten)
    }

    /// Claims it as the loop would; false when the loop was first.
    fn take(&mut self, index: usize, id: DeliveryId) -> bool {
        let taken = self.shared.claims.lock().insert(id);
        if taken {
            self.taken.push((Arc::clone(&self.ledger.get(index).name), id));
        }
        taken
    }

    /// Answers how often it was tried; followers of a lane were not.
    fn leave_due(&self, no: i64, id: i64) -> rusqlite::Result<u32> {
        let due: Option<(i64, u32)> = self
            .connection
            .prepare_cached("SELECT at, tries FROM due WHERE id = ?1")?
            .query_row([id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((at, tries)) = due else { return Ok(0) };
        self.connection
            .prepare_cached("DELETE FROM due WHERE route = ?1 AND at = ?2 AND id = ?3")?
            .execute([no, at, id])?;
        Ok(tries)
    }

    fn unfit(&self, id: DeliveryId, state: State) -> QueueError {
        let state = match state {
            State::Pending if self.shared.claims.lock().contains(&id) => "active",
            State::Pending => "pending",
            State::Delivered => "delivered",
            State::Dead => "dead",
            State::Discarded => "discarded",
        };
        QueueError::Unfit { id, state }
    }

    /// The highest number given, for the next start.
    pub(super) fn keep_last_id(&self, id: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO meta VALUES ('last_id', ?1)")?
            .execute([id])
            .map(drop)
    }
}

fn damaged(id: DeliveryId) -> QueueError {
    QueueError::Store(format!("delivery {id}: its event cannot be read").into())
}
