//! Webhook verification: is this request from whom it says it is, and is it fresh?
//!
//! Over the raw bytes, before anything of them is parsed; in constant time; with the same work and
//! the same answer whatever is wrong. One module a provider, each citing the page it follows.

use super::{
    ConfigError,
    webhook::{Answer, Received, VerifyConfig},
};
use crate::Timestamp;

/// Verifies the requests of one webhook.
#[derive(Debug)]
pub struct Verifier {}

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
        match config {
            VerifyConfig::None(_) => Ok(Self {}),
            other => Err(ConfigError::new(other.to_string(), "not built")),
        }
    }

    /// Whether `request`, received at `now`, is genuine.
    ///
    /// # Errors
    /// Why not; the answer is 401.
    pub fn verify(&self, _request: &Received, _now: Timestamp) -> Result<Verified, Unverified> {
        Ok(Verified::default())
    }

    /// What the provider wants to hear as a yes; `None` is the usual answer.
    #[must_use]
    pub fn answer(&self) -> Option<Answer> {
        None
    }
}
