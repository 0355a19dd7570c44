//! Configuration: load, interpolate, merge, validate, report.
//!
//! ```text
//! files ─► tree of places ─► interpolate ─► merge ─► environment over it ─► walk the schema
//!                                                                                │
//!              problems, all at once, each with its line ◄───────────────────────┤
//!              serde fills the types, names and settings agree ◄─────────────────┘
//! ```
//!
//! serde stops at its first error; a user wants all of them, each with its line. So the tree is
//! walked first, against a schema of our own, and serde is only given what is known good. The
//! types below are dumb: what they describe is built elsewhere, by `X::new(config)`.

mod address;
mod cases;
mod check;
mod environment;
mod fingerprint;
mod interpolate;
mod load;
mod names;
mod quoting;
mod reference;
mod report;
mod route;
mod scalar;
mod schema;
mod text;
mod tree;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU32,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;
use tidegate_adapters::{
    expression::Template,
    http::{ApiConfig, ServerConfig},
    rabbitmq::BrokerConfig,
    secret::{Mask, Secret},
    units,
};
use url::Url;

pub use cases::{
    Expect, ExpectedAnswer, ExpectedMessage, ExpectedRequest, Given, GivenMessage, GivenWebhook,
    ScriptedAnswer, TestConfig,
};
pub(crate) use check::in_words;
pub use environment::Environment;
pub use fingerprint::Fingerprints;
pub(crate) use load::files_in;
pub use load::{load, load_over};
pub use reference::{every_key, schema_json};
pub(crate) use report::did_you_mean;
pub use report::{Place, Problem, Report, to_json};
pub use route::{OnDead, ReplyConfig, ReplyOn, RouteConfig, Source, Target};
pub use schema::{KeyName, key_names};

/// What [`load`] gives.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is odd about it, sorted by place, and harmless.
    pub warnings: Vec<Problem>,
    /// Every file it was read from or names: a change of one may change it.
    pub files: BTreeSet<PathBuf>,
}

/// A configuration that validated: every name resolves, every expression compiled.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything but routes and upstreams.
    pub settings: Settings,
    /// By name.
    pub upstreams: BTreeMap<Arc<str>, UpstreamConfig>,
    /// By name.
    pub routes: BTreeMap<Arc<str>, RouteConfig>,
    /// What the routes are tested by, by name; a running gateway has no use for them.
    pub tests: BTreeMap<String, TestConfig>,
    /// Every secret value met while loading.
    pub mask: Mask,
    /// What tells it from another.
    pub fingerprints: Fingerprints,
    /// 16 hexadecimal digits that are the same wherever the same is configured; secrets left out.
    pub hash: String,
}

/// What is neither a route nor an upstream.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The public listener: webhooks.
    pub server: ServerConfig,
    /// Health, metrics, API.
    pub admin: AdminConfig,
    /// The durable queue.
    pub queue: QueueConfig,
    /// Where events come from.
    pub broker: Broker,
    /// Stopping.
    pub shutdown: ShutdownConfig,
    /// Logs.
    pub log: LogConfig,
    /// Traces; none without.
    pub telemetry: Option<TelemetryConfig>,
}

/// `admin:`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Where it listens; beyond loopback only with tokens.
    pub listen: SocketAddr,
    /// By name; the name is what the log shows.
    #[serde(default)]
    pub tokens: BTreeMap<String, TokenConfig>,
}

/// One admin token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// The bearer token.
    pub token: Secret,
    /// What it may do.
    pub role: Role,
}

/// What an admin token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// GET.
    Read,
    /// Everything.
    Operate,
}

/// `queue:`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueConfig {
    /// The embedded store.
    pub sqlite: SqliteConfig,
    /// Live data at most.
    #[serde(with = "units::size")]
    pub max_size: u64,
    /// Share of `max_size` one route's backlog may take; in (0, 1].
    pub max_route_share: f64,
    /// How long finished deliveries are kept.
    pub keep: KeepConfig,
}

