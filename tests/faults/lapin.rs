//! The traps of the AMQP client, shown against RabbitMQ, and that we do not fall in.
//!
//! The first half is in each test here: the library by itself. The second is in the tests of the
//! adapter that `README.md` names beside each.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, future::join_all};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use tidegate_tests::{
    eventually,
    rabbitmq::{Node, Vhost},
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    time::{Instant, timeout},
};

const IN_TIME: Duration = Duration::from_secs(60);

/// What has not come by then is taken not to come: everything here is on one machine.
const NEVER: Duration = Duration::from_secs(3);

/// A connection with a channel, and a queue `q`.
async fn connected(url: &str, properties: ConnectionProperties) -> (Connection, Channel) {
    let connection = Connection::connect(url, properties).await.expect("the test's own node");
    let channel = connection.create_channel().await.expect("a channel");
    let (options, none) = (QueueDeclareOptions::default(), FieldTable::default());
    channel.queue_declare("q".into(), options, none).await.expect("a queue");
    (connection, channel)
}

async fn vhost() -> (Vhost, Connection, Channel) {
    let broker = Node::shared().await.vhost().await;
    let (connection, channel) = connected(&broker.url(), ConnectionProperties::default()).await;
    (broker, connection, channel)
}

async fn confirming(channel: &Channel) {
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
}

/// Publishes to queue `key`; when it is written, what confirms it.
async fn publish(channel: &Channel, key: &str, id: &str) -> lapin::PublisherConfirm {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default().with_message_id(id.into());
    let sent = channel.basic_publish("".into(), key.into(), options, b"x", properties);
    sent.await.expect("written")
}

async fn consume(channel: &Channel) -> Consumer {
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    channel.basic_consume("q".into(), "".into(), options, none).await.expect("a consumer")
}

async fn next(consumer: &mut Consumer) -> Option<lapin::Result<Delivery>> {
    timeout(IN_TIME, consumer.next()).await.expect("something")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l1_two_tasks_on_one_channel_may_get_each_others_confirms() {
    let (_, _connection, channel) = vhost().await;
    confirming(&channel).await;
    let mut full = FieldTable::default();
    full.insert("x-max-length".into(), AMQPValue::LongInt(0));
    full.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions::default();
    channel.queue_declare("full".into(), options, full).await.expect("a queue");
    let since = Instant::now();
    let mut swapped = 0;
    while swapped == 0 && since.elapsed() < IN_TIME {
        let publishing = ["q", "full"].map(|queue| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let mut confirms = Vec::new();
                for _ in 0..200 {
                    confirms.push(publish(&channel, queue, "m").await);
                }
                join_all(confirms).await
            })
        });
        let [taken, refused] = publishing;
        let (taken, refused) = (taken.await.expect("no panic"), refused.await.expect("no panic"));
        swapped += taken.iter().filter(|said| !matches!(said, Ok(Confirmation::Ack(_)))).count();
        swapped += refused.iter().filter(|said| !matches!(said, Ok(Confirmation::Nack(_)))).count();
    }
    assert!(swapped > 0, "none within {IN_TIME:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l2_what_is_returned_may_come_with_the_confirm_of_another() {
    let (_, _connection, channel) = vhost().await;
    confirming(&channel).await;
    let mut rounds = 0;
    eventually("a return comes with another's confirm", IN_TIME, || {
        rounds += 1;
        misplaced(&channel)
    })
    .await;
    assert!(rounds > 0);
}

