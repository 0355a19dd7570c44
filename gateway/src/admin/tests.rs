//! The listener of a whole app on the embedded broker, asked over real sockets.

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::{
    app::{App, RunError},
    config::{self, Environment},
};

struct Running {
    _folder: TempDir,
    address: String,
    stop: CancellationToken,
    app: tokio::task::JoinHandle<Result<(), RunError>>,
}

const TOKENS: &str = "
admin:
  tokens:
    scraper: { token: read-token-1234, role: read }
    oncall: { token: operate-token-1234, role: operate }
";

async fn run(settings: &str) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "broker: {{ embedded: {{}} }}
upstreams:
  api: {{ url: 'http://127.0.0.1:1', egress: {{ allow: [127.0.0.0/8] }} }}
routes:
  award-points:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: 'order.#' }}] }} }}
    order_by: .data.customer
    to: {{ http: {{ upstream: api, path: '/{{.data.customer}}' }} }}
{settings}"
    );
    let path = folder.path().join("gateway.yaml");
    std::fs::write(&path, yaml).unwrap();
    let queue = folder.path().join("queue.db").display().to_string();
    let environment = Environment::from_iter([
        ("TIDEGATE__ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("TIDEGATE__QUEUE__SQLITE__PATH", queue),
    ]);
    let loaded = config::load(&[path], &environment).unwrap();
    let app = App::new(loaded.config).await.unwrap();
    let address = app.inspect().admin_url().replace("http://", "");
    let stop = CancellationToken::new();
    let app = tokio::spawn(app.run(stop.clone()));
    Running { _folder: folder, address, stop, app }
}

