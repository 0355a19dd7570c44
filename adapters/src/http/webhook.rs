//! One route's webhook: from a request to arrivals, and to the answer its sender gets.
//!
//! ```text
//! raw bytes ─► verify ─► (handshake: answered, no event) ─► the route's limit
//!                │ 401                                         │ 429
//!           CloudEvents over HTTP? ─► split ─► `event:` ─► arrivals ─► Intake ─► answer
//!                │ 400: not what its content type says
//! ```
//!
//! Verified first, over the raw bytes; nothing is parsed before. A verified request whose mapping
//! fails is kept as dead and still answered 2xx: sending it again would fail again.
//!
//! A CloudEvent (HTTP binding 1.0.2: structured, binary, batch) is taken as it is, and `event:`
//! laid over it. `split` makes many events of one request, a CloudEvent too, each under
//! `<id>/<index>`; a batch is split already, and its events are the items.
//!
//! Bounds: [`EVENTS_MAX`] events a request; 64 MiB of them, or four times the request where that
//! is more; fuel for all items' expressions together that is four runs' worth over the request.

mod config;
mod content;
mod events;
mod form;
mod headers;
mod input;
mod respond;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use self::{events::Source, respond::Respond};
use super::{
    ConfigError,
    verify::{Unverified, Verified, Verifier},
};
use crate::{
    Accepted, Arrival, Timestamp,
    event::EventMapping,
    expression::{Expression, Variables},
};

pub(crate) use config::PRESET_TOLERANCE;
pub use config::{
    ApiKeyConfig, HmacVerifyConfig, NoVerifyConfig, PresetConfig, RespondConfig, SecretEncoding,
    ServerConfig, ServerTlsConfig, StandardWebhooksVerifyConfig, VerifyConfig, WebhookConfig,
    WebhookLimitConfig,
};

/// Events from one request at most.
pub const EVENTS_MAX: usize = 1000;

/// A request, read whole.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its method.
    pub method: Method,
    /// The address as the sender wrote it: `server.public_url` with the request's own path and
    /// query, byte for byte; without a public URL just these.
    pub url: String,
    /// The path as sent.
    pub path: String,
    /// The query as sent, without its `?`; empty when there is none.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub raw: Bytes,
}

/// An answer, ready to be sent.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// The webhook of one route.
#[derive(Debug)]
pub struct Hook {
    route: Arc<str>,
    path: String,
    verifier: Verifier,
    /// Headers that no expression sees.
    credentials: Vec<HeaderName>,
    split: Option<Expression>,
    event: EventMapping,
    respond: Option<Respond>,
}

/// What a request turned out to hold.
#[derive(Debug)]
pub struct Reading {
    /// What to hand to the intake: all of it, in this order, in one call. None at all is a yes too.
    pub arrivals: Vec<Arrival>,
    /// What its sender hears once the intake has taken them.
    pub reply: Reply,
}

/// The yes to one request, ready before the intake is asked: nothing can fail after it.
#[derive(Debug)]
pub struct Reply {
    answer: Answer,
}

/// A request that is not what it says it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Malformed {
    /// 400, or 415 for a body in a form that is not read.
    pub status: StatusCode,
    /// What is wrong, in words its sender can act on.
    pub why: String,
}

impl Hook {
    /// The webhook of `route`.
    ///
    /// # Errors
    /// What in `config` cannot work, with its key within `from.webhook`.
    pub fn new(route: Arc<str>, config: &WebhookConfig) -> Result<Self, ConfigError> {
        let respond = config.respond.as_ref().map(Respond::new).transpose()?;
        Ok(Self {
            route,
            path: config.path.clone(),
            verifier: Verifier::new(&config.verify).map_err(|ConfigError { key, problem }| {
                ConfigError::new(format!("verify.{key}"), problem)
            })?,
            credentials: input::credentials(&config.verify),
            split: config.split.clone(),
            event: config.event.clone(),
            respond,
        })
    }

    /// The route's name.
    #[must_use]
    pub fn route(&self) -> &Arc<str> {
        &self.route
    }

    /// The path as configured.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What a 401 says of how to prove oneself (RFC 9110 §11.6.1), where the scheme has a word for
    /// it.
    #[must_use]
    pub fn challenge(&self) -> Option<&'static str> {
        self.verifier.challenge()
    }

    /// Whether `request`, received at `now`, is from whom it says it is. A handshake among what is
    /// verified is answered at once and never read.
    ///
    /// # Errors
    /// Why not; the answer is 401.
    pub fn verify(&self, request: &Received, now: Timestamp) -> Result<Verified, Unverified> {
        self.verifier.verify(request, now)
    }

    /// The events of a verified `request`, received at `now`, and the answer to it.
    ///
    /// # Errors
    /// When it is not what it says it is; nothing of it is to be kept.
    pub fn read(
        &self,
        request: &Received,
        verified: &Verified,
        now: Timestamp,
    ) -> Result<Reading, Malformed> {
        let content = content::read(request, &self.event)?;
        let input = Arc::new(input::of(request, &content.body, &self.credentials));
        let variables = Variables { route: Arc::clone(&self.route), ..Variables::default() };
        let source = Source { hook: self, request, input: &input, variables: &variables, now };
        let events = source.events(content, verified.id.as_deref().filter(|id| !id.is_empty()))?;
        let mut answer = self.verifier.answer().unwrap_or_else(|| respond::usual(&events));
        if let Some(respond) = &self.respond {
            answer = respond.answer(answer, &input, &variables);
        }
        Ok(Reading { arrivals: events.arrivals, reply: Reply { answer } })
    }
}

impl Malformed {
    fn new(why: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, why: why.into() }
    }
}

impl Reply {
    /// The answer, now that the intake has said what became of the arrivals. It tells of a repeat
    /// when all of them are: part of a request that is new makes the request news.
    #[must_use]
    pub fn answer(self, accepted: &[Accepted]) -> Answer {
        let Self { mut answer } = self;
        let repeat = |accepted: &Accepted| matches!(accepted, Accepted::Duplicate(_));
        if !accepted.is_empty() && accepted.iter().all(repeat) {
            answer.headers.insert(DUPLICATE, HeaderValue::from_static("true"));
        }
        answer
    }
}

/// Says `true` on the answer to what was sent before.
pub const DUPLICATE: HeaderName = HeaderName::from_static("tidegate-duplicate");

#[cfg(test)]
mod tests;
