//! `server:` and `from.webhook`, as they are written.

use std::{
    collections::BTreeMap, fmt, net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration,
};

use url::Url;

use crate::{
    event::EventMapping,
    expression::{Expression, Template},
    http::{BasicConfig, HmacAlgorithm, HmacEncoding},
    secret::Secret,
    units,
};

/// How far a timestamp may be from now in the presets that have one: what Stripe's own libraries
/// default to, and what Slack's documentation asks for.
pub(crate) const PRESET_TOLERANCE: Duration = Duration::from_secs(300);

/// `server:`, the public listener.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Where webhooks come in.
    pub listen: SocketAddr,
    /// What senders call, for schemes that sign the URL.
    pub public_url: Option<Url>,
    /// One request body, in bytes.
    #[serde(with = "units::size")]
    pub max_body: u64,
    /// Connections at once.
    pub max_connections: NonZeroU32,
    /// All request bodies in memory together, in bytes.
    #[serde(with = "units::size")]
    pub max_buffered: u64,
    /// For a whole request head.
    #[serde(with = "units::duration")]
    pub header_timeout: Duration,
    /// For a whole request body.
    #[serde(with = "units::duration")]
    pub body_timeout: Duration,
    /// HTTPS; the files are read again when they change.
    pub tls: Option<ServerTlsConfig>,
}

/// `server.tls`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerTlsConfig {
    /// PEM file of the certificate chain, leaf first.
    pub cert: PathBuf,
    /// PEM file of its key.
    pub key: PathBuf,
}

/// `from.webhook`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where it comes in; exact after one normalisation.
    pub path: String,
    /// How its sender proves itself.
    pub verify: VerifyConfig,
    /// Requests at most; beyond it 429. Enforced by the gateway's intake.
    pub rate_limit: Option<WebhookLimitConfig>,
    /// The repeat window; `None` is off. Used by the gateway's intake.
    #[serde(with = "units::duration_or_off")]
    pub dedupe: Option<Duration>,
    /// The answer to what was taken, where the scheme's own will not do.
    pub respond: Option<RespondConfig>,
    /// Many events from one request.
    pub split: Option<Expression>,
    /// How a request becomes an event.
    #[serde(default)]
    pub event: EventMapping,
}

/// `from.webhook.rate_limit`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookLimitConfig {
    /// Requests per period.
    pub limit: NonZeroU32,
    /// The period.
    #[serde(with = "units::duration")]
    pub period: Duration,
    /// Requests at once.
    pub burst: NonZeroU32,
}

/// `from.webhook.respond`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RespondConfig {
    /// A 2xx status; it is a yes.
    pub status: u16,
    /// Response headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// Response body, of the request; a string is sent as text where `Content-Type` says no JSON.
    /// Absent: the usual answer's body.
    pub body: Option<Expression>,
}

/// `from.webhook.verify`; exactly one.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyConfig {
    /// <https://www.standardwebhooks.com>, header names `webhook-*` and `svix-*`.
    StandardWebhooks(StandardWebhooksVerifyConfig),
    /// An HMAC of one's own making.
    Hmac(HmacVerifyConfig),
    /// Stripe.
    Stripe(PresetConfig),
    /// GitHub.
    Github(PresetConfig),
    /// Shopify.
    Shopify(PresetConfig),
    /// Slack.
    Slack(PresetConfig),
    /// Square; signs the URL.
    Square(PresetConfig),
    /// Twilio; signs the URL.
    Twilio(PresetConfig),
    /// A shared key in a header.
    ApiKey(ApiKeyConfig),
    /// HTTP Basic (RFC 7617).
    Basic(BasicConfig),
    /// No verification at all; said aloud.
    None(NoVerifyConfig),
}

/// `verify.standard_webhooks`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandardWebhooksVerifyConfig {
    /// Each `whsec_` and Base64; any may have signed, so that one can be replaced.
    pub secrets: Vec<Secret>,
    /// How far the timestamp may be from now, either way.
    #[serde(with = "units::duration")]
    pub tolerance: Duration,
}

/// `verify.hmac`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacVerifyConfig {
    /// Header that carries the signature, or several by commas or spaces.
    pub header: String,
    /// Hash.
    #[serde(default)]
    pub algorithm: HmacAlgorithm,
    /// How the signature is written.
    #[serde(default)]
    pub encoding: HmacEncoding,
    /// Before each signature.
    #[serde(default)]
    pub prefix: String,
    /// Keys, any of which may have signed.
    pub secrets: Vec<Secret>,
    /// How the keys are written.
    #[serde(default)]
    pub secret_encoding: SecretEncoding,
    /// What is signed: text with `{raw}`, `{timestamp}`, `{id}`, `{url}`; byte-exact.
    pub signed: String,
    /// Header that carries the timestamp: seconds, milliseconds or RFC 3339.
    pub timestamp_header: Option<String>,
    /// How far the timestamp may be from now, either way.
    #[serde(with = "units::duration")]
    pub tolerance: Duration,
    /// Header that carries the message's id.
    pub id_header: Option<String>,
}

/// `secret_encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretEncoding {
    /// The text's own bytes.
    #[default]
    Utf8,
    /// Hexadecimal.
    Hex,
    /// Standard Base64.
    Base64,
}

/// `verify.stripe` and its like.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresetConfig {
    /// Keys, any of which may have signed.
    pub secrets: Vec<Secret>,
}

/// `verify.api_key`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// Header that carries the key.
    pub header: String,
    /// Any of these.
    pub keys: Vec<Secret>,
}

/// `verify.none`; no options.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoVerifyConfig {}

impl VerifyConfig {
    /// How far a timestamp may be from now: a signed request can be sent again for twice as long.
    /// `None` where the scheme has no timestamp.
    #[must_use]
    pub fn tolerance(&self) -> Option<Duration> {
        match self {
            Self::StandardWebhooks(config) => Some(config.tolerance),
            Self::Hmac(config) => config.timestamp_header.as_ref().map(|_| config.tolerance),
            Self::Stripe(_) | Self::Slack(_) => Some(PRESET_TOLERANCE),
            Self::Github(_)
            | Self::Shopify(_)
            | Self::Square(_)
            | Self::Twilio(_)
            | Self::ApiKey(_)
            | Self::Basic(_)
            | Self::None(_) => None,
        }
    }

    /// Whether the scheme signs the URL, so that `server.public_url` must be known.
    #[must_use]
    pub fn signs_url(&self) -> bool {
        match self {
            Self::Square(_) | Self::Twilio(_) => true,
            Self::Hmac(config) => config.signed.contains("{url}"),
            _ => false,
        }
    }
}

impl fmt::Display for VerifyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StandardWebhooks(_) => "standard_webhooks",
            Self::Hmac(_) => "hmac",
            Self::Stripe(_) => "stripe",
            Self::Github(_) => "github",
            Self::Shopify(_) => "shopify",
            Self::Slack(_) => "slack",
            Self::Square(_) => "square",
            Self::Twilio(_) => "twilio",
            Self::ApiKey(_) => "api_key",
            Self::Basic(_) => "basic",
            Self::None(_) => "none",
        })
    }
}
