//! Standard Webhooks, the symmetric scheme `v1`
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>),
//! and Svix, whose headers have other names and are else the same
//! (<https://docs.svix.com/receiving/verifying-payloads/how-manual>).
//!
//! Signed is `id.timestamp.body` with HMAC-SHA256. The signature header lists signatures by
//! spaces, each with a version before a comma; versions other than `v1` are others' business.
//!
//! **Two families of headers.** A sender may send both. The three headers of one family belong
//! together and are never mixed: the first family that is there whole is the one verified,
//! `webhook-*` before `svix-*`, and there is no second try with the other.

use std::time::Duration;

use super::{Unverified, Verified, freshness, headers, signature, signature::Keys};
use crate::{
    Timestamp,
    http::{
        ConfigError, HmacEncoding, hmac,
        webhook::{Received, StandardWebhooksVerifyConfig},
    },
};

/// Names of id, timestamp and signature.
const FAMILIES: [[&str; 3]; 2] = [
    ["webhook-id", "webhook-timestamp", "webhook-signature"],
    ["svix-id", "svix-timestamp", "svix-signature"],
];

/// Verifies by Standard Webhooks.
#[derive(Debug)]
pub(super) struct StandardWebhooks {
    keys: Keys,
    tolerance: Duration,
}

impl StandardWebhooks {
    /// # Errors
    /// A secret that is none, or a tolerance of zero.
    pub(super) fn new(config: &StandardWebhooksVerifyConfig) -> Result<Self, ConfigError> {
        let key = "standard_webhooks.secrets";
        Ok(Self {
            keys: Keys::new(key, &config.secrets, |secret| {
                hmac::webhook_key(secret).map_err(str::to_owned)
            })?,
            tolerance: freshness::tolerance("standard_webhooks.tolerance", config.tolerance)?,
        })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(
        &self,
        request: &Received,
        now: Timestamp,
    ) -> Result<Verified, Unverified> {
        let headers = &request.headers;
        let [id_name, timestamp_name, signature_name] = family(request);
        let id = headers::one(headers, id_name)?;
        let timestamp = headers::one(headers, timestamp_name)?;
        let listed = headers::one(headers, signature_name)?;
        let sent = freshness::read_seconds(timestamp, timestamp_name)?;
        freshness::check(sent, now, self.tolerance)?;
        let texts = listed.split(' ').filter_map(|listed| listed.strip_prefix("v1,"));
        let due = "`v1,` and Base64";
        let given = signature::read(texts, HmacEncoding::Base64, signature_name, due)?;
        let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &request.raw];
        self.keys.check(signed, &given, signature_name)?;
        Ok(Verified { id: Some(id.to_owned()), handshake: None })
    }
}

/// The first family that is there whole; else the one that is begun, to say what it lacks.
fn family(request: &Received) -> [&'static str; 3] {
    let there = |name: &&str| request.headers.contains_key(*name);
    let whole = FAMILIES.into_iter().find(|family| family.iter().all(there));
    let begun = || FAMILIES.into_iter().find(|family| family.iter().any(there));
    whole.or_else(begun).unwrap_or(FAMILIES[0])
}
