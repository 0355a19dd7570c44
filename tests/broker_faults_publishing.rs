//! RabbitMQ fails in all the ways it can; publishing goes on by itself within 10 s of its return.
//! The mirror of `broker_faults.rs`.

use std::time::Duration;

use reqwest::StatusCode;
use tidegate_tests::{
    Gateway,
    amqp::{Subscriber, bind},
    eventually,
    rabbitmq::Node,
};
use tokio::task::JoinHandle;

use crate::apis_to_events::{one_webhook, points, send};

const IN_TIME: Duration = Duration::from_secs(60);
const RESUMES: Duration = Duration::from_secs(10);

/// A node of its own with a gateway on it, since these tests break the node.
struct Scene {
    node: Node,
    gateway: Gateway,
    sent: u64,
}

impl Scene {
    async fn set() -> Self {
        let node = Node::start().await;
        bind(&node.url(), "points", "loyalty", "loyalty.#").await;
        let gateway = Gateway::start(&one_webhook(&node.url(), "", "")).await;
        let mut scene = Self { node, gateway, sent: 0 };
        scene.flows(IN_TIME).await;
        scene
    }

    /// 100 more webhooks, every one answered 202 whatever the broker does.
    async fn send(&mut self) {
        let base = self.gateway.webhooks().await;
        for n in self.sent..self.sent + 100 {
            let (status, answer) = send(&base, &points(n, 10)).await.expect("an answer");
            assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        }
        self.sent += 100;
    }

    /// 100 more webhooks become events in RabbitMQ within `within`.
    async fn flows(&mut self, within: Duration) {
        self.send().await;
        self.arrived(within).await;
    }

    /// All that was sent so far is in the RabbitMQ queue: each once, or again after an ambiguous
    /// confirm.
    async fn arrived(&self, within: Duration) {
        eventually("nothing waits any more", within, || async {
            let gateway = &self.gateway;
            let waits = gateway.count("loyalty-webhooks", "pending").await
                + gateway.count("loyalty-webhooks", "active").await;
            (waits == 0).then_some(())
        })
        .await;
    }

    /// Every event is there, under its own id.
    async fn all_there(self) {
        let subscriber =
            Subscriber::start(&self.node.url(), "points", "loyalty", "loyalty.#").await;
        eventually("every event is there", IN_TIME, || async {
            (subscriber.different() == self.sent).then_some(())
        })
        .await;
        assert_eq!(self.gateway.count("loyalty-webhooks", "dead").await, 0);
    }

    /// Webhooks without a pause, until told to stop; how many were taken.
    fn keep_sending(&self, base: String) -> (tokio::sync::oneshot::Sender<()>, JoinHandle<u64>) {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let from = self.sent;
        let task = tokio::spawn(async move {
            let mut n = from;
            while stopped.try_recv().is_err() {
                let (status, answer) = send(&base, &points(n, 10)).await.expect("an answer");
                assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
                n += 1;
            }
            n
        });
        (stop, task)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b1_a_broker_that_is_killed_and_comes_back_is_published_to_again() {
    let mut scene = Scene::set().await;
    for _ in 0..2 {
        let (stop, sending) = scene.keep_sending(scene.gateway.webhooks().await);
        scene.node.kill().await;
        scene.node.restart().await;
        stop.send(()).expect("it is still sending");
        scene.sent = sending.await.expect("every webhook was taken");
        scene.arrived(RESUMES).await;
    }
    scene.all_there().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b3_connections_closed_by_force_are_made_again() {
    let mut scene = Scene::set().await;
    let (stop, sending) = scene.keep_sending(scene.gateway.webhooks().await);
    for _ in 0..3 {
        scene.node.close_all_connections().await;
        eventually("it is connected again", RESUMES, || async {
            let metrics = scene.gateway.text("/metrics").await;
            let up = "tidegate_broker_connected{role=\"publish\"} 1";
            metrics.contains(up).then_some(())
        })
        .await;
    }
    stop.send(()).expect("it is still sending");
    scene.sent = sending.await.expect("every webhook was taken");
    scene.arrived(RESUMES).await;
    scene.all_there().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b8_a_queue_that_is_deleted_leaves_events_waiting_until_one_is_bound_again() {
    let mut scene = Scene::set().await;
    let gone = scene.sent;
    scene.node.delete_queue("points").await;
    scene.send().await;
    eventually("it is told that nothing is bound", IN_TIME, || async {
        let metrics = scene.gateway.text("/metrics").await;
        metrics.contains("result=\"unroutable\"").then_some(())
    })
    .await;
    assert_eq!(scene.gateway.count("loyalty-webhooks", "dead").await, 0, "it waits");
    bind(&scene.node.url(), "points", "loyalty", "loyalty.#").await;
    scene.arrived(Duration::from_secs(15)).await;
    scene.sent -= gone;
    scene.all_there().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b10_a_queue_without_room_leaves_events_waiting_until_there_is_room() {
    let mut scene = Scene::set().await;
    let small = "rabbit_policy:set(<<\"/\">>, <<\"small\">>, <<\"points\">>, \
        [{<<\"max-length\">>, 110}, {<<\"overflow\">>, <<\"reject-publish\">>}], \
        0, <<\"queues\">>, <<\"test\">>), true.";
    scene.node.eval(small).await;
    scene.send().await;
    eventually("RabbitMQ has said no", IN_TIME, || async {
        scene.gateway.text("/metrics").await.contains("result=\"nack\"").then_some(())
    })
    .await;
    assert_eq!(scene.gateway.count("loyalty-webhooks", "dead").await, 0, "it waits");
    // Somebody takes what is there: that makes room.
    let subscriber = Subscriber::start(&scene.node.url(), "points", "loyalty", "loyalty.#").await;
    scene.arrived(Duration::from_secs(15)).await;
    eventually("every event is there", IN_TIME, || async {
        (subscriber.different() == scene.sent).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b4_a_blocked_connection_goes_on_when_the_alarm_is_over() {
    let mut scene = Scene::set().await;
    scene.node.set_memory_alarm(true).await;
    scene.send().await;
    eventually("it knows that it is blocked", IN_TIME, || async {
        scene.gateway.text("/metrics").await.contains("tidegate_broker_blocked 1").then_some(())
    })
    .await;
    scene.send().await;
    assert!(scene.gateway.count("loyalty-webhooks", "pending").await >= 100, "they wait");
    scene.node.set_memory_alarm(false).await;
    scene.arrived(RESUMES).await;
    scene.all_there().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b15_a_broker_that_is_absent_at_the_start_is_waited_for() {
    let mut node = Node::start().await;
    bind(&node.url(), "points", "loyalty", "loyalty.#").await;
    node.kill().await;
    let gateway = Gateway::start(&one_webhook(&node.url(), "", "")).await;
    let mut scene = Scene { node, gateway, sent: 0 };
    scene.send().await;
    scene.node.restart().await;
    scene.arrived(RESUMES).await;
    scene.all_there().await;
}
