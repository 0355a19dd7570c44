//! `event:`, the mapping from what arrived to an event: the same words on every source and reply.

use std::collections::BTreeMap;

use crate::expression::{Expression, Template};

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

impl EventMapping {
    /// Whether it maps nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { id, source, kind, subject, time, extensions, data } = self;
        [id, source, kind, subject, time].iter().all(|template| template.is_none())
            && extensions.is_empty()
            && data.is_none()
    }
}
