//! The YAML of `tidegate mock`.
//!
//! ```yaml
//! apis:
//!   loyalty:
//!     listen: 127.0.0.1:9102
//!     latency: 20ms
//!     answer: { status: 201, headers: {}, body: '{"ok": true}' }
//!     rate_limit: { limit: 20, period: 1s, answer: { status: 429 } }
//!     errors: { ratio: 0.05, answer: { status: 500 } }
//!     outages: [{ after: 5s, for: 10s, answer: { status: 503 } }]
//!     script: [{ status: 500 }, { status: 200 }]      # the first answers; then as above
//!     webhooks:                                       # sent after each request answered 2xx
//!       - to: http://127.0.0.1:8080/hooks/loyalty
//!         after: 100ms
//!         body: '{type: "points.awarded", reference: .body.reference}'
//!         sign: { standard_webhooks: { secret: whsec_… } }    # or stripe: { secret: whsec_… }
//! ```

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use serde::Deserialize;
use tidegate_adapters::units;

pub use super::webhook::{Signature, WebhookConfig};

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MockConfig {
    /// By name.
    pub apis: BTreeMap<String, ApiConfig>,
}

/// One mock API.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where it listens; port 0 is any free one.
    pub listen: SocketAddr,
    /// Slept before each answer.
    #[serde(default, with = "units::duration")]
    pub latency: Duration,
    /// The usual answer.
    #[serde(default)]
    pub answer: AnswerConfig,
    /// More than so many requests in a sliding period get another answer.
    pub rate_limit: Option<RateLimitConfig>,
    /// Some requests, by chance, get another answer.
    pub errors: Option<ErrorsConfig>,
    /// Times, from the start, when all requests get another answer.
    #[serde(default)]
    pub outages: Vec<OutageConfig>,
    /// The first answers, one each.
    #[serde(default)]
    pub script: Vec<AnswerConfig>,
    /// What it sends after each request that it answered 2xx.
    #[serde(default)]
    pub webhooks: Vec<WebhookConfig>,
}

/// One answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnswerConfig {
    /// Status code.
    pub status: u16,
    /// Headers; `Content-Type: application/json` unless given.
    pub headers: BTreeMap<String, String>,
    /// Body as it is sent.
    pub body: String,
}

/// `rate_limit`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Requests per period.
    pub limit: u32,
    /// The period.
    #[serde(with = "units::duration")]
    pub period: Duration,
    /// What the others get.
    #[serde(default = "throttled")]
    pub answer: AnswerConfig,
}

/// `errors`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorsConfig {
    /// Share of the requests, 0 to 1.
    pub ratio: f64,
    /// What they get.
    #[serde(default = "failed")]
    pub answer: AnswerConfig,
}

/// `outages`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutageConfig {
    /// From the start of the mock.
    #[serde(with = "units::duration")]
    pub after: Duration,
    /// How long.
    #[serde(rename = "for", with = "units::duration")]
    pub lasts: Duration,
    /// What requests get meanwhile.
    #[serde(default = "unavailable")]
    pub answer: AnswerConfig,
}

impl ApiConfig {
    /// An API that answers 200 `{}` at once.
    #[must_use]
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            latency: Duration::ZERO,
            answer: AnswerConfig::default(),
            rate_limit: None,
            errors: None,
            outages: Vec::new(),
            script: Vec::new(),
            webhooks: Vec::new(),
        }
    }
}

impl AnswerConfig {
    /// An answer with this status and an empty object.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self { status, headers: BTreeMap::new(), body: "{}".to_owned() }
    }
}

impl Default for AnswerConfig {
    fn default() -> Self {
        Self::status(200)
    }
}

impl OutageConfig {
    pub(super) fn covers(&self, elapsed: Duration) -> bool {
        elapsed >= self.after && elapsed < self.after + self.lasts
    }
}

/// Reads the file at `path`.
///
/// # Errors
/// One sentence with file, line and column.
pub fn load(path: &Path) -> Result<MockConfig, String> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    parse(&shown, &text)
}

/// Reads `text`, which came from `shown`.
///
/// # Errors
/// As [`load`].
pub fn parse(shown: &str, text: &str) -> Result<MockConfig, String> {
    let config: MockConfig =
        serde_saphyr::from_str(text).map_err(|error| format!("{shown}: {error}"))?;
    for (name, api) in &config.apis {
        api.check().map_err(|wrong| format!("{shown}: apis.{name}: {wrong}"))?;
    }
    if config.apis.is_empty() {
        return Err(format!("{shown}: apis: there is none to mock"));
    }
    Ok(config)
}

impl ApiConfig {
    fn check(&self) -> Result<(), String> {
        let limit = self.rate_limit.iter().map(|limit| &limit.answer);
        let errors = self.errors.iter().map(|errors| &errors.answer);
        let outages = self.outages.iter().map(|outage| &outage.answer);
        let answers = [&self.answer].into_iter().chain(limit).chain(errors).chain(outages);
        for answer in answers.chain(&self.script) {
            http::StatusCode::from_u16(answer.status)
                .ok()
                .filter(|status| status.as_u16() >= 200)
                .ok_or_else(|| format!("status {} is no final HTTP status", answer.status))?;
            for (name, value) in &answer.headers {
                http::HeaderName::try_from(name)
                    .map_err(|_| format!("`{name}` is no header name"))?;
                http::HeaderValue::try_from(value)
                    .map_err(|_| format!("header `{name}`: `{value}` cannot be sent"))?;
            }
        }
        for webhook in &self.webhooks {
            for (name, value) in &webhook.headers {
                http::HeaderName::try_from(name)
                    .map_err(|_| format!("webhooks: `{name}` is no header name"))?;
                http::HeaderValue::try_from(value)
                    .map_err(|_| format!("webhooks: header `{name}`: `{value}` cannot be sent"))?;
            }
        }
        match &self.errors {
            Some(errors) if !(0.0..=1.0).contains(&errors.ratio) => {
                Err(format!("errors.ratio is {}, not between 0 and 1", errors.ratio))
            }
            _ => Ok(()),
        }
    }
}

fn throttled() -> AnswerConfig {
    let headers = BTreeMap::from([("Retry-After".to_owned(), "1".to_owned())]);
    AnswerConfig { headers, ..AnswerConfig::status(429) }
}

fn failed() -> AnswerConfig {
    AnswerConfig::status(500)
}

fn unavailable() -> AnswerConfig {
    AnswerConfig::status(503)
}
