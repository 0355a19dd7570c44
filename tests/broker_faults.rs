//! RabbitMQ fails in all the ways it can; the gateway goes on by itself within 10 s of its return.

use std::time::Duration;

use tidegate_tests::{Api, Gateway, amqp::Publisher, eventually, rabbitmq::Node};

use crate::events_to_apis::{one_route, order};

const IN_TIME: Duration = Duration::from_secs(60);
const RESUMES: Duration = Duration::from_secs(10);

/// A node of its own with a gateway on it, since these tests break the node.
struct Scene {
    node: Node,
    api: Api,
    gateway: Gateway,
    sent: u64,
}

impl Scene {
    async fn set() -> Self {
        let node = Node::start().await;
        let api = Api::start().await;
        let gateway = Gateway::start(&one_route(&node.url(), &api.url(), "", "")).await;
        let mut scene = Self { node, api, gateway, sent: 0 };
        scene.consuming().await;
        scene.flows(IN_TIME).await;
        scene
    }

    async fn consuming(&self) {
        eventually("it consumes", IN_TIME, || async {
            self.node.consumers("tidegate.award-points").await.eq(&1).then_some(())
        })
        .await;
    }

    /// 100 more events arrive within `within`, from the moment they can be published at all.
    async fn flows(&mut self, within: Duration) {
        let messages: Vec<_> = (self.sent..self.sent + 100).map(|n| order(n, 10)).collect();
        self.sent += 100;
        Publisher::connect(&self.node.url()).await.publish("orders", &messages).await;
        eventually("all events so far have arrived", within, || async {
            (self.api.accepted().0 == self.sent).then_some(())
        })
        .await;
    }

    fn none_twice(&self) {
        assert_eq!(self.api.accepted().1, 0, "redelivered messages are known as repeats");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_comes_back_is_consumed_again() {
    let mut scene = Scene::set().await;
    for _ in 0..2 {
        scene.node.kill().await;
        scene.node.restart().await;
        scene.flows(RESUMES).await;
    }
    scene.none_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_closed_by_force_are_made_again() {
    let mut scene = Scene::set().await;
    for _ in 0..3 {
        scene.node.close_all_connections().await;
        scene.flows(RESUMES).await;
    }
    scene.none_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_is_declared_and_bound_again() {
    let mut scene = Scene::set().await;
    scene.node.delete_queue("tidegate.award-points").await;
    eventually("it consumes again", RESUMES, || async {
        scene.node.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    scene.flows(RESUMES).await;
    scene.none_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_connection_goes_on_when_the_alarm_is_over() {
    let mut scene = Scene::set().await;
    scene.node.set_memory_alarm(true).await;
    // What is in our queue is delivered meanwhile: the alarm is RabbitMQ's, not ours.
    assert!(scene.gateway.text("/readyz").await.contains("queue"));
    scene.node.set_memory_alarm(false).await;
    scene.flows(RESUMES).await;
    scene.none_twice();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_absent_at_the_start_is_waited_for() {
    let mut node = Node::start().await;
    node.kill().await;
    let api = Api::start().await;
    let gateway = Gateway::start(&one_route(&node.url(), &api.url(), "", "")).await;
    node.restart().await;
    eventually("it consumes", RESUMES, || async {
        node.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    Publisher::connect(&node.url()).await.publish("orders", &[order(1, 10)]).await;
    eventually("it arrives", RESUMES, || async { (api.count() == 1).then_some(()) }).await;
    drop(gateway);
}
