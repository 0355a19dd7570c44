//! From a message as the client library gives it to one free of its types.
//!
//! AMQP values become JSON without loss of meaning: integers as they are, timestamps as Unix
//! seconds, decimals as text (`12.50`), bytes that are no text as Base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lapin::{
    BasicProperties,
    types::{AMQPValue, DecimalValue, FieldTable},
};
use serde_json::{Map, Value};

use crate::event::{DEPTH_MAX, message::Message};

/// Converts a message. What comes beside it says what is wrong with the headers, which are then
/// left out.
pub(super) fn convert(
    exchange: &str,
    routing_key: &str,
    properties: &BasicProperties,
    body: Vec<u8>,
) -> (Message, Option<String>) {
    // The input of expressions puts the headers one level down.
    let headers = properties.headers().as_ref().map(|headers| table(headers, DEPTH_MAX - 2));
    let wrong = match &headers {
        Some(None) => Some(format!("headers nested deeper than {DEPTH_MAX} levels")),
        _ => None,
    };
    let message = Message {
        body: body.into(),
        content_type: properties.content_type().as_ref().map(ToString::to_string),
        content_encoding: properties.content_encoding().as_ref().map(ToString::to_string),
        headers: headers.flatten().unwrap_or_default(),
        properties: basic(properties),
        routing_key: routing_key.to_owned(),
        exchange: exchange.to_owned(),
    };
    (message, wrong)
}

/// The properties by the names that AMQP gives them.
fn basic(properties: &BasicProperties) -> Map<String, Value> {
    let texts = [
        ("content_type", properties.content_type()),
        ("content_encoding", properties.content_encoding()),
        ("correlation_id", properties.correlation_id()),
        ("reply_to", properties.reply_to()),
        ("expiration", properties.expiration()),
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("user_id", properties.user_id()),
        ("app_id", properties.app_id()),
        ("cluster_id", properties.cluster_id()),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| {
        text.as_ref().map(|text| (name.to_owned(), Value::from(text.as_str())))
    });
    let mut all: Map<String, Value> = texts.collect();
    let mut number = |name: &str, value: Option<u64>| {
        value.map(|value| all.insert(name.to_owned(), value.into()));
    };
    number("delivery_mode", properties.delivery_mode().map(u64::from));
    number("priority", properties.priority().map(u64::from));
    number("timestamp", *properties.timestamp());
    all
}

/// `None` when nested deeper than `depth`.
fn table(table: &FieldTable, depth: usize) -> Option<Map<String, Value>> {
    let entry =
        |(name, found)| Some((String::from(AsRef::<str>::as_ref(name)), value(found, depth)?));
    table.inner().iter().map(|(name, found)| (name.as_str(), found)).map(entry).collect()
}

fn value(amqp: &AMQPValue, depth: usize) -> Option<Value> {
    Some(match amqp {
        AMQPValue::Void => Value::Null,
        AMQPValue::Boolean(flag) => (*flag).into(),
        AMQPValue::ShortShortInt(number) => (*number).into(),
        AMQPValue::ShortShortUInt(number) => (*number).into(),
        AMQPValue::ShortInt(number) => (*number).into(),
        AMQPValue::ShortUInt(number) => (*number).into(),
        AMQPValue::LongInt(number) => (*number).into(),
        AMQPValue::LongUInt(number) => (*number).into(),
        AMQPValue::LongLongInt(number) => (*number).into(),
        AMQPValue::Timestamp(seconds) => (*seconds).into(),
        AMQPValue::Float(number) => float(number.to_string()),
        AMQPValue::Double(number) => float(number.to_string()),
        AMQPValue::DecimalValue(number) => decimal(*number).into(),
        AMQPValue::ShortString(text) => text.as_str().into(),
        AMQPValue::LongString(text) => bytes(text.as_bytes()),
        AMQPValue::ByteArray(array) => STANDARD.encode(array.as_slice()).into(),
        AMQPValue::FieldArray(array) => {
            let depth = depth.checked_sub(1)?;
            let values = array.as_slice().iter().map(|found| value(found, depth));
            Value::Array(values.collect::<Option<_>>()?)
        }
        AMQPValue::FieldTable(inner) => Value::Object(table(inner, depth.checked_sub(1)?)?),
    })
}

