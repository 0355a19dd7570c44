//! Exchanges, queue and bindings, declared anew with each channel: what somebody deleted comes
//! back.
//!
//! RabbitMQ answers what it refuses by closing the channel, so each refusal costs one, and what
//! comes after it goes on with another.

use std::collections::BTreeMap;

use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString},
};
use serde_json::Value;
use tracing::warn;

use super::{
    ConsumerConfig,
    session::{Link, SessionError, reason, short, within},
};

const QUEUE_TYPE: &str = "x-queue-type";
const DELIVERY_LIMIT: &str = "x-delivery-limit";
const SINGLE_ACTIVE: &str = "x-single-active-consumer";

const NOT_FOUND: u16 = 404;
const PRECONDITION_FAILED: u16 = 406;

/// Checks further queue arguments (`from.rabbitmq.arguments`) of a route.
///
/// # Errors
/// When one of them is ours to set, or cannot be said in AMQP; in one sentence.
pub fn check_arguments(arguments: &BTreeMap<String, Value>) -> Result<(), String> {
    for (name, value) in arguments {
        let ours = match name.as_str() {
            QUEUE_TYPE => "queues are quorum queues",
            DELIVERY_LIMIT => "it is -1, or RabbitMQ would drop what was redelivered often",
            SINGLE_ACTIVE => "it follows from `order_by`",
            _ if short(name).is_err() => return Err(format!("`{name}` is longer than 255 bytes")),
            _ if argument(value).is_none() => {
                return Err(format!("`{name}` must be text, a whole number or a boolean"));
            }
            _ => continue,
        };
        return Err(format!(
            "`{name}` is not yours to set: {ours}. To use another queue as it is, declare it \
             yourself and set `declare: false`"
        ));
    }
    Ok(())
}

/// Makes sure that what `config` names is there, and returns a channel to consume on.
pub(super) async fn declare(
    link: &Link,
    config: &ConsumerConfig,
    ordered: bool,
) -> Result<Channel, SessionError> {
    if !config.declare {
        return existing_queue(link, &config.queue).await;
    }
    for bind in &config.bind {
        exchange(link, &bind.exchange).await?;
    }
    let channel = queue(link, config, ordered).await?;
    for bind in &config.bind {
        let bound = channel.queue_bind(
            short(&config.queue)?,
            short(&bind.exchange)?,
            short(&bind.key)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        link.judge(within("bind the queue", bound).await)?;
    }
    Ok(channel)
}

/// Declares a durable topic exchange. One that exists and is of another kind, or that may not be
/// declared by us, is used as it is.
pub(super) async fn exchange(link: &Link, name: &str) -> Result<(), SessionError> {
    let name = short(name)?;
    let declare = async |passive| {
        let channel = link.channel().await?;
        let options =
            ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
        let arguments = FieldTable::default();
        let declared =
            channel.exchange_declare(name.clone(), ExchangeKind::Topic, options, arguments);
        link.judge(within("declare the exchange", declared).await)
    };
    match declare(false).await {
        Err(refused) if refused.code().is_some() => {
            // When there is none, the reason why we may not declare it says more.
            declare(true).await.map_err(|_| refused)
        }
        other => other,
    }
}

/// Whether there is an exchange of that name.
pub(super) async fn look_for_exchange(link: &Link, name: &str) -> Result<(), SessionError> {
    let channel = link.channel().await?;
    let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let arguments = FieldTable::default();
    let declared = channel.exchange_declare(short(name)?, ExchangeKind::Topic, passive, arguments);
    link.judge(within("look for the exchange", declared).await)?;
    link.judge(within("close the channel", channel.close(200, "OK".into())).await)
}

async fn existing_queue(link: &Link, queue: &str) -> Result<Channel, SessionError> {
    let channel = link.channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short(queue)?, options, FieldTable::default());
    match link.judge(within("look for the queue", declared).await) {
        Ok(_) => Ok(channel),
        Err(refused) if refused.code() == Some(NOT_FOUND) => {
            Err(SessionError::NoQueue(queue.to_owned()))
        }
        Err(other) => Err(other),
    }
}

