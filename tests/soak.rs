//! The soak: both directions under load for as long as one likes, faults drawn by a seed, and a
//! ledger that is judged after each of them.
//!
//! A round is a fault under load, its end, and a judgement without faults, while the load goes on:
//! what had been sent by then has all arrived, unaltered and once per key, nothing else has, the
//! order of each key was kept, and memory and descriptors are bounded. `make soak` runs rounds for
//! ten minutes and prints one line each; `make test` runs a few, of a fixed seed.

mod ledger;
mod sides;

use std::{fmt::Write as _, io::Write as _, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tidegate_tests::{
    Gateway, Load,
    amqp_proxy::AmqpProxy,
    eventually,
    process::{self, signal},
    rabbitmq::Node,
};
use tokio::time::{Instant, timeout};

use ledger::{Ledger, Side};
use sides::{Api, Mood, Subscriber, Webhooks, publish};

/// How long it goes on after the end of a fault until something arrives again, everywhere.
const PROGRESS: Duration = Duration::from_secs(10);

/// How long all that was sent may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(120);

/// Resident at most, in bytes.
const MEMORY: u64 = 256 << 20;

/// Open descriptors at most.
const DESCRIPTORS: usize = 200;

/// What may go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Terminate,
    Freeze,
    ConnectionsClosed,
    BrokerStopped,
    BrokerSilent,
    MemoryAlarm,
    ApiFails,
    ApiRefuses,
    ApiHangs,
    ApiResets,
    Pause,
    Reload,
}

const FAULTS: [Fault; 13] = [
    Fault::Kill,
    Fault::Terminate,
    Fault::Freeze,
    Fault::ConnectionsClosed,
    Fault::BrokerStopped,
    Fault::BrokerSilent,
    Fault::MemoryAlarm,
    Fault::ApiFails,
    Fault::ApiRefuses,
    Fault::ApiHangs,
    Fault::ApiResets,
    Fault::Pause,
    Fault::Reload,
];

/// The gateway between its two sides.
struct World {
    gateway: Gateway,
    node: Node,
    way: AmqpProxy,
    api: Api,
    ledger: Arc<Ledger>,
    webhooks: Webhooks,
    services: Vec<(Side, Load)>,
    _subscriber: Subscriber,
}

impl World {
    async fn start() -> Self {
        let (node, ledger) = (Node::start().await, Arc::new(Ledger::default()));
        let way = AmqpProxy::to(&node.url()).await;
        let api = Api::start(&ledger).await;
        let subscriber = Subscriber::start(&node.url(), &ledger).await;
        let mut gateway = Gateway::new(&yaml(&way.url(), &api.url()));
        gateway.run().await;
        // What nobody is bound to take RabbitMQ gives back, and it is published again.
        let services = Side::EVENTS.map(|side| (side, publish(&node.url(), side))).into();
        let webhooks = Webhooks::start(gateway.webhooks().await);
        Self { gateway, node, way, api, ledger, webhooks, services, _subscriber: subscriber }
    }

    /// What has been sent so far, by side.
    fn sent(&self) -> Vec<(Side, u64)> {
        let events = self.services.iter().map(|(side, service)| (*side, service.confirmed()));
        events.chain([(Side::Hooks, self.webhooks.sent())]).collect()
    }

    async fn play(&mut self, fault: Fault, span: Duration) {
        match fault {
            Fault::Kill => {
                self.gateway.kill().await;
                self.gateway.run().await;
            }
            Fault::Terminate => {
                let status = self.gateway.stop().await;
                assert!(status.success(), "{status}");
                self.gateway.run().await;
            }
            Fault::Freeze => {
                signal(self.gateway.pid(), "-STOP").await;
                dwell(span).await;
                signal(self.gateway.pid(), "-CONT").await;
            }
            Fault::ConnectionsClosed => self.node.close_all_connections().await,
            Fault::BrokerStopped => {
                self.node.stop_app().await;
                dwell(span).await;
                self.node.start_app().await;
            }
            Fault::BrokerSilent => {
                self.way.set_passing(false);
                dwell(span).await;
                self.way.set_passing(true);
            }
            Fault::MemoryAlarm => {
                self.node.set_memory_alarm(true).await;
                dwell(span).await;
                self.node.set_memory_alarm(false).await;
            }
            Fault::ApiFails => self.in_mood(Mood::Fails, span).await,
            Fault::ApiRefuses => self.in_mood(Mood::Refuses, span).await,
            Fault::ApiHangs => self.in_mood(Mood::Hangs, span).await,
            Fault::ApiResets => self.in_mood(Mood::Resets, span).await,
            Fault::Pause => {
                self.post("routes/points/pause").await;
                dwell(span).await;
                self.post("routes/points/resume").await;
            }
            Fault::Reload => self.post("reload").await,
        }
        self.webhooks.set_base(self.gateway.webhooks().await);
    }

    async fn in_mood(&self, mood: Mood, span: Duration) {
        self.api.set_mood(mood);
        dwell(span).await;
        self.api.set_mood(Mood::Well);
    }

    async fn post(&self, what: &str) {
        let path = format!("/api/v1/{what}");
        let (status, said) = self.gateway.post(&path, &serde_json::json!({})).await;
        assert_eq!(status, 200, "{what}: {said}");
    }

