//! What is neither a route nor an upstream.

use super::{
    CLIENT_TLS, EMPTY, EVER, GIB, Key, Kind, MIB, NameRule, POSITIVE, Pem, Shape, UrlUse, default,
    later, optional, required,
};

/// `server:`.
pub(super) const SERVER: Shape = Shape::Map(&[
    default("listen", "127.0.0.1:8080", Shape::Scalar(Kind::Listen)),
    optional("public_url", Shape::Scalar(Kind::Url(UrlUse::Public))),
    default("max_body", "1MiB", Shape::Scalar(Kind::Size(1, GIB))),
    default("max_connections", "10000", Shape::Scalar(Kind::Whole(1, 1_000_000))),
    default("max_buffered", "256MiB", Shape::Scalar(Kind::Size(1, 1024 * GIB))),
    default("header_timeout", "10s", Shape::Scalar(POSITIVE)),
    default("body_timeout", "30s", Shape::Scalar(POSITIVE)),
    optional("tls", Shape::Map(SERVER_TLS)),
]);

const SERVER_TLS: &[Key] = &[
    required("cert", Shape::Scalar(Kind::Pem(Pem::Certificate))),
    required("key", Shape::Scalar(Kind::Pem(Pem::Key))),
];

/// `admin:`.
pub(super) const ADMIN: Shape = Shape::Map(&[
    default("listen", "127.0.0.1:9090", Shape::Scalar(Kind::Listen)),
    default("tokens", EMPTY, Shape::Named(NameRule::Name, &TOKEN)),
]);

static TOKEN: Shape = Shape::Map(&[
    required("token", Shape::Scalar(Kind::Secret)),
    required("role", Shape::Scalar(Kind::Word(&["read", "operate"]))),
]);

/// `queue:`. Below 16 MiB there would be no room for a batch of large messages.
pub(super) const QUEUE: Shape = Shape::Map(&[
    default("sqlite", EMPTY, Shape::Map(SQLITE)),
    later("postgres", "use queue.sqlite"),
    default("max_size", "8GiB", Shape::Scalar(Kind::Size(16 * MIB, u64::MAX))),
    default("max_route_share", "0.5", Shape::Scalar(Kind::Share)),
    default("keep", EMPTY, Shape::Map(KEEP)),
]);

const SQLITE: &[Key] = &[default("path", "data/tidegate.db", Shape::Scalar(Kind::Path))];

const KEEP: &[Key] = &[
    default("delivered", "24h", Shape::Scalar(Kind::Duration(0, EVER))),
    default("dead", "30d", Shape::Scalar(POSITIVE)),
];

/// `broker:`.
pub(super) const BROKER: Shape = Shape::OneOf(
    &[optional("rabbitmq", Shape::Map(RABBITMQ)), optional("embedded", Shape::Map(&[]))],
    Some("rabbitmq"),
);

/// AMQP counts heartbeats in seconds, as 16 bits.
const RABBITMQ: &[Key] = &[
    default(
        "url",
        "amqp://guest:guest@127.0.0.1:5672/%2f",
        Shape::Scalar(Kind::Url(UrlUse::Broker)),
    ),
    default("heartbeat", "10s", Shape::Scalar(Kind::Duration(1_000, 65_535_000))),
    optional("tls", CLIENT_TLS),
];

/// `shutdown:`.
pub(super) const SHUTDOWN: Shape =
    Shape::Map(&[default("drain", "25s", Shape::Scalar(Kind::Duration(0, EVER)))]);

/// `log:`.
pub(super) const LOG: Shape = Shape::Map(&[
    default(
        "level",
        "info",
        Shape::Scalar(Kind::Word(&["error", "warn", "info", "debug", "trace"])),
    ),
    default("format", "text", Shape::Scalar(Kind::Word(&["text", "json"]))),
]);

/// `telemetry:`.
pub(super) const TELEMETRY: Shape = Shape::Map(&[
    required("otlp", Shape::Scalar(Kind::Url(UrlUse::Collector))),
    default("sample", "0.1", Shape::Scalar(Kind::Number(0.0, 1.0))),
]);
