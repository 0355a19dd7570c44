//! RabbitMQ fails in all the ways it can, under load; the gateway goes on by itself within 10 s of
//! its return, and whatever RabbitMQ had confirmed arrives, once.

use std::{collections::BTreeSet, time::Duration};

use tidegate_tests::{
    Api, Gateway, Load,
    amqp::Publisher,
    eventually,
    load::WINDOW,
    rabbitmq::{Node, Vhost},
};

use crate::events_to_apis::{numbers_by_path, one_route, order};

const IN_TIME: Duration = Duration::from_secs(60);
const RESUMES: Duration = Duration::from_secs(10);

/// Events a second, without pause: below what a debug build delivers on a busy machine, so that
/// what waits is what the fault made wait.
const RATE: u32 = 500;

/// Events of a test at least.
const SEVERAL: u64 = 3_000;

/// RabbitMQ's queue.
const QUEUE: &str = "tidegate.award-points";

/// A broker, a service that publishes to it all the time, and a gateway that takes it to an API.
struct Scene {
    broker: Vhost,
    api: Api,
    gateway: Gateway,
    load: Load,
}

impl Scene {
    async fn set(broker: &Vhost) -> Self {
        let api = Api::start().await;
        let gateway = Gateway::start(&one_route(&broker.url(), &api.url(), "", "")).await;
        eventually("it consumes", IN_TIME, || async {
            broker.consumers(QUEUE).await.eq(&1).then_some(())
        })
        .await;
        let load = Load::start(&broker.url(), "orders", RATE, |n| order(n, 10));
        let scene = Self { broker: broker.clone(), api, gateway, load };
        scene.has_arrived(u64::from(RATE), IN_TIME).await;
        scene
    }

    /// How many different events have arrived.
    fn arrived(&self) -> u64 {
        self.api.accepted().0
    }

    async fn has_arrived(&self, events: u64, within: Duration) {
        eventually(&format!("{events} have arrived"), within, || async {
            (self.arrived() >= events).then_some(())
        })
        .await;
    }

    /// The broker has just returned. In time there are more events than had been published by now:
    /// the first one since is among them, and not only what lay in our own queue.
    async fn resumes(&self) {
        self.has_arrived(self.load.published() + 1, RESUMES).await;
    }

    /// Whatever was published and confirmed, which in the end is all of it, arrives; nothing twice,
    /// however often RabbitMQ or the service repeated it.
    async fn ends_well(mut self) {
        let published = self.published().await;
        self.has_arrived(published, IN_TIME).await;
        self.is_acked().await;
        assert_eq!(self.api.accepted(), (published, 0), "each once, and repeats known as such");
        assert_eq!(self.gateway.count("award-points", "dead").await, 0);
    }

    /// How many were published, and confirmed, once there were several and no more come.
    async fn published(&mut self) -> u64 {
        eventually("there were several", IN_TIME, || async {
            (self.load.published() >= SEVERAL).then_some(())
        })
        .await;
        let published = self.load.stop().await;
        assert_eq!(self.load.confirmed(), published);
        published
    }

    /// RabbitMQ has nothing left.
    async fn is_acked(&self) {
        eventually("RabbitMQ's queue is empty", IN_TIME, || async {
            (self.broker.messages(QUEUE).await == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b1_a_broker_that_is_killed_or_stopped_and_comes_back_is_consumed_again() {
    let mut node = Node::start().await;
    let scene = Scene::set(node.root()).await;
    node.kill().await;
    node.restart().await;
    scene.resumes().await;
    node.stop_app().await;
    node.start_app().await;
    scene.resumes().await;
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b3_connections_closed_by_force_are_made_again() {
    let scene = Scene::set(&Node::shared().await.vhost().await).await;
    for _ in 0..3 {
        scene.broker.close_connections().await;
        scene.resumes().await;
    }
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b6_a_queue_that_is_deleted_is_declared_and_bound_again() {
    let mut scene = Scene::set(&Node::shared().await.vhost().await).await;
    let mut deletions = Vec::new();
    let mut bearable = 0;
    for _ in 0..2 {
        let arrived = numbers(&scene.api);
        let first = (0..).find(|n| !arrived.contains(n)).expect("an end");
        let ready = scene.broker.delete_queue(QUEUE).await;
        let since = scene.load.published();
        eventually("an event published since arrives", RESUMES, || async {
            numbers(&scene.api).last().is_some_and(|last| *last >= since).then_some(())
        })
        .await;
        deletions.push(first..since);
        // What goes with the queue: what was ready, and what was on its way into it, which
        // RabbitMQ confirms all the same.
        bearable += ready + WINDOW as u64;
    }
    let published = scene.published().await;
    eventually("all has arrived but what went with the queue", IN_TIME, || async {
        let arrived = numbers(&scene.api);
        let lost: Vec<u64> = (0..published).filter(|n| !arrived.contains(n)).collect();
        let explained = |n: &u64| deletions.iter().any(|deletion| deletion.contains(n));
        (lost.len() as u64 <= bearable && lost.iter().all(explained)).then_some(())
    })
    .await;
    scene.is_acked().await;
    assert_eq!(scene.api.accepted().1, 0, "none twice");
}

/// The numbers of the events that have arrived.
fn numbers(api: &Api) -> BTreeSet<u64> {
    numbers_by_path(&api.requests()).into_values().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b4_alarms_block_the_services_and_not_the_gateway() {
    let node = Node::start().await;
    let mut scene = Scene::set(node.root()).await;

    // While it consumes.
    alarm(&node, &scene).await;
    scene.has_arrived(scene.load.confirmed(), RESUMES).await;
    assert!(scene.load.blocked(), "it all arrived during the alarm");
    node.set_memory_alarm(false).await;
    scene.resumes().await;

    // With a backlog in RabbitMQ, and connected to only when the alarm is on.
    assert!(scene.gateway.stop().await.success());
    let waiting = scene.arrived() + 1_500;
    eventually("a backlog", IN_TIME, || async {
        (scene.load.confirmed() >= waiting).then_some(())
    })
    .await;
    alarm(&node, &scene).await;
    assert!(scene.broker.messages(QUEUE).await >= 1_500);
    scene.gateway.run().await;
    scene.has_arrived(scene.load.confirmed(), RESUMES).await;
    assert!(scene.load.blocked(), "it all arrived during the alarm");
    node.set_memory_alarm(false).await;
    scene.resumes().await;
    scene.ends_well().await;
}

/// Raises the alarm and waits until it is felt.
async fn alarm(node: &Node, scene: &Scene) {
    node.set_memory_alarm(true).await;
    eventually("the service is blocked", IN_TIME, || async { scene.load.blocked().then_some(()) })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b15_a_broker_that_is_absent_at_the_start_is_waited_for() {
    let mut node = Node::start().await;
    node.kill().await;
    let api = Api::start().await;
    let gateway = Gateway::start(&one_route(&node.url(), &api.url(), "", "")).await;
    node.restart().await;
    eventually("it consumes", RESUMES, || async {
        node.consumers(QUEUE).await.eq(&1).then_some(())
    })
    .await;
    Publisher::connect(&node.url()).await.publish("orders", &[order(1, 10)]).await;
    eventually("it arrives", RESUMES, || async { (api.count() == 1).then_some(()) }).await;
    drop(gateway);
}