fn bytes(raw: &[u8]) -> Value {
    std::str::from_utf8(raw).map_or_else(|_| STANDARD.encode(raw).into(), Value::from)
}

/// By its shortest text, so that 0.1 stays 0.1; JSON has no word for infinite ones, so they are
/// text.
fn float(text: String) -> Value {
    let number = text.parse().ok().and_then(serde_json::Number::from_f64);
    number.map_or(Value::String(text), Value::Number)
}

/// `value` with `scale` digits behind the point.
fn decimal(DecimalValue { scale, value }: DecimalValue) -> String {
    let scale = usize::from(scale);
    if scale == 0 {
        return value.to_string();
    }
    let digits = format!("{value:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use lapin::types::{ByteArray, FieldArray};
    use serde_json::json;

    use super::*;

    fn headers(value: AMQPValue) -> (Message, Option<String>) {
        let mut table = FieldTable::default();
        table.insert("x".into(), value);
        let properties = BasicProperties::default().with_headers(table);
        convert("orders", "order.confirmed", &properties, b"{}".to_vec())
    }

    #[test]
    fn n17_every_kind_of_value_has_a_json_form() {
        let decimal = |scale, value| AMQPValue::DecimalValue(DecimalValue { scale, value });
        let cases = [
            (AMQPValue::Void, json!(null)),
            (AMQPValue::Boolean(true), json!(true)),
            (AMQPValue::ShortShortInt(-8), json!(-8)),
            (AMQPValue::LongLongInt(i64::MIN), json!(i64::MIN)),
            (AMQPValue::Timestamp(u64::MAX), json!(u64::MAX)),
            (AMQPValue::Float(0.1), json!(0.1)),
            (AMQPValue::Double(f64::NAN), json!("NaN")),
            (decimal(2, 1250), json!("12.50")),
            (decimal(3, 7), json!("0.007")),
            (decimal(0, 7), json!("7")),
            (AMQPValue::LongString("Größe".into()), json!("Größe")),
            (AMQPValue::LongString(vec![0xff, 0x00].into()), json!("/wA=")),
            (AMQPValue::ByteArray(ByteArray::from(vec![1, 2, 3])), json!("AQID")),
            (AMQPValue::FieldArray(vec![AMQPValue::LongInt(1)].into()), json!([1])),
        ];
        for (amqp, expected) in cases {
            let (message, wrong) = headers(amqp.clone());
            assert_eq!(wrong, None);
            assert_eq!(message.headers["x"], expected, "{amqp:?}");
        }
    }

    #[test]
    fn n17_headers_nested_too_deep_are_told_and_left_out() {
        let nest = |levels: usize| {
            (0..levels).fold(AMQPValue::Void, |inner, _| {
                AMQPValue::FieldArray(FieldArray::from(vec![inner]))
            })
        };
        assert_eq!(headers(nest(DEPTH_MAX - 2)).1, None);
        let (message, wrong) = headers(nest(DEPTH_MAX - 1));
        assert!(wrong.is_some_and(|wrong| wrong.contains("128")));
        assert!(message.headers.is_empty());
        assert_eq!(message.routing_key, "order.confirmed");
    }

    #[test]
    fn properties_keep_their_amqp_names() {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_message_id("m-1".into())
            .with_type("order.confirmed".into())
            .with_timestamp(1_700_000_000)
            .with_delivery_mode(2);
        let (message, _) = convert("", "key", &properties, Vec::new());
        assert_eq!(message.content_type.as_deref(), Some("application/json"));
        assert_eq!(
            Value::Object(message.properties),
            json!({
                "content_type": "application/json",
                "delivery_mode": 2,
                "message_id": "m-1",
                "timestamp": 1_700_000_000,
                "type": "order.confirmed",
            })
        );
    }
}
