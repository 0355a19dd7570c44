//! `/api/v1/deliveries` as JSON: lists, and single ones with their event and attempts.

use std::time::Duration;

use base64::Engine as _;
use http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value, json, value::RawValue};
use tidegate_adapters::{DeliveryId, event::attribute::rfc3339};
use tokio::time::Instant;

use super::{
    Answer,
    filter::{self, Wanted},
    missing, ok, problem,
};
use crate::{
    app::Inspect,
    queue::{AttemptRecord, Filter, ListPage, Listed, Queue, QueueError, State},
};

/// Deliveries on a page, unless asked for fewer or more; and at most.
const PAGE: usize = 50;
const PAGE_MAX: usize = 500;

/// A page of active ones stops after this and gives a cursor, as the queue's own pages do.
const PAGE_TIME: Duration = Duration::from_millis(40);

/// A page of deliveries, newest first.
pub(super) async fn deliveries(inspect: &dyn Inspect, query: &str) -> Result<Answer, Answer> {
    let bad = |why: String| problem(StatusCode::BAD_REQUEST, &why);
    let asked = Asked::parse(query, inspect).map_err(bad)?;
    let queue = inspect.queue();
    let page = match asked.wanted.active {
        true => active(&*queue, &asked).await,
        false => queue.list(asked.wanted.filter.clone(), asked.cursor, asked.limit).await,
    };
    let mut page = page.map_err(|error| failed(&error))?;
    if asked.wanted.filter.state == Some(State::Pending) {
        // To the queue the active ones are pending, too.
        page.deliveries.retain(|listed| queue.claimed(listed.delivery.id) == asked.wanted.active);
    }
    let listed = page.deliveries.iter().map(|listed| Value::Object(listed_json(inspect, listed)));
    let next = page.next.map(|next| next.to_string());
    Ok(ok(inspect, &json!({ "deliveries": listed.collect::<Vec<_>>(), "next": next })))
}

/// A page of active deliveries. Which they are only memory knows, and there are few: each is looked
/// up, rather than all that is pending searched for them.
async fn active(queue: &dyn Queue, asked: &Asked) -> Result<ListPage, QueueError> {
    let mut ids = queue.active();
    ids.retain(|id| asked.cursor.is_none_or(|cursor| *id < cursor));
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let stop_at = Instant::now() + PAGE_TIME;
    let mut page = ListPage::default();
    let mut looked_at = None;
    for id in ids {
        let enough = page.deliveries.len() >= asked.limit || Instant::now() >= stop_at;
        if enough && looked_at.is_some() {
            page.next = looked_at;
            break;
        }
        match queue.show(id).await {
            Ok(listed) if is_wanted(&asked.wanted.filter, &listed) => page.deliveries.push(listed),
            Ok(_) | Err(QueueError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        looked_at = Some(id);
    }
    Ok(page)
}

/// Whether all of `filter` holds, as the queue itself would tell.
fn is_wanted(filter: &Filter, listed: &Listed) -> bool {
    let delivery = &listed.delivery;
    let is = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|one| one == is);
    let reason = listed.dead.as_ref().map(|(reason, _)| *reason);
    (filter.routes.is_empty() || filter.routes.contains(&delivery.route))
        && filter.state.is_none_or(|state| state == listed.state)
        && (filter.reason.is_none() || filter.reason == reason)
        && is(&filter.kind, &delivery.event.kind)
        && is(&filter.event, &delivery.event.id)
        && (filter.key.is_none() || filter.key.as_deref() == delivery.key.as_deref())
        && filter.since.is_none_or(|since| delivery.accepted_at >= since)
        && filter.until.is_none_or(|until| delivery.accepted_at < until)
}

/// One delivery in full.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    listed: Map<String, Value>,
    /// As text: its numbers keep their digits, and it may nest deeper than a parser goes.
    event: Option<Box<RawValue>>,
    attempts: Vec<Value>,
}

