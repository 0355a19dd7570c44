//! RabbitMQ as a target, with a hand on single frames.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::StatusCode;
use tidegate_tests::{
    Gateway,
    amqp::{Subscriber, Taken, bind},
    amqp_proxy::{AmqpProxy, Frame, Side, Then},
    eventually,
    rabbitmq::{Node, Vhost},
};

use super::{IN_TIME, connected, is_confirm, losing};
use crate::apis_to_events::{one_webhook, points, send};

const ROUTE: &str = "loyalty-webhooks";
const BODY: u8 = 3;

/// A gateway that reaches RabbitMQ through a proxy only.
pub(super) struct Scene {
    broker: Vhost,
    proxy: AmqpProxy,
    pub(super) gateway: Gateway,
    sent: u64,
}

impl Scene {
    async fn set() -> Self {
        Self::on(Node::shared().await.vhost().await).await
    }

    pub(super) async fn on(broker: Vhost) -> Self {
        bind(&broker.url(), "points", "loyalty", "loyalty.#").await;
        let proxy = AmqpProxy::to(&broker.url()).await;
        let gateway = Gateway::start(&one_webhook(&proxy.url(), "", "")).await;
        connected(&gateway, "publish", true).await;
        Self { broker, proxy, gateway, sent: 0 }
    }

    /// So many more webhooks at once, every one answered 202.
    pub(super) async fn send(&mut self, events: u64) {
        let base = self.gateway.webhooks().await;
        let sending = (self.sent..self.sent + events).map(async |n| {
            let (status, answer) = send(&base, &points(n, 10)).await.expect("an answer");
            assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
        });
        futures_util::future::join_all(sending).await;
        self.sent += events;
    }

    /// Nothing waits any more.
    pub(super) async fn settled(&self) {
        eventually("nothing waits any more", IN_TIME, || async {
            let pending = self.gateway.count(ROUTE, "pending").await;
            (pending + self.gateway.count(ROUTE, "active").await == 0).then_some(())
        })
        .await;
        assert_eq!(self.gateway.count(ROUTE, "dead").await, 0);
    }

    /// How often each event is in RabbitMQ, by its id; every one of them is.
    pub(super) async fn taken(&self) -> BTreeMap<String, usize> {
        let subscriber =
            Subscriber::start(&self.broker.url(), "points", "loyalty", "loyalty.#").await;
        eventually("RabbitMQ's queue is empty", IN_TIME, || async {
            let empty = self.broker.messages("points").await == 0;
            (empty && subscriber.different() == self.sent).then_some(())
        })
        .await;
        let mut times = BTreeMap::new();
        for message in subscriber.taken() {
            assert_eq!(message.json()["id"], message.id(), "it is the event's own");
            *times.entry(Taken::id(&message).to_owned()).or_default() += 1;
        }
        times
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b11_what_is_never_confirmed_is_published_again_under_its_id() {
    let mut scene = Scene::set().await;
    let connections = scene.proxy.accepted();
    scene.proxy.set_rule(losing(is_confirm));
    scene.send(20).await;
    eventually("the connection is given up", IN_TIME, || async {
        (scene.proxy.accepted() > connections).then_some(())
    })
    .await;
    assert_eq!(scene.gateway.count(ROUTE, "delivered").await, 0, "nothing is believed published");
    scene.proxy.set_rule(|_| Then::Pass);
    scene.settled().await;
    let times = scene.taken().await;
    assert!(times.values().all(|times| (1..=3).contains(times)), "{times:?}");
    assert!(times.values().any(|times| *times > 1), "RabbitMQ had taken them all before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b12_confirms_in_any_order_settle_each_event_once() {
    let mut scene = Scene::set().await;
    let longest = Arc::<AtomicUsize>::default();
    scene.proxy.set_rule(last_first(Arc::clone(&longest)));
    scene.send(300).await;
    scene.settled().await;
    let times = scene.taken().await;
    assert!(times.values().all(|times| *times == 1), "each once: {times:?}");
    let longest = longest.load(Ordering::SeqCst);
    assert!(longest >= 4, "{longest} confirms at most changed places");
}

/// Holds the confirms of a channel back until all that was published on it has its own; then says
/// the later half one by one, last first, and the earlier half in one for all.
fn last_first(longest: Arc<AtomicUsize>) -> impl FnMut(&Frame) -> Then + Send + 'static {
    // By channel: how many were published, how many of them confirmed, how many of those said.
    let mut channels: BTreeMap<u16, (u64, u64, u64)> = BTreeMap::new();
    move |frame| {
        let channel = u16::from_be_bytes([frame.bytes[1], frame.bytes[2]]);
        let (published, confirmed, said) = channels.entry(channel).or_default();
        if frame.is(Side::Client, 20, 10) {
            (*published, *confirmed, *said) = (0, 0, 0);
        }
        if frame.is(Side::Client, 60, 40) {
            *published += 1;
        }
        if !is_confirm(frame) {
            return Then::Pass;
        }
        let tag = u64::from_be_bytes(frame.arguments()[..8].try_into().expect("8 bytes"));
        let multiple = frame.arguments()[8] == 1;
        *confirmed = if multiple { tag } else { *confirmed + 1 };
        if confirmed < published {
            return Then::Instead(Vec::new());
        }
        let confirm = |tag: u64, multiple: bool| {
            frame.with_arguments(&[&tag.to_be_bytes()[..], &[u8::from(multiple)]].concat())
        };
        let middle = said.midpoint(*published);
        let mut bytes: Vec<u8> =
            (middle + 1..=*published).rev().flat_map(|tag| confirm(tag, false)).collect();
        if middle > *said {
            bytes.extend(confirm(middle, true));
        }
        let count = usize::try_from(*published - *said).expect("few");
        longest.fetch_max(count, Ordering::SeqCst);
        *said = *published;
        Then::Instead(bytes)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b2_b14_cut_or_silent_while_it_publishes_everything_is_published_again() {
    let mut scene = Scene::set().await;
    for at in [0, 3, 8, 60] {
        let mut cut = false;
        scene.proxy.set_rule(move |frame| {
            if cut || frame.from != Side::Client || frame.kind() != BODY {
                return Then::Pass;
            }
            cut = true;
            Then::Cut(at)
        });
        scene.send(20).await;
        scene.settled().await;
    }
    // Nothing passes, and webhooks are taken as ever.
    scene.proxy.set_passing(false);
    scene.send(20).await;
    scene.proxy.set_passing(true);
    scene.settled().await;
    let times = scene.taken().await;
    assert!(times.values().all(|times| (1..=2).contains(times)), "{times:?}");
}
