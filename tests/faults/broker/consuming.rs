//! RabbitMQ as a source, with a hand on single frames.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tidegate_tests::{
    Api, Gateway,
    amqp::Publisher,
    amqp_proxy::{AmqpProxy, Frame, Side, Then},
    eventually, process,
    rabbitmq::{Node, Vhost},
};

use super::{ACK, IN_TIME, connected};
use crate::events_to_apis::{numbers_by_path, one_route, order};

const QUEUE: &str = "tidegate.award-points";
const HEADER: u8 = 2;
const BODY: u8 = 3;

/// An API, a gateway that reaches RabbitMQ through a proxy only, and a publisher that does not.
pub(super) struct Scene {
    broker: Vhost,
    pub(super) proxy: AmqpProxy,
    publisher: Publisher,
    api: Api,
    gateway: Gateway,
    published: u64,
}

impl Scene {
    async fn set(heartbeat: &str) -> Self {
        let broker = Node::shared().await.vhost().await;
        let proxy = AmqpProxy::to(&broker.url()).await;
        Self::behind(broker, proxy, heartbeat).await
    }

    pub(super) async fn behind(broker: Vhost, proxy: AmqpProxy, heartbeat: &str) -> Self {
        let api = Api::start().await;
        let yaml = one_route(&proxy.url(), &api.url(), "", "");
        let url = format!("url: '{}'", proxy.url());
        let yaml = yaml.replace(&url, &format!("{url}, heartbeat: {heartbeat}"));
        let gateway = Gateway::start(&yaml).await;
        eventually("it consumes", IN_TIME, || async {
            broker.consumers(QUEUE).await.eq(&1).then_some(())
        })
        .await;
        let publisher = Publisher::connect(&broker.url()).await;
        Self { broker, proxy, publisher, api, gateway, published: 0 }
    }

    pub(super) async fn publish(&mut self, events: u64) {
        let numbers = self.published..self.published + events;
        let messages: Vec<_> = numbers.map(|n| order(n, 10)).collect();
        self.publisher.publish("orders", &messages).await;
        self.published += events;
    }

    /// All has arrived, once and whole, and is acked.
    pub(super) async fn all_there(&self) {
        eventually("all have arrived", IN_TIME, || async {
            (self.api.accepted().0 == self.published).then_some(())
        })
        .await;
        eventually("all are acked", IN_TIME, || async {
            (self.broker.messages(QUEUE).await == 0).then_some(())
        })
        .await;
        assert_eq!(self.api.count(), self.published, "no second request for any");
        assert_eq!(self.gateway.count("award-points", "dead").await, 0);
        let numbers = numbers_by_path(&self.api.requests()).into_values().flatten();
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..self.published), "what was published");
    }
}

/// A rule that does `then` to the first frame that `on` says, and says so by the count it gives.
fn once(
    on: impl Fn(&Frame) -> bool + Send + 'static,
    mut then: impl FnMut() -> Then + Send + 'static,
) -> (Arc<AtomicUsize>, impl FnMut(&Frame) -> Then + Send + 'static) {
    let done = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&done);
    let rule = move |frame: &Frame| {
        if count.load(Ordering::SeqCst) > 0 || !on(frame) {
            return Then::Pass;
        }
        count.fetch_add(1, Ordering::SeqCst);
        then()
    };
    (done, rule)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b14_b24_cut_in_a_message_or_at_an_ack_it_comes_again_and_is_taken_once() {
    let mut scene = Scene::set("10s").await;
    // The head of a frame, its first byte, its middle, all but its end.
    let cuts = [(HEADER, 0), (HEADER, 9), (BODY, 0), (BODY, 3), (BODY, 8), (BODY, 60), (BODY, 190)];
    for (kind, at) in cuts {
        let content = move |frame: &Frame| frame.from == Side::Broker && frame.kind() == kind;
        let (done, rule) = once(content, move || Then::Cut(at));
        scene.proxy.set_rule(rule);
        scene.publish(20).await;
        scene.all_there().await;
        assert_eq!(done.load(Ordering::SeqCst), 1, "cut at {at} of {kind}");
    }
    // The ack was written, after all was stored, and RabbitMQ never got it.
    for round in 0..3 {
        let (done, rule) = once(|frame| frame.is(Side::Client, ACK.0, ACK.1), || Then::Cut(0));
        scene.proxy.set_rule(rule);
        scene.publish(20).await;
        scene.all_there().await;
        assert_eq!(done.load(Ordering::SeqCst), 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b23_frames_without_a_limit_are_given_one() {
    let broker = Node::shared().await.vhost().await;
    let proxy = AmqpProxy::to(&broker.url()).await;
    let asked = Arc::<AtomicUsize>::default();
    let noted = Arc::clone(&asked);
    proxy.set_rule(move |frame| {
        // channel_max, frame_max, heartbeat
        let mut tune = frame.arguments().to_vec();
        if frame.is(Side::Broker, 10, 30) {
            tune[2..6].fill(0);
            return Then::Instead(frame.with_arguments(&tune));
        }
        if frame.is(Side::Client, 10, 31) {
            let frame_max = u32::from_be_bytes([tune[2], tune[3], tune[4], tune[5]]);
            noted.store(frame_max as usize, Ordering::SeqCst);
        }
        Then::Pass
    });
    let mut scene = Scene::behind(broker, proxy, "10s").await;
    assert_eq!(asked.load(Ordering::SeqCst), 131_072);
    scene.publish(20).await;
    scene.all_there().await;
    let peak = scene.gateway.peak_memory() >> 20;
    assert!(peak < 200, "{peak} MiB resident at most");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b2_b13_a_way_that_falls_silent_is_noticed_and_costs_nothing_while_it_is() {
    let mut scene = Scene::set("2s").await;
    scene.publish(20).await;
    scene.all_there().await;
    let before = held(&scene.gateway);
    scene.proxy.set_passing(false);
    // RabbitMQ takes them, and nobody hears of it.
    scene.publish(20).await;
    connected(&scene.gateway, "consume", false).await;
    let tries = scene.proxy.accepted();
    eventually("it tries again and again", IN_TIME, || async {
        (scene.proxy.accepted() >= tries + 4).then_some(())
    })
    .await;
    let (threads, files) = held(&scene.gateway);
    assert!(threads <= before.0 + 4 && files <= before.1 + 8, "{before:?}, {threads}, {files}");
    scene.proxy.set_passing(true);
    scene.all_there().await;
}

/// How many threads and open files it has.
fn held(gateway: &Gateway) -> (usize, usize) {
    (process::threads(gateway.pid()), process::descriptors(gateway.pid()))
}
