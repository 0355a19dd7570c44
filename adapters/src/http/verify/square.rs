//! Square (<https://developer.squareup.com/docs/webhooks/step3validate>).
//!
//! `x-square-hmacsha256-signature`: the HMAC-SHA256 of the notification URL and the body, one after
//! the other, in Base64. The URL is the one written into the subscription, so `server.public_url`
//! must be what senders call.
//!
//! No timestamp is signed. The message's id is the body's `event_id`, which Square calls its
//! idempotency value (<https://developer.squareup.com/docs/webhooks/how-it-works>). Any 2xx is a
//! yes.

use super::{Unverified, Verified, body, headers, signature, signature::Keys};
use crate::http::{
    ConfigError, HmacAlgorithm, HmacEncoding,
    webhook::{PresetConfig, Received},
};

const SIGNATURE: &str = "x-square-hmacsha256-signature";

/// Verifies as Square signs.
#[derive(Debug)]
pub(super) struct Square {
    keys: Keys,
}

#[derive(serde::Deserialize)]
struct Event {
    event_id: Option<String>,
}

impl Square {
    /// # Errors
    /// A secret that is none.
    pub(super) fn new(config: &PresetConfig) -> Result<Self, ConfigError> {
        let keys = Keys::text("square.secrets", &config.secrets, HmacAlgorithm::Sha256)?;
        Ok(Self { keys })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(&self, request: &Received) -> Result<Verified, Unverified> {
        let text = headers::one(&request.headers, SIGNATURE)?;
        let given =
            signature::read(std::iter::once(text), HmacEncoding::Base64, SIGNATURE, "Base64")?;
        self.keys.check([request.url.as_bytes(), &request.raw], &given, SIGNATURE)?;
        let id = body::json::<Event>(&request.raw).and_then(|event| body::id(event.event_id));
        Ok(Verified { id, handshake: None })
    }
}
