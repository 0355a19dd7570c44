//! Lists, and the search before an operator acts on many: newest first, and never for long.
//!
//! Whatever the filter, an answer comes within [`TIME`], if need be short and with a cursor. How
//! far it gets in that time depends on what is walked, so the filter decides:
//!
//! ```text
//! settled states     one run of `settled_by_route` for each route and state, merged by id
//! pending, few       gathered from `due` and `lane` of the routes, sorted
//! pending, many      `due_by_id`, where no lane is in use: then it is all there is
//! anything else      arrivals: `delivery` by id, in windows
//! ```
//!
//! Columns are compared by SQLite, within a window of ids that takes about a millisecond, and an
//! event is decoded only where the bytes of its attributes hold the member that is looked for.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    ops::{ControlFlow, Range},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _};
use tidegate_adapters::{DeliveryId, Timestamp};
use tokio::time::Instant;

use super::reader::{listed, state_of};
use crate::queue::{Acted, Action, Filter, ListPage, Listed, State};

mod plan;
mod runs;

use plan::{Condition, Plan, Walk};

/// A list stops after this and gives a cursor: no reader holds back a checkpoint for long.
const TIME: Duration = Duration::from_millis(20);

/// One that had to wait for others stops earlier, so long after it was asked for, but looks at
/// something in any case.
const ANSWER_TIME: Duration = Duration::from_millis(35);
const LEAST_TIME: Duration = Duration::from_millis(2);

/// The most that one step acts on.
const STEP: usize = 128;

/// The first stretch of ids that is searched for the oldest, and the longest.
const STRETCH: i64 = 4096;
const STRETCH_MAX: i64 = 1 << 24;

/// The first window of ids, and what a window should take.
const WINDOW: i64 = 64;
const WINDOW_MAX: i64 = 16_384;
const WINDOW_TIME: Duration = Duration::from_millis(1);

/// A search for deliveries to act on.
pub(super) struct Search {
    /// What is to be done: it decides which states fit.
    pub(super) action: Action,
    /// What else must hold.
    pub(super) filter: Filter,
    /// Where to go on: counting goes downwards from here, acting upwards.
    pub(super) cursor: Option<DeliveryId>,
    /// Those that are being attempted: they are left alone.
    pub(super) active: HashSet<DeliveryId>,
    /// When it was asked for.
    pub(super) asked: Instant,
}

/// A delivery that a walk came to.
#[derive(Debug, Clone, Copy)]
struct Found {
    id: i64,
    no: i64,
    state: State,
}

