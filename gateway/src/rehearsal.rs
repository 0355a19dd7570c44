//! Rehearsals: plays the `tests:` of a configuration, without a network, a store or any waiting.
//!
//! ```text
//!                                       ┌──── the clock is set ◄──── again at T ───┐
//!                                       ▼                                          │
//! given ─► read ─► when, order_by ─► prepare ─► sign ─► (script) ─► judge ─► schedule
//!            │            │                                           │            │
//!         refused      filtered                             delivered ├────────────┘ dead
//!                                                                     ▼
//!                                                                   reply
//! ```
//!
//! Every step is the one that runs in earnest: the reading of messages and webhooks, signatures
//! included, the judging of answers, the schedule. Only three things are put in the place of
//! others: the network is a script, the clock stands until the schedule says when to go on, and
//! chance is in the middle, so that a wait is the one that is configured, without its jitter.
//! Limits, breakers and concurrency keep apart what runs at the same time, and here nothing does;
//! the quiet that a 429 asks for is waited for like any other wait.

mod compare;
mod diff;
mod given;
mod play;
mod stage;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tidegate_adapters::{Timestamp, clock::Stopped};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::Instant;

use crate::config::{Config, Place, RouteConfig, Source, TestConfig};
pub use diff::{Line, unified};

use stage::Stage;

/// One test, played.
#[derive(Debug)]
pub struct Played {
    /// Its name.
    pub name: String,
    /// The route that it tests.
    pub route: Arc<str>,
    /// Where it is written.
    pub place: Option<Place>,
    /// How long it took.
    pub took: Duration,
    /// What was not as expected; none: it passed.
    pub differences: Vec<Difference>,
    /// Why deliveries ended as they did, for whoever looks at the differences.
    pub notes: Vec<String>,
}

/// Something that was not as expected. What nobody asked for is in neither.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key within `expect`.
    pub what: &'static str,
    /// As it should be, line by line.
    pub expected: Vec<String>,
    /// As it was.
    pub got: Vec<String>,
}

/// Plays one test of `config`.
pub async fn play(config: &Config, name: &str, test: &TestConfig) -> Played {
    let began = Instant::now();
    let clock = Stopped::new(moment(&test.now));
    let (differences, notes) = match Stage::new(config, test, clock.clone()) {
        Ok(stage) => {
            let seen = clock.scope(play::play(&stage, test)).await;
            (compare::compare(&test.expect, &seen), seen.notes)
        }
        Err(problem) => {
            let (expected, got) = (vec!["a route that can be built".to_owned()], vec![problem]);
            (vec![Difference { what: "route", expected, got }], Vec::new())
        }
    };
    Played {
        name: name.to_owned(),
        route: Arc::clone(&test.route),
        place: test.place.clone(),
        took: began.elapsed(),
        differences,
        notes,
    }
}

/// The routes that no test of `config` is about, by name. Those of replies are their routes'.
#[must_use]
pub fn untested(config: &Config) -> Vec<&Arc<str>> {
    let tested: BTreeSet<&str> = config.tests.values().map(|test| &*test.route).collect();
    let written = |route: &RouteConfig| !matches!(route.from, Source::Reply(_));
    let routes = config.routes.iter().filter(|(_, route)| written(route));
    routes.map(|(name, _)| name).filter(|name| !tested.contains(&***name)).collect()
}

/// A time that the loader has read.
fn moment(text: &str) -> Timestamp {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Timestamp(i64::try_from(parsed.unix_timestamp_nanos() / 1_000_000).unwrap_or_default())
}

#[cfg(test)]
mod tests;