impl Running {
    /// Sends a request as it is, with `Connection: close` added; status, head and body.
    async fn ask(&self, request: &str, headers: &[&str], body: &str) -> (u16, String, String) {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            text.push_str(&format!("Host: {}\r\n", self.address));
        }
        for header in headers {
            text.push_str(&format!("{header}\r\n"));
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    async fn status(&self, request: &str, headers: &[&str]) -> u16 {
        self.ask(request, headers, "").await.0
    }

    async fn json(&self, path: &str) -> Value {
        let (status, _, body) = self.ask(&format!("GET {path}"), &[], "").await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn publish(&self, id: &str, data: &str) -> (u16, String) {
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"order.made","data":{data}}}"#
        );
        let headers = ["Content-Type: application/cloudevents+json"];
        let request = "POST /api/v1/events?exchange=orders&key=order.made";
        let (status, _, body) = self.ask(request, &headers, &event).await;
        (status, body)
    }

    async fn end(self) {
        self.stop.cancel();
        self.app.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_event_is_published_listed_and_shown() {
    let app = run("").await;
    let (status, body) = app.publish("e-1", r#"{"customer":"a b","total":12.50}"#).await;
    assert_eq!((status, &*body), (200, r#"{"id":"e-1"}"#));
    let list = app.json("/api/v1/deliveries?event=e-1&route=award-points&since=1h").await;
    let delivery = &list["deliveries"][0];
    assert_eq!(delivery["event_id"], "e-1");
    assert_eq!(delivery["route"], "award-points");
    assert_eq!(delivery["upstream"], "api");
    assert_eq!(delivery["key"], "a b");
    assert!(delivery["accepted_at"].as_str().unwrap().ends_with('Z'));
    let id = delivery["id"].as_str().unwrap();
    let shown = app.json(&format!("/api/v1/deliveries/{id}")).await;
    assert_eq!(shown["event"]["data"]["customer"], "a b");
    assert!(shown["attempts"].is_array());
    let route = app.json("/api/v1/routes/award-points").await;
    assert_eq!(route["state"], "running");
    assert_eq!(route["from"]["rabbitmq"]["queue"], "tidegate.award-points");
    assert_eq!(app.json("/api/v1/upstreams").await["upstreams"][0]["name"], "api");
    assert_eq!(app.json("/readyz").await["components"]["queue"], "up");
    assert_eq!(app.json("/healthz").await["alive"], true);
    app.end().await;
}

#[tokio::test]
async fn what_is_asked_wrongly_gets_a_reason() {
    let app = run("").await;
    for (request, expected) in [
        ("GET /nowhere", 404),
        ("GET /api/v1/routes/none", 404),
        ("GET /api/v1/upstreams/none", 404),
        ("GET /api/v1/deliveries/none", 404),
        ("GET /api/v1/deliveries/999", 404),
        ("POST /api/v1/routes", 405),
        ("GET /api/v1/events", 405),
        ("DELETE /metrics", 405),
        ("GET /api/v1/deliveries?state=done", 400),
        ("GET /api/v1/deliveries?limit=0", 400),
        ("GET /api/v1/deliveries?stat=dead", 400),
        ("POST /api/v1/events?exchange=orders", 415),
    ] {
        let (status, head, body) = app.ask(request, &[], "").await;
        assert_eq!(status, expected, "{request}: {body}");
        assert!(head.contains("application/problem+json"), "{request}: {head}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    }
    let json = ["Content-Type: application/json"];
    let post = "POST /api/v1/events?exchange=orders&key=order.made";
    assert_eq!(app.ask(post, &json, "{\"a\": 1}").await.0, 400, "not a CloudEvent");
    assert_eq!(app.ask("POST /api/v1/events", &json, "{}").await.0, 400, "no exchange");
    let event = ["Content-Type: application/cloudevents+json"];
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(app.ask(post, &event, &deep).await.0, 400);
    let nowhere = "POST /api/v1/events?exchange=nowhere&key=order.made";
    let ok = r#"{"specversion":"1.0","id":"1","source":"/t","type":"order.made"}"#;
    assert_eq!(app.ask(nowhere, &event, ok).await.0, 422, "unroutable");
    app.end().await;
}

#[tokio::test]
async fn a_web_page_gets_nothing_even_on_loopback() {
    let app = run("").await;
    assert_eq!(app.status("GET /api/v1/routes", &["Host: evil.example"]).await, 421);
    assert_eq!(app.status("GET /metrics", &["Host: evil.example:9090"]).await, 421);
    assert_eq!(app.status("GET /api/v1/routes", &["Host: localhost:9090"]).await, 200);
    assert_eq!(app.status("GET /api/v1/routes", &["Host: [::1]:9090"]).await, 200);
    let origin = ["Origin: http://evil.example"];
    assert_eq!(app.status("GET /api/v1/routes", &origin).await, 403);
    let form = ["Content-Type: text/plain"];
    let post = "POST /api/v1/events?exchange=orders&key=order.made";
    assert_eq!(app.ask(post, &form, "{}").await.0, 415, "a form needs no permission");
    app.end().await;
}

#[tokio::test]
async fn tokens_are_asked_of_everyone_but_probes() {
    let app = run(TOKENS).await;
    assert_eq!(app.status("GET /healthz", &[]).await, 200);
    assert_eq!(app.status("GET /readyz", &["Host: pod.example"]).await, 200);
    let (status, head, body) = app.ask("GET /metrics", &[], "").await;
    assert_eq!(status, 401);
    assert!(head.contains("www-authenticate: bearer"), "{head}");
    assert!(!body.contains("token-1234"), "{body}");
    for wrong in ["read-token-123", "read-token-12345", "", "Bearer read-token-1234"] {
        let header = format!("Authorization: Bearer {wrong}");
        assert_eq!(app.status("GET /metrics", &[&header]).await, 401, "{wrong}");
    }
    let read = "Authorization: Bearer read-token-1234";
    let operate = "Authorization: Bearer operate-token-1234";
    assert_eq!(app.status("GET /metrics", &[read, "Host: gateway.example"]).await, 200);
    let event = "Content-Type: application/cloudevents+json";
    let post = "POST /api/v1/events?exchange=orders&key=order.made";
    let body = r#"{"specversion":"1.0","id":"1","source":"/t","type":"order.made"}"#;
    assert_eq!(app.ask(post, &[read, event], body).await.0, 403);
    assert_eq!(app.ask(post, &[operate, event], body).await.0, 200);
    app.end().await;
}

#[tokio::test]
async fn metrics_are_text_that_a_scraper_reads() {
    let app = run("").await;
    app.publish("e-1", r#"{"customer":"a"}"#).await;
    let (status, head, body) = app.ask("GET /metrics", &[], "").await;
    assert_eq!(status, 200);
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let mut described = std::collections::HashSet::new();
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap();
            assert!(described.insert(name.to_owned()), "{name} is described twice");
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix).filter(|name| described.contains(*name)));
        assert!(described.contains(family.unwrap_or(name)), "{name} is not described");
    }
    for name in [
        "tidegate_events_accepted_total",
        "tidegate_events_rejected_total",
        "tidegate_events_duplicate_total",
        "tidegate_deliveries_total",
        "tidegate_attempts_total",
        "tidegate_attempt_duration_seconds",
        "tidegate_delivery_lag_seconds",
        "tidegate_queue_deliveries",
        "tidegate_queue_oldest_due_seconds",
        "tidegate_queue_size_bytes",
        "tidegate_queue_commit_seconds",
        "tidegate_rate_limit_wait_seconds",
        "tidegate_breaker_state",
        "tidegate_upstream_paused",
        "tidegate_source_up",
        "tidegate_deliveries_pruned_total",
        "tidegate_broker_connected",
        "tidegate_broker_blocked",
        "tidegate_build_info",
    ] {
        assert!(described.contains(name), "{name} is missing");
    }
    let accepted = "tidegate_events_accepted_total{route=\"award-points\"} 1";
    assert!(body.contains(accepted), "{body}");
    app.end().await;
}