/// One delivery, with its event and attempts.
pub(super) async fn delivery(inspect: &dyn Inspect, id: &str) -> Result<Answer, Answer> {
    let found = inspect.queue().show(numbered(id)?).await.map_err(|error| failed(&error))?;
    let mut listed = listed_json(inspect, &found);
    if let Some((_, detail)) = &found.dead {
        listed.insert("detail".to_owned(), detail.clone().into());
    }
    let event = match &found.raw {
        None => {
            let event = String::from_utf8(found.delivery.event.to_json()).ok();
            event.and_then(|event| RawValue::from_string(event).ok())
        }
        Some(raw) => {
            listed.insert("about".to_owned(), json!(found.delivery.event.extensions));
            let raw = base64::engine::general_purpose::STANDARD.encode(raw);
            listed.insert("raw_base64".to_owned(), raw.into());
            None
        }
    };
    let attempts = found.attempts.iter().map(attempt_json).collect();
    Ok(ok(inspect, &Shown { listed, event, attempts }))
}

pub(super) fn listed_json(inspect: &dyn Inspect, listed: &Listed) -> Map<String, Value> {
    let delivery = &listed.delivery;
    let config = inspect.config();
    let upstream = config.routes.get(&delivery.route).and_then(|route| route.upstream());
    let state = match listed.state {
        State::Pending if inspect.queue().claimed(delivery.id) => "active",
        State::Pending => "pending",
        State::Delivered => "delivered",
        State::Dead => "dead",
        State::Discarded => "discarded",
    };
    let reason = listed.dead.as_ref().map(|(reason, _)| reason.as_str());
    let event_id = Some(&delivery.event.id).filter(|id| !id.is_empty());
    let json = json!({
        "id": delivery.id.to_string(),
        "event_id": event_id,
        "type": Some(&delivery.event.kind).filter(|kind| !kind.is_empty()),
        "route": &*delivery.route,
        "upstream": upstream,
        "state": state,
        "reason": reason,
        "key": delivery.key.as_deref(),
        "attempt_count": delivery.tries,
        "accepted_at": rfc3339(delivery.accepted_at),
        "due_at": listed.due_at.map(rfc3339),
    });
    match json {
        Value::Object(json) => json,
        _ => Map::new(),
    }
}

fn attempt_json(attempt: &AttemptRecord) -> Value {
    json!({
        "number": attempt.number,
        "at": rfc3339(attempt.at),
        "duration_ms": attempt.duration.as_secs_f64() * 1000.0,
        "result": attempt.result.as_str(),
        "status": attempt.exchange.status,
        "detail": attempt.detail,
        "request": attempt.exchange.request,
        "response": attempt.exchange.response,
    })
}

/// What a list was asked for.
struct Asked {
    wanted: Wanted,
    cursor: Option<DeliveryId>,
    limit: usize,
}

impl Asked {
    fn parse(query: &str, inspect: &dyn Inspect) -> Result<Self, String> {
        let mut asked = Self { wanted: Wanted::default(), cursor: None, limit: PAGE };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "cursor" => asked.cursor = Some(cursor(&value)?),
                "limit" => {
                    let limit: usize = value.parse().map_err(|_| "`limit` is not a number")?;
                    if !(1..=PAGE_MAX).contains(&limit) {
                        return Err(format!("`limit` is {limit}, not from 1 to {PAGE_MAX}"));
                    }
                    asked.limit = limit;
                }
                name if filter::NAMES.contains(&name) => {
                    asked.wanted.set(name, value.into_owned(), inspect)?;
                }
                name => return Err(filter::unknown(name, &["limit", "cursor"])),
            }
        }
        Ok(asked)
    }
}

/// The delivery that `id` is, if it can be one.
pub(super) fn numbered(id: &str) -> Result<DeliveryId, Answer> {
    id.parse().map(DeliveryId).map_err(|_| missing("delivery", id, []))
}

/// A cursor of ours.
pub(super) fn cursor(text: &str) -> Result<DeliveryId, String> {
    text.parse().map(DeliveryId).map_err(|_| "`cursor` is not one we gave".to_owned())
}

pub(super) fn failed(error: &QueueError) -> Answer {
    match error {
        QueueError::Missing(id) => missing("delivery", &id.to_string(), []),
        error => problem(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}