/// A page of deliveries, newest first.
pub(super) fn page(
    connection: &Connection,
    filter: &Filter,
    cursor: Option<DeliveryId>,
    limit: usize,
    asked: Instant,
) -> rusqlite::Result<ListPage> {
    let states = filter.state.map_or(State::ALL.to_vec(), |state| vec![state]);
    let mut page = ListPage::default();
    let (ids, until) = (below(cursor), until(asked));
    page.next = walk(connection, filter, &states, ids, until, |snapshot, found| {
        if let Some(listed) = listed(snapshot, found.id, false)?
            && filter.matches(&listed)
        {
            page.deliveries.push(listed);
        }
        Ok(match page.deliveries.len() < limit {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    })?;
    Ok(page)
}

/// Deliveries and the states they were found in, and where to go on.
type Fit = (Vec<(DeliveryId, State)>, Option<DeliveryId>);

/// The next deliveries to act on, the oldest first: of one key the first must go first. They are
/// found by looking from the newest down, so it is done in stretches of ids that grow.
pub(super) fn find(connection: &Connection, search: &Search) -> rusqlite::Result<Fit> {
    let top: i64 =
        connection.query_row("SELECT coalesce(max(id), 0) FROM delivery", [], |row| row.get(0))?;
    let until = until(search.asked);
    let (mut low, mut width) = (search.cursor.map_or(0, |cursor| cursor.0), STRETCH);
    while low < top {
        let high = low.saturating_add(width).min(top);
        let mut oldest = VecDeque::with_capacity(STEP);
        let mut more = false;
        // However late it is, something is looked at: who asks again would be no further.
        let least = until.max(Instant::now() + LEAST_TIME);
        let stopped = walk_fit(connection, search, low + 1..high + 1, least, |found| {
            if oldest.len() == STEP {
                oldest.pop_front();
                more = true;
            }
            oldest.push_back((DeliveryId(found.id), found.state));
            ControlFlow::Continue(())
        })?;
        if stopped.is_some() && high > low + 1 {
            // Not to its end: nobody knows which the oldest is.
            width = (width / 8).max(1);
            continue;
        }
        if let Some((last, _)) = oldest.front().copied() {
            let next =
                if more { Some(last) } else { Some(DeliveryId(high)).filter(|_| high < top) };
            return Ok((oldest.into_iter().rev().collect(), next));
        }
        low = high;
        width = width.saturating_mul(4).min(STRETCH_MAX);
        if Instant::now() >= until {
            break;
        }
    }
    Ok((Vec::new(), Some(DeliveryId(low)).filter(|_| low < top)))
}

/// How many there are to act on, as far as one look goes.
pub(super) fn count(connection: &Connection, search: &Search) -> rusqlite::Result<Acted> {
    let mut numbers = BTreeMap::<i64, u64>::new();
    let (ids, until) = (below(search.cursor), until(search.asked));
    let next = walk_fit(connection, search, ids, until, |found| {
        *numbers.entry(found.no).or_default() += 1;
        ControlFlow::Continue(())
    })?;
    let mut routes = BTreeMap::new();
    let mut name = connection.prepare_cached("SELECT name FROM route WHERE no = ?1")?;
    for (no, count) in numbers {
        let name: Arc<str> = name.query_row([no], |row| row.get::<_, String>(0))?.into();
        routes.insert(name, count);
    }
    Ok(Acted { routes, next })
}

/// Walks what the action fits.
fn walk_fit(
    connection: &Connection,
    search: &Search,
    ids: Range<i64>,
    until: Instant,
    mut each: impl FnMut(Found) -> ControlFlow<()>,
) -> rusqlite::Result<Option<DeliveryId>> {
    let Search { action, filter, active, .. } = search;
    let fit = match action {
        Action::Replay => [State::Delivered, State::Dead],
        Action::Discard => [State::Pending, State::Dead],
    };
    let states: Vec<State> =
        fit.into_iter().filter(|fit| filter.state.is_none_or(|wanted| wanted == *fit)).collect();
    // What the columns do not tell is in the event.
    let decode = filter.kind.is_some() || filter.event.is_some() || filter.key.is_some();
    let no_event = *action == Action::Replay;
    walk(connection, filter, &states, ids, until, |snapshot, found| {
        if active.contains(&DeliveryId(found.id)) {
            return Ok(ControlFlow::Continue(()));
        }
        let fits = match decode {
            true => listed(snapshot, found.id, false)?.is_some_and(|one| filter.matches(&one)),
            false => true,
        };
        if !fits || (no_event && found.state == State::Dead && is_no_event(snapshot, found.id)?) {
            return Ok(ControlFlow::Continue(()));
        }
        Ok(each(found))
    })
}

/// Whether it was kept as raw bytes.
fn is_no_event(connection: &Connection, id: i64) -> rusqlite::Result<bool> {
    let invalid = connection
        .prepare_cached("SELECT invalid FROM delivery WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    Ok(invalid.unwrap_or(true))
}

/// Before `cursor`, or everywhere.
fn below(cursor: Option<DeliveryId>) -> Range<i64> {
    0..cursor.map_or(i64::MAX, |cursor| cursor.0)
}

/// When what was asked for then must have been answered.
fn until(asked: Instant) -> Instant {
    let now = Instant::now();
    (asked + ANSWER_TIME).clamp(now + LEAST_TIME, now + TIME)
}

/// Calls `each` for what may match within `ids`, the newest first, until it breaks, time is up or
/// the end is reached; answers where to go on. Whoever wants certainty asks [`Filter::matches`].
fn walk(
    connection: &Connection,
    filter: &Filter,
    states: &[State],
    ids: Range<i64>,
    until: Instant,
    mut each: impl FnMut(&Connection, Found) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<Option<DeliveryId>> {
    // One snapshot: what moves meanwhile is seen before or after, not in between.
    let snapshot = connection.unchecked_transaction()?;
    let Some(plan) = Plan::new(&snapshot, filter, states, ids)? else { return Ok(None) };
    let Plan { ids, condition, walk } = plan;
    match walk {
        Walk::Arrivals => arrivals(&snapshot, ids, &condition, until, &mut each),
        Walk::Runs(runs) => merged(&snapshot, runs, ids.start, &condition, until, &mut each),
    }
}

/// Walks arrivals within `ids`, a window at a time.
fn arrivals(
    connection: &Connection,
    ids: Range<i64>,
    condition: &Condition,
    until: Instant,
    each: &mut impl FnMut(&Connection, Found) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<Option<DeliveryId>> {
    let mut newest = connection.prepare_cached("SELECT max(id) FROM delivery WHERE id < ?1")?;
    let mut statement = connection.prepare(&format!(
        "SELECT d.id, d.route, s.state FROM delivery d LEFT JOIN settled s ON s.id = d.id
         WHERE d.id >= :from AND d.id < :to {} ORDER BY d.id DESC",
        condition.sql
    ))?;
    condition.bind(&mut statement)?;
    let (mut to, mut width) = (ids.end, WINDOW);
    loop {
        // Over what was pruned in one leap.
        let below: Option<i64> = newest.query_row([to], |row| row.get(0))?;
        let Some(top) = below.filter(|top| *top >= ids.start) else { return Ok(None) };
        let from = top.saturating_sub(width - 1).max(ids.start);
        let began = Instant::now();
        statement.raw_bind_parameter(":from", from)?;
        statement.raw_bind_parameter(":to", top + 1)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let state = row.get::<_, Option<i64>>(2)?.map_or(State::Pending, state_of);
            let found = Found { id: row.get(0)?, no: row.get(1)?, state };
            if each(connection, found)?.is_break() || Instant::now() >= until {
                return Ok(Some(DeliveryId(found.id)));
            }
        }
        drop(rows);
        if from <= ids.start {
            return Ok(None);
        }
        let now = Instant::now();
        if now >= until {
            return Ok(Some(DeliveryId(from)));
        }
        width = match now.saturating_duration_since(began) {
            took if took < WINDOW_TIME / 2 => (width * 2).min(WINDOW_MAX),
            took if took > WINDOW_TIME * 2 => (width / 2).max(WINDOW),
            _ => width,
        };
        to = from;
    }
}

/// Walks runs, merged by id.
fn merged(
    connection: &Connection,
    mut runs: runs::Runs,
    from: i64,
    condition: &Condition,
    until: Instant,
    each: &mut impl FnMut(&Connection, Found) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<Option<DeliveryId>> {
    let mut statement = connection.prepare(&format!(
        "SELECT 1 FROM delivery d LEFT JOIN settled s ON s.id = d.id WHERE d.id = :id {}",
        condition.sql
    ))?;
    condition.bind(&mut statement)?;
    while let Some(step) = runs.next(connection, from)? {
        let passed = match step {
            runs::Step::Passed(id) => id,
            runs::Step::Found(found) => {
                let fits = match condition.is_empty() {
                    true => true,
                    false => {
                        statement.raw_bind_parameter(":id", found.id)?;
                        statement.raw_query().next()?.is_some()
                    }
                };
                if fits && each(connection, found)?.is_break() {
                    return Ok(Some(DeliveryId(found.id)));
                }
                found.id
            }
        };
        if Instant::now() >= until {
            return Ok(Some(DeliveryId(passed)));
        }
    }
    Ok(None)
}

impl State {
    const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Dead, Self::Discarded];
}

impl Filter {
    fn matches(&self, listed: &Listed) -> bool {
        let Listed { delivery, state, dead, .. } = listed;
        (self.routes.is_empty() || self.routes.contains(&delivery.route))
            && self.state.is_none_or(|wanted| wanted == *state)
            && self.reason.is_none_or(|wanted| dead.as_ref().is_some_and(|(is, _)| *is == wanted))
            && self.kind.as_ref().is_none_or(|wanted| *wanted == delivery.event.kind)
            && self.event.as_ref().is_none_or(|wanted| *wanted == delivery.event.id)
            && self.key.as_ref().is_none_or(|wanted| delivery.key.as_deref() == Some(wanted))
            && self.since.is_none_or(|since| delivery.accepted_at >= since)
            && self.until.is_none_or(|until| delivery.accepted_at < until)
    }
}

/// The first id that was accepted at `at` or later, by halving: ids are given in the order of time.
fn first_since(connection: &Connection, at: Timestamp) -> rusqlite::Result<i64> {
    let ends: (Option<i64>, Option<i64>) = connection.query_row(
        "SELECT (SELECT min(id) FROM delivery), (SELECT max(id) FROM delivery)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let (Some(mut low), Some(mut high)) = ends else { return Ok(0) };
    high += 1;
    let mut statement = connection
        .prepare_cached("SELECT id, at FROM delivery WHERE id >= ?1 ORDER BY id LIMIT 1")?;
    while low < high {
        let middle = low + (high - low) / 2;
        let row: Option<(i64, i64)> =
            statement.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match row {
            Some((id, is_at)) if is_at < at.0 => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}