/// Publishes a window of which every other message is for nobody. Each return is somewhere in the
/// window; whether one is not with its own message.
async fn misplaced(channel: &Channel) -> Option<()> {
    let mut sent = BTreeMap::new();
    for n in 0..200 {
        let key = if n % 2 == 0 { "nobody" } else { "q" };
        sent.insert(n, publish(channel, key, &n.to_string()).await);
    }
    let mut returned = Vec::new();
    let mut misplaced = false;
    for (n, confirm) in sent {
        let said = timeout(IN_TIME, confirm).await.expect("in time").expect("the channel lives");
        if let Confirmation::Ack(Some(message)) = said {
            let id = message.properties.message_id().as_ref().expect("its id").to_string();
            misplaced |= id != n.to_string();
            returned.push(id.parse::<u32>().expect("a number"));
        }
    }
    returned.sort_unstable();
    assert!(returned.into_iter().eq((0..200).step_by(2)), "the window as a whole is right");
    misplaced.then_some(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l4_a_silent_peer_is_waited_for_without_end_and_kept_open() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound");
    let url = format!("amqp://guest:guest@{address}/?connection_timeout=100");
    let connecting = tokio::spawn(timeout(NEVER, async move {
        Connection::connect(&url, ConnectionProperties::default()).await.map(drop)
    }));
    let (mut peer, _) = silent.accept().await.expect("a connection");
    let mut greeting = [0; 8];
    peer.read_exact(&mut greeting).await.expect("its greeting");
    assert!(connecting.await.expect("no panic").is_err(), "no deadline of its own");
    // Whoever waited has gone, and its thread waits on.
    assert!(timeout(NEVER, peer.read(&mut greeting)).await.is_err(), "still open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l6_a_consumer_may_end_with_an_error_or_nothing_and_with_recovery_never() {
    for recovers in [false, true] {
        let broker = Node::shared().await.vhost().await;
        let mut properties = ConnectionProperties::default();
        if recovers {
            properties = properties.enable_auto_recover();
        }
        let (connection, channel) = connected(&broker.url(), properties).await;
        let mut consumer = consume(&channel).await;
        // The queue goes: RabbitMQ cancels the consumer, and the channel stays.
        broker.delete_queue("q").await;
        assert!(next(&mut consumer).await.is_none(), "no error, {recovers}");
        let (options, none) = (QueueDeclareOptions::default(), FieldTable::default());
        channel.queue_declare("q".into(), options, none).await.expect("a queue");
        let mut consumer = consume(&channel).await;
        // RabbitMQ closes the channel.
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let missing = channel.queue_declare("none".into(), passive, FieldTable::default());
        missing.await.expect_err("there is none");
        assert!(next(&mut consumer).await.expect("something").is_err(), "{recovers}");
        let after = timeout(NEVER, consumer.next()).await;
        match recovers {
            true => assert!(after.is_err(), "neither more nor an end: {after:?}"),
            false => assert!(matches!(after, Ok(None)), "{after:?}"),
        }
        drop(connection);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l7_a_blocked_connection_writes_no_acks_and_does_not_close() {
    let node = Node::start().await;
    let (connection, channel) = connected(&node.url(), ConnectionProperties::default()).await;
    confirming(&channel).await;
    let confirm = publish(&channel, "q", "1").await;
    confirm.await.expect("a confirm");
    let mut consumer = consume(&channel).await;
    let delivery = next(&mut consumer).await.expect("a message").expect("no error");
    node.set_memory_alarm(true).await;
    let _unconfirmed = publish(&channel, "q", "2").await;
    eventually("it is blocked", IN_TIME, || async { connection.status().blocked().then_some(()) })
        .await;
    let acked = timeout(NEVER, delivery.acker.ack(BasicAckOptions::default())).await;
    assert!(!matches!(acked, Ok(Err(_))), "no error tells of it: {acked:?}");
    assert!(timeout(NEVER, connection.close(200, "OK".into())).await.is_err(), "it hangs");
    assert_eq!(node.root().counts("q").await.1, 1, "RabbitMQ never got the ack");
    node.set_memory_alarm(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l8_an_ack_that_does_nothing_is_no_error_and_one_that_is_late_closes_the_channel() {
    let (_, _connection, channel) = vhost().await;
    confirming(&channel).await;
    for n in 0..3 {
        publish(&channel, "q", &n.to_string()).await.await.expect("a confirm");
    }
    let mut consumer = consume(&channel).await;
    let mut ackers = Vec::new();
    for _ in 0..3 {
        let delivery = next(&mut consumer).await.expect("a message").expect("no error");
        ackers.push(delivery.acker);
    }
    let multiple = BasicAckOptions { multiple: true };
    assert!(ackers[1].ack(multiple).await.expect("written"));
    assert!(!ackers[1].ack(multiple).await.expect("no error"), "a second ack does nothing");
    // Covered by the one before: the library writes it, and RabbitMQ does not know it any more.
    assert!(ackers[0].ack(multiple).await.expect("written"));
    let ended = next(&mut consumer).await.expect("something").expect_err("the channel is closed");
    assert!(ended.to_string().contains("unknown delivery tag"), "{ended}");
    assert!(!ackers[2].ack(multiple).await.expect("no error"), "nor does one after the end");
}
