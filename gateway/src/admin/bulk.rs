//! Replaying or discarding many deliveries by filter, in bounded steps.
//!
//! ```text
//! step ─► rest as long as the step took ─► step ─► …   until done, or for 5 minutes: then `next`
//! ```
//!
//! The rest leaves at least half of the queue's writer to live traffic. Between two steps it looks
//! whether anybody still wants the answer and whether the process is stopping, so that nothing runs
//! on unseen; what was done by then is done, counted and logged.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::{Map, Value, json};
use tidegate_adapters::DeliveryId;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Answer,
    control::whole,
    deliveries::{cursor, failed},
    filter::{self, Wanted},
    ok, problem,
};
use crate::{
    app::Inspect,
    config::did_you_mean,
    queue::{Acted, Action, Filter, Listed, QueueError, State},
    telemetry::Ending,
};

/// One request goes on for at most this long, then says where to go on.
pub(super) const TIME_MAX: Duration = Duration::from_secs(300);

/// The largest `limit`: so many ids are held in memory.
const LIMIT_MAX: u64 = 10_000;

/// Deliveries looked through at once, where there is a limit.
const PAGE: usize = 500;

/// With more than this waiting on a route its replay rests, so long at most between two steps.
const CROWD: u64 = 512;
const SHORT_REST: Duration = Duration::from_millis(10);
const LONG_REST: Duration = Duration::from_millis(250);

/// What the body may hold.
const MEMBERS: [&str; 3] = ["filter", "dry_run", "cursor"];

/// Replays or discards what the filter in `body` finds.
pub(super) async fn act(
    inspect: &Arc<dyn Inspect>,
    operator: &str,
    action: Action,
    body: &[u8],
) -> Result<Answer, Answer> {
    let asked = Asked::parse(body, action, &**inspect)
        .map_err(|why| problem(StatusCode::BAD_REQUEST, &why))?;
    let wanted = CancellationToken::new();
    let dry = asked.dry;
    let run = Run {
        inspect: Arc::clone(inspect),
        operator: operator.to_owned(),
        action,
        asked,
        // Dropped with this request, when its client goes away.
        gone: wanted.clone(),
        routes: BTreeMap::new(),
    };
    let _unwanted = wanted.drop_guard();
    let done = whole(run.log_and_count()).await?;
    let Done { routes, next, error } = done;
    if let Some(error) = error {
        return Err(failed(&error));
    }
    let count: u64 = routes.values().sum();
    let what = match (dry, action) {
        (true, _) => "matched",
        (false, Action::Replay) => "replayed",
        (false, Action::Discard) => "discarded",
    };
    let routes: Map<String, Value> =
        routes.into_iter().map(|(route, count)| (route.to_string(), count.into())).collect();
    let next = next.map(|next| next.to_string());
    Ok(ok(&**inspect, &json!({ what: count, "routes": routes, "next": next })))
}

/// What a request asks for.
struct Asked {
    filter: Filter,
    limit: Option<usize>,
    dry: bool,
    cursor: Option<DeliveryId>,
}

impl Asked {
    fn parse(body: &[u8], action: Action, inspect: &dyn Inspect) -> Result<Self, String> {
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| format!("the body is no JSON: {error}"))?;
        let Value::Object(mut body) = body else {
            return Err("the body is not a JSON object".to_owned());
        };
        if let Some(name) = body.keys().find(|name| !MEMBERS.contains(&name.as_str())) {
            let near = did_you_mean(name, MEMBERS);
            return Err(format!("`{name}` is unknown; there are {}{near}", MEMBERS.join(" ")));
        }
        let Some(Value::Object(given)) = body.remove("filter") else {
            return Err("`filter` is missing: an object; an empty one means all".to_owned());
        };
        let dry = match body.remove("dry_run") {
            None => false,
            Some(Value::Bool(dry)) => dry,
            Some(_) => return Err("`dry_run` is neither true nor false".to_owned()),
        };
        let cursor = match body.remove("cursor") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(cursor(&text)?),
            Some(_) => return Err("`cursor` is not one we gave".to_owned()),
        };
        let (mut wanted, mut limit) = (Wanted::default(), None);
        for (name, value) in given {
            match (name.as_str(), value) {
                ("limit", value) => limit = Some(limit_of(&value)?),
                (name, Value::String(value)) if filter::NAMES.contains(&name) => {
                    known(name, &value, inspect)?;
                    wanted.set(name, value, inspect)?;
                }
                (name, _) if filter::NAMES.contains(&name) => {
                    return Err(format!("`{name}` is not a string"));
                }
                (name, _) => return Err(filter::unknown(name, &["limit"])),
            }
        }
        check_state(action, &wanted)?;
        Ok(Self { filter: wanted.filter, limit, dry, cursor })
    }
}