    /// How long it takes until something has arrived on every side.
    async fn progress(&self) -> Duration {
        let (began, before) = (Instant::now(), Side::ALL.map(|side| self.ledger.arrived(side)));
        eventually("all sides go on", PROGRESS * 3, || async {
            let now = Side::ALL.map(|side| self.ledger.arrived(side));
            now.iter().zip(&before).all(|(now, before)| now > before).then_some(())
        })
        .await;
        began.elapsed()
    }

    /// Waits until all that has been sent by now has arrived, and judges.
    async fn judge(&self) {
        let sent = self.sent();
        join_all(sent.iter().map(|(side, sent)| async move {
            let what = format!("{side:?}: all of the first {sent} have arrived");
            eventually(&what, ARRIVAL, || async {
                self.ledger.holds_first(*side, *sent).then_some(())
            })
            .await;
        }))
        .await;
        self.ledger.check();
        for route in ["points", "kitchen", "limited", "hooks"] {
            assert_eq!(self.gateway.count(route, "dead").await, 0, "{route}");
        }
    }

    /// Resident bytes and open descriptors of the gateway, both within their bounds.
    fn size(&self) -> (u64, usize) {
        let pid = self.gateway.pid();
        let (resident, open) = (process::resident(pid), process::descriptors(pid));
        assert!(resident <= MEMORY, "{} MiB resident", resident >> 20);
        assert!(open <= DESCRIPTORS, "{open} descriptors");
        (resident, open)
    }
}

/// Lets faults happen by `seed`, until `enough` says so after a round, and judges after each; the
/// gateway has to go on `in_time`.
async fn soak(
    seed: u64,
    in_time: Duration,
    mut enough: impl FnMut(usize) -> bool,
    mut tell: impl FnMut(&str),
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::start().await;
    let mut round = 0;
    tell(&format!("seed {seed}, log and queue in {}", world.gateway.folder().display()));
    while !enough(round) {
        round += 1;
        let fault = FAULTS[random.usize(..FAULTS.len())];
        let span = Duration::from_millis(random.u64(500..4000));
        world.play(fault, span).await;
        let again = world.progress().await;
        world.judge().await;
        let (resident, open) = world.size();
        let mut line = format!(
            "{round:4} {fault:<17?} {:4} ms, went on after {:5} ms; {} MiB, {open} descriptors;",
            span.as_millis(),
            again.as_millis(),
            resident >> 20
        );
        for (side, sent) in world.sent() {
            let _ = write!(line, " {side:?} {sent} +{}", world.ledger.repeats(side));
        }
        tell(&line);
        assert!(again <= in_time, "{fault:?}: it went on only after {again:?}; seed {seed}");
    }
}

/// For how long a fault lasts: not to wait for anything.
async fn dwell(span: Duration) {
    let _ = timeout(span, std::future::pending::<()>()).await;
}

fn yaml(broker: &str, api: &str) -> String {
    let route = |name: &str, more: &str, upstream: &str| {
        format!(
            "  {name}:\n    from: {{ rabbitmq: {{ bind: [{{ exchange: {name}, key: '#' }}] }} }}\n\
             {more}    to:\n      http: {{ upstream: {upstream}, path: /{name}, body: .data }}\n"
        )
    };
    let points = route("points", "", "api");
    let kitchen = route("kitchen", "    order_by: .data.key\n", "api");
    let limited = route("limited", "", "slow-api");
    format!(
        "\
broker: {{ rabbitmq: {{ url: '{broker}', heartbeat: 5s }} }}
queue: {{ max_size: 256MiB }}
upstreams:
  api:
    url: {api}
    egress: {{ allow: [127.0.0.0/8] }}
    timeout: 2s
    retry: {{ initial_delay: 100ms, max_delay: 1s, attempts: unlimited }}
    breaker: {{ open: 500ms, open_max: 1s }}
  slow-api:
    url: {api}
    egress: {{ allow: [127.0.0.0/8] }}
    timeout: 2s
    rate_limit: {{ limit: 400, period: 1s }}
    retry: {{ initial_delay: 100ms, max_delay: 1s, attempts: unlimited }}
    breaker: {{ open: 500ms, open_max: 1s }}
routes:
{points}{kitchen}{limited}  hooks:
    from:
      webhook:
        path: /hooks
        verify: {{ api_key: {{ header: X-Api-Key, keys: [soak-api-key-77] }} }}
        event: {{ id: 'hook-{{.body.n}}', source: /soak, type: soak.v1, data: .body }}
    to:
      rabbitmq: {{ exchange: hooks }}
"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rounds_of_faults_lose_alter_and_invert_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(seconds) = number("SOAK_SECONDS") else {
        // With all the other tests beside it.
        return soak(7, PROGRESS * 3, |round| round == 3, |_| {}).await;
    };
    let seed = number("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..1_000_000));
    let end = Instant::now() + Duration::from_secs(seconds);
    // Past the harness, which keeps what a test prints until it is over.
    let tell = |line: &str| drop(writeln!(std::io::stderr(), "{line}"));
    soak(seed, PROGRESS, |_| Instant::now() >= end, tell).await;
}
