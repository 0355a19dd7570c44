//! What one transaction does: append, settle, act, prune. Everything here may be rolled back; what
//! the rest of the process is to learn of it is gathered in [`Effects`] and told after the commit.

use std::{collections::BTreeSet, sync::Arc};

use rusqlite::{CachedStatement, Connection, params};
use sha2::{Digest as _, Sha256};
use tidegate_adapters::{DeadReason, Delivery, DeliveryId, Event, Timestamp};
use tokio::time::Instant;

use super::{
    ledger::Ledger,
    recent::Recent,
    seen::{Known, event_key},
    shared::Shared,
};
use crate::queue::{Append, AppendError, Appended, Bounds, Content, RouteSettings, Space, State};

/// What a row costs beyond its texts: keys, indexes, page overhead. Measured, rounded up.
pub(super) const ROW_BYTES: u64 = 256;

/// The caps of the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) size: u64,
    pub(super) route: u64,
    pub(super) history: u64,
    /// Ids remembered, of one route.
    pub(super) seen: u64,
}

/// The ids that all routes remember take up to this fraction of `max_size`, besides it, and each
/// about so many bytes.
const SEEN_SHARE: u64 = 8;
const SEEN_BYTES: u64 = 64;

impl Caps {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share in (0, 1] of a size: exact to the byte it need not be"
    )]
    pub(super) fn new(bounds: &Bounds) -> Self {
        let route = bounds.max_size as f64 * bounds.max_route_share;
        let seen = bounds.max_size / SEEN_SHARE / SEEN_BYTES;
        let seen = seen as f64 * bounds.max_route_share;
        let history = bounds.max_size / 4;
        Self { size: bounds.max_size, route: route as u64, history, seen: seen as u64 }
    }
}

/// One transaction in the making.
pub(super) struct Transaction<'a> {
    pub(super) connection: &'a Connection,
    pub(super) ledger: &'a mut Ledger,
    pub(super) recent: &'a mut Recent,
    pub(super) next_id: &'a mut i64,
    pub(super) caps: Caps,
    pub(super) wall: Timestamp,
    pub(super) now: Instant,
    pub(super) shared: &'a Shared,
    /// What was claimed to be discarded, to be given back however this ends.
    pub(super) taken: &'a mut Vec<(Arc<str>, DeliveryId)>,
    /// Many at once: what becomes due is paged in and not pushed.
    pub(super) bulk: bool,
    pub(super) effects: Effects,
    pub(super) often: Often<'a>,
}

/// The statements that most events need: looked up once a transaction.
#[derive(Default)]
pub(super) struct Often<'a> {
    insert_delivery: Statement<'a>,
    insert_due: Statement<'a>,
    insert_settled: Statement<'a>,
    pub(super) delete_due: Statement<'a>,
    pub(super) insert_attempt: Statement<'a>,
}

/// A statement, once somebody has asked for it.
#[derive(Default)]
pub(super) struct Statement<'a>(Option<CachedStatement<'a>>);

impl<'a> Statement<'a> {
    /// The statement `sql`, always the same.
    pub(super) fn of(
        &mut self,
        connection: &'a Connection,
        sql: &str,
    ) -> rusqlite::Result<&mut CachedStatement<'a>> {
        if self.0.is_none() {
            self.0 = Some(connection.prepare_cached(sql)?);
        }
        Ok(self.0.as_mut().expect("made above"))
    }
}

/// What is told after the commit.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// For the routes' feeds, in commit order.
    pub(super) fresh: Vec<Arc<Delivery>>,
    /// Routes of which more became due than is pushed.
    pub(super) behind: BTreeSet<Arc<str>>,
    /// Routes of which deliveries were replayed.
    pub(super) replayed: BTreeSet<Arc<str>>,
    /// Routes paused or resumed.
    pub(super) pauses: Vec<(Arc<str>, bool)>,
    /// Upstreams paused or resumed.
    pub(super) upstreams: Vec<(Arc<str>, bool)>,
    /// Deliveries pruned, by route.
    pub(super) pruned: Vec<(Arc<str>, u64)>,
}

