//! The consumer a team would write by hand.

use std::sync::Arc;

use futures_util::StreamExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
        QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::Value;
use tokio::sync::Semaphore;

/// Declares a quorum queue bound to the exchange `orders`, as the gateway would.
pub(crate) async fn declare(url: &str, queue: &str) {
    let (_connection, channel) = open(url).await;
    let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
    channel
        .exchange_declare("orders".into(), ExchangeKind::Topic, durable, FieldTable::default())
        .await
        .expect("an exchange");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(queue.into(), durable, arguments).await.expect("a queue");
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), "orders".into(), "#".into(), options, FieldTable::default())
        .await
        .expect("a binding");
}

/// Consumes `queue` and POSTs each event to `sink`, until it is aborted.
pub(crate) async fn run(url: String, queue: &'static str, sink: String) {
    let (_connection, channel) = open(&url).await;
    channel.basic_qos(128, BasicQosOptions::default()).await.expect("a prefetch");
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    let mut messages = consumer.await.expect("a consumer");
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let slots = Arc::new(Semaphore::new(64));
    while let Some(Ok(message)) = messages.next().await {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("never closed");
        let (client, sink) = (client.clone(), sink.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let event: Value = serde_json::from_slice(&message.data).expect("JSON");
            let customer = event["data"]["customerId"].as_str().expect("a customer");
            let answer = client
                .post(format!("{sink}/members/{customer}/points"))
                .header("Content-Type", "application/json")
                .body(event["data"].to_string())
                .send()
                .await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                message.acker.ack(BasicAckOptions::default()).await.expect("acked");
            }
        });
    }
}

async fn open(url: &str) -> (Connection, Channel) {
    // Already installed by another part of the process: just as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connection = Connection::connect(url, ConnectionProperties::default());
    let connection = connection.await.expect("the bench's own RabbitMQ node is up");
    let channel = connection.create_channel().await.expect("a channel");
    (connection, channel)
}
