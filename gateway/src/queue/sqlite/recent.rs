//! The ids of the repeat windows that came last, before they go into their tree.
//!
//! Ids come in no order, so each put straight into the tree `seen` would change a page of its own:
//! more pages than all the rest of a commit together. So they are written one after the other to
//! the table `recent`, a row a transaction, and kept in memory. Once there is a [`BATCH`] of them
//! it is moved into the tree a slice at a time, by the transactions that come: the keys of a slice
//! are neighbours and share their pages, and no commit waits for many.
//!
//! ```text
//!   remember ──► recent, and in memory ── BATCH ──► moving ── slice by slice ──► seen
//!                (look-ups ask here first)                                 (and there then)
//! ```
//!
//! In memory they are in the tree's order from the beginning, and they are let go of as slowly as
//! they were moved: what is done for a whole batch at once is a pause that every waiting yes feels.
//!
//! After a crash the rows of `recent` are read again, and what they hold is moved again: putting
//! an id into the tree twice changes nothing. They are deleted by the transaction that moves the
//! last of their batch, so an id is always in one of the two.
//!
//! Nothing here is changed for good before its transaction is committed, but for what
//! [`Recent::undo`] takes back.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound::{Excluded, Unbounded},
};

use rusqlite::{Connection, params};

use super::schema;
use crate::queue::QueueError;

/// How many ids are moved together; three times as many are in memory at most, in some 15 MiB. So
/// few in tests that they see it happen.
const BATCH: usize = if cfg!(test) { 8 } else { 32_768 };

/// So many of a batch that has been moved are let go of by a commit at least, so that it goes when
/// little comes, too.
const LET_GO: usize = 128;

/// The most that are read at the start, should the file hold more than was ever written.
const MOST: usize = 1 << 20;

/// No row of the table has a number as high as this: a file that has one is damaged.
const ROW_MAX: i64 = 1 << 62;

/// Bytes of an id in the table: route, bucket, key, delivery, time.
const ENTRY: usize = 48;

/// An id: the number of its route, and its hash.
type Place = (i64, [u8; 16]);

/// Ids as in the tree: by route, bucket and hash the delivery and the time.
type Ids = BTreeMap<Key, (i64, i64)>;
type Key = (i64, i64, [u8; 16]);

/// What is known of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) bucket: i64,
    /// The delivery, 0 for none.
    pub(super) id: i64,
    /// By the route's clock, in milliseconds.
    pub(super) at: i64,
}

/// The ids that are not only in the tree.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// What is known of each, the last of it.
    known: HashMap<Place, Latest>,
    /// That of the fresh ones.
    generation: u64,
    /// Those of which no batch has been made.
    fresh: Ids,
    /// How many of those the table holds: one that was seen again is there again.
    written: usize,
    moving: Option<Moving>,
    /// A batch that is in the tree, and its generation: what has not been seen again since is
    /// looked up there once it has gone from here.
    leaving: (Ids, u64),
    /// The last row of the table.
    row: i64,
    pending: Pending,
}

#[derive(Debug, Clone, Copy)]
struct Latest {
    sighting: Sighting,
    generation: u64,
}

/// A batch on its way into the tree.
#[derive(Debug)]
struct Moving {
    ids: Ids,
    /// The last that is in the tree.
    last: Option<Key>,
    /// How many are not.
    left: usize,
    /// The last row of the table that belongs to it.
    row: i64,
    generation: u64,
}

/// What the transaction under way has done.
#[derive(Debug, Default)]
struct Pending {
    /// Ids remembered, as they are written.
    bytes: Vec<u8>,
    /// What was there before them, to be taken back in reverse order.
    before: Vec<Before>,
    /// How many of the batch under way were moved, and the last of them.
    moved: usize,
    last: Option<Key>,
    /// Whether it came as far as to write: what it has remembered is a row then.
    written: bool,
    /// Everything is in the tree.
    emptied: bool,
}

/// What was known of an id, and what was among the fresh ones in its place.
#[derive(Debug)]
struct Before {
    key: Key,
    known: Option<Latest>,
    fresh: Option<(i64, i64)>,
}

