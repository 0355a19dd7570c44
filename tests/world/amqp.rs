//! What other services do: publish events to RabbitMQ.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};

/// A publisher with confirms, in batches.
pub struct Publisher {
    _connection: Connection,
    channel: Channel,
}

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Routing key.
    pub key: String,
    /// `content_type`.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

impl Message {
    /// A structured CloudEvent `order.confirmed.v1` with `data`.
    #[must_use]
    pub fn order(id: &str, data: &serde_json::Value) -> Self {
        let event = serde_json::json!({
            "specversion": "1.0",
            "id": id,
            "source": "/orders",
            "type": "order.confirmed.v1",
            "datacontenttype": "application/json",
            "data": data,
        });
        Self {
            key: "order.confirmed.v1".to_owned(),
            content_type: "application/cloudevents+json",
            body: event.to_string().into_bytes(),
        }
    }
}

impl Publisher {
    /// Connects to the RabbitMQ at `url`.
    pub async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("the test's own RabbitMQ node is up");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self { _connection: connection, channel }
    }

    /// Publishes all, persistent and mandatory, and waits for every confirm.
    pub async fn publish(&self, exchange: &str, messages: &[Message]) {
        for window in messages.chunks(256) {
            let mut confirms = Vec::with_capacity(window.len());
            for message in window {
                let properties = BasicProperties::default()
                    .with_content_type(message.content_type.into())
                    .with_delivery_mode(2);
                let options = BasicPublishOptions { mandatory: true, ..Default::default() };
                let confirm = self.channel.basic_publish(
                    exchange.into(),
                    message.key.as_str().into(),
                    options,
                    &message.body,
                    properties,
                );
                confirms.push(confirm.await.expect("the frame was written"));
            }
            let confirms = tokio::time::timeout(Duration::from_secs(60), try_join_all(confirms))
                .await
                .expect("confirms in time")
                .expect("the channel lives");
            for confirm in confirms {
                assert!(matches!(confirm, Confirmation::Ack(None)), "not taken: {confirm:?}");
            }
        }
    }
}
