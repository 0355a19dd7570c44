//! Faults of third-party APIs and of the way to them.
//!
//! One gateway holds many cases: an upstream and a route each, which share the queue and nothing
//! else. So every case also shows that the others' faults do not reach it.

mod answers;
mod bodies;
mod network;
mod pace;

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};
use tidegate_tests::{Gateway, eventually, gateway::client};

pub(crate) const IN_TIME: Duration = Duration::from_secs(60);

/// Tries again at once, and opens no breaker: each case is seen for itself.
pub(crate) const AT_ONCE: &str = "breaker: off, retry: { initial_delay: 10ms, max_delay: 20ms }";

/// A gateway of cases, on the embedded broker.
#[derive(Default)]
pub(crate) struct Cases {
    upstreams: String,
    routes: String,
}

impl Cases {
    /// Another: an API at `url`, with further keys of the upstream and of `to.http`.
    pub(crate) fn add(&mut self, name: &str, url: &str, upstream: &str, http: &str) -> &mut Self {
        let _ = writeln!(
            self.upstreams,
            "  {name}: {{ url: '{url}', egress: {{ allow: [127.0.0.0/8] }}, {upstream} }}"
        );
        let _ = writeln!(
            self.routes,
            "  {name}:
    from: {{ rabbitmq: {{ bind: [{{ exchange: cases, key: {name} }}] }} }}
    to: {{ http: {{ upstream: {name}, {http} }} }}"
        );
        self
    }

    pub(crate) fn yaml(&self) -> String {
        let Self { upstreams, routes } = self;
        format!("broker: {{ embedded: {{}} }}\nupstreams:\n{upstreams}routes:\n{routes}")
    }

    pub(crate) async fn start(&self) -> Gateway {
        Gateway::start(&self.yaml()).await
    }
}

/// Publishes event `id` for case `name`.
pub(crate) async fn emit(gateway: &Gateway, name: &str, id: &str) {
    emit_data(gateway, name, id, &json!({ "n": 1 })).await;
}

/// The same, with data.
pub(crate) async fn emit_data(gateway: &Gateway, name: &str, id: &str, data: &Value) {
    let event = json!({
        "specversion": "1.0", "id": id, "source": "/cases", "type": name,
        "datacontenttype": "application/json", "data": data,
    });
    let url = format!("{}/api/v1/events?exchange=cases&key={name}", gateway.admin().await);
    let request = client().post(url).header("Content-Type", "application/cloudevents+json");
    let answer = request.body(event.to_string()).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
}

/// Waits until `count` deliveries of case `name` are `state`.
pub(crate) async fn settled(gateway: &Gateway, name: &str, state: &str, count: u64) {
    let what = format!("{count} of {name} are {state}");
    eventually(&what, IN_TIME, || async {
        (gateway.count(name, state).await == count).then_some(())
    })
    .await;
}

/// The last delivery of case `name`, with its event and its attempts.
pub(crate) async fn shown(gateway: &Gateway, name: &str) -> Value {
    let list = gateway.get(&format!("/api/v1/deliveries?route={name}")).await;
    let id = list["deliveries"][0]["id"].as_str().unwrap_or_else(|| panic!("none of {name}"));
    gateway.get(&format!("/api/v1/deliveries/{id}")).await
}

/// The result of each attempt that is kept of it, the oldest first.
pub(crate) fn results(delivery: &Value) -> Vec<&str> {
    let attempts = delivery["attempts"].as_array().expect("a list");
    attempts.iter().map(|attempt| attempt["result"].as_str().expect("a result")).collect()
}

/// Asserts that `count` deliveries of case `name` are still owed, and none is dead.
pub(crate) async fn waits(gateway: &Gateway, name: &str, count: u64) {
    let counts = gateway.get(&format!("/api/v1/routes/{name}")).await["counts"].clone();
    let of = |state: &str| counts[state].as_u64().expect("a count");
    assert_eq!((of("pending") + of("active"), of("dead")), (count, 0), "{name}: {counts}");
}
