//! `tests.<name>`: what a route is given, and what it is to make of it.

use super::{EMPTY, EVER, Key, Kind, NameRule, Shape, default, optional, required};

/// One test. What `expect` does not mention is not looked at, except the outcome.
pub(super) static TEST: Shape = Shape::Map(&[
    required("route", Shape::Scalar(Kind::Text)),
    default("now", "'2026-01-01T00:00:00Z'", Shape::Scalar(Kind::Text)),
    required("given", Shape::OneOf(GIVEN, None)),
    optional("answers", Shape::List(&ANSWER)),
    default("expect", EMPTY, Shape::Map(EXPECT)),
]);

const GIVEN: &[Key] = &[
    optional("event", FREE),
    optional("message", Shape::Map(MESSAGE)),
    optional("webhook", Shape::Map(WEBHOOK)),
];

/// A message as it lies on the RabbitMQ queue.
const MESSAGE: &[Key] = &[
    optional("body", Shape::Any),
    optional("raw", TEXT),
    optional("content_type", TEXT),
    optional("content_encoding", TEXT),
    default("headers", EMPTY, FREE),
    default("properties", EMPTY, FREE),
    optional("routing_key", TEXT),
    optional("exchange", TEXT),
];

/// A request to the route's path; what proves it is added, unless it is there already.
const WEBHOOK: &[Key] = &[
    default("query", "''", TEXT),
    default("headers", EMPTY, HEADERS),
    optional("body", Shape::Any),
    optional("form", FIELDS),
    optional("raw", TEXT),
    default("sign", "true", Shape::Scalar(Kind::Flag)),
];

/// What one request is answered.
static ANSWER: Shape = Shape::Map(&[
    optional("status", STATUS),
    default("headers", EMPTY, HEADERS),
    optional("body", Shape::Any),
    optional("raw", TEXT),
    optional("fault", Shape::Scalar(Kind::Word(&FAULTS))),
]);

/// Attempt results that are no answer: the network's first, then RabbitMQ's.
pub(crate) const FAULTS: [&str; 10] = [
    "dns",
    "connect",
    "tls",
    "timeout",
    "reset",
    "protocol",
    "refused_address",
    "unroutable",
    "nack",
    "ambiguous",
];

const EXPECT: &[Key] = &[
    default("outcome", "delivered", Shape::ListOrOne(&Shape::Scalar(Kind::Word(&OUTCOMES)))),
    optional("reason", Shape::Scalar(Kind::Word(&REASONS))),
    optional("key", Shape::Any),
    optional("requests", Shape::List(&REQUEST)),
    optional("published", Shape::List(&PUBLISHED)),
    optional("waits", Shape::List(&Shape::Scalar(Kind::Duration(0, EVER)))),
    optional("answer", Shape::Map(RESPONSE)),
];

/// What may become of what a route is given; of each event, where there are several.
pub(crate) const OUTCOMES: [&str; 6] =
    ["delivered", "pending", "dead", "filtered", "refused", "nothing"];

const REASONS: [&str; 6] =
    ["rejected", "exhausted", "expired", "invalid", "expression", "unroutable"];

static REQUEST: Shape = Shape::Map(&[
    optional("method", Shape::Scalar(Kind::Method)),
    optional("path", Shape::Scalar(Kind::Text)),
    default("headers", EMPTY, FREE),
    optional("body", Shape::Any),
    optional("form", FIELDS),
    optional("raw", TEXT),
]);

static PUBLISHED: Shape = Shape::Map(&[
    optional("exchange", Shape::Scalar(Kind::Text)),
    optional("key", TEXT),
    optional("content_type", TEXT),
    default("headers", EMPTY, FREE),
    optional("event", FREE),
    optional("body", Shape::Any),
    optional("raw", TEXT),
]);

const RESPONSE: &[Key] = &[
    optional("status", STATUS),
    default("headers", EMPTY, FREE),
    optional("body", Shape::Any),
    optional("raw", TEXT),
];

const STATUS: Shape = Shape::Scalar(Kind::Whole(200, 599));
const TEXT: Shape = Shape::Scalar(Kind::AnyText);
const FREE: Shape = Shape::Named(NameRule::Free, &Shape::Any);
const FIELDS: Shape = Shape::Named(NameRule::Free, &TEXT);
const HEADERS: Shape = Shape::Named(NameRule::Header, &TEXT);
