//! The ids of the repeat windows that came last, before they go into their tree.
//!
//! Ids come in no order, so each put straight into the tree `seen` would change a page of its own:
//! more pages than all the rest of a commit together. So they are written one after the other to
//! the table `recent`, a row a transaction, and kept in memory. Once there is a [`BATCH`] of them
//! it is sorted and moved into the tree a slice at a time, by the transactions that come: the keys
//! of a slice are neighbours and share their pages, and no commit waits for many.
//!
//! ```text
//!   remember ──► recent, and in memory ── BATCH ──► sorted ── slice by slice ──► seen
//!                (look-ups ask here first)                                 (and there then)
//! ```
//!
//! After a crash the rows of `recent` are read again, and what they hold is moved again: putting
//! an id into the tree twice changes nothing. They are deleted by the transaction that moves the
//! last of their batch, so an id is always in one of the two.
//!
//! Nothing here is changed for good before its transaction is committed, but for what
//! [`Recent::undo`] takes back.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, params};

use super::schema;
use crate::queue::QueueError;

/// How many ids are sorted and moved at once; twice as many are in memory at most, in some 10 MiB.
/// So few in tests that they see it happen.
const BATCH: usize = if cfg!(test) { 8 } else { 32_768 };

/// The most that are read at the start, should the file hold more than was ever written.
const MOST: usize = 1 << 20;

/// No row of the table has a number as high as this: a file that has one is damaged.
const ROW_MAX: i64 = 1 << 62;

/// Bytes of an id in the table: route, bucket, key, delivery, time.
const ENTRY: usize = 48;

/// An id: the number of its route, and its hash.
type Place = (i64, [u8; 16]);

/// A row of the tree, in its order: route, bucket, hash, delivery, time.
type Row = (i64, i64, [u8; 16], i64, i64);

/// How many ids the table holds, by route and bucket; those with the same hash, too.
type Buckets = HashMap<(i64, i64), usize>;

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
#[derive(Debug)]
pub(super) struct Recent {
    known: HashMap<Place, Latest>,
    /// Of this generation are those that no batch has been made of.
    generation: u64,
    /// How many of those the table holds, and by route and bucket.
    fresh: usize,
    buckets: Buckets,
    moving: Option<Moving>,
    /// What was seen again in another bucket before a batch was made of it: for the tree.
    displaced: Vec<Row>,
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
    sorted: Vec<Row>,
    /// Those before it are in the tree.
    next: usize,
    /// The last row of the table that belongs to it.
    row: i64,
    generation: u64,
    buckets: Buckets,
}

