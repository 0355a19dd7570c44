//! `upstreams.<name>`.

use tidegate_adapters::expression::Place;

use super::{
    CLIENT_TLS, EMPTY, Key, Kind, NameRule, POSITIVE, Shape, UrlUse, WAIT_MAX_MS, default,
    optional, required,
};

/// One third-party API.
pub(super) static UPSTREAM: Shape = Shape::Map(&[
    required("url", Shape::Scalar(Kind::Url(UrlUse::Base))),
    default(
        "headers",
        EMPTY,
        Shape::Named(NameRule::Header, &Shape::Scalar(Kind::Template(Place::Header))),
    ),
    default("auth", EMPTY, Shape::Map(AUTH)),
    optional("tls", CLIENT_TLS),
    optional("proxy", Shape::Scalar(Kind::Url(UrlUse::Proxy))),
    default("timeout", "10s", Shape::Scalar(POSITIVE)),
    default("concurrency", "64", Shape::Scalar(Kind::Whole(1, 100_000))),
    default("rate_limit", "[]", Shape::ListOrOne(&RATE_LIMIT)),
    default("retry", EMPTY, Shape::Map(RETRY)),
    optional("retry_after", Shape::Scalar(Kind::Expression)),
    default("breaker", EMPTY, Shape::Off(&BREAKER)),
    default("egress", EMPTY, Shape::Map(EGRESS)),
]);

const EGRESS: &[Key] = &[default("allow", "[]", Shape::List(&Shape::Scalar(Kind::Network)))];

const AUTH: &[Key] = &[
    optional("bearer", Shape::Scalar(Kind::HeaderSecret)),
    optional("basic", Shape::Map(BASIC)),
    optional("oauth2", Shape::Map(OAUTH2)),
    default("headers", EMPTY, Shape::Named(NameRule::Header, &Shape::Scalar(Kind::HeaderSecret))),
    default("query", EMPTY, Shape::Named(NameRule::Free, &Shape::Scalar(Kind::Secret))),
    optional("standard_webhooks", Shape::Map(STANDARD_WEBHOOKS)),
    optional("hmac", Shape::Map(HMAC)),
];

pub(super) const BASIC: &[Key] = &[
    required("username", Shape::Scalar(Kind::Text)),
    required("password", Shape::Scalar(Kind::Secret)),
];

const STANDARD_WEBHOOKS: &[Key] = &[required("secret", Shape::Scalar(Kind::WebhookSecret))];

const OAUTH2: &[Key] = &[
    required("token_url", Shape::Scalar(Kind::Url(UrlUse::Token))),
    required("client_id", Shape::Scalar(Kind::Text)),
    required("client_secret", Shape::Scalar(Kind::Secret)),
    default("scopes", "[]", Shape::List(&Shape::Scalar(Kind::Text))),
    default("client_auth", "basic", Shape::Scalar(Kind::Word(&["basic", "body"]))),
    default("params", EMPTY, Shape::Named(NameRule::Free, &Shape::Scalar(Kind::AnyText))),
    default("lifetime", "50m", Shape::Scalar(POSITIVE)),
];

const HMAC: &[Key] = &[
    required("header", Shape::Scalar(Kind::Header)),
    default("algorithm", "sha256", Shape::Scalar(Kind::Word(&["sha1", "sha256", "sha512"]))),
    default("encoding", "hex", Shape::Scalar(Kind::Word(&["hex", "base64"]))),
    default("prefix", "''", Shape::Scalar(Kind::AnyText)),
    required("secret", Shape::Scalar(Kind::Secret)),
    default("signed", "'{raw}'", Shape::Scalar(Kind::Signed)),
    optional("timestamp_header", Shape::Scalar(Kind::Header)),
];

static RATE_LIMIT: Shape = Shape::Map(&[
    required("limit", Shape::Scalar(COUNT)),
    default("period", "1s", Shape::Scalar(POSITIVE)),
    default("burst", "1", Shape::Scalar(COUNT)),
    optional("key", Shape::Scalar(Kind::Template(Place::OptionalField))),
]);

/// How many of something, at least one.
pub(super) const COUNT: Kind = Kind::Whole(1, u32::MAX as u64);

/// `retry:` of an upstream.
pub(super) const RETRY: &[Key] = &[
    default("initial_delay", "1s", Shape::Scalar(POSITIVE)),
    default("factor", "2", Shape::Scalar(Kind::Number(1.0, 1000.0))),
    default("max_delay", "15m", Shape::Scalar(Kind::Duration(1, WAIT_MAX_MS))),
    default("jitter", "0.2", Shape::Scalar(Kind::Number(0.0, 1.0))),
    default("attempts", "unlimited", Shape::Scalar(Kind::Attempts)),
    default("within", "3d", Shape::Scalar(Kind::DurationOrOff)),
    default("retry_after_max", "1h", Shape::Scalar(Kind::Duration(0, WAIT_MAX_MS))),
];

static BREAKER: Shape = Shape::Map(&[
    default("failures", "5", Shape::Scalar(COUNT)),
    default("open", "10s", Shape::Scalar(POSITIVE)),
    default("open_max", "5m", Shape::Scalar(POSITIVE)),
]);
