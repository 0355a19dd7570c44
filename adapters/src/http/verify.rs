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

mod credentials;
mod freshness;
mod headers;
mod hmac;
mod signature;
mod standard_webhooks;

use self::{
    credentials::{ApiKey, Basic},
    hmac::HmacVerifier,
    standard_webhooks::StandardWebhooks,
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
            VerifyConfig::ApiKey(config) => Scheme::ApiKey(ApiKey::new(config)?),
            VerifyConfig::Basic(config) => Scheme::Basic(Basic::new(config)?),
            VerifyConfig::None(_) => Scheme::None,
            other => return Err(ConfigError::new(other.to_string(), "not built")),
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
            Scheme::ApiKey(scheme) => scheme.verify(request),
            Scheme::Basic(scheme) => scheme.verify(request),
            Scheme::None => Ok(Verified::default()),
        }
    }

    /// What the provider wants to hear as a yes; `None` is the usual answer.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        None
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

#[cfg(test)]
mod tests;
