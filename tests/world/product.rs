//! Third-party products: APIs that behave as their documentation says, rule by rule, and the
//! configurations that we ship for them.
//!
//! A scripted mock ([`crate::Api`]) answers what it was told to. Here a function sees each request
//! and answers as the page says: who may ask, what a body must hold, what is throttled until when.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tidegate::mock::{AnswerConfig, Recorded};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

/// What a product's page says: an answer to each request.
type Rules = dyn Fn(&Recorded) -> AnswerConfig + Send + Sync;

/// A running product; ends when dropped.
pub struct Product {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Recorded>>>,
    task: JoinHandle<()>,
}

impl Product {
    /// One that answers by `rules`, which see requests whose status is still 0.
    pub async fn start(rules: impl Fn(&Recorded) -> AnswerConfig + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port on loopback");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::<Mutex<Vec<Recorded>>>::default();
        let desk =
            Desk { rules: Arc::new(rules), asked: Arc::clone(&asked), start: Instant::now() };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let desk = desk.clone();
                let service = service_fn(move |request| {
                    let desk = desk.clone();
                    async move { Ok::<_, Infallible>(desk.answer(request).await) }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // Whoever goes away in the middle is seen by what was not asked.
                tokio::spawn(async move {
                    let _ = connection.await;
                });
            }
        });
        Self { address, asked, task }
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was asked, and with what status it answered.
    #[must_use]
    pub fn asked(&self) -> Vec<Recorded> {
        self.asked.lock().clone()
    }

    /// The statuses of its answers, in their order.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        self.asked.lock().iter().map(|request| request.status).collect()
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where requests are answered.
#[derive(Clone)]
struct Desk {
    rules: Arc<Rules>,
    asked: Arc<Mutex<Vec<Recorded>>>,
    start: Instant,
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.expect("a whole body").to_bytes();
        let headers = head.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let mut recorded = Recorded {
            at_ms: u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            method: head.method.to_string(),
            path: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            headers: headers.collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
            status: 0,
        };
        // The rules and the record are one step: two requests at once are seen one after the other.
        let mut asked = self.asked.lock();
        let answer = (self.rules)(&recorded);
        recorded.status = answer.status;
        asked.push(recorded);
        drop(asked);
        let mut response =
            Response::builder().status(answer.status).header("Content-Type", "application/json");
        for (name, value) in &answer.headers {
            response = response.header(name, value);
        }
        response.body(Full::from(answer.body)).expect("a product's answer is well-formed")
    }
}

/// An answer with a JSON body.
#[must_use]
pub fn answer(status: u16, body: &Value) -> AnswerConfig {
    AnswerConfig { body: body.to_string(), ..AnswerConfig::status(status) }
}

/// An answer with a JSON body and one more header.
#[must_use]
pub fn answer_with(status: u16, header: &str, value: &str, body: &Value) -> AnswerConfig {
    let headers = BTreeMap::from([(header.to_owned(), value.to_owned())]);
    AnswerConfig { headers, ..answer(status, body) }
}

/// The value of a request's header; empty when there is none.
#[must_use]
pub fn header<'a>(request: &'a Recorded, name: &str) -> &'a str {
    request.headers.get(name).map_or("", String::as_str)
}

/// A request's body as JSON; null when it is none.
#[must_use]
pub fn json(request: &Recorded) -> Value {
    serde_json::from_str(&request.body).unwrap_or(Value::Null)
}

/// The fields of a request's form.
#[must_use]
pub fn form(request: &Recorded) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(request.body.as_bytes()).into_owned().collect()
}

/// Where the configurations for products lie.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../config/products")
}

/// The configuration we ship for `product`, as it is but for one line: its upstream may call
/// loopback, where the mock listens. What we ship must not say so, since nobody's API is there, and
/// a variable for it would be a hole that waits for somebody to fall into.
#[must_use]
pub fn shipped(product: &str) -> String {
    const UPSTREAM: &str = "    url: ";
    let path = folder().join(format!("{product}.yaml"));
    let text = std::fs::read_to_string(&path).expect("a configuration that we ship");
    let (before, after) = text.split_once("\nupstreams:\n").expect("it has upstreams");
    let mut yaml = format!("{before}\nupstreams:\n");
    let mut opened = 0;
    for line in after.lines() {
        yaml.push_str(line);
        yaml.push('\n');
        if line.starts_with(UPSTREAM) {
            yaml.push_str("    egress: { allow: [127.0.0.0/8] }\n");
            opened += 1;
        }
    }
    assert_eq!(opened, 1, "{product}: one upstream");
    yaml
}

/// The variables that a configuration cannot do without: those of its `${NAME:?why}`.
#[must_use]
pub fn required(yaml: &str) -> Vec<String> {
    let mut names: Vec<String> = yaml
        .split("${")
        .skip(1)
        .filter_map(|rest| {
            let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()?;
            rest[name.len()..].starts_with(":?").then(|| name.to_owned())
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
