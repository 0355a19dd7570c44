//! Parts that panic: what is a call's own stays its own, what is the process's ends it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use tidegate_adapters::{AttemptResult, Call, Data, Event, Exchange, Health, Receipt, Timestamp};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    app::{App, RunError},
    delivery::Loop,
    protect,
    queue::{Append, Content, Space},
};

const IN_TIME: Duration = Duration::from_secs(20);

/// A gateway with one route, `r`, and its folder.
async fn app() -> (App, Arc<Config>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let queue = folder.path().join("q.db");
    let yaml = format!(
        "\
broker: {{ embedded: {{}} }}
admin: {{ listen: '127.0.0.1:0' }}
queue: {{ max_size: 16MiB, sqlite: {{ path: '{}' }} }}
upstreams:
  api: {{ url: 'http://127.0.0.1:9', retry: {{ initial_delay: 10ms, max_delay: 10ms }} }}
routes:
  r:
    from: {{ rabbitmq: {{ bind: [{{ exchange: e, key: k }}] }} }}
    to: {{ http: {{ upstream: api, path: / }} }}
",
        queue.display()
    );
    std::fs::write(&file, yaml).unwrap();
    let loaded = config::load(&[file], &config::Environment::default());
    let config = loaded.unwrap_or_else(|report| panic!("{report}")).config;
    let app = App::new(config).await.unwrap();
    let config = app.fleet.view().config;
    (app, config, folder)
}

fn pending(id: &str) -> Append {
    let event = Event {
        id: id.into(),
        source: "/s".into(),
        kind: "t".into(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: Default::default(),
        traceparent: None,
        hops: 0,
        data: Data::Absent,
    };
    Append { content: Content::Pending(Arc::new(event)), key: None, dedupe: true }
}

#[tokio::test]
async fn p13_a_call_that_panics_is_tried_again_and_holds_nothing_else_up() {
    let (app, config, _folder) = app().await;
    let name: Arc<str> = "r".into();
    let fleet = &app.fleet;
    let render = Rendered::new(&config, &name, &config.routes[&name], &fleet.apis).unwrap();
    let mut route =
        build::route(&config, &fleet.tracer, &name, render, &fleet.upstreams, &fleet.broker);
    let panics = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&panics);
    let leaf = move |call: Call| {
        let panics = Arc::clone(&counted);
        async move {
            if call.delivery.event.id == "bad" && call.attempt <= 2 {
                panics.fetch_add(1, Ordering::SeqCst);
                panic!("by the test");
            }
            let (exchange, health) = (Exchange::default(), Health::Good);
            Ok(Receipt { result: AttemptResult::Success, health, exchange, response: None })
        }
    };
    route.service = protect::stack(tower::service_fn(leaf), IN_TIME);
    fleet.routes[&name].orders.send_replace(Some(Arc::new(route)));
    let (queue, stop) = (Arc::clone(&fleet.queue), CancellationToken::new());
    let running = tokio::spawn(app.run(stop.clone()));
    for id in ["bad", "good"] {
        queue.append(&name, vec![pending(id)], Space::Capped).await.unwrap();
    }
    let delivered = async {
        while queue.routes().iter().any(|route| route.counts.delivered < 2) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(IN_TIME, delivered).await.unwrap();
    assert_eq!(panics.load(Ordering::SeqCst), 2);
    stop.cancel();
    timeout(IN_TIME, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn p13_a_loop_that_panics_ends_the_process_in_order() {
    let (mut app, config, _folder) = app().await;
    let asked = AtomicU32::new(0);
    let clock: Clock = Arc::new(move || match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Timestamp(1),
        _ => panic!("by the test"),
    });
    let (queue, activity) = (Arc::clone(&app.fleet.queue), Arc::<Activity>::default());
    let (_orders, none) = watch::channel(None);
    let (name, metrics) = ("other".into(), app.fleet.metrics.clone());
    app.started.loops.push(Loop::new(name, none, queue, activity, metrics, clock));
    let queue = Arc::clone(&app.fleet.queue);
    queue.append(&"r".into(), vec![pending("a")], Space::Capped).await.unwrap();
    let ended = timeout(IN_TIME, app.run(CancellationToken::new())).await.unwrap();
    assert!(matches!(ended, Err(RunError::Ended("a delivery loop"))), "{ended:?}");
    // In order: the queue is closed, and can be opened again.
    assert!(queue.append(&"r".into(), vec![pending("b")], Space::Capped).await.is_err());
    let clock: Clock = Arc::new(wall_clock);
    let again = build::open_queue(&config, &Metrics::new(&config), &clock).unwrap();
    again.configure(build::route_settings(&config).into_values().collect()).await.unwrap();
    let counts = again.routes()[0].counts;
    assert_eq!(counts.pending + counts.dead, 1);
}
