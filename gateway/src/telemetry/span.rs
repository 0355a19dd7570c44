//! A span on its way to the collector, and how OTLP writes it.
//!
//! The messages are few and their numbers are fixed for good
//! (<https://github.com/open-telemetry/opentelemetry-proto>, `trace/v1/trace.proto`, stable since
//! 1.0), so they are written here by hand: a field is its number, its kind and its bytes
//! (<https://protobuf.dev/programming-guides/encoding/>). A collector of somebody else's making
//! reads them in the tests.

use std::sync::Arc;

use tidegate_adapters::{TraceContext, secret::Mask};

/// Text in an attribute at most, in characters. Ids and routing keys are shorter, if nobody is
/// playing.
const TEXT_MAX: usize = 256;

/// The conventions that attributes are named by.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// The side of an exchange that a span was on, as OTLP numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Server = 2,
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Shared(Arc<str>),
    Word(&'static str),
    Number(i64),
}

pub(super) type Attribute = (&'static str, Value);

/// What all spans of one end of a route have in common.
#[derive(Debug)]
pub(super) struct About {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) attributes: Vec<Attribute>,
}

/// A span that has ended.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) about: Arc<About>,
    pub(super) context: TraceContext,
    /// The span that led to it.
    pub(super) parent: Option<u64>,
    /// Nanoseconds since the Unix epoch.
    pub(super) start: u64,
    /// Nanoseconds since the Unix epoch.
    pub(super) end: u64,
    pub(super) attributes: Vec<Attribute>,
    pub(super) failed: bool,
}

impl Value {
    /// Text that came from outside: its beginning.
    pub(super) fn text(text: &str) -> Self {
        let end = text.char_indices().nth(TEXT_MAX).map_or(text.len(), |(end, _)| end);
        Self::Text(text[..end].to_owned())
    }
}

/// An `ExportTraceServiceRequest` of `spans`, every text masked.
pub(super) fn encode(spans: &[Span], instance: &str, mask: &Mask) -> Vec<u8> {
    let mut resource = Message::default();
    for (key, value) in [
        ("service.name", "tidegate"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ] {
        resource.message(1, &key_value(key, &Value::text(value), mask));
    }
    let mut scope = Message::default();
    scope.bytes(1, b"tidegate");
    scope.bytes(2, env!("CARGO_PKG_VERSION").as_bytes());
    let mut scope_spans = Message::default();
    scope_spans.message(1, &scope);
    for span in spans {
        scope_spans.message(2, &encode_span(span, mask));
    }
    scope_spans.bytes(3, SCHEMA.as_bytes());
    let mut resource_spans = Message::default();
    resource_spans.message(1, &resource);
    resource_spans.message(2, &scope_spans);
    resource_spans.bytes(3, SCHEMA.as_bytes());
    let mut request = Message::default();
    request.message(1, &resource_spans);
    request.0
}

fn encode_span(span: &Span, mask: &Mask) -> Message {
    const ERROR: u64 = 2;
    let Span { about, context, parent, start, end, attributes, failed } = span;
    let mut message = Message::default();
    message.bytes(1, &context.trace_id().to_be_bytes());
    message.bytes(2, &context.span_id().to_be_bytes());
    message.bytes(3, context.state().unwrap_or_default().as_bytes());
    if let Some(parent) = parent {
        message.bytes(4, &parent.to_be_bytes());
    }
    message.bytes(5, mask.apply(&about.name).as_bytes());
    message.varint(6, about.kind as u64);
    message.fixed64(7, *start);
    message.fixed64(8, *end);
    for (key, value) in about.attributes.iter().chain(attributes) {
        message.message(9, &key_value(key, value, mask));
    }
    if *failed {
        let mut status = Message::default();
        status.varint(3, ERROR);
        message.message(15, &status);
    }
    message.fixed32(16, u32::from(context.is_sampled()));
    message
}

fn key_value(key: &str, value: &Value, mask: &Mask) -> Message {
    let mut any = Message::default();
    match value {
        Value::Text(text) => any.bytes(1, mask.apply(text).as_bytes()),
        Value::Shared(text) => any.bytes(1, mask.apply(text).as_bytes()),
        Value::Word(word) => any.bytes(1, word.as_bytes()),
        Value::Number(number) => any.varint(3, number.cast_unsigned()),
    }
    let mut pair = Message::default();
    pair.bytes(1, key.as_bytes());
    pair.message(2, &any);
    pair
}

/// A message as it is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, field: u64, value: u64) {
        self.number(field << 3);
        self.number(value);
    }

    fn fixed64(&mut self, field: u64, value: u64) {
        self.number((field << 3) | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.number((field << 3) | 2);
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn fixed32(&mut self, field: u64, value: u32) {
        self.number((field << 3) | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Seven bits a byte, the lowest first, the top bit set on all but the last.
    fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the encoding guide.
    #[test]
    fn fields_are_written_as_the_encoding_guide_shows() {
        let mut message = Message::default();
        message.varint(1, 150);
        message.bytes(2, b"testing");
        assert_eq!(message.0, b"\x08\x96\x01\x12\x07testing");
        let mut outer = Message::default();
        outer.message(3, &Message(vec![0x08, 0x96, 0x01]));
        assert_eq!(outer.0, b"\x1a\x03\x08\x96\x01");
    }

    #[test]
    fn long_text_is_cut_between_characters_and_secrets_are_masked() {
        let Value::Text(text) = Value::text(&"é".repeat(1000)) else { panic!("text") };
        assert_eq!(text, "é".repeat(TEXT_MAX));
        let mask = Mask::default();
        mask.add("s3cr3t-of-some-length");
        let pair = key_value("k", &Value::text("a s3cr3t-of-some-length b"), &mask);
        let written = String::from_utf8_lossy(&pair.0).into_owned();
        assert!(written.contains("***") && !written.contains("s3cr3t"), "{written}");
    }
}
