//! The reply: what came of a delivery, as an event for the route `<route>/reply`.
//!
//! Made when the delivery ends and enqueued in the transaction that settles it, so that there is a
//! reply if and only if there is an end. What goes wrong in the making must not hold up the
//! settling: a reply that cannot be made is kept as a dead one, with what it was to be made of.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use tidegate_adapters::{
    Data, DeadReason, Delivery, Event, Timestamp, TraceContext,
    event::{Draft, EventError, HOPS_MAX, attribute::rfc3339, check_data},
    expression::{ExpressionError, Input, Variables},
};
use uuid::Uuid;

use crate::{
    config::{ReplyConfig, ReplyOn},
    queue::{Append, Content, Reply},
};

/// The type of a reply whose own could not be told.
const FAILED: &str = "tidegate.reply-failed";

/// How one route replies.
pub struct ReplyRule {
    /// `<route>/reply`.
    route: Arc<str>,
    config: ReplyConfig,
}

/// How a delivery ended.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Delivered or dead.
    pub outcome: ReplyOn,
    /// Why it is dead.
    pub reason: Option<DeadReason>,
    /// The last answer as `{status, headers, body}`, when one came.
    pub response: Option<&'a Bytes>,
    /// The number of its last attempt; 0 when none was made.
    pub attempt: u32,
    /// The trace of that attempt; without one, the reply is part of its event's.
    pub trace: Option<&'a TraceContext>,
}

impl ReplyRule {
    /// The replies of `of`, by `config`.
    #[must_use]
    pub fn new(of: &Arc<str>, config: &ReplyConfig) -> Self {
        Self { route: reply_route(of), config: config.clone() }
    }

    /// The reply to `delivery`, which ended so at `now`; `None` where none is wanted.
    #[must_use]
    pub fn make(&self, delivery: &Delivery, end: End<'_>, now: Timestamp) -> Option<Reply> {
        if !self.config.on.contains(&end.outcome) {
            return None;
        }
        let json = input_json(&delivery.event, end);
        // A defect in a library must cost this reply, not the settlement.
        let made = catch_unwind(AssertUnwindSafe(|| self.event(delivery, end, &json, now)));
        let made = made.unwrap_or_else(|_| {
            let message = "the expression panicked; this is a defect of Tidegate".to_owned();
            Err(ExpressionError { message, offset: None })
        });
        let content = match made {
            Ok(None) => return None,
            Ok(Some(event)) if event.hops > HOPS_MAX => {
                let why = format!(
                    "reply: {HOPS_MAX} moves inside led to it: its routes go round in a ring"
                );
                Content::Dead(Arc::new(event), DeadReason::Rejected, why)
            }
            Ok(Some(event)) => Content::Pending(Arc::new(event)),
            Err(failed) => {
                // Nested too deep it is no JSON that anybody here would read again.
                let data = match check_data(&json) {
                    Ok(()) => Data::Json(json),
                    Err(_) => Data::Binary(json),
                };
                let event = plain(delivery, end, now, data);
                let why = format!("reply.{}", failed.message);
                Content::Dead(Arc::new(event), DeadReason::Expression, why)
            }
        };
        let append = Append { content, key: None, dedupe: false };
        Some(Reply { route: Arc::clone(&self.route), append })
    }

    /// `None`: `when` said no.
    fn event(
        &self,
        delivery: &Delivery,
        end: End<'_>,
        json: &Bytes,
        now: Timestamp,
    ) -> Result<Option<Event>, ExpressionError> {
        let input = Input::json(json.clone())?;
        let variables = Variables::of(delivery, end.attempt);
        if let Some(when) = &self.config.when {
            let wanted = when.run(&input, &variables).map_err(|failed| named("when", failed))?;
            if !wanted.is_true() {
                return Ok(None);
            }
        }
        let plain = plain(delivery, end, now, Data::Absent);
        let mut draft = Draft {
            source: Some(plain.source),
            time: plain.time,
            datacontenttype: plain.datacontenttype,
            data: Data::Json(summary(&delivery.event, end)),
            ..Draft::default()
        };
        let wrong = |wrong: EventError| {
            let message = format!("event: {wrong}");
            ExpressionError { message, offset: None }
        };
        self.config.event.lay_over(&mut draft, &input, &variables).map_err(wrong)?;
        draft.id = Some(plain.id);
        let typeless = "is missing: set `reply.event.type`";
        let trace = plain.traceparent;
        let (mut event, _) = draft.finish(String::new, trace, typeless).map_err(wrong)?;
        event.hops = plain.hops;
        Ok(Some(event))
    }
}

/// The name of the route that delivers the replies of `route`. No route that a user names holds a
/// slash.
#[must_use]
pub fn reply_route(route: &str) -> Arc<str> {
    format!("{route}/reply").into()
}

/// A reply with everything but what the configuration says of it. Its id is the same however often
/// the same end is settled, and another for each end.
fn plain(delivery: &Delivery, end: End<'_>, now: Timestamp, data: Data) -> Event {
    let name = format!(
        "tidegate:reply\n{}\n{}\n{}\n{}",
        delivery.idempotency_key(),
        delivery.id,
        word(end.outcome),
        end.attempt
    );
    Event {
        id: Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string(),
        source: format!("/{}", delivery.route),
        kind: FAILED.to_owned(),
        subject: None,
        time: Some(rfc3339(now)),
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: std::collections::BTreeMap::new(),
        traceparent: end.trace.or(delivery.event.traceparent.as_ref()).cloned(),
        hops: delivery.event.hops + 1,
        data,
    }
}

/// `{event, outcome, reason, response}`, event and answer spliced in as they are.
fn input_json(event: &Event, end: End<'_>) -> Bytes {
    let mut json = b"{\"event\":".to_vec();
    json.extend_from_slice(&event.to_json());
    let rest = format!(
        ",\"outcome\":\"{}\",\"reason\":{},\"response\":",
        word(end.outcome),
        reason_json(end)
    );
    json.extend_from_slice(rest.as_bytes());
    json.extend_from_slice(end.response.map_or(b"null", |response| response));
    json.push(b'}');
    json.into()
}

/// The data of a reply that maps none: enough to tell which event it is about and how it ended.
fn summary(event: &Event, end: End<'_>) -> Bytes {
    let text = serde_json::json!({
        "event": { "id": event.id, "source": event.source, "type": event.kind },
        "outcome": word(end.outcome),
        "reason": end.reason.map(DeadReason::as_str),
    });
    text.to_string().into()
}

fn reason_json(end: End<'_>) -> String {
    end.reason.map_or("null".to_owned(), |reason| format!("\"{}\"", reason.as_str()))
}

fn word(outcome: ReplyOn) -> &'static str {
    match outcome {
        ReplyOn::Delivered => "delivered",
        ReplyOn::Dead => "dead",
    }
}

fn named(key: &str, mut failed: ExpressionError) -> ExpressionError {
    failed.message = format!("{key}: {}", failed.message);
    failed
}

#[cfg(test)]
mod tests;
