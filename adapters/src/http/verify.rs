//! Webhook verification: is this request from whom it says it is, and is it fresh?
//!
//! Over the raw bytes, before anything of them is parsed. One module a scheme; a provider's cites
//! the page it follows.
//!
//! **What a stranger may learn.** What a request shows by itself (a header that is missing, a
//! timestamp that is old) is said at once, in words its sender can act on, and costs no
//! cryptography. What depends on a secret takes the same work and gets the same words however
//! wrong it is: every key is tried on every signature, in constant time, and no text holds a
//! secret or anything computed from one.
//!
//! **What a request may cost.** One HMAC over it for each secret; signatures in one header are
//! bounded, and a header that should be there once is refused when it is there twice.

mod body;
mod credentials;
mod freshness;
mod github;
mod headers;
mod hmac;
pub mod sender;
mod shopify;
mod signature;
mod slack;
mod square;
mod standard_webhooks;
mod stripe;
mod twilio;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};

use self::{
    credentials::{ApiKey, Basic},
    github::Github,
    hmac::HmacVerifier,
    shopify::Shopify,
    slack::Slack,
    square::Square,
    standard_webhooks::StandardWebhooks,
    stripe::Stripe,
    twilio::Twilio,
};
use super::{
    ConfigError,
    webhook::{Answer, Received, VerifyConfig},
};
use crate::Timestamp;

/// Verifies the requests of one webhook.
#[derive(Debug)]
pub struct Verifier {
    scheme: Scheme,
}

#[derive(Debug)]
enum Scheme {
    StandardWebhooks(StandardWebhooks),
    Hmac(HmacVerifier),
    Stripe(Stripe),
    Github(Github),
    Shopify(Shopify),
    Slack(Slack),
    Square(Square),
    Twilio(Twilio),
    ApiKey(ApiKey),
    Basic(Basic),
    None,
}

/// A request that is from whom it says it is.
#[derive(Debug, Default)]
pub struct Verified {
    /// The scheme's own message id; its sender repeats it when it sends again.
    pub id: Option<String>,
    /// The request is a handshake: answer this, it is no event.
    pub handshake: Option<Answer>,
}

/// Why a request is not believed. Told to its sender; holds no secret and nothing computed from
/// one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unverified(pub String);

impl Verifier {
    /// A verifier by `config`.
    ///
    /// # Errors
    /// What cannot work, with its key within `verify`.
    pub fn new(config: &VerifyConfig) -> Result<Self, ConfigError> {
        let scheme = match config {
            VerifyConfig::StandardWebhooks(config) => {
                Scheme::StandardWebhooks(StandardWebhooks::new(config)?)
            }
            VerifyConfig::Hmac(config) => Scheme::Hmac(HmacVerifier::new(config)?),
            VerifyConfig::Stripe(config) => Scheme::Stripe(Stripe::new(config)?),
            VerifyConfig::Github(config) => Scheme::Github(Github::new(config)?),
            VerifyConfig::Shopify(config) => Scheme::Shopify(Shopify::new(config)?),
            VerifyConfig::Slack(config) => Scheme::Slack(Slack::new(config)?),
            VerifyConfig::Square(config) => Scheme::Square(Square::new(config)?),
            VerifyConfig::Twilio(config) => Scheme::Twilio(Twilio::new(config)?),
            VerifyConfig::ApiKey(config) => Scheme::ApiKey(ApiKey::new(config)?),
            VerifyConfig::Basic(config) => Scheme::Basic(Basic::new(config)?),
            VerifyConfig::None(_) => Scheme::None,
        };
        Ok(Self { scheme })
    }

    /// Whether `request`, received at `now`, is genuine.
    ///
    /// # Errors
    /// Why not; the answer is 401, with [`Verifier::challenge`].
    pub fn verify(&self, request: &Received, now: Timestamp) -> Result<Verified, Unverified> {
        match &self.scheme {
            Scheme::StandardWebhooks(scheme) => scheme.verify(request, now),
            Scheme::Hmac(scheme) => scheme.verify(request, now),
            Scheme::Stripe(scheme) => scheme.verify(request, now),
            Scheme::Github(scheme) => scheme.verify(request),
            Scheme::Shopify(scheme) => scheme.verify(request),
            Scheme::Slack(scheme) => scheme.verify(request, now),
            Scheme::Square(scheme) => scheme.verify(request),
            Scheme::Twilio(scheme) => scheme.verify(request),
            Scheme::ApiKey(scheme) => scheme.verify(request),
            Scheme::Basic(scheme) => scheme.verify(request),
            Scheme::None => Ok(Verified::default()),
        }
    }

    /// What the provider wants to hear as a yes; `None` is the usual answer.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        const TWIML: &str = r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#;
        match &self.scheme {
            Scheme::Shopify(_) | Scheme::Slack(_) => Some(Answer {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                body: Bytes::new(),
            }),
            Scheme::Twilio(_) => Some(answer(StatusCode::OK, "text/xml; charset=utf-8", TWIML)),
            Scheme::StandardWebhooks(_)
            | Scheme::Hmac(_)
            | Scheme::Stripe(_)
            | Scheme::Github(_)
            | Scheme::Square(_)
            | Scheme::ApiKey(_)
            | Scheme::Basic(_)
            | Scheme::None => None,
        }
    }

    /// The `WWW-Authenticate` of a 401 (RFC 9110 §11.6.1), where HTTP has a name for what is due.
    /// Clients that hold Basic credentials may wait for it before they send them.
    #[must_use]
    pub fn challenge(&self) -> Option<&'static str> {
        match &self.scheme {
            Scheme::Basic(_) => Some(r#"Basic realm="tidegate", charset="UTF-8""#),
            _ => None,
        }
    }
}

/// An answer of one kind of text.
fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let content_type = (CONTENT_TYPE, HeaderValue::from_static(content_type));
    Answer { status, headers: HeaderMap::from_iter([content_type]), body: body.into() }
}

#[cfg(test)]
mod tests;
