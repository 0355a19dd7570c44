//! HTTP: what both ends share. Its ends: [`caller`], and [`receiver`], which takes [`webhook`]s.

pub mod auth;
pub mod caller;
pub mod egress;
mod hmac;
pub mod receiver;
pub mod target;
pub mod tls;
pub mod verify;
pub mod webhook;

pub use self::{
    auth::config::{
        AuthConfig, BasicConfig, ClientAuth, HmacAlgorithm, HmacConfig, HmacEncoding, OAuth2Config,
        StandardWebhooksConfig,
    },
    caller::Api,
    receiver::{Hooks, Receiver, ReceiverHandle},
    webhook::{Hook, ServerConfig, WebhookConfig, WebhookLimitConfig},
};

#[cfg(test)]
mod expressions;
#[cfg(test)]
pub(crate) mod testing;

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use url::Url;

use crate::{
    TraceContext,
    expression::{Expression, Template},
};

/// What we call ourselves.
pub(crate) const USER_AGENT: &str = concat!("tidegate/", env!("CARGO_PKG_VERSION"));

/// Something in an upstream or an HTTP target that cannot work. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    /// Where, within the upstream or the target: `auth.hmac.signed`.
    pub key: String,
    /// What is wrong, and what to write instead.
    pub problem: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

/// The parts of `upstreams.<name>` that the wire needs. Limits and retries are the gateway's.
#[derive(Clone, serde::Deserialize)]
pub struct ApiConfig {
    /// Base address; routes append their path. Its user part, if any, is a secret and sent as
    /// Basic credentials.
    pub url: Url,
    /// On every request.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// Credentials.
    #[serde(default)]
    pub auth: AuthConfig,
    /// Private CA and client certificate.
    pub tls: Option<TlsConfig>,
    /// Forward proxy; the environment's are ignored. The proxy resolves names then, so that
    /// `egress` holds for addresses written as such, and for nothing else.
    pub proxy: Option<Url>,
    /// Seconds to wait, for providers that send no `Retry-After`; works on the answer.
    pub retry_after: Option<Expression>,
    /// Which private addresses may be called.
    #[serde(default)]
    pub egress: EgressConfig,
}

/// `tls:` of an upstream, or of the broker.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM file of further certificate authorities; with it the system's are not trusted.
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate chain.
    pub cert: Option<PathBuf>,
    /// PEM file of its key.
    pub key: Option<PathBuf>,
}

/// `egress:`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// Networks exempt from the refusal of private, loopback, link-local and metadata addresses.
    pub allow: Vec<ipnet::IpNet>,
}

/// `to.http`.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTargetConfig {
    /// Name of the upstream.
    pub upstream: String,
    /// Request method.
    #[serde(with = "crate::units::method")]
    pub method: http::Method,
    /// Appended to the upstream's url.
    #[serde(default)]
    pub path: Option<Template>,
    /// Query parameters.
    #[serde(default)]
    pub query: BTreeMap<String, Template>,
    /// Request headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// What to send.
    #[serde(default)]
    pub body: BodyConfig,
    /// How the body is written.
    #[serde(default)]
    pub encode: Encode,
    /// Statuses that mean delivered.
    pub success: Vec<StatusPattern>,
    /// What is tried again.
    pub retry_on: Vec<RetryOn>,
    /// Looks at the answer: `delivered`, `retry`, `dead` or null.
    pub outcome: Option<Expression>,
    /// Header for the idempotency key; `None` is off.
    #[serde(with = "crate::units::text_or_off")]
    pub idempotency_header: Option<String>,
    /// How much of the answer is read.
    #[serde(with = "crate::units::size")]
    pub max_response: u64,
}

/// `body:`.
#[derive(Debug, Clone, Default)]
pub enum BodyConfig {
    /// Absent: the event's data as it came, byte for byte.
    #[default]
    Data,
    /// `none`: no body.
    Empty,
    /// What the expression gives.
    Expression(Expression),
}

/// `encode:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encode {
    /// `application/json`.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`; the body is an object of scalars or lists of them.
    Form,
    /// `text/plain; charset=utf-8`; the body is a string.
    Text,
}

/// A status code, or a class of them: `404`, `5xx`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusPattern {
    /// One code.
    Code(u16),
    /// All of a hundred: 2 for `2xx`.
    Class(u16),
}

/// An entry of `retry_on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// These answers.
    Status(StatusPattern),
    /// Nothing was sent: dns, connect, tls.
    Connect,
    /// Timeout, reset or protocol error after sending.
    Ambiguous,
    /// The default list, for naming it in a longer one.
    Default,
}

