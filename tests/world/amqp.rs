//! What other services do: publish events to RabbitMQ, and take them from it.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, future::try_join_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, LongString},
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

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

impl Publisher {
    /// Publishes one message with `headers`, and waits for its confirm.
    pub async fn publish_with(&self, exchange: &str, message: &Message, headers: &[(&str, &str)]) {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString(LongString::from(*value)));
        }
        let properties = BasicProperties::default()
            .with_content_type(message.content_type.into())
            .with_delivery_mode(2)
            .with_headers(table);
        let options = BasicPublishOptions { mandatory: true, ..Default::default() };
        let (exchange, key) = (exchange.into(), message.key.as_str().into());
        let confirm = self.channel.basic_publish(exchange, key, options, &message.body, properties);
        let confirm = confirm.await.expect("the frame was written").await.expect("a confirm");
        assert!(matches!(confirm, Confirmation::Ack(None)), "not taken: {confirm:?}");
    }
}

/// A service that takes events: a durable quorum queue, bound, and what came out of it.
pub struct Subscriber {
    _connection: Connection,
    taken: Arc<Mutex<Vec<Taken>>>,
    task: JoinHandle<()>,
}

/// One message it took.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Its routing key.
    pub key: String,
    /// Its properties.
    pub properties: BasicProperties,
    /// Its body.
    pub body: Vec<u8>,
}

impl Taken {
    /// Its body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// Its `message_id`.
    #[must_use]
    pub fn id(&self) -> &str {
        self.properties.message_id().as_ref().map_or("", |id| id.as_str())
    }

    /// A header that is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let headers = self.properties.headers().as_ref()?;
        match headers.inner().get(name)? {
            AMQPValue::LongString(text) => Some(text.to_string()),
            other => Some(format!("{other:?}")),
        }
    }
}

/// Declares `exchange` and a quorum queue of that name, bound to it by `key`, and takes nothing.
pub async fn bind(url: &str, queue: &str, exchange: &str, key: &str) {
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .expect("the test's own RabbitMQ node is up");
    let channel = connection.create_channel().await.expect("a channel");
    declare(&channel, queue, exchange, key).await;
    connection.close(200, "done".into()).await.expect("closed");
}

async fn declare(channel: &Channel, queue: &str, exchange: &str, key: &str) {
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let none = FieldTable::default;
    channel
        .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, none())
        .await
        .expect("the exchange");
    let mut quorum = FieldTable::default();
    quorum.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from("quorum")));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(queue.into(), durable, quorum).await.expect("the queue");
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, none());
    bound.await.expect("the binding");
}

impl Subscriber {
    /// Takes what `exchange` has for `key`, by a queue of this name.
    pub async fn start(url: &str, queue: &str, exchange: &str, key: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .expect("the test's own RabbitMQ node is up");
        let channel = connection.create_channel().await.expect("a channel");
        declare(&channel, queue, exchange, key).await;
        let consumer = channel.basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = consumer.await.expect("a consumer");
        let taken = Arc::<Mutex<Vec<Taken>>>::default();
        let taking = Arc::clone(&taken);
        let task = tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                let message = Taken {
                    key: delivery.routing_key.to_string(),
                    properties: delivery.properties.clone(),
                    body: delivery.data.clone(),
                };
                taking.lock().push(message);
                if delivery.acker.ack(BasicAckOptions::default()).await.is_err() {
                    return;
                }
            }
        });
        Self { _connection: connection, taken, task }
    }

    /// What it took so far, in order.
    #[must_use]
    pub fn taken(&self) -> Vec<Taken> {
        self.taken.lock().clone()
    }

    /// How many it took.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.taken.lock().len() as u64
    }

    /// How many different message ids it took.
    #[must_use]
    pub fn different(&self) -> u64 {
        let taken = self.taken.lock();
        taken.iter().map(Taken::id).collect::<std::collections::HashSet<_>>().len() as u64
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}
