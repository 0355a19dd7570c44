//! Shopify (<https://shopify.dev/docs/apps/build/webhooks/verify-deliveries>).
//!
//! `X-Shopify-Hmac-Sha256`: the HMAC-SHA256 of the body in Base64; the secret is the app's client
//! secret, as text.
//!
//! No timestamp is signed. The message's id is `X-Shopify-Webhook-Id`, one for each delivery and
//! the same when Shopify sends it again. `X-Shopify-Event-Id` will not do: all deliveries that one
//! action of a merchant brings about share it, so the second topic of an action would be taken for
//! a repeat of the first
//! (<https://shopify.dev/docs/apps/build/webhooks/delivery-structure>). Neither is signed, so
//! whoever captures a request can send it again under another id. A yes is 200.

use super::{Unverified, Verified, headers, signature, signature::Keys};
use crate::http::{
    ConfigError, HmacAlgorithm, HmacEncoding,
    webhook::{PresetConfig, Received},
};

const SIGNATURE: &str = "x-shopify-hmac-sha256";
const ID: &str = "x-shopify-webhook-id";

/// Verifies as Shopify signs.
#[derive(Debug)]
pub(super) struct Shopify {
    keys: Keys,
}

impl Shopify {
    /// # Errors
    /// A secret that is none.
    pub(super) fn new(config: &PresetConfig) -> Result<Self, ConfigError> {
        let keys = Keys::text("shopify.secrets", &config.secrets, HmacAlgorithm::Sha256)?;
        Ok(Self { keys })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(&self, request: &Received) -> Result<Verified, Unverified> {
        let text = headers::one(&request.headers, SIGNATURE)?;
        let given =
            signature::read(std::iter::once(text), HmacEncoding::Base64, SIGNATURE, "Base64")?;
        self.keys.check([&request.raw[..]], &given, SIGNATURE)?;
        Ok(Verified { id: headers::id(&request.headers, ID), handshake: None })
    }
}