/// Declares the queue, with no limit to redeliveries where that must be said; see
/// [`super::greeting`]. A queue that is older than its RabbitMQ has a limit that cannot be changed
/// here; it is used as it is.
async fn queue(
    link: &Link,
    config: &ConsumerConfig,
    ordered: bool,
) -> Result<Channel, SessionError> {
    let declare = async |limit: Limit| {
        let channel = link.channel().await?;
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let arguments = arguments(&config.arguments, ordered, limit)?;
        let declared = channel.queue_declare(short(&config.queue)?, options, arguments);
        link.judge(within("declare the queue", declared).await)?;
        Ok::<_, SessionError>(channel)
    };
    let limit = Limit::by_version(link.major_version());
    match declare(limit).await {
        Err(refused)
            if limit == Limit::None
                && refused.code() == Some(PRECONDITION_FAILED)
                && refused.to_string().contains(DELIVERY_LIMIT) =>
        {
            let channel = declare(Limit::Default).await.map_err(not_declared)?;
            warn!(
                queue = config.queue,
                "the RabbitMQ queue was declared with a delivery limit: RabbitMQ drops what is \
                 redelivered more often; set a policy `delivery-limit: -1` for it"
            );
            Ok(channel)
        }
        other => other.map_err(not_declared),
    }
}

fn not_declared(refused: SessionError) -> SessionError {
    let code = refused.code();
    match refused {
        SessionError::Amqp { source, .. } if matches!(code, Some(403 | 405 | 406)) => {
            SessionError::NotDeclared { reason: reason(&source) }
        }
        other => other,
    }
}

/// What the queue is told about redeliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// None: -1.
    None,
    /// Nothing, so RabbitMQ's default.
    Default,
}

impl Limit {
    fn by_version(major: u16) -> Self {
        if major >= 4 { Self::None } else { Self::Default }
    }
}

fn arguments(
    further: &BTreeMap<String, Value>,
    ordered: bool,
    limit: Limit,
) -> Result<FieldTable, SessionError> {
    let mut table = FieldTable::default();
    for (name, value) in further {
        if let Some(value) = argument(value) {
            table.insert(short(name)?, value);
        }
    }
    table.insert(short(QUEUE_TYPE)?, AMQPValue::LongString(LongString::from("quorum")));
    if limit == Limit::None {
        table.insert(short(DELIVERY_LIMIT)?, AMQPValue::LongInt(-1));
    }
    if ordered {
        table.insert(short(SINGLE_ACTIVE)?, AMQPValue::Boolean(true));
    }
    Ok(table)
}

/// A queue argument; `None` for what [`check_arguments`] refuses.
fn argument(value: &Value) -> Option<AMQPValue> {
    match value {
        Value::Bool(flag) => Some(AMQPValue::Boolean(*flag)),
        Value::String(text) => Some(AMQPValue::LongString(LongString::from(text.as_str()))),
        Value::Number(number) => number.as_i64().map(AMQPValue::LongLongInt),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn arguments_that_are_ours_are_refused_by_name() {
        for name in [QUEUE_TYPE, DELIVERY_LIMIT, SINGLE_ACTIVE] {
            let error = check_arguments(&of(json!({ name: "classic" }))).unwrap_err();
            assert!(error.contains(name) && error.contains("declare: false"), "{error}");
        }
    }

    #[test]
    fn arguments_that_amqp_cannot_say_are_refused() {
        for value in [json!(null), json!([1]), json!({"a": 1}), json!(1.5), json!(u64::MAX)] {
            let error = check_arguments(&of(json!({ "x-max-length": value }))).unwrap_err();
            assert!(error.contains("x-max-length"), "{error}");
        }
        assert!(check_arguments(&of(json!({ ("x".repeat(256)): 1 }))).is_err());
        let fine = json!({"x-max-length": 10, "x-overflow": "reject-publish", "x-other": true});
        assert_eq!(check_arguments(&of(fine)), Ok(()));
    }

    #[test]
    fn ordered_queues_have_one_active_consumer_and_no_queue_a_delivery_limit() {
        let further = of(json!({"x-max-length": 10}));
        let table = arguments(&further, true, Limit::None).unwrap();
        let expected = [
            (DELIVERY_LIMIT, AMQPValue::LongInt(-1)),
            ("x-max-length", AMQPValue::LongLongInt(10)),
            (QUEUE_TYPE, AMQPValue::LongString("quorum".into())),
            (SINGLE_ACTIVE, AMQPValue::Boolean(true)),
        ];
        let found: Vec<_> =
            table.inner().iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!(found, expected);
        let table = arguments(&BTreeMap::new(), false, Limit::Default).unwrap();
        assert_eq!(table.inner().len(), 1);
    }
}
