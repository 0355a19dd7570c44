//! SIGTERM under load, both directions: what was taken is done once, before or after the restart,
//! and nobody who minds the readiness probe is turned away.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tidegate_tests::{
    Api, Gateway, Load, amqp::Subscriber, eventually, gateway::client, process::signal,
    rabbitmq::Node,
};
use tokio::{task::JoinSet, time::Instant};

use crate::events_to_apis::{one_route, order};

const IN_TIME: Duration = Duration::from_secs(60);

/// `shutdown.drain`, and what is there besides: the moment for load balancers.
const DRAIN: Duration = Duration::from_secs(10);
const LINGER: Duration = Duration::from_secs(2);

/// As a load balancer does it: asks for readiness all the time, and sends while there is any.
/// Every request must be answered 202.
async fn send_while_ready(gateway: &Gateway, sent: &Arc<AtomicU64>) {
    let ready = Arc::new(AtomicBool::new(true));
    let (readyz, hooks) = (
        format!("{}/readyz", gateway.admin().await),
        format!("{}/hooks", gateway.webhooks().await),
    );
    let mut tasks = JoinSet::new();
    let told = Arc::clone(&ready);
    tasks.spawn(async move {
        while told.load(Ordering::SeqCst) {
            let answer = client().get(&readyz).send().await.expect("it says that it is stopping");
            told.store(answer.status().is_success(), Ordering::SeqCst);
        }
    });
    for _ in 0..8 {
        let (ready, sent, hooks) = (Arc::clone(&ready), Arc::clone(sent), hooks.clone());
        // Connections of its own, that are kept: what is reset shows.
        let keeping = reqwest::Client::builder().no_proxy().timeout(IN_TIME).build();
        let keeping = keeping.expect("a client");
        tasks.spawn(async move {
            while ready.load(Ordering::SeqCst) {
                let id = sent.fetch_add(1, Ordering::SeqCst);
                let body = json!({ "id": id.to_string() }).to_string();
                let request = keeping.post(&hooks).header("Content-Type", "application/json");
                let answer = request.body(body).send().await.expect("no connection is reset");
                assert_eq!(answer.status(), 202);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p5_a_sigterm_under_load_turns_nobody_away_and_repeats_nothing() {
    const RATE: u32 = 500;
    let broker = Node::shared().await.vhost().await;
    let api = Api::with(|api| api.latency = Duration::from_millis(50)).await;
    let inbox = Subscriber::start(&broker.url(), "inbox", "hooks", "#").await;
    let mut yaml = one_route(&broker.url(), &api.url(), "", "");
    yaml.push_str(&format!(
        "
  hooks:
    from:
      webhook:
        path: /hooks
        verify: {{ none: {{}} }}
        event: {{ id: '{{.body.id}}', type: hook }}
    to: {{ rabbitmq: {{ exchange: hooks, key: '{{.type}}' }} }}
shutdown: {{ drain: {}s }}
",
        DRAIN.as_secs()
    ));
    let mut gateway = Gateway::start(&yaml).await;
    eventually("it consumes", IN_TIME, || async {
        broker.consumers("tidegate.award-points").await.eq(&1).then_some(())
    })
    .await;
    let mut load = Load::start(&broker.url(), "orders", RATE, |n| order(n, 10));
    let sent = Arc::new(AtomicU64::new(0));
    for _ in 0..3 {
        let before = api.count();
        eventually("it is busy", IN_TIME, || async {
            (api.count() >= before + u64::from(RATE)).then_some(())
        })
        .await;
        let pid = gateway.pid();
        let sending = send_while_ready(&gateway, &sent);
        let busy = sent.load(Ordering::SeqCst) + 200;
        let stopping = async {
            eventually("webhooks come", IN_TIME, || async {
                (sent.load(Ordering::SeqCst) >= busy).then_some(())
            })
            .await;
            signal(pid, "-TERM").await;
            Instant::now()
        };
        let ((), since) = tokio::join!(sending, stopping);
        assert!(gateway.exit().await.success());
        assert!(since.elapsed() < DRAIN + LINGER + Duration::from_secs(5), "{since:?}");
        gateway.run().await;
    }
    let published = load.stop().await;
    eventually("every event has arrived", IN_TIME, || async {
        (api.accepted().0 >= published).then_some(())
    })
    .await;
    let sent = sent.load(Ordering::SeqCst);
    eventually("every webhook is published", IN_TIME, || async {
        (inbox.different() >= sent).then_some(())
    })
    .await;
    for route in ["award-points", "hooks"] {
        eventually("nothing waits any more", IN_TIME, || async {
            let route = gateway.get(&format!("/api/v1/routes/{route}")).await;
            let counts = &route["counts"];
            (counts["pending"] == 0 && counts["active"] == 0).then_some(())
        })
        .await;
        assert_eq!(gateway.count(route, "dead").await, 0);
    }
    assert_eq!(api.accepted(), (published, 0), "each once, on this side of the restart or that");
    let ids: BTreeSet<String> = inbox.taken().iter().map(|taken| taken.id().to_owned()).collect();
    assert_eq!((ids.len() as u64, inbox.count()), (sent, sent), "each webhook published once");
}
