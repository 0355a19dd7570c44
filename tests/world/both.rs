//! Both directions through one gateway, and a ledger of what it owes.
//!
//! RabbitMQ → API and webhook → RabbitMQ, a few events at a time. Owed is whatever RabbitMQ has
//! confirmed to its publisher, and whatever was answered 2xx; a webhook that was not is sent again,
//! as a provider does.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    Api, Gateway,
    amqp::{Message, Publisher, Subscriber},
    eventually,
    gateway::client,
    rabbitmq::Vhost,
};

/// How long things may take on a busy machine.
const IN_TIME: Duration = Duration::from_secs(60);

/// Attempts at a time, of the upstream.
pub const CONCURRENCY: usize = 2;

/// The gateway and the worlds on its two sides.
pub struct Both {
    /// The gateway.
    pub gateway: Gateway,
    /// The third-party API.
    pub api: Api,
    /// RabbitMQ.
    pub broker: Vhost,
    subscriber: Subscriber,
    publisher: Publisher,
    yaml: String,
    next: u64,
    events: BTreeSet<u64>,
    taken: BTreeSet<u64>,
    unanswered: BTreeSet<u64>,
    judged: (usize, usize),
}

/// What a judgement found: how often something came again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repeats {
    /// Calls of the API beyond the first of each event.
    pub calls: usize,
    /// Messages beyond the first of each webhook.
    pub messages: usize,
}

impl Both {
    /// Everything around the gateway, and the gateway, which is not running yet.
    pub async fn new(broker: Vhost) -> Self {
        let api = Api::start().await;
        Self::through(broker, api, None, None).await
    }

    /// The same, with other ways for the gateway to RabbitMQ and to the API than the straight ones.
    pub async fn through(broker: Vhost, api: Api, amqp: Option<&str>, http: Option<&str>) -> Self {
        let subscriber = Subscriber::start(&broker.url(), "points", "loyalty", "loyalty.#").await;
        let publisher = Publisher::connect(&broker.url()).await;
        let (straight, direct) = (broker.url(), api.url());
        let yaml = yaml(amqp.unwrap_or(&straight), http.unwrap_or(&direct));
        Self {
            gateway: Gateway::new(&yaml),
            api,
            broker,
            subscriber,
            publisher,
            yaml,
            next: 0,
            events: BTreeSet::new(),
            taken: BTreeSet::new(),
            unanswered: BTreeSet::new(),
            judged: (0, 0),
        }
    }

    /// Another gateway with an empty queue in its place; nothing may be owed.
    pub fn replace(&mut self) {
        self.gateway = Gateway::new(&self.yaml);
    }

    /// Waits until the gateway consumes.
    pub async fn consuming(&self) {
        eventually("it consumes", IN_TIME, || async {
            self.broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
        })
        .await;
    }

    /// Publishes `count` events and, at the same time, sends as many webhooks once each, with
    /// `filler` more bytes in each of them.
    pub async fn exchange(&mut self, count: u64, filler: usize) {
        let (messages, numbers) = self.orders(count);
        let base = self.gateway.webhooks().await;
        let sends = numbers.clone().map(|n| send(&base, n, filler));
        let published = self.publisher.publish("orders", &messages);
        let ((), answers) = tokio::join!(published, join_all(sends));
        self.events.extend(numbers.clone());
        self.answered_with(numbers, answers);
    }

    /// Publishes `count` events.
    pub async fn publish(&mut self, count: u64) {
        let (messages, numbers) = self.orders(count);
        self.publisher.publish("orders", &messages).await;
        self.events.extend(numbers);
    }

    /// Sends `count` webhooks once each.
    pub async fn send_webhooks(&mut self, count: u64) {
        let (_, numbers) = self.orders(count);
        let base = self.gateway.webhooks().await;
        let answers = join_all(numbers.clone().map(|n| send(&base, n, 0))).await;
        self.answered_with(numbers, answers);
    }

    /// Sends one webhook over a connection that is there already.
    pub async fn send_webhook_over(&mut self, mut stream: TcpStream) {
        let (_, numbers) = self.orders(1);
        let body = json!({ "n": numbers.start, "filler": "" }).to_string();
        let request = format!(
            "POST /hooks/loyalty HTTP/1.1\r\nHost: gateway\r\nX-Api-Key: canary-api-key-77\r\n\
             Content-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.expect("it is open");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it is answered");
        let status = answer.split_whitespace().nth(1).and_then(|status| status.parse().ok());
        self.answered_with(numbers, vec![status]);
    }

    fn orders(&mut self, count: u64) -> (Vec<Message>, Range<u64>) {
        let numbers = self.next..self.next + count;
        self.next = numbers.end;
        (numbers.clone().map(order).collect(), numbers)
    }

    fn answered_with(&mut self, numbers: Range<u64>, answers: Vec<Option<u16>>) {
        for (n, status) in numbers.zip(answers) {
            match status {
                Some(200..300) => self.taken.insert(n),
                _ => self.unanswered.insert(n),
            };
        }
    }

    /// How many webhooks were answered 2xx, and how many were not.
    #[must_use]
    pub fn answered(&self) -> (usize, usize) {
        (self.taken.len(), self.unanswered.len())
    }

