//! What others send that is no event, too large, or meant to harm.

mod amqp;
mod bodies;
mod events;
mod http1;
mod http2;
pub(super) mod signed;

use std::time::Duration;

use tidegate_tests::{Api, Gateway};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const IN_TIME: Duration = Duration::from_secs(120);
const KEY: &str = "canary-api-key-77";

/// A gateway with three webhooks: `/hooks` takes anything with the key, `/events` CloudEvents with
/// it, `/signed` what is signed. Each is sent on as the whole event in JSON.
pub(super) struct Site {
    pub(super) gateway: Gateway,
    pub(super) api: Api,
    address: String,
}

/// What came back, until the connection was closed.
#[derive(Debug)]
struct Said {
    /// Of the first answer; 0 when there is none.
    status: u16,
    text: String,
}

impl Site {
    /// With further keys of `server:`.
    pub(super) async fn start(server: &str) -> Self {
        let api = Api::start().await;
        let route = |name: &str, verify: &str, event: &str| {
            format!(
                "  {name}:
    from: {{ webhook: {{ path: /{name}, verify: {verify}{event} }} }}
    to: {{ http: {{ upstream: api, body: . }} }}
"
            )
        };
        let key = format!("{{ api_key: {{ header: X-Key, keys: [{KEY}] }} }}");
        let secrets = format!(
            "{{ standard_webhooks: {{ secrets: ['{}', '{}'] }} }}",
            signed::OLD,
            signed::NEW
        );
        let gateway = Gateway::start(&format!(
            "broker: {{ embedded: {{}} }}
server: {{ max_body: 1MiB{server} }}
upstreams: {{ api: {{ url: '{}', egress: {{ allow: [127.0.0.0/8] }} }} }}
routes:
{}{}{}",
            api.url(),
            route("hooks", &key, ", event: { type: t }"),
            route("events", &key, ""),
            route("signed", &secrets, ", event: { type: t }"),
        ))
        .await;
        let base = gateway.webhooks().await;
        let address = base.strip_prefix("http://").expect("plain HTTP").to_owned();
        Self { gateway, api, address }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("a connection")
    }

    /// Sends `bytes` as they are, and reads until the connection is closed.
    async fn raw(&self, bytes: &[u8]) -> Said {
        let (mut reading, mut writing) = self.connect().await.into_split();
        let mut answer = Vec::new();
        // Who is refused early may be hung up on while still sending.
        let sending = async { _ = writing.write_all(bytes).await };
        let (_, read) = tokio::join!(
            timeout(IN_TIME, sending),
            timeout(IN_TIME, reading.read_to_end(&mut answer))
        );
        let _ = read.expect("the connection is closed");
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        Said { status: status.and_then(|status| status.parse().ok()).unwrap_or(0), text }
    }

    /// POSTs `body` with further headers, each with its line break, and the key.
    async fn post(&self, path: &str, headers: &str, body: &[u8]) -> Said {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nx-key: {KEY}\r\nconnection: close\r\n{headers}\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat()).await
    }

    /// The listener still takes what is as it should be.
    async fn serves(&self) {
        let said = self.post("/hooks", "content-type: application/json\r\n", b"{}").await;
        assert_eq!(said.status, 202, "{said:?}");
    }

    /// How many deliveries `route` has, in any state.
    async fn taken(&self, route: &str) -> u64 {
        let status = self.gateway.get(&format!("/api/v1/routes/{route}")).await;
        let counts = status["counts"].as_object().expect("counts by state");
        counts.values().filter_map(serde_json::Value::as_u64).sum()
    }
}
