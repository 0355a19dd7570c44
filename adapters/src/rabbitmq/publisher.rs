//! RabbitMQ as a place to put one event: what `tidegate emit` and `POST /api/v1/events` do.

use std::time::Duration;

use lapin::{
    BasicProperties, Confirmation, ErrorKind,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, LongString},
};
use tokio::time::timeout;

use super::{
    BrokerConfig,
    session::{Broker, ConfigError, Link, Role, SessionError, reason, short, within},
    wall_clock,
};
use crate::event::Event;

/// How long RabbitMQ may take to confirm.
const CONFIRM: Duration = Duration::from_secs(10);

/// AMQP's word for a message that is written to disk.
const PERSISTENT: u8 = 2;

/// Why an event was not published, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The broker's configuration cannot be used.
    #[error("broker.rabbitmq.{0}")]
    Config(#[from] ConfigError),
    /// RabbitMQ could not be reached, or the session broke.
    #[error("RabbitMQ: {0}")]
    Session(#[from] SessionError),
    /// No queue is bound for this exchange and key.
    #[error("no RabbitMQ queue is bound for it")]
    Unroutable,
    /// RabbitMQ would not take it: a queue is full.
    #[error("RabbitMQ did not take it: a queue is full, or failed")]
    Nacked,
    /// There is no such exchange, or it may not be published to; RabbitMQ's words.
    #[error("RabbitMQ refused it: {0}")]
    Refused(String),
    /// No confirm came: RabbitMQ may have it or not.
    #[error("RabbitMQ did not confirm within {} s; it may have it or not{}", CONFIRM.as_secs(),
        if *blocked { ": it is blocked by a memory or disk alarm" } else { "" })]
    Unconfirmed {
        /// Whether RabbitMQ said that it takes nothing for now.
        blocked: bool,
    },
}

/// Publishes `event` as a structured CloudEvent (AMQP binding 1.0.2), persistent and mandatory, on
/// a connection of its own, and waits until RabbitMQ has confirmed it.
///
/// # Errors
/// See [`PublishError`]; only after [`PublishError::Unconfirmed`] and a broken session may RabbitMQ
/// have it all the same.
pub async fn publish_once(
    config: &BrokerConfig,
    exchange: &str,
    key: &str,
    event: &Event,
) -> Result<(), PublishError> {
    let link = Broker::new(config)?.connect(Role::Publish).await?;
    let published = publish(&link, exchange, key, event).await;
    // After a missed confirm nothing would be answered: dropping the link cuts the connection.
    if !matches!(published, Err(PublishError::Unconfirmed { .. })) {
        link.close().await;
    }
    published
}

async fn publish(
    link: &Link,
    exchange: &str,
    key: &str,
    event: &Event,
) -> Result<(), PublishError> {
    let channel = link.channel().await?;
    within("ask for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let (exchange, key, properties) = (short(exchange)?, short(key)?, properties(event)?);
    let confirmed = async {
        let body = event.to_json();
        channel.basic_publish(exchange, key, options, &body, properties).await?.await
    };
    match timeout(CONFIRM, confirmed).await {
        Ok(Ok(Confirmation::Ack(None))) => Ok(()),
        Ok(Ok(Confirmation::Ack(Some(_)))) => Err(PublishError::Unroutable),
        Ok(Ok(Confirmation::Nack(_))) => Err(PublishError::Nacked),
        Ok(Ok(Confirmation::NotRequested)) => unreachable!("confirms were asked for above"),
        Ok(Err(refused)) if matches!(refused.kind(), ErrorKind::ProtocolError(_)) => {
            Err(PublishError::Refused(reason(&refused)))
        }
        Ok(Err(source)) => Err(SessionError::Amqp { step: "publish", source }.into()),
        Err(_) => Err(PublishError::Unconfirmed { blocked: link.blocked() }),
    }
}

fn properties(event: &Event) -> Result<BasicProperties, SessionError> {
    let mut properties = BasicProperties::default()
        .with_content_type("application/cloudevents+json".into())
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(&event.id)?)
        .with_type(short(&event.kind)?);
    if let Ok(seconds) = u64::try_from(wall_clock().0 / 1000) {
        properties = properties.with_timestamp(seconds);
    }
    if let Some(traceparent) = &event.traceparent {
        let mut headers = FieldTable::default();
        let value = LongString::from(traceparent.as_str());
        headers.insert("traceparent".into(), AMQPValue::LongString(value));
        properties = properties.with_headers(headers);
    }
    Ok(properties)
}