/// A name that is not there is a mistake here, where a list would be empty.
fn known(name: &str, value: &str, inspect: &dyn Inspect) -> Result<(), String> {
    let names: Vec<Arc<str>> = match name {
        "route" => inspect.queue().routes().into_iter().map(|status| status.name).collect(),
        "upstream" => inspect.upstreams().into_iter().map(|status| status.name).collect(),
        _ => return Ok(()),
    };
    if names.iter().any(|known| **known == *value) {
        return Ok(());
    }
    let near = did_you_mean(value, names.iter().map(|name| &**name));
    Err(format!("there is no {name} `{value}`{near}"))
}

fn limit_of(value: &Value) -> Result<usize, String> {
    let limit = value.as_u64().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    let limit = limit.ok_or_else(|| format!("`limit` is {value}, not from 1 to {LIMIT_MAX}"))?;
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// A state that the action fits none of is a mistake, too.
fn check_state(action: Action, wanted: &Wanted) -> Result<(), String> {
    let Some(state) = wanted.filter.state else { return Ok(()) };
    if !wanted.active && fits(action, state) {
        return Ok(());
    }
    Err(match action {
        Action::Replay => "only dead and delivered deliveries are replayed".to_owned(),
        Action::Discard => "only pending and dead deliveries are discarded, not those whose \
                            attempt is under way"
            .to_owned(),
    })
}

/// Whether `action` can be done to deliveries in `state`.
fn fits(action: Action, state: State) -> bool {
    match action {
        Action::Replay => matches!(state, State::Dead | State::Delivered),
        Action::Discard => matches!(state, State::Pending | State::Dead),
    }
}

/// What a run came to.
struct Done {
    routes: BTreeMap<Arc<str>, u64>,
    next: Option<DeliveryId>,
    error: Option<QueueError>,
}

/// One request under way.
struct Run {
    inspect: Arc<dyn Inspect>,
    operator: String,
    action: Action,
    asked: Asked,
    gone: CancellationToken,
    /// How many so far, by route.
    routes: BTreeMap<Arc<str>, u64>,
}

impl Run {
    async fn log_and_count(mut self) -> Done {
        let until = Instant::now() + TIME_MAX;
        let ran = match self.asked.limit {
            None => self.steps(until).await,
            Some(limit) => self.one_by_one(limit, until).await,
        };
        let (next, error) = match ran {
            Ok(next) => (next, None),
            Err(error) => (None, Some(error)),
        };
        let operator = &*self.operator;
        let deliveries: u64 = self.routes.values().sum();
        let complete = next.is_none() && error.is_none();
        let by_route: Vec<String> =
            self.routes.iter().map(|(route, count)| format!("{route}={count}")).collect();
        let routes = by_route.join(" ");
        match (self.asked.dry, self.action) {
            (true, _) => tracing::info!(operator, deliveries, routes, "deliveries counted"),
            (false, Action::Replay) => {
                tracing::info!(operator, deliveries, routes, complete, "deliveries replayed");
            }
            (false, Action::Discard) => {
                tracing::info!(operator, deliveries, routes, complete, "deliveries discarded");
            }
        }
        Done { routes: self.routes, next, error }
    }

    /// Step by step; where to go on, if it is not done.
    async fn steps(&mut self, until: Instant) -> Result<Option<DeliveryId>, QueueError> {
        let queue = self.inspect.queue();
        let mut cursor = self.asked.cursor;
        loop {
            let began = Instant::now();
            let filter = self.asked.filter.clone();
            let step = queue.act_on_many(self.action, filter, cursor, self.asked.dry);
            let Acted { routes, next } = step.await?;
            for (route, count) in &routes {
                self.count(route, *count);
            }
            if next.is_none() || self.is_over(until) {
                return Ok(next);
            }
            cursor = next;
            self.rest(began).await;
        }
    }

    /// At most `limit`, the newest. They are found first and then done from the oldest up, so that
    /// the order of a key stays.
    async fn one_by_one(
        &mut self,
        limit: usize,
        until: Instant,
    ) -> Result<Option<DeliveryId>, QueueError> {
        let queue = self.inspect.queue();
        let mut found: Vec<(DeliveryId, Arc<str>)> = Vec::new();
        let mut next = self.asked.cursor;
        while found.len() < limit {
            let filter = self.asked.filter.clone();
            let page = queue.list(filter, next, PAGE.min(limit - found.len())).await?;
            let fit = page.deliveries.iter().filter(|listed| self.fits(listed));
            found.extend(fit.map(|one| (one.delivery.id, Arc::clone(&one.delivery.route))));
            next = page.next;
            if next.is_none() {
                break;
            }
            if self.is_over(until) {
                // With what is not found yet, what is found would be out of order.
                return Ok(self.asked.cursor);
            }
        }
        let newest = found.first().map(|(id, _)| *id);
        for (id, route) in found.into_iter().rev() {
            let began = Instant::now();
            if !self.asked.dry {
                match queue.act(self.action, id).await {
                    Ok(()) => {}
                    // Something else became of it since it was found.
                    Err(QueueError::Unfit { .. } | QueueError::Missing(_)) => continue,
                    Err(error) => return Err(error),
                }
            }
            self.count(&route, 1);
            if self.asked.dry || Some(id) == newest {
                continue;
            }
            if self.is_over(until) {
                // Again from above the newest: what is done is not found again.
                return Ok(newest.map(|newest| DeliveryId(newest.0 + 1)));
            }
            self.rest(began).await;
        }
        Ok(next)
    }

    fn fits(&self, listed: &Listed) -> bool {
        fits(self.action, listed.state) && !self.inspect.queue().claimed(listed.delivery.id)
    }

    fn count(&mut self, route: &Arc<str>, count: u64) {
        *self.routes.entry(Arc::clone(route)).or_default() += count;
        if self.action == Action::Discard && !self.asked.dry {
            self.inspect.metrics().ended_many(route, Ending::Discarded, count);
        }
    }

    fn is_over(&self, until: Instant) -> bool {
        self.gone.is_cancelled() || self.inspect.stopping() || Instant::now() >= until
    }

    /// As long as what began at `began` took; and longer while much of what is replayed waits,
    /// since fresh events of its routes stand behind it. Where nothing gets on it goes on anyway.
    async fn rest(&self, began: Instant) {
        let most = Instant::now() + LONG_REST;
        let mut rest = began.elapsed();
        loop {
            tokio::select! {
                () = self.gone.cancelled() => return,
                () = sleep(rest) => {}
            }
            if self.asked.dry || !self.crowds() || Instant::now() >= most {
                return;
            }
            rest = SHORT_REST;
        }
    }

    /// Whether many wait on a route that is replayed.
    fn crowds(&self) -> bool {
        let replayed = |name: &Arc<str>| self.routes.contains_key(name);
        let routes = self.inspect.queue().routes();
        self.action == Action::Replay
            && routes.iter().any(|one| replayed(&one.name) && one.counts.pending > CROWD)
    }
}
