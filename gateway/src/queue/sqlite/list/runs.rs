//! Ids from indexes, the newest first.

use std::{
    collections::{BinaryHeap, HashMap, VecDeque},
    ops::Range,
};

use rusqlite::{Connection, params};

use super::{
    Found,
    plan::{GATHER, Route},
};
use crate::queue::State;

/// So many ids of all runs together are read at first; a run that is used up reads so many.
const FIRST: usize = 1024;
const NEXT: usize = 256;

/// Some runs, each with the newest first, merged.
pub(super) struct Runs {
    runs: Vec<Run>,
    /// The newest of each run that has one.
    heads: BinaryHeap<(i64, usize)>,
    started: bool,
}

/// What a step came to.
pub(super) enum Step {
    /// A delivery.
    Found(Found),
    /// Nothing, but what is left is at this id or below.
    Passed(i64),
}

/// One run.
struct Run {
    from: Source,
    ready: VecDeque<(i64, i64)>,
    /// What is read next is below.
    below: i64,
    done: bool,
}

/// Where a run is read from.
enum Source {
    /// Settled ones of a route in a state.
    Settled(i64, State),
    /// Pending ones, where all of them are due. Of these routes.
    Due(Vec<i64>),
    /// Pending ones that were gathered at once.
    Gathered,
}

impl Runs {
    /// The runs of these routes and states within `ids`. `None` when no index tells the pending
    /// ones.
    pub(super) fn new(
        connection: &Connection,
        routes: &[Route],
        states: &[State],
        pending: u64,
        lane: Option<[u8; 16]>,
        ids: &Range<i64>,
    ) -> rusqlite::Result<Option<Self>> {
        let mut runs = Vec::new();
        if pending > 0 {
            let few = pending <= GATHER;
            let (source, ready) = match lane {
                Some(lane) => match of_lane(connection, routes, &lane, ids)? {
                    Some(gathered) => (Source::Gathered, gathered),
                    None => return Ok(None),
                },
                None if few => (Source::Gathered, gather(connection, routes, ids)?),
                None if uses_lanes(connection, routes)? => return Ok(None),
                None => (Source::Due(routes.iter().map(|route| route.no).collect()), Vec::new()),
            };
            let done = matches!(source, Source::Gathered);
            runs.push(Run { from: source, ready: ready.into(), below: ids.end, done });
        }
        for route in routes {
            for state in states.iter().filter(|state| **state != State::Pending) {
                if route.counts[*state as usize] > 0 {
                    let from = Source::Settled(route.no, *state);
                    runs.push(Run { from, ready: VecDeque::new(), below: ids.end, done: false });
                }
            }
        }
        Ok(Some(Self { runs, heads: BinaryHeap::new(), started: false }))
    }

    /// One step down to `from`; `None` at the end.
    pub(super) fn next(
        &mut self,
        connection: &Connection,
        from: i64,
    ) -> rusqlite::Result<Option<Step>> {
        if !self.started {
            self.started = true;
            let share = (FIRST / self.runs.len().max(1)).clamp(4, NEXT);
            for (index, run) in self.runs.iter_mut().enumerate() {
                run.read(connection, from, share)?;
                self.heads.extend(run.head().map(|id| (id, index)));
            }
        }
        let Some((head, index)) = self.heads.pop() else { return Ok(None) };
        let run = &mut self.runs[index];
        let popped = run.ready.pop_front();
        if run.ready.is_empty() {
            run.read(connection, from, NEXT)?;
        }
        self.heads.extend(run.head().map(|id| (id, index)));
        let Some((id, no)) = popped else { return Ok(Some(Step::Passed(head))) };
        // A dead one that holds its key is in its lane, too, and has a run of its own.
        let is_settled = matches!(run.from, Source::Gathered)
            && connection.prepare_cached("SELECT 1 FROM settled WHERE id = ?1")?.exists([id])?;
        Ok(Some(match is_settled {
            true => Step::Passed(id),
            false => Step::Found(Found { id, no, state: run.state() }),
        }))
    }
}

