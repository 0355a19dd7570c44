//! Stripe (<https://docs.stripe.com/webhooks#verify-manually>).
//!
//! `Stripe-Signature: t=1492774577,v1=5257…,v1=…,v0=…`: the time in seconds, and an HMAC-SHA256 of
//! `t.body` in hexadecimal for each secret that is valid while one is replaced. Versions other than
//! `v1` are ignored. The secret is used as it is written, `whsec_` included.
//!
//! The message's id is the event's (`evt_…`), the same when Stripe sends again. Any 2xx is a yes.

use super::{Unverified, Verified, body, freshness, headers, signature, signature::Keys};
use crate::{
    Timestamp,
    http::{
        ConfigError, HmacAlgorithm, HmacEncoding,
        webhook::{PRESET_TOLERANCE, PresetConfig, Received},
    },
};

const SIGNATURE: &str = "stripe-signature";

/// Verifies as Stripe signs.
#[derive(Debug)]
pub(super) struct Stripe {
    keys: Keys,
}

#[derive(serde::Deserialize)]
struct Event {
    id: Option<String>,
}

impl Stripe {
    /// # Errors
    /// A secret that is none.
    pub(super) fn new(config: &PresetConfig) -> Result<Self, ConfigError> {
        let keys = Keys::text("stripe.secrets", &config.secrets, HmacAlgorithm::Sha256)?;
        Ok(Self { keys })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(
        &self,
        request: &Received,
        now: Timestamp,
    ) -> Result<Verified, Unverified> {
        let value = headers::one(&request.headers, SIGNATURE)?;
        let listed = |name: &'static str| {
            value.split(',').filter_map(move |item| item.trim().strip_prefix(name))
        };
        let mut times = listed("t=");
        let (Some(timestamp), None) = (times.next(), times.next()) else {
            return Err(Unverified(format!("`{SIGNATURE}` must hold one `t=`, the timestamp")));
        };
        let sent = freshness::read_seconds(timestamp, SIGNATURE)?;
        freshness::check(sent, now, PRESET_TOLERANCE)?;
        let due = "`v1=` and hexadecimal";
        let given = signature::read(listed("v1="), HmacEncoding::Hex, SIGNATURE, due)?;
        self.keys.check([timestamp.as_bytes(), b".", &request.raw], &given, SIGNATURE)?;
        let id = body::json::<Event>(&request.raw).and_then(|event| body::id(event.id));
        Ok(Verified { id, handshake: None })
    }
}
