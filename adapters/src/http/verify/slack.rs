//! Slack (<https://docs.slack.dev/authentication/verifying-requests-from-slack/>).
//!
//! `X-Slack-Signature: v0=` and the HMAC-SHA256 of `v0:timestamp:body` in hexadecimal; the time in
//! seconds is `X-Slack-Request-Timestamp`, and five minutes are allowed.
//!
//! The message's id is the body's `event_id`, the same when Slack sends again; slash commands and
//! interactions have none and are not sent again. A yes is an empty 200: Slack shows a body that
//! answers a slash command to the user.
//!
//! The handshake: a URL is proven by answering the `challenge` of a `url_verification`, signed like
//! all else (<https://docs.slack.dev/reference/events/url_verification/>).

use http::StatusCode;

use super::{Unverified, Verified, answer, body, freshness, headers, signature, signature::Keys};
use crate::{
    Timestamp,
    http::{
        ConfigError, HmacAlgorithm, HmacEncoding,
        webhook::{PRESET_TOLERANCE, PresetConfig, Received},
    },
};

const SIGNATURE: &str = "x-slack-signature";
const TIMESTAMP: &str = "x-slack-request-timestamp";

/// Verifies as Slack signs.
#[derive(Debug)]
pub(super) struct Slack {
    keys: Keys,
}

#[derive(serde::Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: Option<String>,
    event_id: Option<String>,
    challenge: Option<String>,
}

impl Slack {
    /// # Errors
    /// A secret that is none.
    pub(super) fn new(config: &PresetConfig) -> Result<Self, ConfigError> {
        let keys = Keys::text("slack.secrets", &config.secrets, HmacAlgorithm::Sha256)?;
        Ok(Self { keys })
    }

    /// # Errors
    /// Why the request is not believed.
    pub(super) fn verify(
        &self,
        request: &Received,
        now: Timestamp,
    ) -> Result<Verified, Unverified> {
        let timestamp = headers::one(&request.headers, TIMESTAMP)?;
        let value = headers::one(&request.headers, SIGNATURE)?;
        freshness::check(freshness::read_seconds(timestamp, TIMESTAMP)?, now, PRESET_TOLERANCE)?;
        let text = value.strip_prefix("v0=");
        let due = "`v0=` and hexadecimal";
        let given = signature::read(text.into_iter(), HmacEncoding::Hex, SIGNATURE, due)?;
        let signed = [b"v0:", timestamp.as_bytes(), b":", &request.raw];
        self.keys.check(signed, &given, SIGNATURE)?;
        Ok(match body::json::<Event>(&request.raw) {
            None => Verified::default(),
            Some(Event { kind: Some(kind), challenge: Some(challenge), .. })
                if kind == "url_verification" =>
            {
                let handshake = answer(StatusCode::OK, "text/plain; charset=utf-8", challenge);
                Verified { id: None, handshake: Some(handshake) }
            }
            Some(event) => Verified { id: body::id(event.event_id), handshake: None },
        })
    }
}