/// `queue.sqlite`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SqliteConfig {
    /// The queue file; its folder is made when missing.
    pub path: PathBuf,
}

/// `queue.keep`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepConfig {
    /// Delivered and discarded ones.
    #[serde(with = "units::duration")]
    pub delivered: Duration,
    /// Dead ones.
    #[serde(with = "units::duration")]
    pub dead: Duration,
}

/// `broker:`; exactly one.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Broker {
    /// RabbitMQ.
    Rabbitmq(BrokerConfig),
    /// Topic exchanges in process.
    Embedded(EmbeddedConfig),
}

/// `broker.embedded`; no options.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedConfig {}

/// `shutdown:`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownConfig {
    /// For what is in flight.
    #[serde(with = "units::duration")]
    pub drain: Duration,
}

/// `log:`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Our own level; dependencies log at warn at most.
    pub level: LogLevel,
    /// How lines are written.
    pub format: LogFormat,
}

/// `log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what heals by itself.
    Warn,
    /// And state changes.
    Info,
    /// And single attempts.
    Debug,
    /// And everything.
    Trace,
}

/// `log.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// `telemetry:`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// The collector: OTLP over gRPC where it names no path, else over HTTP to that path.
    pub otlp: Url,
    /// The share of traces that are recorded, of those that begin here; in [0, 1].
    pub sample: f64,
}

/// `upstreams.<name>`.
#[derive(Debug, Clone, Deserialize)]
pub struct UpstreamConfig {
    /// What the wire needs.
    #[serde(flatten)]
    pub api: ApiConfig,
    /// One attempt, connect included.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Attempts at once.
    pub concurrency: NonZeroU32,
    /// All of them must allow; written as one or a list.
    #[serde(default)]
    pub rate_limit: Vec<RateLimitConfig>,
    /// Backoff and when to give up.
    pub retry: RetryConfig,
    /// `None` is off.
    pub breaker: Option<BreakerConfig>,
}

/// One entry of `rate_limit`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimitConfig {
    /// Requests per period.
    pub limit: NonZeroU32,
    /// The period.
    #[serde(with = "units::duration")]
    pub period: Duration,
    /// Requests at once.
    pub burst: NonZeroU32,
    /// One limit per value; a null value is not counted by this one.
    pub key: Option<Template>,
}

/// `retry:`; of an upstream, and the whole of it again where a route overrides some keys.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// Before the second attempt.
    #[serde(with = "units::duration")]
    pub initial_delay: Duration,
    /// Each delay is this times the one before; at least 1.
    pub factor: f64,
    /// No delay is longer.
    #[serde(with = "units::duration")]
    pub max_delay: Duration,
    /// Each delay is stretched or shrunk by up to this share; in [0, 1].
    pub jitter: f64,
    /// `None` is unlimited.
    #[serde(deserialize_with = "attempts_or_unlimited")]
    pub attempts: Option<NonZeroU32>,
    /// Counts from the first attempt, looked at after a failed one; `None` is off.
    #[serde(with = "units::duration_or_off")]
    pub within: Option<Duration>,
    /// No `Retry-After` is heeded beyond this.
    #[serde(with = "units::duration")]
    pub retry_after_max: Duration,
}

/// `breaker:`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerConfig {
    /// Consecutive failures that open it.
    pub failures: NonZeroU32,
    /// How long it stays open before the first probe.
    #[serde(with = "units::duration")]
    pub open: Duration,
    /// Doubling with each failed probe up to this.
    #[serde(with = "units::duration")]
    pub open_max: Duration,
}

fn attempts_or_unlimited<'de, D>(from: D) -> Result<Option<NonZeroU32>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Attempts {
        Limited(NonZeroU32),
        Word(Unlimited),
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Unlimited {
        Unlimited,
    }
    Ok(match Attempts::deserialize(from)? {
        Attempts::Limited(attempts) => Some(attempts),
        Attempts::Word(Unlimited::Unlimited) => None,
    })
}

#[cfg(test)]
mod tests;