impl Run {
    fn state(&self) -> State {
        match self.from {
            Source::Settled(_, state) => state,
            Source::Due(_) | Source::Gathered => State::Pending,
        }
    }

    /// The newest that is left, or above what it lies.
    fn head(&self) -> Option<i64> {
        match self.ready.front() {
            Some((id, _)) => Some(*id),
            None => (!self.done).then_some(self.below),
        }
    }

    /// Reads some more, if there are any.
    fn read(&mut self, connection: &Connection, from: i64, most: usize) -> rusqlite::Result<()> {
        if !self.done {
            let limit = i64::try_from(most).unwrap_or(i64::MAX);
            let mut read = 0;
            match &self.from {
                Source::Gathered => self.done = true,
                Source::Settled(no, state) => {
                    let mut statement = connection.prepare_cached(
                        "SELECT id FROM settled WHERE route = ?1 AND state = ?2 AND id < ?3
                         AND id >= ?4 ORDER BY id DESC LIMIT ?5",
                    )?;
                    let values = params![no, *state as i64, self.below, from, limit];
                    let mut rows = statement.query(values)?;
                    while let Some(row) = rows.next()? {
                        self.below = row.get(0)?;
                        self.ready.push_back((self.below, *no));
                        read += 1;
                    }
                }
                Source::Due(routes) => {
                    let mut statement = connection.prepare_cached(
                        "SELECT id, route FROM due INDEXED BY due_by_id
                         WHERE id < ?1 AND id >= ?2 ORDER BY id DESC LIMIT ?3",
                    )?;
                    let mut rows = statement.query([self.below, from, limit])?;
                    while let Some(row) = rows.next()? {
                        self.below = row.get(0)?;
                        let no = row.get(1)?;
                        if routes.contains(&no) {
                            self.ready.push_back((self.below, no));
                        }
                        read += 1;
                    }
                }
            }
            self.done |= read < most;
        }
        Ok(())
    }
}

/// All pending ones of some routes, the newest first.
fn gather(
    connection: &Connection,
    routes: &[Route],
    ids: &Range<i64>,
) -> rusqlite::Result<Vec<(i64, i64)>> {
    let mut found = HashMap::new();
    for sql in ["SELECT id FROM due WHERE route = ?1", "SELECT id FROM lane WHERE route = ?1"] {
        let mut statement = connection.prepare_cached(sql)?;
        for route in routes.iter().filter(|route| route.counts[State::Pending as usize] > 0) {
            let mut rows = statement.query([route.no])?;
            while let Some(row) = rows.next()? {
                let id = row.get(0)?;
                if ids.contains(&id) {
                    found.insert(id, route.no);
                }
            }
        }
    }
    let mut pending: Vec<(i64, i64)> = found.into_iter().collect();
    pending.sort_unstable_by(|a, b| b.cmp(a));
    Ok(pending)
}

/// The pending ones of a lane, the newest first; `None` when they are too many for one look.
fn of_lane(
    connection: &Connection,
    routes: &[Route],
    lane: &[u8; 16],
    ids: &Range<i64>,
) -> rusqlite::Result<Option<Vec<(i64, i64)>>> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM lane WHERE route = ?1 AND lane = ?2")?;
    let mut found = Vec::new();
    let mut looked_at = 0;
    for route in routes.iter().filter(|route| route.counts[State::Pending as usize] > 0) {
        let mut rows = statement.query(params![route.no, &lane[..]])?;
        while let Some(row) = rows.next()? {
            looked_at += 1;
            if looked_at > GATHER {
                return Ok(None);
            }
            let id = row.get(0)?;
            if ids.contains(&id) {
                found.push((id, route.no));
            }
        }
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(Some(found))
}

/// Whether any delivery of these routes may wait behind another.
fn uses_lanes(connection: &Connection, routes: &[Route]) -> rusqlite::Result<bool> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM lane WHERE route = ?1 LIMIT 1")?;
    for route in routes {
        if statement.exists([route.no])? {
            return Ok(true);
        }
    }
    Ok(false)
}
