//! `auth:` of an upstream, as it is written.

use std::{collections::BTreeMap, fmt, time::Duration};

use url::Url;

use crate::{http::without_user, secret::Secret};

/// `auth:`; one of bearer, basic, oauth2, and besides it headers, query and one signature.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// `Authorization: Bearer …`.
    pub bearer: Option<Secret>,
    /// `Authorization: Basic …` (RFC 7617).
    pub basic: Option<BasicConfig>,
    /// Client credentials (RFC 6749 §4.4).
    pub oauth2: Option<OAuth2Config>,
    /// Further headers with secret values.
    pub headers: BTreeMap<String, Secret>,
    /// Further query parameters with secret values.
    pub query: BTreeMap<String, Secret>,
    /// Signs each request as Standard Webhooks do.
    pub standard_webhooks: Option<StandardWebhooksConfig>,
    /// Signs each request with a plain HMAC.
    pub hmac: Option<HmacConfig>,
}

/// `auth.basic`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicConfig {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// `auth.oauth2`.
#[derive(Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth2Config {
    /// Where tokens come from; covered by `egress` too.
    pub token_url: Url,
    /// Client id.
    pub client_id: String,
    /// Client secret.
    pub client_secret: Secret,
    /// Asked for, joined by spaces.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// How the client shows itself at the token endpoint.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// Further form parameters (`audience`, `resource`).
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// How long a token lives when the answer does not say.
    #[serde(with = "crate::units::duration")]
    pub lifetime: Duration,
}

/// `client_auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// HTTP Basic (RFC 6749 §2.3.1).
    #[default]
    Basic,
    /// In the form body.
    Body,
}

/// `auth.standard_webhooks` (<https://www.standardwebhooks.com>).
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandardWebhooksConfig {
    /// `whsec_` and Base64.
    pub secret: Secret,
}

/// `auth.hmac`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacConfig {
    /// Header that carries the signature.
    pub header: String,
    /// Hash.
    #[serde(default)]
    pub algorithm: HmacAlgorithm,
    /// How the signature is written.
    #[serde(default)]
    pub encoding: HmacEncoding,
    /// Before the signature.
    #[serde(default)]
    pub prefix: String,
    /// The key.
    pub secret: Secret,
    /// What is signed: text with `{raw}`, `{timestamp}`, `{id}`, `{url}`; byte-exact.
    pub signed: String,
    /// Header that carries the timestamp, in seconds.
    pub timestamp_header: Option<String>,
}

/// HMAC hash functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HmacAlgorithm {
    /// Only where a provider still needs it.
    Sha1,
    /// The usual one.
    #[default]
    Sha256,
    /// The long one.
    Sha512,
}

/// How an HMAC is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HmacEncoding {
    /// Lower-case hexadecimal.
    #[default]
    Hex,
    /// Standard Base64 with padding.
    Base64,
}

impl fmt::Debug for OAuth2Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2Config")
            .field("token_url", &without_user(&self.token_url))
            .field("client_id", &self.client_id)
            .field("client_secret", &self.client_secret)
            .field("scopes", &self.scopes)
            .field("client_auth", &self.client_auth)
            .field("params", &self.params)
            .field("lifetime", &self.lifetime)
            .finish()
    }
}
