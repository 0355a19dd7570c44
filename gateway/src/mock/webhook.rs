//! Webhooks that a mock API sends: after each request it accepts, as third parties do.
//!
//! Sent until they are answered 2xx, with the same id and a fresh timestamp each time;
//! `Retry-After`
//! is heeded. At most 32 at once, at most 100,000 waiting: beyond that a mock
//! forgets, and says so in its tally.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hmac::{Hmac, Mac as _};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tidegate_adapters::{
    expression::{Expression, Input, Variables},
    units,
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;
use uuid::Uuid;

use super::record::Recorded;

/// Webhooks being sent at once.
const UNDER_WAY: usize = 32;

/// Webhooks waiting to be sent.
const WAITING_MAX: usize = 100_000;

/// For one try.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between tries, unless the answer names a time.
const AGAIN: Duration = Duration::from_millis(500);

/// One entry of `webhooks`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where it goes: an address, or a path of the base that the demo or a test sets.
    pub to: String,
    /// Waited after the request was answered.
    #[serde(default, with = "units::duration")]
    pub after: Duration,
    /// Its body, of the request `{method, path, headers, body}` and `$delivery`, the webhook's own
    /// id; null: none is sent.
    pub body: Expression,
    /// How it is signed.
    #[serde(default)]
    pub sign: Signature,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
}

/// `sign`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Signature {
    /// Not at all.
    #[default]
    None,
    /// <https://www.standardwebhooks.com>.
    StandardWebhooks {
        /// `whsec_` and Base64.
        secret: String,
    },
    /// <https://docs.stripe.com/webhooks#verify-manually>.
    Stripe {
        /// `whsec_…`, used as it is.
        secret: String,
    },
}

/// What became of the webhooks so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WebhookTally {
    /// Asked for by a request.
    pub made: u64,
    /// Answered 2xx.
    pub delivered: u64,
    /// Tries that were not.
    pub failed_tries: u64,
    /// Forgotten: too many were waiting.
    pub forgotten: u64,
}

/// The webhooks of one mock API.
#[derive(Debug)]
pub(super) struct Webhooks {
    configs: Vec<WebhookConfig>,
    base: Mutex<Option<Url>>,
    tally: Mutex<WebhookTally>,
    waiting: mpsc::Sender<Webhook>,
}

/// One to be sent.
#[derive(Debug)]
pub(super) struct Webhook {
    config: usize,
    id: String,
    body: Bytes,
}

impl Webhooks {
    /// By `configs`, and what is waiting to be sent.
    pub(super) fn new(configs: Vec<WebhookConfig>) -> (Self, mpsc::Receiver<Webhook>) {
        let (waiting, to_send) = mpsc::channel(WAITING_MAX);
        let (base, tally) = (Mutex::default(), Mutex::default());
        (Self { configs, base, tally, waiting }, to_send)
    }

    pub(super) fn set_base(&self, base: Url) {
        *self.base.lock() = Some(base);
    }

    pub(super) fn tally(&self) -> WebhookTally {
        *self.tally.lock()
    }

    /// A request was accepted: what it brings forth waits to be sent.
    pub(super) fn after(&self, request: &Recorded) {
        for (config, webhook) in self.configs.iter().enumerate() {
            let id = format!("msg_{}", Uuid::new_v4().simple());
            let body = match body(&webhook.body, request, &id) {
                Ok(Some(body)) => body,
                Ok(None) => continue,
                Err(problem) => {
                    tracing::warn!(to = webhook.to, problem, "the mock's webhook has no body");
                    continue;
                }
            };
            let mut tally = self.tally.lock();
            tally.made += 1;
            if self.waiting.try_send(Webhook { config, id, body }).is_err() {
                tally.forgotten += 1;
            }
        }
    }