/// A rendered HTTP request. Credentials and signatures are added by the caller at sending time.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// Request method.
    pub method: http::Method,
    /// Full address, route's query included.
    pub url: Url,
    /// Headers, all but credentials.
    pub headers: http::HeaderMap,
    /// Body as it goes out.
    pub body: Bytes,
    /// What reads the answer; shared by all requests of the route.
    pub answer: Arc<caller::AnswerRules>,
    /// How far it got; shared by its clones.
    pub progress: caller::Progress,
}

impl HttpRequest {
    /// Puts `trace` on the wire, unless the route or its upstream sets a `traceparent` itself.
    pub fn carry(&mut self, trace: &TraceContext) {
        const PARENT: HeaderName = HeaderName::from_static("traceparent");
        const STATE: HeaderName = HeaderName::from_static("tracestate");
        const FITS: &str = "a trace context is printable ASCII";
        if self.headers.contains_key(PARENT) {
            return;
        }
        let parent = HeaderValue::try_from(trace.to_string()).expect(FITS);
        self.headers.insert(PARENT, parent);
        if let Some(state) = trace.state() {
            self.headers.insert(STATE, HeaderValue::from_str(state).expect(FITS));
        }
    }
}

impl fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiConfig")
            .field("url", &without_user(&self.url))
            .field("headers", &self.headers)
            .field("auth", &self.auth)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy.as_ref().map(without_user))
            .field("retry_after", &self.retry_after)
            .field("egress", &self.egress)
            .finish()
    }
}

impl Encode {
    /// The `Content-Type` that goes with it.
    #[must_use]
    pub fn content_type(self) -> http::HeaderValue {
        http::HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Form => "application/x-www-form-urlencoded",
            Self::Text => "text/plain; charset=utf-8",
        })
    }
}

impl RetryOn {
    /// What `default` stands for.
    pub const DEFAULT: [Self; 6] = [
        Self::Status(StatusPattern::Code(408)),
        Self::Status(StatusPattern::Code(425)),
        Self::Status(StatusPattern::Code(429)),
        Self::Status(StatusPattern::Class(5)),
        Self::Connect,
        Self::Ambiguous,
    ];
}

/// Reads a header name a user may set.
///
/// # Errors
/// When it is no name, or one that frames the request and is therefore the HTTP client's.
pub(crate) fn header_name(key: &str, name: &str) -> Result<http::HeaderName, ConfigError> {
    const FRAMING: [&str; 11] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "upgrade",
        "expect",
        "http2-settings",
    ];
    let parsed = http::HeaderName::try_from(name)
        .map_err(|_| ConfigError::new(key, format!("`{name}` is not a header name")))?;
    if FRAMING.contains(&parsed.as_str()) {
        let problem = format!("`{name}` is set by the HTTP client and cannot be chosen");
        return Err(ConfigError::new(key, problem));
    }
    Ok(parsed)
}

/// The address a URL names directly, in whatever spelling; such a host never meets a resolver.
pub(crate) fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        url::Host::Ipv4(address) => Some(address.into()),
        url::Host::Ipv6(address) => Some(address.into()),
        url::Host::Domain(_) => None,
    }
}

fn without_user(url: &Url) -> String {
    let host = &url[url::Position::BeforeHost..];
    let user = if url.has_authority() && !url.username().is_empty() || url.password().is_some() {
        "***@"
    } else {
        ""
    };
    format!("{}://{user}{host}", url.scheme())
}

impl StatusPattern {
    /// Whether `status` is one of these.
    #[must_use]
    pub fn matches(self, status: u16) -> bool {
        match self {
            Self::Code(code) => status == code,
            Self::Class(class) => status / 100 == class,
        }
    }
}

impl std::str::FromStr for StatusPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let class = text.strip_suffix("xx").and_then(|digit| digit.parse().ok());
        match (class, text.parse()) {
            (Some(class @ 1..=5), _) => Ok(Self::Class(class)),
            (None, Ok(code @ 100..=599)) if text.len() == 3 => Ok(Self::Code(code)),
            _ => Err(format!("`{text}` is not a status: write 404 or 5xx")),
        }
    }
}

impl std::str::FromStr for RetryOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "connect" => Ok(Self::Connect),
            "ambiguous" => Ok(Self::Ambiguous),
            "default" => Ok(Self::Default),
            _ => text.parse().map(Self::Status).map_err(|_| {
                format!("`{text}` is none of: a status (404, 5xx), connect, ambiguous, default")
            }),
        }
    }
}

impl<'de> serde::Deserialize<'de> for StatusPattern {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        crate::units::parsed(from)
    }
}

impl<'de> serde::Deserialize<'de> for RetryOn {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        crate::units::parsed(from)
    }
}

impl<'de> serde::Deserialize<'de> for BodyConfig {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "none" {
            return Ok(Self::Empty);
        }
        Expression::compile(&text).map(Self::Expression).map_err(serde::de::Error::custom)
    }
}
