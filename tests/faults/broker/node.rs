//! Faults that are set for a whole node, which is a node of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use tidegate_tests::{
    amqp_proxy::{AmqpProxy, Side, Then},
    eventually,
    rabbitmq::Node,
};
use tokio::time::timeout;

use super::{ACK, IN_TIME, consuming, publishing};

/// Its own deadline for a stop, and some room on a busy machine.
const STOPS: Duration = Duration::from_secs(45);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b5_b7_a_full_disk_and_an_ack_that_is_overdue_lose_nothing() {
    let node = Node::start().await;
    a_full_disk_of_rabbitmq_blocks_publishing_and_no_stop(&node).await;
    an_ack_that_is_overdue_costs_the_channel_and_no_message(&node).await;
}

async fn a_full_disk_of_rabbitmq_blocks_publishing_and_no_stop(node: &Node) {
    let mut scene = publishing::Scene::on(node.root().clone()).await;
    scene.send(20).await;
    scene.settled().await;
    node.set_disk_alarm(true).await;
    // RabbitMQ blocks whoever publishes once it has seen the alarm.
    scene.send(20).await;
    eventually("it knows that it is blocked", IN_TIME, || async {
        scene.gateway.text("/metrics").await.contains("tidegate_broker_blocked 1").then_some(())
    })
    .await;
    scene.send(20).await;
    let stopped = timeout(STOPS, scene.gateway.stop()).await.expect("it stops though blocked");
    assert!(stopped.success(), "{stopped}");
    node.set_disk_alarm(false).await;
    scene.gateway.run().await;
    scene.settled().await;
    scene.taken().await;
}

/// Acks come within milliseconds; here they are lost on the way until RabbitMQ has had enough.
async fn an_ack_that_is_overdue_costs_the_channel_and_no_message(node: &Node) {
    node.eval(
        "application:set_env(rabbit, consumer_timeout, 1000), \
         application:set_env(rabbit, channel_tick_interval, 500).",
    )
    .await;
    let proxy = AmqpProxy::to(&node.url()).await;
    let mut scene = consuming::Scene::behind(node.root().clone(), proxy, "10s").await;
    let mut overdue = false;
    let code = Arc::<AtomicU16>::default();
    let told = Arc::clone(&code);
    scene.proxy.set_rule(move |frame| {
        if frame.is(Side::Broker, 20, 40) && !overdue {
            overdue = true;
            let said = u16::from_be_bytes([frame.arguments()[0], frame.arguments()[1]]);
            told.store(said, Ordering::SeqCst);
        }
        if !overdue && frame.is(Side::Client, ACK.0, ACK.1) {
            return Then::Instead(Vec::new());
        }
        Then::Pass
    });
    scene.publish(20).await;
    scene.all_there().await;
    assert_eq!(code.load(Ordering::SeqCst), 406, "RabbitMQ closed the channel");
}