    /// Whether all that was published and answered has arrived.
    #[must_use]
    pub fn arrived(&self) -> bool {
        self.calls().len() >= self.events.len()
            && self.taken.iter().all(|n| self.messages().contains_key(n))
    }

    /// How many events were published.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.len() as u64
    }

    /// Waits until nothing is pending.
    pub async fn drained(&self) {
        eventually("nothing waits any more, here or in RabbitMQ", IN_TIME, || async {
            let ours = self.gateway.count("award-points", "pending").await
                + self.gateway.count("loyalty-webhooks", "pending").await;
            let theirs = self.broker.messages("tidegate.award-points").await;
            (ours + theirs == 0).then_some(())
        })
        .await;
    }

    /// Waits until all has arrived, or the gateway has ended.
    pub async fn settle(&self) {
        eventually("all has arrived, or the gateway is gone", IN_TIME, || async {
            (self.arrived() || self.gateway.ended()).then_some(())
        })
        .await;
    }

    /// Sends again what was not answered, waits until everything is where it belongs, and judges:
    /// nothing lost, forged or altered, and repeats only with the key of the first.
    pub async fn judge(&mut self) -> Repeats {
        let base = self.gateway.webhooks().await;
        for n in std::mem::take(&mut self.unanswered) {
            eventually("it is taken", IN_TIME, || async {
                send(&base, n, 0).await.filter(|status| (200..300).contains(status)).map(drop)
            })
            .await;
            self.taken.insert(n);
        }
        eventually("all has arrived", IN_TIME, || async { self.arrived().then_some(()) }).await;
        self.drained().await;
        assert_eq!(self.gateway.count("award-points", "dead").await, 0);
        assert_eq!(self.gateway.count("loyalty-webhooks", "dead").await, 0);
        let (calls, messages) = (self.calls(), self.messages());
        assert!(calls.keys().eq(self.events.iter()), "{:?}\n{:?}", calls.keys(), self.events);
        assert!(messages.keys().eq(self.taken.iter()), "{:?}\n{:?}", messages.keys(), self.taken);
        for (n, ids) in calls.iter().chain(&messages) {
            assert!(ids.iter().all(|id| *id == ids[0]), "{n} came with other ids: {ids:?}");
        }
        let again = |all: BTreeMap<u64, Vec<String>>| all.values().map(|ids| ids.len() - 1).sum();
        let (calls, messages): (usize, usize) = (again(calls), again(messages));
        let before = std::mem::replace(&mut self.judged, (calls, messages));
        Repeats { calls: calls - before.0, messages: messages - before.1 }
    }

    /// For each event, the idempotency keys that the API got it with.
    fn calls(&self) -> BTreeMap<u64, Vec<String>> {
        let mut calls: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for request in self.api.requests() {
            let body: Value = serde_json::from_str(&request.body).expect("a mapped body");
            let n = body["n"].as_u64().expect("its number");
            assert_eq!(body, json!({ "n": n, "reference": format!("order-{n}") }));
            let key = request.idempotency_key().expect("a key").to_owned();
            calls.entry(n).or_default().push(key);
        }
        calls
    }

    /// For each webhook, the message ids that came out of RabbitMQ.
    fn messages(&self) -> BTreeMap<u64, Vec<String>> {
        let mut messages: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for message in self.subscriber.taken() {
            let event = message.json();
            let n = event["data"]["n"].as_u64().expect("its number");
            assert_eq!(event["type"], "loyalty.points.v1");
            messages.entry(n).or_default().push(message.id().to_owned());
        }
        messages
    }
}

/// Both routes; a small queue, so that its ballast takes no time.
fn yaml(broker: &str, api: &str) -> String {
    format!(
        "\
broker: {{ rabbitmq: {{ url: '{broker}' }} }}
queue: {{ max_size: 64MiB }}
upstreams:
  loyalty:
    url: {api}
    egress: {{ allow: [127.0.0.0/8] }}
    concurrency: {CONCURRENCY}
    retry: {{ initial_delay: 100ms, max_delay: 200ms }}
routes:
  award-points:
    from:
      rabbitmq:
        bind: [{{ exchange: orders, key: 'order.confirmed.#' }}]
    to:
      http:
        upstream: loyalty
        path: /points
        body: '{{n: .data.n, reference: .id}}'
  loyalty-webhooks:
    from:
      webhook:
        path: /hooks/loyalty
        verify: {{ api_key: {{ header: X-Api-Key, keys: [canary-api-key-77] }} }}
        event:
          id: 'hook-{{.body.n}}'
          source: /loyalty
          type: loyalty.points.v1
          data: '{{n: .body.n, filler: .body.filler}}'
    to:
      rabbitmq:
        exchange: loyalty
"
    )
}

/// Order number `n`.
fn order(n: u64) -> Message {
    Message::order(&format!("order-{n}"), &json!({ "n": n }))
}

/// Sends webhook number `n` once; the status, if there was an answer.
async fn send(base: &str, n: u64, filler: usize) -> Option<u16> {
    let body = json!({ "n": n, "filler": "x".repeat(filler) });
    let request = client().post(format!("{base}/hooks/loyalty"));
    let request =
        request.header("X-Api-Key", "canary-api-key-77").header("Content-Type", "application/json");
    Some(request.body(body.to_string()).send().await.ok()?.status().as_u16())
}