/// What the transaction under way has done.
#[derive(Debug, Default)]
struct Pending {
    /// Ids remembered, as they are written.
    bytes: Vec<u8>,
    /// What was known of them, to be taken back in reverse order.
    before: Vec<(Place, Latest, Option<Latest>)>,
    /// How many of those displaced are its.
    displaced: usize,
    /// How many of the batch under way were moved.
    moved: usize,
    /// Whether it came as far as to write: what it has remembered is a row then.
    written: bool,
    /// Everything is in the tree.
    emptied: bool,
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
        let mut recent = Self::new();
        let mut statement = connection.prepare("SELECT n, ids FROM recent ORDER BY n")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            recent.row = row.get(0)?;
            let Ok(ids) = row.get_ref(1)?.as_blob() else { continue };
            let left = MOST.saturating_sub(recent.fresh);
            let entries = ids.as_chunks::<ENTRY>().0.iter().take(left);
            for (place, sighting) in entries.filter_map(decode) {
                recent.learn(place, sighting);
            }
        }
        recent.pending = Pending::default();
        Ok(recent)
    }

    fn new() -> Self {
        Self {
            known: HashMap::new(),
            generation: 0,
            fresh: 0,
            buckets: HashMap::new(),
            moving: None,
            displaced: Vec::new(),
            row: 0,
            pending: Pending::default(),
        }
    }

    pub(super) fn get(&self, no: i64, key: &[u8; 16]) -> Option<Sighting> {
        self.known.get(&(no, *key)).map(|known| known.sighting)
    }

    /// The buckets of which there are ids, by route, each with a time out of it.
    pub(super) fn buckets(&self) -> HashMap<i64, BTreeMap<i64, i64>> {
        let mut routes = HashMap::<i64, BTreeMap<i64, i64>>::new();
        let displaced = self.displaced.iter().map(|(no, bucket, _, _, at)| (*no, *bucket, *at));
        let known = self
            .known
            .iter()
            .map(|((no, _), Latest { sighting, .. })| (*no, sighting.bucket, sighting.at));
        for (no, bucket, at) in displaced.chain(known) {
            routes.entry(no).or_default().insert(bucket, at);
        }
        routes
    }

    /// Whether the table holds ids of that bucket, which may be in the tree, too.
    pub(super) fn holds(&self, no: i64, bucket: i64) -> bool {
        let moving = self.moving.as_ref();
        !self.pending.emptied
            && (self.buckets.contains_key(&(no, bucket))
                || moving.is_some_and(|moving| moving.buckets.contains_key(&(no, bucket))))
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
        let known = Latest { sighting, generation: self.generation };
        let before = self.known.insert(place, known);
        self.pending.before.push((place, known, before));
        *self.buckets.entry((place.0, sighting.bucket)).or_default() += 1;
        self.fresh += 1;
        let Some(before) = before else { return true };
        let elsewhere = before.sighting.bucket != sighting.bucket;
        // One of the batch that is on its way goes into the tree with it.
        if elsewhere && before.generation == self.generation {
            self.displaced.push(row(&place, &before));
            self.pending.displaced += 1;
        }
        elsewhere
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
        insert(connection, &self.displaced)?;
        let Some(moving) = self.moving.as_ref().filter(|_| most > 0) else { return Ok(()) };
        let slice = &moving.sorted[moving.next..];
        let slice = &slice[..slice.len().min(most)];
        insert(connection, slice)?;
        self.pending.moved = slice.len();
        if moving.next + slice.len() == moving.sorted.len() {
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
        if let Some(moving) = &self.moving {
            insert(connection, &moving.sorted[moving.next + self.pending.moved..])?;
        }
        insert(connection, &self.sorted(|_| true))?;
        connection.prepare_cached("DELETE FROM recent")?.execute([])?;
        self.pending.emptied = true;
        Ok(())
    }

    fn sorted(&self, which: impl Fn(&Latest) -> bool) -> Vec<Row> {
        let chosen = self.known.iter().filter(|(_, known)| which(known));
        let mut sorted: Vec<_> = chosen.map(|(place, known)| row(place, known)).collect();
        sorted.sort_unstable();
        sorted
    }

    /// The transaction was committed.
    pub(super) fn committed(&mut self) {
        let Pending { moved, written, emptied, .. } = self.pending;
        if written {
            self.row += i64::from(!self.pending.bytes.is_empty());
            self.displaced.clear();
        }
        self.settle_pending();
        if emptied {
            self.known.clear();
            self.buckets.clear();
            (self.moving, self.fresh) = (None, 0);
            return;
        }
        if let Some(moving) = &mut self.moving {
            moving.next += moved;
            if moving.next == moving.sorted.len() {
                self.forget_moved();
            }
        }
        if self.moving.is_none() && self.fresh >= BATCH {
            let sorted = self.sorted(|known| known.generation == self.generation);
            let (row, generation) = (self.row, self.generation);
            let buckets = std::mem::take(&mut self.buckets);
            self.moving = Some(Moving { sorted, next: 0, row, generation, buckets });
            self.generation += 1;
            self.fresh = 0;
        }
    }

    /// The batch is in the tree: what has not been seen again since is looked up there.
    fn forget_moved(&mut self) {
        let Some(moving) = self.moving.take() else { return };
        for (no, _, key, ..) in moving.sorted {
            let known = self.known.get(&(no, key));
            if known.is_some_and(|known| known.generation == moving.generation) {
                self.known.remove(&(no, key));
            }
        }
    }

    /// The transaction was rolled back.
    pub(super) fn undo(&mut self) {
        for (place, known, before) in std::mem::take(&mut self.pending.before).into_iter().rev() {
            match before {
                Some(before) => self.known.insert(place, before),
                None => self.known.remove(&place),
            };
            self.fresh -= 1;
            let bucket = (place.0, known.sighting.bucket);
            if let Some(count) = self.buckets.get_mut(&bucket) {
                *count -= 1;
                if *count == 0 {
                    self.buckets.remove(&bucket);
                }
            }
        }
        self.displaced.truncate(self.displaced.len() - self.pending.displaced);
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

fn row((no, key): &Place, known: &Latest) -> Row {
    let Sighting { bucket, id, at } = known.sighting;
    (*no, bucket, *key, id, at)
}

fn insert(connection: &Connection, sorted: &[Row]) -> rusqlite::Result<()> {
    if sorted.is_empty() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO seen (route, bucket, key, id, at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (no, bucket, key, id, at) in sorted {
        statement.execute(params![no, bucket, &key[..], id, at])?;
    }
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