impl Transaction<'_> {
    /// Takes the batch whole, or says why not; a full queue is an answer, not a database error. One
    /// that is exempt is never full, and evicts nothing.
    pub(super) fn append(
        &mut self,
        route: &Arc<str>,
        batch: &[Append],
        space: Space,
    ) -> rusqlite::Result<Result<Vec<Appended>, AppendError>> {
        let Some(index) = self.ledger.position(route) else { return Ok(Err(AppendError::Closed)) };
        let row = self.ledger.get(index);
        let Some(settings) = row.settings.clone() else { return Ok(Err(AppendError::Closed)) };
        let size: u64 = batch.iter().map(append_bytes).sum();
        let capped = space == Space::Capped;
        if capped && row.live_bytes + size > self.caps.route {
            return Ok(Err(AppendError::Full("the route's share is used up")));
        }
        if capped && self.ledger.bytes() + size > self.caps.size {
            let missing = self.ledger.bytes() + size - self.caps.size;
            self.evict(missing)?;
            if self.ledger.bytes() + size > self.caps.size {
                return Ok(Err(AppendError::Full("queue.max_size is reached")));
            }
        }
        let appended: rusqlite::Result<Vec<Appended>> =
            batch.iter().map(|append| self.append_one(index, &settings, append)).collect();
        appended.map(Ok)
    }

    fn append_one(
        &mut self,
        index: usize,
        settings: &RouteSettings,
        append: &Append,
    ) -> rusqlite::Result<Appended> {
        let guard = match (&append.content, settings.dedupe) {
            (Content::Pending(event) | Content::Filtered(event), Some(window)) if append.dedupe => {
                let key = event_key(event);
                let known = self.seen(index, &key, window)?;
                if let Known::Repeat(id) = known {
                    return Ok(Appended::Duplicate(DeliveryId(id)));
                }
                Some((key, window, known))
            }
            _ => None,
        };
        let id = match append.content {
            Content::Filtered(_) => 0,
            _ => {
                *self.next_id += 1;
                *self.next_id
            }
        };
        if let Some((key, window, known)) = &guard {
            self.remember(index, key, id, *window, known);
        }
        match &append.content {
            Content::Filtered(_) => {
                // Only so that the route's clock is written: nothing is counted.
                self.ledger.change(index);
                Ok(Appended::Filtered)
            }
            Content::Pending(event) => {
                self.insert(index, id, append, event)?;
                self.ledger.change(index).enter(State::Pending, append_bytes(append));
                self.enqueue(index, settings, id, event, append.key.as_ref())?;
                Ok(Appended::Pending(DeliveryId(id)))
            }
            Content::Dead(event, reason, detail) => {
                self.insert(index, id, append, event)?;
                self.bury(index, id, *reason, detail, append_bytes(append))?;
                Ok(Appended::Dead(DeliveryId(id)))
            }
            Content::Invalid(invalid) => {
                let about = serde_json::Value::Object(invalid.about.clone()).to_string();
                self.insert_row(index, id, None, true, about.as_bytes(), &invalid.raw)?;
                self.bury(index, id, DeadReason::Invalid, &invalid.why, append_bytes(append))?;
                Ok(Appended::Dead(DeliveryId(id)))
            }
        }
    }

    fn insert(
        &mut self,
        index: usize,
        id: i64,
        append: &Append,
        event: &Event,
    ) -> rusqlite::Result<()> {
        let (attributes, data) = (event.encode_attributes(), event.data_bytes());
        self.insert_row(index, id, append.key.as_ref(), false, &attributes, &data)
    }

    fn insert_row(
        &mut self,
        index: usize,
        id: i64,
        key: Option<&Arc<str>>,
        invalid: bool,
        attributes: &[u8],
        data: &[u8],
    ) -> rusqlite::Result<()> {
        let statement = self.often.insert_delivery.of(
            self.connection,
            "INSERT INTO delivery (id, route, at, key, lane, invalid, attrs, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        let no = self.ledger.get(index).no;
        let lane = key.map(|key| lane_of(key));
        statement.execute(params![
            id,
            no,
            self.wall.0,
            key.map(|key| &**key),
            lane.as_ref().map(|lane| &lane[..]),
            invalid,
            attributes,
            data
        ])?;
        Ok(())
    }

    /// Makes a fresh delivery due, or puts it behind others of its key.
    fn enqueue(
        &mut self,
        index: usize,
        settings: &RouteSettings,
        id: i64,
        event: &Arc<Event>,
        key: Option<&Arc<str>>,
    ) -> rusqlite::Result<()> {
        let no = self.ledger.get(index).no;
        if let Some(key) = key
            && !self.enter_lane(no, &lane_of(key), id, id)?
        {
            return Ok(());
        }
        self.insert_due(no, self.wall, id, 0, 0, None)?;
        self.effects.fresh.push(Arc::new(Delivery {
            id: DeliveryId(id),
            route: Arc::clone(&settings.name),
            event: Arc::clone(event),
            key: key.cloned(),
            accepted_at: self.wall,
            due_at: self.wall,
            attempts: 0,
            tries: 0,
            first_attempt_at: None,
        }));
        Ok(())
    }

    pub(super) fn insert_due(
        &mut self,
        no: i64,
        at: Timestamp,
        id: i64,
        attempts: u32,
        tries: u32,
        first_attempt: Option<Timestamp>,
    ) -> rusqlite::Result<()> {
        self.often
            .insert_due
            .of(
                self.connection,
                "INSERT INTO due (route, at, id, attempts, tries, first_attempt)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![no, at.0, id, attempts, tries, first_attempt.map(|at| at.0)])?;
        Ok(())
    }

    fn bury(
        &mut self,
        index: usize,
        id: i64,
        reason: DeadReason,
        detail: &str,
        bytes: u64,
    ) -> rusqlite::Result<()> {
        self.insert_settled(index, id, State::Dead, bytes, 0, Some((reason, detail)))?;
        self.ledger.change(index).enter(State::Dead, bytes);
        Ok(())
    }

    /// What became of it; the counters are the caller's.
    pub(super) fn insert_settled(
        &mut self,
        index: usize,
        id: i64,
        state: State,
        bytes: u64,
        tries: u32,
        dead: Option<(DeadReason, &str)>,
    ) -> rusqlite::Result<()> {
        self.often
            .insert_settled
            .of(
                self.connection,
                "INSERT INTO settled (id, route, state, at, bytes, tries, reason, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                id,
                self.ledger.get(index).no,
                state_number(state),
                self.wall.0,
                i64::try_from(bytes).unwrap_or(i64::MAX),
                tries,
                dead.map(|(reason, _)| reason_number(reason)),
                dead.map(|(_, detail)| detail)
            ])?;
        self.ledger.change(index).settled(state, id);
        Ok(())
    }
}

/// What an append adds to the live bytes.
pub(super) fn append_bytes(append: &Append) -> u64 {
    let content = match &append.content {
        Content::Filtered(_) => return 0,
        Content::Pending(event) | Content::Dead(event, _, _) => event.size_hint(),
        Content::Invalid(invalid) => invalid.raw.len() + invalid.why.len(),
    };
    content as u64 + ROW_BYTES
}

pub(super) fn delivery_bytes(delivery: &Delivery) -> u64 {
    delivery.event.size_hint() as u64 + ROW_BYTES
}

/// The order lane of a key; hashed, since keys may be long.
pub(super) fn lane_of(key: &str) -> [u8; 16] {
    half(Sha256::new_with_prefix(key.as_bytes()))
}

pub(super) fn half(hash: Sha256) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

pub(super) fn state_number(state: State) -> i64 {
    match state {
        State::Pending => 0,
        State::Delivered => 1,
        State::Dead => 2,
        State::Discarded => 3,
    }
}

pub(super) fn reason_number(reason: DeadReason) -> i64 {
    let position = DeadReason::ALL.iter().position(|known| *known == reason);
    i64::try_from(position.unwrap_or(0)).unwrap_or(0)
}
