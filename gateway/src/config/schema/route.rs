//! `routes.<name>`.

use tidegate_adapters::expression::Place;

use super::{
    EMPTY, Key, Kind, MIB, NameRule, Presence, Shape, default, later, optional,
    publisher::{PUBLISHER, REPLY},
    required,
    upstream::RETRY,
    webhook::WEBHOOK,
};

/// One route. Its `retry` holds only the keys it overrides: the rest is the upstream's, or that of
/// [`super::publisher::RETRY`].
pub(super) static ROUTE: Shape = Shape::Map(&[
    optional("description", Shape::Scalar(Kind::AnyText)),
    required("from", Shape::OneOf(SOURCES, None)),
    optional("when", Shape::Scalar(Kind::Expression)),
    optional("order_by", Shape::Scalar(Kind::Expression)),
    default("on_dead", "continue", Shape::Scalar(Kind::Word(&["continue", "hold"]))),
    required("to", Shape::OneOf(TARGETS, None)),
    default("retry", EMPTY, Shape::Map(&OVERRIDES)),
    optional("reply", Shape::Map(REPLY)),
]);

const SOURCES: &[Key] = &[
    optional("rabbitmq", Shape::Map(CONSUMER)),
    optional("webhook", Shape::Map(WEBHOOK)),
    later("command", "take in from `rabbitmq` or `webhook`"),
    later("outbox", "take in from `rabbitmq` or `webhook`"),
];

const TARGETS: &[Key] = &[
    optional("http", Shape::Map(HTTP)),
    optional("rabbitmq", Shape::Map(PUBLISHER)),
    later("view", "let out to `http` or `rabbitmq`"),
];

/// The keys of an upstream's `retry`, without their defaults.
static OVERRIDES: [Key; RETRY.len()] = without_defaults();

const fn without_defaults() -> [Key; RETRY.len()] {
    let mut keys = [RETRY[0]; RETRY.len()];
    let mut n = 0;
    while n < RETRY.len() {
        keys[n] = Key { name: RETRY[n].name, presence: Presence::Optional, shape: RETRY[n].shape };
        n += 1;
    }
    keys
}

/// `queue` has a default too, `tidegate.<route>`, which the walk cannot know.
const CONSUMER: &[Key] = &[
    optional("queue", Shape::Scalar(Kind::ShortText)),
    default("bind", "[]", Shape::List(&BIND)),
    default("arguments", EMPTY, Shape::Named(NameRule::Argument, &Shape::Any)),
    default("declare", "true", Shape::Scalar(Kind::Flag)),
    default("prefetch", "1000", Shape::Scalar(Kind::Whole(1, u16::MAX as u64))),
    default("max_message", "16MiB", Shape::Scalar(Kind::Size(1, 512 * MIB))),
    default("dedupe", "10m", Shape::Scalar(Kind::DurationOrOff)),
    default("event", EMPTY, Shape::Map(EVENT)),
];

static BIND: Shape = Shape::Map(&[
    required("exchange", Shape::Scalar(Kind::ShortText)),
    required("key", Shape::Scalar(Kind::ShortText)),
]);

/// Absent ones have the default of the envelope that arrives.
pub(super) const EVENT: &[Key] = &[
    optional("id", Shape::Scalar(Kind::Template(Place::Field))),
    optional("source", Shape::Scalar(Kind::Template(Place::Field))),
    optional("type", Shape::Scalar(Kind::Template(Place::Field))),
    optional("subject", Shape::Scalar(Kind::Template(Place::OptionalField))),
    optional("time", Shape::Scalar(Kind::Template(Place::OptionalField))),
    default("extensions", EMPTY, EXTENSIONS),
    optional("data", Shape::Scalar(Kind::Expression)),
];

/// `event.extensions`.
pub(super) const EXTENSIONS: Shape =
    Shape::Named(NameRule::Extension, &Shape::Scalar(Kind::Template(Place::OptionalField)));

const HTTP: &[Key] = &[
    required("upstream", Shape::Scalar(Kind::Text)),
    default("method", "POST", Shape::Scalar(Kind::Method)),
    optional("path", Shape::Scalar(Kind::RequestPath)),
    default(
        "query",
        EMPTY,
        Shape::Named(NameRule::Free, &Shape::Scalar(Kind::Template(Place::Query))),
    ),
    default(
        "headers",
        EMPTY,
        Shape::Named(NameRule::Header, &Shape::Scalar(Kind::Template(Place::Header))),
    ),
    optional("body", Shape::Scalar(Kind::Body)),
    default("encode", "json", Shape::Scalar(Kind::Word(&["json", "form", "text"]))),
    default("success", "[2xx]", Shape::List(&Shape::Scalar(Kind::Status))),
    default(
        "retry_on",
        "[408, 425, 429, 5xx, connect, ambiguous]",
        Shape::List(&Shape::Scalar(Kind::RetryOn)),
    ),
    optional("outcome", Shape::Scalar(Kind::Expression)),
    default("idempotency_header", "Idempotency-Key", Shape::Scalar(Kind::HeaderOrOff)),
    default("max_response", "64KiB", Shape::Scalar(Kind::Size(1, 16 * MIB))),
];
