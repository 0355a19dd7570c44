//! Names that users choose, and headers that are not theirs to set.

use super::schema::NameRule;

/// Headers that belong to the connection or follow from the message (RFC 9110 §7.6.1, RFC 9112):
/// set by hand they break framing.
const RESERVED_HEADERS: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Attributes that CloudEvents itself defines; `event:` has keys of their own for most.
const CORE_ATTRIBUTES: [&str; 10] = [
    "id",
    "source",
    "specversion",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "data_base64",
];

/// Queue arguments that follow from what a route asks for.
const RESERVED_ARGUMENTS: [&str; 3] =
    ["x-delivery-limit", "x-queue-type", "x-single-active-consumer"];

/// Whether `name` fits `rule`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(rule: NameRule, name: &str) -> Result<(), String> {
    match rule {
        NameRule::Name if is_name(name) => Ok(()),
        NameRule::Name => Err("a name is 1 to 63 of `a-z 0-9 . _ -` and begins with a letter or \
            digit; capitals are not used"
            .into()),
        NameRule::Header => header(name),
        NameRule::MessageHeader => message_header(name),
        NameRule::Extension => extension(name),
        NameRule::Argument if RESERVED_ARGUMENTS.contains(&name) => {
            Err("Tidegate sets this argument itself; leave it out".into())
        }
        NameRule::Argument | NameRule::Free if name.is_empty() => Err("a name is missing".into()),
        NameRule::Argument => short(name),
        NameRule::Free => Ok(()),
    }
}

/// Whether `name` is a header that may be set.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn header(name: &str) -> Result<(), String> {
    if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(format!("`{name}` is not a header name"));
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED_HEADERS.contains(&&*lower) {
        return Err(format!("`{name}` is set by HTTP itself; leave it out"));
    }
    Ok(())
}

/// Prefixes of the CloudEvents AMQP binding, and of HTTP's, are compared without case, as consumers
/// do.
fn message_header(name: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    if name.is_empty() {
        return Err("a name is missing".into());
    }
    short(name)?;
    if ["cloudevents:", "cloudevents_", "ce-"].iter().any(|prefix| lower.starts_with(prefix)) {
        return Err("headers of this name carry a CloudEvent's attributes, which the envelope \
            writes; leave it out"
            .into());
    }
    if matches!(&*lower, "traceparent" | "tracestate") {
        return Err("Tidegate sets this header itself; leave it out".into());
    }
    // RabbitMQ closes the channel over a `CC` that is no list.
    if matches!(name, "CC" | "BCC") {
        return Err("RabbitMQ wants a list of routing keys in this header, and headers are text \
            here; bind what should get the event too"
            .into());
    }
    Ok(())
}

/// Whether AMQP can carry `text` as a short string.
///
/// # Errors
/// When it is too long.
pub(crate) fn short(text: &str) -> Result<(), String> {
    if text.len() > 255 {
        return Err("longer than 255 bytes, which is AMQP's limit".into());
    }
    Ok(())
}

/// Whether an exchange of this name may be published to.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn exchange(name: &str) -> Result<(), String> {
    /// There from the start; whether one is a topic exchange is RabbitMQ's to know.
    const PREDECLARED: [&str; 6] =
        ["amq.direct", "amq.fanout", "amq.headers", "amq.match", "amq.topic", "amq.rabbitmq.trace"];
    if name.is_empty() {
        return Err(
            "RabbitMQ's default exchange, which has no name, is not published to: name an \
            exchange, and bind the RabbitMQ queue to it"
                .into(),
        );
    }
    short(name)?;
    if name.starts_with("amq.") && !PREDECLARED.contains(&name) {
        return Err("names that begin with `amq.` are RabbitMQ's own, and it has none of this \
            name; choose another, or `amq.topic`"
            .into());
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 63
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'))
}

fn extension(name: &str) -> Result<(), String> {
    if CORE_ATTRIBUTES.contains(&name) {
        return Err("CloudEvents defines this attribute itself: it is no extension".into());
    }
    let fits = (1..=20).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !fits {
        return Err("an extension attribute is 1 to 20 of `a-z 0-9`".into());
    }
    Ok(())
}
