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

mod config;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

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
