//! Which deliveries are meant: by the query of a list, or by the filter of a replay or discard.

use std::sync::Arc;

use tidegate_adapters::{DeadReason, Timestamp};

use crate::{
    app::Inspect,
    config::did_you_mean,
    queue::{Filter, State},
};

/// What it is told by.
pub(super) const NAMES: [&str; 9] =
    ["route", "upstream", "state", "reason", "type", "event", "key", "since", "until"];

/// Every state, as written; active ones are pending ones in the loop's hands.
const STATES: [(&str, State); 5] = [
    ("pending", State::Pending),
    ("active", State::Pending),
    ("delivered", State::Delivered),
    ("dead", State::Dead),
    ("discarded", State::Discarded),
];

/// Which deliveries are meant.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// As the queue knows it.
    pub(super) filter: Filter,
    /// Only those in the loop's hands.
    pub(super) active: bool,
}

impl Wanted {
    /// Narrows it by `name`, one of [`NAMES`].
    ///
    /// # Errors
    /// What is wrong with `value`.
    pub(super) fn set(
        &mut self,
        name: &str,
        value: String,
        inspect: &dyn Inspect,
    ) -> Result<(), String> {
        let filter = &mut self.filter;
        match name {
            "route" => narrow(&mut filter.routes, vec![value.into()]),
            "upstream" => narrow(&mut filter.routes, routes_of(inspect, &value)),
            "state" => {
                filter.state = Some(state_named(&value)?);
                self.active = value == "active";
            }
            "reason" => filter.reason = Some(reason_named(&value)?),
            "type" => filter.kind = Some(value),
            "event" => filter.event = Some(value),
            "key" => filter.key = Some(value),
            "since" => filter.since = Some(moment(&value, inspect.now())?),
            "until" => filter.until = Some(moment(&value, inspect.now())?),
            _ => return Err(unknown(name, &[])),
        }
        Ok(())
    }
}

/// What is said of a name that is none of [`NAMES`] and none of `others`.
pub(super) fn unknown(name: &str, others: &[&str]) -> String {
    let known: Vec<&str> = NAMES.iter().chain(others).copied().collect();
    let near = did_you_mean(name, known.iter().copied());
    format!("`{name}` is no filter; there are {}{near}", known.join(" "))
}

/// Both a route and an upstream were named: those that are both. No route matches an empty list
/// of names, so that nothing is found rather than everything.
fn narrow(routes: &mut Vec<Arc<str>>, to: Vec<Arc<str>>) {
    if routes.is_empty() {
        *routes = to;
    } else {
        routes.retain(|route| to.contains(route));
    }
    if routes.is_empty() {
        routes.push("".into());
    }
}

fn routes_of(inspect: &dyn Inspect, upstream: &str) -> Vec<Arc<str>> {
    let config = inspect.config();
    let ours = config.routes.iter().filter(|(_, route)| route.upstream() == Some(upstream));
    ours.map(|(name, _)| Arc::clone(name)).collect()
}

fn state_named(name: &str) -> Result<State, String> {
    let found = STATES.iter().find(|(known, _)| *known == name);
    found.map(|(_, state)| *state).ok_or_else(|| {
        let known = STATES.map(|(known, _)| known);
        let near = did_you_mean(name, known);
        format!("`{name}` is no state; there are {}{near}", known.join(" "))
    })
}

fn reason_named(name: &str) -> Result<DeadReason, String> {
    DeadReason::ALL.into_iter().find(|reason| reason.as_str() == name).ok_or_else(|| {
        let known = DeadReason::ALL.map(DeadReason::as_str);
        let near = did_you_mean(name, known);
        format!("`{name}` is no reason; there are {}{near}", known.join(" "))
    })
}

/// RFC 3339, or how long ago: `1h`.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(ago) = tidegate_adapters::units::parse_duration(text) {
        let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
        return Ok(Timestamp(now.0.saturating_sub(ago_ms)));
    }
    let format = &time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(text, format).map_err(|_| {
        format!("`{text}` is neither a time (2026-01-31T12:00:00Z) nor how long ago (1h)")
    })?;
    let ms = time.unix_timestamp_nanos() / 1_000_000;
    Ok(Timestamp(i64::try_from(ms).unwrap_or(i64::MAX)))
}