    /// Sends what waits until `shutdown`.
    pub(super) async fn run(
        self: Arc<Self>,
        mut to_send: mpsc::Receiver<Webhook>,
        shutdown: CancellationToken,
    ) {
        let (under_way, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(UNDER_WAY)));
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("slots are never closed");
            let webhook = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(webhook) = to_send.recv() => webhook,
            };
            let (webhooks, shutdown) = (Arc::clone(&self), shutdown.clone());
            under_way.spawn(async move {
                let _slot = slot;
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = webhooks.deliver(webhook) => {}
                }
            });
        }
        under_way.close();
        under_way.wait().await;
    }

    async fn deliver(&self, webhook: Webhook) {
        sleep(self.configs[webhook.config].after).await;
        loop {
            let again = match timeout(PATIENCE, self.send(&webhook)).await {
                Ok(Ok((status, _))) if status.is_success() => {
                    self.tally.lock().delivered += 1;
                    return;
                }
                Ok(Ok((_, retry_after))) => retry_after.unwrap_or(AGAIN),
                Ok(Err(_)) | Err(_) => AGAIN,
            };
            self.tally.lock().failed_tries += 1;
            sleep(again).await;
        }
    }

    /// One try: the answer's status, and how long it asks to wait.
    async fn send(
        &self,
        webhook: &Webhook,
    ) -> Result<(StatusCode, Option<Duration>), Box<dyn std::error::Error + Send + Sync>> {
        let config = &self.configs[webhook.config];
        let url = match self.base.lock().as_ref() {
            Some(base) => base.join(&config.to)?,
            None => Url::parse(&config.to)?,
        };
        let host = url.host_str().ok_or("it has no host")?.to_owned();
        let stream = TcpStream::connect((host, url.port_or_known_default().unwrap_or(80))).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::post(&url[url::Position::BeforePath..])
            .header(header::HOST, url.authority())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close");
        let own = config.headers.iter().map(|(name, value)| (name.clone(), value.clone()));
        for (name, value) in own.chain(sign(&config.sign, webhook, now_s())) {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(webhook.body.clone()))?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let wait = answer.headers().get(header::RETRY_AFTER);
            let wait = wait.and_then(|wait| wait.to_str().ok()?.parse().ok());
            let status = answer.status();
            // Read to its end: a peer that is hung up on might think it failed.
            Limited::new(answer.into_body(), 1 << 20).collect().await?;
            Ok((status, wait.map(Duration::from_secs)))
        };
        let connection = async {
            // What breaks it, the exchange hears of, too.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            done = exchange => done,
            () = connection => unreachable!("it waits for ever"),
        }
    }
}

fn body(program: &Expression, request: &Recorded, id: &str) -> Result<Option<Bytes>, String> {
    let body = match serde_json::from_str::<serde_json::Value>(&request.body) {
        Ok(_) => request.body.clone(),
        Err(_) => serde_json::Value::from(request.body.as_str()).to_string(),
    };
    let rest = serde_json::json!({
        "method": request.method, "path": request.path, "headers": request.headers,
    });
    let json = format!("{{\"body\":{body},{}", &rest.to_string()[1..]);
    let input = Input::json(json.into()).map_err(|error| error.to_string())?;
    let variables = Variables { delivery: id.to_owned(), ..Variables::default() };
    let output = program.run(&input, &variables).map_err(|error| error.to_string())?;
    Ok((!output.is_null()).then(|| output.to_json()))
}

fn sign(signature: &Signature, webhook: &Webhook, timestamp_s: i64) -> Vec<(String, String)> {
    let header = |name: &str, value: String| (name.to_owned(), value);
    match signature {
        Signature::None => Vec::new(),
        Signature::StandardWebhooks { secret } => {
            let encoded = secret.strip_prefix("whsec_").unwrap_or(secret);
            let key = STANDARD.decode(encoded).unwrap_or_default();
            let signed = format!("{}.{timestamp_s}.", webhook.id);
            let mac = STANDARD.encode(mac(&key, signed.as_bytes(), &webhook.body));
            vec![
                header("webhook-id", webhook.id.clone()),
                header("webhook-timestamp", timestamp_s.to_string()),
                header("webhook-signature", format!("v1,{mac}")),
            ]
        }
        Signature::Stripe { secret } => {
            let signed = format!("{timestamp_s}.");
            let mac = mac(secret.as_bytes(), signed.as_bytes(), &webhook.body);
            let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
            vec![header("Stripe-Signature", format!("t={timestamp_s},v1={hex}"))]
        }
    }
}

fn mac(key: &[u8], before: &[u8], body: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("an HMAC key may have any length");
    mac.update(before);
    mac.update(body);
    mac.finalize().into_bytes().to_vec()
}

#[expect(clippy::disallowed_methods, reason = "a mock is a third party with a clock of its own")]
fn now_s() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> Recorded {
        Recorded {
            at_ms: 0,
            method: "POST".to_owned(),
            path: "/points".to_owned(),
            headers: BTreeMap::new(),
            body: body.to_owned(),
            status: 200,
        }
    }

    fn webhook() -> Webhook {
        let body = Bytes::from_static(br#"{"test": 2432232314}"#);
        Webhook { config: 0, id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(), body }
    }

    /// The example of the Standard Webhooks reference libraries (`standardwebhooks`).
    #[test]
    fn it_signs_as_the_reference_libraries_do() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned();
        let signed = sign(&Signature::StandardWebhooks { secret }, &webhook(), 1_614_265_330);
        assert_eq!(signed[2].1, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn its_body_is_made_of_the_request() {
        let program = Expression::compile("{id: $delivery, n: .body.n, at: .path}").unwrap();
        let made = body(&program, &request(r#"{"n": 1.50}"#), "msg_1").unwrap().unwrap();
        assert_eq!(made, r#"{"id":"msg_1","n":1.50,"at":"/points"}"#);
        let none = Expression::compile("if .body.n then {} else null end").unwrap();
        assert_eq!(body(&none, &request("{}"), "msg_1").unwrap(), None);
        assert_eq!(body(&none, &request("no JSON"), "msg_1").map_err(|_| ()), Err(()));
    }
}
