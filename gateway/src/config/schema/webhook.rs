//! `from.webhook`.

use tidegate_adapters::expression::Place;

use super::{
    EMPTY, Key, Kind, NameRule, POSITIVE, Shape, default, optional, required,
    route::EVENT,
    upstream::{BASIC, COUNT},
};

/// A third party's webhooks. Without `event.type` a route takes in CloudEvents only; what its
/// requests are, only they can tell. Without `respond` the scheme answers as its provider wants.
pub(super) const WEBHOOK: &[Key] = &[
    required("path", Shape::Scalar(Kind::WebhookPath)),
    required("verify", Shape::OneOf(VERIFY, None)),
    optional("rate_limit", Shape::Map(RATE_LIMIT)),
    default("dedupe", "24h", Shape::Scalar(Kind::DurationOrOff)),
    optional("respond", Shape::Map(RESPOND)),
    optional("split", Shape::Scalar(Kind::Expression)),
    default("event", EMPTY, Shape::Map(EVENT)),
];

const VERIFY: &[Key] = &[
    optional("standard_webhooks", Shape::Map(STANDARD_WEBHOOKS)),
    optional("hmac", Shape::Map(HMAC)),
    optional("stripe", Shape::Map(PRESET)),
    optional("github", Shape::Map(PRESET)),
    optional("shopify", Shape::Map(PRESET)),
    optional("slack", Shape::Map(PRESET)),
    optional("square", Shape::Map(PRESET)),
    optional("twilio", Shape::Map(PRESET)),
    optional("api_key", Shape::Map(API_KEY)),
    optional("basic", Shape::Map(BASIC)),
    optional("none", Shape::Map(&[])),
];

const STANDARD_WEBHOOKS: &[Key] = &[
    required("secrets", Shape::List(&Shape::Scalar(Kind::WebhookSecret))),
    default("tolerance", TOLERANCE, Shape::Scalar(POSITIVE)),
];

const HMAC: &[Key] = &[
    required("header", Shape::Scalar(Kind::Header)),
    default("algorithm", "sha256", Shape::Scalar(Kind::Word(&["sha1", "sha256", "sha512"]))),
    default("encoding", "hex", Shape::Scalar(Kind::Word(&["hex", "base64"]))),
    default("prefix", "''", Shape::Scalar(Kind::AnyText)),
    required("secrets", SECRETS),
    default("secret_encoding", "utf8", Shape::Scalar(Kind::Word(&["utf8", "hex", "base64"]))),
    default("signed", "'{raw}'", Shape::Scalar(Kind::Signed)),
    optional("timestamp_header", Shape::Scalar(Kind::Header)),
    default("tolerance", TOLERANCE, Shape::Scalar(POSITIVE)),
    optional("id_header", Shape::Scalar(Kind::Header)),
];

const PRESET: &[Key] = &[required("secrets", SECRETS)];

const API_KEY: &[Key] = &[
    default("header", "X-Api-Key", Shape::Scalar(Kind::Header)),
    required("keys", Shape::List(&Shape::Scalar(Kind::HeaderSecret))),
];

const SECRETS: Shape = Shape::List(&Shape::Scalar(Kind::Secret));

/// What Standard Webhooks and its like allow.
const TOLERANCE: &str = "5m";

const RATE_LIMIT: &[Key] = &[
    required("limit", Shape::Scalar(COUNT)),
    default("period", "1s", Shape::Scalar(POSITIVE)),
    default("burst", "1", Shape::Scalar(COUNT)),
];

const RESPOND: &[Key] = &[
    default("status", "202", Shape::Scalar(Kind::Whole(100, 599))),
    default(
        "headers",
        EMPTY,
        Shape::Named(NameRule::Header, &Shape::Scalar(Kind::Template(Place::Header))),
    ),
    optional("body", Shape::Scalar(Kind::Expression)),
];
