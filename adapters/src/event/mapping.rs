//! `event:`, the mapping from what arrived to an event: the same words on every source and reply.
//!
//! An envelope says what it says of an event: a [`Draft`]. `event:` is laid over it, field by
//! field; the source fills in its own defaults; then the draft is finished.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Data, Event, EventError,
    attribute::{check_attributes, is_json, wrong},
    check_data,
};
use crate::{
    TraceContext,
    expression::{Expression, Input, Place, Template, Variables},
};

/// `event:`: which expression fills which attribute. Absent ones have the envelope's default.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventMapping {
    /// Default: the envelope's, the message's or the scheme's own id, else a fresh one.
    pub id: Option<Template>,
    /// Default `/<route>`.
    pub source: Option<Template>,
    /// Default: the envelope's, or the routing key.
    #[serde(rename = "type")]
    pub kind: Option<Template>,
    /// Default: none.
    pub subject: Option<Template>,
    /// Default: the envelope's, the message's timestamp, else now.
    pub time: Option<Template>,
    /// Further attributes.
    pub extensions: BTreeMap<String, Template>,
    /// Default: the body.
    pub data: Option<Expression>,
}

/// What an envelope says of an event.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Its own id.
    pub id: Option<String>,
    /// Its source.
    pub source: Option<String>,
    /// Its type.
    pub kind: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
    /// RFC 3339.
    pub time: Option<String>,
    /// Media type of its data.
    pub datacontenttype: Option<String>,
    /// Schema of its data.
    pub dataschema: Option<String>,
    /// Further attributes.
    pub extensions: BTreeMap<String, Value>,
    /// The data.
    pub data: Data,
    /// The envelope is a CloudEvent: nothing it leaves out has a default.
    pub complete: bool,
}

impl EventMapping {
    /// Whether it maps nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { id, source, kind, subject, time, extensions, data } = self;
        [id, source, kind, subject, time].iter().all(|template| template.is_none())
            && extensions.is_empty()
            && data.is_none()
    }

    /// Lays it over `draft`, field by field; what it does not name stays.
    ///
    /// # Errors
    /// When an expression or template of it fails on `input`.
    pub fn lay_over(
        &self,
        draft: &mut Draft,
        input: &Input,
        variables: &Variables,
    ) -> Result<(), EventError> {
        let field = |template: &Template, place| template.render(input, variables, place);
        let fields = [
            (&self.id, &mut draft.id, Place::Field),
            (&self.source, &mut draft.source, Place::Field),
            (&self.kind, &mut draft.kind, Place::Field),
            (&self.subject, &mut draft.subject, Place::OptionalField),
            (&self.time, &mut draft.time, Place::OptionalField),
        ];
        for (template, attribute, place) in fields {
            if let Some(template) = template
                && let Some(text) = field(template, place)?
            {
                *attribute = Some(text);
            }
        }
        for (name, template) in &self.extensions {
            if let Some(text) = field(template, Place::OptionalField)? {
                draft.extensions.insert(name.clone(), text.into());
            }
        }
        if let Some(expression) = &self.data {
            let data = expression.run(input, variables)?.to_json();
            // An expression may nest deeper than its input.
            check_data(&data)?;
            draft.data = Data::Json(data);
            if !draft.datacontenttype.as_deref().is_some_and(is_json) {
                draft.datacontenttype = Some("application/json".to_owned());
            }
        }
        Ok(())
    }
}

impl Draft {
    /// Whether a CloudEvent is one by itself, or with what `mapping` is going to set: all that is
    /// required is there, and whatever is there is sound.
    ///
    /// # Errors
    /// [`EventError::Attribute`] for the first attribute that is not.
    pub fn check(&self, mapping: &EventMapping) -> Result<(), EventError> {
        let required = [
            ("id", &self.id, &mapping.id),
            ("source", &self.source, &mapping.source),
            ("type", &self.kind, &mapping.kind),
        ];
        for (name, value, mapped) in required {
            if value.is_none() && mapped.is_none() {
                return Err(wrong(name, "is missing: every CloudEvent has it"));
            }
        }
        let texts = [
            ("id", &self.id),
            ("source", &self.source),
            ("type", &self.kind),
            ("subject", &self.subject),
            ("time", &self.time),
            ("datacontenttype", &self.datacontenttype),
            ("dataschema", &self.dataschema),
        ];
        let texts = texts.map(|(name, value)| (name, value.as_deref()));
        check_attributes(texts, &self.extensions)
    }

    /// The event, and whether its id is its own: one that has none and is no CloudEvent gets a
    /// `fresh` one. `trace` is the one it travelled in; without one, the distributed tracing
    /// extension is.
    ///
    /// `typeless` says what to do where no type is found.
    ///
    /// # Errors
    /// [`EventError::Attribute`] for the first attribute that is missing or wrong.
    pub fn finish(
        self,
        fresh: impl FnOnce() -> String,
        trace: Option<TraceContext>,
        typeless: &'static str,
    ) -> Result<(Event, bool), EventError> {
        let missing = "is missing: the envelope lacks it, and `event:` does not set it";
        let extension = |name| self.extensions.get(name).and_then(Value::as_str);
        let traceparent = trace
            .or_else(|| TraceContext::carried(extension("traceparent")?, extension("tracestate")));
        let own_id = self.id.is_some();
        let id = match self.id {
            None if !self.complete => fresh(),
            id => id.ok_or_else(|| wrong("id", missing))?,
        };
        let event = Event {
            id,
            source: self.source.ok_or_else(|| wrong("source", missing))?,
            kind: self
                .kind
                .ok_or_else(|| wrong("type", if self.complete { missing } else { typeless }))?,
            subject: self.subject,
            time: self.time,
            datacontenttype: self.datacontenttype,
            dataschema: self.dataschema,
            extensions: self.extensions,
            traceparent,
            hops: 0,
            data: self.data,
        };
        event.check()?;
        Ok((event, own_id))
    }
}
