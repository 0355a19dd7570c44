//! `tests:`, as it is written. What it describes is played by [`crate::rehearsal`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tidegate_adapters::units;

use super::Place;

/// `tests.<name>`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestConfig {
    /// Where it is written; the loader fills it in.
    #[serde(skip)]
    pub place: Option<Place>,
    /// The route that is tested.
    pub route: Arc<str>,
    /// What time it is when the test begins: RFC 3339.
    pub now: String,
    /// What the route is given.
    pub given: Given,
    /// What each request is answered, in order; `None`: one 200 for each event.
    pub answers: Option<Vec<ScriptedAnswer>>,
    /// What is to come of it.
    pub expect: Expect,
}

/// `given:`; exactly one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Given {
    /// A CloudEvent: its attributes and `data`. `id` and `source` have stand-ins.
    Event(Map<String, Value>),
    /// A message as it lies on the RabbitMQ queue.
    Message(GivenMessage),
    /// A webhook.
    Webhook(GivenWebhook),
}

/// `given.message`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenMessage {
    /// As JSON.
    pub body: Option<Value>,
    /// As it is.
    pub raw: Option<String>,
    /// Absent: JSON where `body` is there.
    pub content_type: Option<String>,
    /// Absent: none.
    pub content_encoding: Option<String>,
    /// The header table.
    pub headers: Map<String, Value>,
    /// The other properties.
    pub properties: Map<String, Value>,
    /// Absent: empty.
    pub routing_key: Option<String>,
    /// Absent: the exchange of the route's first binding.
    pub exchange: Option<String>,
}

/// `given.webhook`: a POST to the route's path.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenWebhook {
    /// Without its `?`.
    pub query: String,
    /// By name.
    pub headers: BTreeMap<String, String>,
    /// As JSON.
    pub body: Option<Value>,
    /// As a form.
    pub form: Option<BTreeMap<String, String>>,
    /// As it is.
    pub raw: Option<String>,
    /// Whether what proves it is added, as far as it is not there.
    pub sign: bool,
}

/// An entry of `answers`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScriptedAnswer {
    /// Absent: 200.
    pub status: Option<u16>,
    /// By name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// As JSON.
    pub body: Option<Value>,
    /// As it is.
    pub raw: Option<String>,
    /// What happens instead of an answer: an attempt result.
    pub fault: Option<String>,
}

/// `expect:`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Of each event, or one word for all of them.
    pub outcome: Vec<String>,
    /// Of those that are dead.
    pub reason: Option<String>,
    /// The order key; null is unordered.
    #[serde(default, deserialize_with = "written")]
    pub key: Option<Value>,
    /// All that are sent, in order.
    pub requests: Option<Vec<ExpectedRequest>>,
    /// All that are published, replies too, in order.
    pub published: Option<Vec<ExpectedMessage>>,
    /// Between attempts, in order; that of a delivery which is pending at the end too.
    #[serde(default, deserialize_with = "durations")]
    pub waits: Option<Vec<Duration>>,
    /// What a webhook's sender hears.
    pub answer: Option<ExpectedAnswer>,
}

/// An entry of `expect.requests`. What it does not mention is not looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedRequest {
    /// Its method.
    pub method: Option<String>,
    /// Path and query, as sent.
    pub path: Option<String>,
    /// Those named; null: not there.
    pub headers: Map<String, Value>,
    /// As JSON.
    pub body: Option<Value>,
    /// The fields of a form.
    pub form: Option<BTreeMap<String, String>>,
    /// As it is; empty: none.
    pub raw: Option<String>,
}

/// An entry of `expect.published`. What it does not mention is not looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedMessage {
    /// Where it goes.
    pub exchange: Option<String>,
    /// Its routing key.
    pub key: Option<String>,
    /// Its property of this name.
    pub content_type: Option<String>,
    /// Those named; null: not there.
    pub headers: Map<String, Value>,
    /// The event's attributes named, and `data`; null: not there.
    pub event: Option<Map<String, Value>>,
    /// As JSON.
    pub body: Option<Value>,
    /// As it is.
    pub raw: Option<String>,
}

/// `expect.answer`. What it does not mention is not looked at.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedAnswer {
    /// Its status.
    pub status: Option<u16>,
    /// Those named; null: not there.
    pub headers: Map<String, Value>,
    /// As JSON.
    pub body: Option<Value>,
    /// As it is; empty: none.
    pub raw: Option<String>,
}

/// What is written is there, be it null.
fn written<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

fn durations<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Duration>>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let read = |text: &String| units::parse_duration(text).map_err(serde::de::Error::custom);
    texts.iter().map(read).collect::<Result<_, _>>().map(Some)
}