impl Moving {
    /// Those that are not in the tree, in its order.
    fn rest(&self, after: Option<Key>) -> impl Iterator<Item = (&Key, &(i64, i64))> {
        let after = after.or(self.last).map_or(Unbounded, Excluded);
        self.ids.range((after, Unbounded))
    }
}

impl Recent {
    /// Reads what is not in the tree yet, or may not be.
    ///
    /// # Errors
    /// When it cannot be read, or holds what was never written.
    pub(super) fn load(connection: &Connection) -> Result<Self, QueueError> {
        let recent = Self::read(connection).map_err(schema::store)?;
        if !(0..ROW_MAX).contains(&recent.row) {
            let why = format!("the file is damaged: its recent ids have the number {}", recent.row);
            return Err(QueueError::Store(why.into()));
        }
        Ok(recent)
    }

    fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut recent = Self::default();
        let mut statement = connection.prepare("SELECT n, ids FROM recent ORDER BY n")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            recent.row = row.get(0)?;
            let Ok(ids) = row.get_ref(1)?.as_blob() else { continue };
            let left = MOST.saturating_sub(recent.written);
            let entries = ids.as_chunks::<ENTRY>().0.iter().take(left);
            for (place, sighting) in entries.filter_map(decode) {
                recent.learn(place, sighting);
            }
        }
        recent.pending = Pending::default();
        Ok(recent)
    }

    pub(super) fn get(&self, no: i64, key: &[u8; 16]) -> Option<Sighting> {
        self.known.get(&(no, *key)).map(|known| known.sighting)
    }

    /// The buckets that were read at the start, by route, each with a time out of it.
    pub(super) fn buckets(&self) -> HashMap<i64, BTreeMap<i64, i64>> {
        let mut routes = HashMap::<i64, BTreeMap<i64, i64>>::new();
        for ((no, bucket, _), (_, at)) in &self.fresh {
            routes.entry(*no).or_default().insert(*bucket, *at);
        }
        routes
    }

    /// Whether ids of that bucket are here, or in the table, which may be in the tree, too.
    pub(super) fn holds(&self, no: i64, bucket: i64) -> bool {
        let of_it = (no, bucket, [0; 16])..=(no, bucket, [u8::MAX; 16]);
        let moving = self.moving.iter().map(|moving| &moving.ids);
        let mut all = [&self.fresh, &self.leaving.0].into_iter().chain(moving);
        !self.pending.emptied && all.any(|ids| ids.range(of_it.clone()).next().is_some())
    }

    /// Remembers an id. False when it takes the place of what it knew of it in the same bucket.
    pub(super) fn remember(&mut self, no: i64, key: &[u8; 16], sighting: Sighting) -> bool {
        encode(&mut self.pending.bytes, (no, *key), sighting);
        self.learn((no, *key), sighting)
    }

    /// How many ids the transaction under way has remembered.
    pub(super) fn remembered(&self) -> usize {
        self.pending.before.len()
    }

    fn learn(&mut self, place: Place, sighting: Sighting) -> bool {
        let Sighting { bucket, id, at } = sighting;
        let key = (place.0, bucket, place.1);
        let known = self.known.insert(place, Latest { sighting, generation: self.generation });
        let fresh = self.fresh.insert(key, (id, at));
        self.written += 1;
        self.pending.before.push(Before { key, known, fresh });
        known.is_none_or(|before| before.sighting.bucket != bucket)
    }

    /// Writes what the transaction has remembered, and moves up to `most` ids of the batch that is
    /// on its way.
    pub(super) fn write(&mut self, connection: &Connection, most: usize) -> rusqlite::Result<()> {
        if !self.pending.bytes.is_empty() {
            connection
                .prepare_cached("INSERT INTO recent (n, ids) VALUES (?1, ?2)")?
                .execute(params![self.row + 1, self.pending.bytes])?;
        }
        self.pending.written = true;
        let Some(moving) = self.moving.as_ref().filter(|_| most > 0) else { return Ok(()) };
        for (key, id) in moving.rest(None).take(most) {
            insert(connection, key, *id)?;
            self.pending.moved += 1;
            self.pending.last = Some(*key);
        }
        if self.pending.moved == moving.left {
            connection.prepare_cached("DELETE FROM recent WHERE n <= ?1")?.execute([moving.row])?;
        }
        Ok(())
    }

    /// Moves everything into the tree, if there is anything of that bucket; what was remembered is
    /// written by now. For those who are about to delete from the tree.
    pub(super) fn empty_into_tree(
        &mut self,
        connection: &Connection,
        no: i64,
        bucket: i64,
    ) -> rusqlite::Result<()> {
        if !self.holds(no, bucket) {
            return Ok(());
        }
        let rest = self.moving.iter().flat_map(|moving| moving.rest(self.pending.last));
        for (key, id) in rest.chain(&self.fresh) {
            insert(connection, key, *id)?;
        }
        connection.prepare_cached("DELETE FROM recent")?.execute([])?;
        self.pending.emptied = true;
        Ok(())
    }

    /// The transaction was committed.
    pub(super) fn committed(&mut self) {
        let Pending { moved, last, written, emptied, .. } = self.pending;
        if written {
            self.row += i64::from(!self.pending.bytes.is_empty());
        }
        let remembered = self.pending.before.len();
        self.settle_pending();
        if emptied {
            self.known.clear();
            self.fresh.clear();
            self.leaving.0.clear();
            (self.moving, self.written) = (None, 0);
            return;
        }
        // More than have come, so that one batch has left before the next is in the tree.
        self.let_go(LET_GO.max(remembered.max(moved) * 2));
        if let Some(moving) = &mut self.moving {
            moving.left -= moved;
            moving.last = last.or(moving.last);
        }
        if let Some(done) = self.moving.take_if(|moving| moving.left == 0) {
            self.let_go(usize::MAX);
            self.leaving = (done.ids, done.generation);
        }
        if self.moving.is_none() && self.written >= BATCH {
            let ids = std::mem::take(&mut self.fresh);
            let (left, row, generation) = (ids.len(), self.row, self.generation);
            self.moving = Some(Moving { ids, last: None, left, row, generation });
            self.generation += 1;
            self.written = 0;
        }
    }

    /// Lets go of so many of those that leave, but for those that have been seen again.
    fn let_go(&mut self, most: usize) {
        let (ids, generation) = &mut self.leaving;
        for _ in 0..most {
            let Some(((no, _, key), _)) = ids.pop_first() else { return };
            if self.known.get(&(no, key)).is_some_and(|known| known.generation <= *generation) {
                self.known.remove(&(no, key));
            }
        }
    }

    /// The transaction was rolled back.
    pub(super) fn undo(&mut self) {
        for before in std::mem::take(&mut self.pending.before).into_iter().rev() {
            let place = (before.key.0, before.key.2);
            match before.known {
                Some(known) => self.known.insert(place, known),
                None => self.known.remove(&place),
            };
            match before.fresh {
                Some(fresh) => self.fresh.insert(before.key, fresh),
                None => self.fresh.remove(&before.key),
            };
            self.written -= 1;
        }
        self.settle_pending();
    }

    /// Nothing is pending; the room for it is kept.
    fn settle_pending(&mut self) {
        let Pending { mut bytes, mut before, .. } = std::mem::take(&mut self.pending);
        bytes.clear();
        before.clear();
        self.pending = Pending { bytes, before, ..Pending::default() };
    }
}

fn insert(
    connection: &Connection,
    (no, bucket, key): &Key,
    (id, at): (i64, i64),
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO seen (route, bucket, key, id, at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![no, bucket, &key[..], id, at])?;
    Ok(())
}

fn encode(bytes: &mut Vec<u8>, (no, key): Place, sighting: Sighting) {
    let Sighting { bucket, id, at } = sighting;
    bytes.extend_from_slice(&key);
    for number in [no, bucket, id, at] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}

fn decode(entry: &[u8; ENTRY]) -> Option<(Place, Sighting)> {
    let (key, numbers) = entry.split_first_chunk::<16>()?;
    let mut numbers = numbers.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
    let mut next = || numbers.next();
    let (no, bucket, id, at) = (next()?, next()?, next()?, next()?);
    Some(((no, *key), Sighting { bucket, id, at }))
}
