//! From what a request holds to arrivals: `split`, `event:`, ids.
//!
//! What a thousand items of one request share is parsed once, and what their bare paths find in
//! it is found once. Data that no expression or a bare path takes is a slice of the body.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    EVENTS_MAX, Hook, Malformed, Received,
    content::{Content, Drafts},
};
use crate::{
    Arrival, Data, Event, Invalid, Timestamp, TraceContext,
    event::{
        Draft, EventError,
        attribute::rfc3339,
        check_data,
        message::{ABOUT_MAX, RAW_MAX},
    },
    expression::{Input, Member, Variables},
};

/// What the events of one request may take together, in bytes, where that is more than four times
/// the request: with `split`, `data: .body` gives each of a thousand events the whole body.
const TOGETHER_MAX: usize = 64 << 20;

/// The arrivals of one request.
pub(super) struct Events {
    pub(super) arrivals: Vec<Arrival>,
    /// Under which ids they are told to the sender, one each.
    pub(super) ids: Vec<String>,
    /// Whether the sender hears of a list.
    pub(super) many: bool,
}

/// What all events of one request have in common.
pub(super) struct Source<'a> {
    pub(super) hook: &'a Hook,
    pub(super) request: &'a Received,
    pub(super) input: &'a Arc<Input>,
    pub(super) variables: &'a Variables,
    pub(super) now: Timestamp,
}

/// One event to be.
struct Item<'a> {
    draft: Draft,
    /// The id it has in case it gets no other.
    id: String,
    input: &'a Input,
    /// What arrived of it.
    raw: &'a Bytes,
    index: Option<usize>,
}

