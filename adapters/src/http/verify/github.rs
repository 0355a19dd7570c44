//! GitHub
//! (<https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>).
//!
//! `X-Hub-Signature-256: sha256=` and the HMAC-SHA256 of the body in hexadecimal. The older
//! `X-Hub-Signature` with SHA-1 comes beside it and is not looked at.
//!
//! No timestamp is signed. The message's id is `X-GitHub-Delivery`, the same when GitHub delivers
//! again
//! (<https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers>); it is not
//! signed either, so whoever captures a request can send it again under another id. Any 2xx is a
//! yes.

use super::{Unverified, Verified, headers, signature, signature::Keys};
use crate::http::{
    ConfigError, HmacAlgorithm, HmacEncoding,
    webhook::{PresetConfig, Received},
};

const SIGNATURE: &str = "x-hub-signature-256";
const ID: &str = "x-github-delivery";

/// Verifies as GitHub signs.
#[derive(Debug)]
pub(super) struct Github {
    keys: Keys,
}

impl Github {
    /// # Errors
    /// A secret that is none.
    pub(super) fn new(config: &PresetConfig) -> Result<Self, ConfigError> {
        let keys = Keys::text("github.secrets", &config.secrets, HmacAlgorithm::Sha256)?;
        Ok(Self { keys })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(&self, request: &Received) -> Result<Verified, Unverified> {
        let value = headers::one(&request.headers, SIGNATURE)?;
        let text = value.strip_prefix("sha256=");
        let due = "`sha256=` and hexadecimal";
        let given = signature::read(text.into_iter(), HmacEncoding::Hex, SIGNATURE, due)?;
        self.keys.check([&request.raw[..]], &given, SIGNATURE)?;
        Ok(Verified { id: headers::id(&request.headers, ID), handshake: None })
    }
}
