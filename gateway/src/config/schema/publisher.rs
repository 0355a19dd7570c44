//! `to.rabbitmq`, and `reply`, which says where it goes in the same words.

use tidegate_adapters::expression::Place;

use super::{
    EMPTY, Key, Kind, NameRule, POSITIVE, Shape, WAIT_MAX_MS, default, never, optional, required,
    route::EXTENSIONS,
};

/// `to.rabbitmq`.
pub(super) const PUBLISHER: &[Key] = &[EXCHANGE, ROUTING_KEY, HEADERS, ENVELOPE, ON_UNROUTABLE];

/// `reply:`.
pub(super) const REPLY: &[Key] = &[
    default("on", "[delivered, dead]", Shape::List(&ENDS)),
    optional("when", Shape::Scalar(Kind::Expression)),
    EXCHANGE,
    ROUTING_KEY,
    HEADERS,
    ENVELOPE,
    ON_UNROUTABLE,
    required("event", Shape::Map(REPLY_EVENT)),
];

/// The retries of a route that publishes, and of every reply. A broker that is away, or a binding
/// that is missing, is waited for, for ever: there is nobody to spare, and giving up would lose
/// order and events. `retry_after_max` is there for the type alone, for a broker names no time.
pub(crate) static RETRY: Shape = Shape::Map(&[
    default("initial_delay", "500ms", Shape::Scalar(POSITIVE)),
    default("factor", "2", Shape::Scalar(Kind::Number(1.0, 1000.0))),
    default("max_delay", "5s", Shape::Scalar(Kind::Duration(1, WAIT_MAX_MS))),
    default("jitter", "0.2", Shape::Scalar(Kind::Number(0.0, 1.0))),
    default("attempts", "unlimited", Shape::Scalar(Kind::Attempts)),
    default("within", "off", Shape::Scalar(Kind::DurationOrOff)),
    default("retry_after_max", "0", Shape::Scalar(Kind::Duration(0, WAIT_MAX_MS))),
]);

const EXCHANGE: Key = required("exchange", Shape::Scalar(Kind::Exchange));
const ROUTING_KEY: Key =
    default("key", "'{.type}'", Shape::Scalar(Kind::Template(Place::RoutingKey)));
const HEADERS: Key = default(
    "headers",
    EMPTY,
    Shape::Named(NameRule::MessageHeader, &Shape::Scalar(Kind::Template(Place::Header))),
);
const ENVELOPE: Key = default(
    "envelope",
    "cloudevents",
    Shape::Scalar(Kind::Word(&["cloudevents", "cloudevents-binary", "metadata-data"])),
);
const ON_UNROUTABLE: Key =
    default("on_unroutable", "retry", Shape::Scalar(Kind::Word(&["retry", "dead", "drop"])));

static ENDS: Shape = Shape::Scalar(Kind::Word(&["delivered", "dead"]));

const REPLY_EVENT: &[Key] = &[
    never("id", "the id of a reply is ours: UUIDv5 of delivery, outcome and attempt; leave it out"),
    optional("source", Shape::Scalar(Kind::Template(Place::Field))),
    required("type", Shape::Scalar(Kind::Template(Place::Field))),
    optional("subject", Shape::Scalar(Kind::Template(Place::OptionalField))),
    optional("time", Shape::Scalar(Kind::Template(Place::OptionalField))),
    default("extensions", EMPTY, EXTENSIONS),
    optional("data", Shape::Scalar(Kind::Expression)),
];