impl Source<'_> {
    /// The arrivals. `id` is the scheme's own message id.
    ///
    /// # Errors
    /// Too many events, or two of the same source and id.
    pub(super) fn events(&self, content: Content, id: Option<&str>) -> Result<Events, Malformed> {
        let fresh = Uuid::new_v4().to_string();
        let events = match (content.drafts, &self.hook.split) {
            (Drafts::Batch(drafts), _) => self.batch(drafts, &fresh),
            (Drafts::One(mut draft), split) => {
                if !draft.complete {
                    draft.id = id.map(str::to_owned);
                }
                match split {
                    Some(split) => {
                        // One more than there may be tells that there are too many.
                        let items = split.run_first(self.input, self.variables, EVENTS_MAX + 1);
                        let items = items.map(|items| items.iter().map(|i| i.to_json()).collect());
                        match items {
                            Ok(items) => self.split(&draft, items, &fresh)?,
                            Err(error) => self.dead(&draft, fresh, &format!("`split`: {error}")),
                        }
                    }
                    None => self.one(*draft, fresh),
                }
            }
        };
        check_ids(&events.arrivals)?;
        Ok(events)
    }

    fn one(&self, draft: Draft, fresh: String) -> Events {
        let id = draft.id.clone().unwrap_or(fresh);
        let raw = &self.request.raw;
        let item = Item { draft, id, input: self.input, raw, index: None };
        let (arrival, id) = self.arrival(item);
        Events { arrivals: vec![arrival], ids: vec![id], many: false }
    }

    /// A batch is split already: its events are the items.
    fn batch(&self, drafts: Vec<(Draft, Bytes)>, fresh: &str) -> Events {
        let items = drafts.into_iter().enumerate().map(|(index, (draft, json))| {
            let id = draft.id.clone().unwrap_or_else(|| format!("{fresh}/{index}"));
            (draft, id, json)
        });
        self.many(items.collect(), None, fresh)
    }

    /// Every item has what the request as a whole says of an event, but its own id and data.
    fn split(&self, whole: &Draft, items: Vec<Bytes>, fresh: &str) -> Result<Events, Malformed> {
        if items.len() > EVENTS_MAX {
            return Err(Malformed::new(format!("more than {EVENTS_MAX} events in one request")));
        }
        let items = items.into_iter().enumerate().map(|(index, json)| {
            let own = whole.id.as_ref().map(|id| format!("{id}/{index}"));
            let id = own.clone().unwrap_or_else(|| format!("{fresh}/{index}"));
            let draft = Draft {
                id: own,
                data: Data::Json(json.clone()),
                datacontenttype: Some("application/json".to_owned()),
                dataschema: None,
                ..whole.clone()
            };
            (draft, id, json)
        });
        Ok(self.many(items.collect(), whole.id.as_deref(), fresh))
    }

    fn many(
        &self,
        items: Vec<(Draft, String, Bytes)>,
        whole_id: Option<&str>,
        fresh: &str,
    ) -> Events {
        let most = TOGETHER_MAX.max(self.request.raw.len().saturating_mul(4));
        let (mut arrivals, mut ids) = (Vec::with_capacity(items.len()), Vec::new());
        let mut together = 0;
        for (index, (draft, id, json)) in items.into_iter().enumerate() {
            let number = Member::Json(index.to_string().into());
            let members = vec![("item", Member::Json(json.clone())), ("index", number)];
            let input = self.input.with(members);
            let item = Item { draft, id, input: &input, raw: &json, index: Some(index) };
            let (arrival, id) = self.arrival(item);
            together += arrival.event.as_ref().map_or(0, Event::size_hint);
            if together > most {
                let why = "`event:` makes more than 64 MiB of events of this one request; map less \
                           of the request into each";
                let whole = Draft { id: whole_id.map(str::to_owned), ..Draft::default() };
                return self.dead(&whole, fresh.to_owned(), why);
            }
            arrivals.push(arrival);
            ids.push(id);
        }
        Events { arrivals, ids, many: true }
    }

    /// The whole request as one dead delivery.
    fn dead(&self, draft: &Draft, fresh: String, why: &str) -> Events {
        let id = draft.id.clone().unwrap_or(fresh);
        let invalid = self.invalid(why.to_owned(), &self.request.raw, &id, None);
        let arrivals = vec![Arrival { event: Err(invalid), own_id: false }];
        Events { arrivals, ids: vec![id], many: true }
    }

    fn arrival(&self, item: Item<'_>) -> (Arrival, String) {
        let Item { draft, id, input, raw, index } = item;
        // What `split` gives may nest deeper than its input.
        let checked = if index.is_some() { check_data(raw) } else { Ok(()) };
        match checked.and_then(|()| self.event(draft, input, &id)) {
            Ok((event, own_id)) => {
                let id = event.id.clone();
                (Arrival { event: Ok(event), own_id }, id)
            }
            Err(error) => {
                let invalid = self.invalid(error.to_string(), raw, &id, index);
                (Arrival { event: Err(invalid), own_id: false }, id)
            }
        }
    }

    fn event(
        &self,
        mut draft: Draft,
        input: &Input,
        id: &str,
    ) -> Result<(Event, bool), EventError> {
        self.hook.event.lay_over(&mut draft, input, self.variables)?;
        if !draft.complete {
            draft.source.get_or_insert_with(|| format!("/{}", self.hook.route));
            draft.time.get_or_insert_with(|| rfc3339(self.now));
        }
        let typeless = "is missing: the request is no CloudEvent; set `event.type`";
        draft.finish(|| id.to_owned(), self.trace(), typeless)
    }

    /// The trace that the request is part of. `tracestate` may be spread over several headers.
    fn trace(&self) -> Option<TraceContext> {
        let headers = &self.request.headers;
        let parent = headers.get("traceparent")?.to_str().ok()?;
        let states = headers.get_all("tracestate").iter().map(|state| state.to_str().ok());
        let state = states.collect::<Option<Vec<&str>>>().map(|states| states.join(","));
        TraceContext::carried(parent, state.as_deref())
    }

    /// What an operator sees of it: no header but the content type, for they may hold credentials.
    fn invalid(&self, why: String, raw: &Bytes, id: &str, index: Option<usize>) -> Invalid {
        let request = self.request;
        let content_type = request.headers.get(http::header::CONTENT_TYPE);
        let texts = [
            ("method", Some(request.method.as_str())),
            ("path", Some(&*request.path)),
            ("content_type", content_type.and_then(|value| value.to_str().ok())),
            ("id", Some(id)),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| {
            Some((name.to_owned(), text?.chars().take(ABOUT_MAX).collect::<String>().into()))
        });
        let mut about: Map<String, Value> = texts.collect();
        about.insert("size".to_owned(), request.raw.len().into());
        if let Some(index) = index {
            about.insert("index".to_owned(), index.into());
        }
        // A copy, or it would keep the whole request in memory.
        let raw = Bytes::copy_from_slice(&raw[..raw.len().min(RAW_MAX)]);
        Invalid { why, raw, about }
    }
}

/// Two events of one source and id would be one event, and the other lost.
fn check_ids(arrivals: &[Arrival]) -> Result<(), Malformed> {
    if arrivals.len() < 2 {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(arrivals.len());
    for event in arrivals.iter().filter_map(|arrival| arrival.event.as_ref().ok()) {
        if !seen.insert((&*event.source, &*event.id)) {
            let id = event.id.chars().take(64).collect::<String>();
            return Err(Malformed::new(format!("two events of this request have the id `{id}`")));
        }
    }
    Ok(())
}
