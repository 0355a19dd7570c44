//! What a list walks, and what it compares while it does.

use std::{ops::Range, time::Duration};

use rusqlite::{Connection, Statement, types::Value};
use tidegate_adapters::Timestamp;

use super::{first_since, runs::Runs};
use crate::queue::{
    Filter, State,
    sqlite::{
        ledger::counter,
        transaction::{lane_of, reason_number},
    },
};

/// So many pending ones are gathered and sorted for one page: some milliseconds.
pub(super) const GATHER: u64 = 20_000;

/// Wall clocks are set back now and then: so much earlier or later is looked at, too.
const CLOCK_SLACK: Duration = Duration::from_secs(10);

/// What is walked for a list.
pub(super) struct Plan {
    /// Within these.
    pub(super) ids: Range<i64>,
    /// What must hold besides.
    pub(super) condition: Condition,
    pub(super) walk: Walk,
}

/// Where the ids come from.
pub(super) enum Walk {
    /// `delivery`, by id. The condition says everything.
    Arrivals,
    /// Indexes. Route and state hold already.
    Runs(Runs),
}

/// What SQLite compares: `d` is the delivery, `s` what became of it.
#[derive(Debug, Default)]
pub(super) struct Condition {
    pub(super) sql: String,
    values: Vec<(String, Value)>,
}

/// A route's counts, by state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) no: i64,
    pub(super) counts: [u64; 4],
}

impl Plan {
    /// Within `ids`. `None` when there can be nothing.
    pub(super) fn new(
        connection: &Connection,
        filter: &Filter,
        states: &[State],
        mut ids: Range<i64>,
    ) -> rusqlite::Result<Option<Self>> {
        let (routes, total) = routes(connection, filter)?;
        // Only these have a reason.
        let has_reason = |state: &State| matches!(state, State::Dead | State::Discarded);
        let fits = |state: &&State| filter.reason.is_none() || has_reason(state);
        let states: Vec<State> = states.iter().filter(fits).copied().collect();
        let of = |state: State| routes.iter().map(|route| route.counts[state as usize]).sum();
        let pending: u64 = if states.contains(&State::Pending) { of(State::Pending) } else { 0 };
        let wanted: u64 = states.iter().map(|state| of(*state)).sum();
        if wanted == 0 {
            return Ok(None);
        }
        if let Some(since) = filter.since {
            ids.start = ids.start.max(first_since(connection, earlier(since))?);
        }
        if let Some(until) = filter.until {
            ids.end = ids.end.min(first_since(connection, until.after(CLOCK_SLACK))?);
        }
        let mut condition = Condition::default();
        condition.columns(filter);
        // With most of all deliveries to look at, the straight way is the shortest.
        let dense = wanted.saturating_mul(4) >= total;
        let all = wanted == total;
        let lane = filter.key.as_deref().map(lane_of);
        let in_lane = lane.is_some() && states == [State::Pending];
        let straight = all || (dense && !condition.is_empty() && !in_lane);
        let runs = match straight {
            true => None,
            false => Runs::new(connection, &routes, &states, pending, lane, &ids)?,
        };
        let walk = match runs {
            Some(runs) => Walk::Runs(runs),
            None => {
                condition.place(&routes, &states, all);
                Walk::Arrivals
            }
        };
        Ok(Some(Self { ids, condition, walk }))
    }
}

impl Condition {
    pub(super) fn is_empty(&self) -> bool {
        self.sql.is_empty()
    }

    pub(super) fn bind(&self, statement: &mut Statement<'_>) -> rusqlite::Result<()> {
        self.values
            .iter()
            .try_for_each(|(name, value)| statement.raw_bind_parameter(name.as_str(), value))
    }

    fn and(&mut self, sql: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
    }

    fn value(&mut self, sql: &str, name: &str, value: Value) {
        self.and(sql);
        self.values.push((name.to_owned(), value));
    }

    /// What the columns tell of the filter, but for route and state.
    fn columns(&mut self, filter: &Filter) {
        if let Some(key) = &filter.key {
            self.value("d.lane = :lane", ":lane", Value::Blob(lane_of(key).to_vec()));
        }
        if let Some(since) = filter.since {
            self.value("d.at >= :since", ":since", Value::Integer(since.0));
        }
        if let Some(until) = filter.until {
            self.value("d.at < :until", ":until", Value::Integer(until.0));
        }
        for (name, parameter, wanted) in
            [("type", ":type", &filter.kind), ("id", ":event", &filter.event)]
        {
            if let Some(wanted) = wanted {
                let sql = format!("d.invalid = 0 AND instr(d.attrs, {parameter}) > 0");
                self.value(&sql, parameter, Value::Blob(member(name, wanted)));
            }
        }
        if let Some(reason) = filter.reason {
            self.value("s.reason = :reason", ":reason", Value::Integer(reason_number(reason)));
        }
    }

    /// Route and state, for arrivals.
    fn place(&mut self, routes: &[Route], states: &[State], all: bool) {
        if all {
            return;
        }
        let list = |numbers: &mut dyn Iterator<Item = i64>| {
            numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(",")
        };
        let routes = list(&mut routes.iter().map(|route| route.no));
        let states = list(&mut states.iter().map(|state| *state as i64));
        self.and(&format!("d.route IN ({routes}) AND coalesce(s.state, 0) IN ({states})"));
    }
}

/// A member of stored attributes, as it is written: it occurs where it is meant and nowhere else,
/// since quotes within texts are escaped.
fn member(name: &str, value: &str) -> Vec<u8> {
    format!("\"{name}\":{}", serde_json::Value::from(value)).into_bytes()
}

fn earlier(at: Timestamp) -> Timestamp {
    let slack = i64::try_from(CLOCK_SLACK.as_millis()).unwrap_or(0);
    Timestamp(at.0.saturating_sub(slack))
}

/// The routes that the filter wants, and how many deliveries there are of all.
fn routes(connection: &Connection, filter: &Filter) -> rusqlite::Result<(Vec<Route>, u64)> {
    let mut statement = connection
        .prepare_cached("SELECT name, no, pending, delivered, dead, discarded FROM route")?;
    let mut rows = statement.query([])?;
    let (mut wanted, mut total) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let mut counts = [0; 4];
        for (column, count) in (2..).zip(&mut counts) {
            *count = counter(row.get(column)?);
        }
        let held: u64 = counts.iter().sum();
        total += held;
        let name = row.get_ref(0)?.as_str()?;
        let named = filter.routes.is_empty() || filter.routes.iter().any(|route| **route == *name);
        if named && held > 0 {
            wanted.push(Route { no: row.get(1)?, counts });
        }
    }
    Ok((wanted, total))
}
