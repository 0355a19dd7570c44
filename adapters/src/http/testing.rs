//! What the tests of the HTTP target share: a fake API of raw bytes on a real socket, whose faults
//! each test writes itself, and shorthand for configurations, deliveries and gates.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;
use tower::Service as _;

use super::{
    ApiConfig, AuthConfig, BodyConfig, EgressConfig, Encode, HttpRequest, HttpTargetConfig,
    RetryOn, StatusPattern,
    caller::{Api, Caller, HttpTarget},
};
use crate::{
    Call, Data, Delivery, DeliveryId, Event, Failure, Gate, Receipt, Request, Timestamp,
    TraceContext, secret::Mask,
};

/// Sun, 06 Nov 1994 08:49:37 GMT.
pub(crate) fn now() -> Timestamp {
    Timestamp(784_111_777_000)
}

// ===== a fake API =====

/// A listener on loopback and the tasks that serve it; ends when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    _accepting: AbortOnDropHandle<()>,
}

impl Server {
    /// Serves each connection with `serve`, which is given its number, from 0.
    pub(crate) async fn start<F, R>(serve: F) -> Self
    where
        F: Fn(usize, TcpStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                serving.spawn(serve(number, stream));
            }
        });
        Self { address, connections, _accepting: AbortOnDropHandle::new(accepting) }
    }

    /// Answers every request, on connections kept alive, with what `answer` makes of it.
    pub(crate) async fn answering<F>(answer: F) -> Self
    where
        F: Fn(&Seen) -> String + Send + Sync + 'static,
    {
        let answer = Arc::new(answer);
        Self::start(move |_, mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                while let Some(seen) = Seen::read(&mut stream).await {
                    let bytes = answer(&seen);
                    if stream.write_all(bytes.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Closes a connection so that the other side gets a reset.
pub(crate) fn reset(stream: TcpStream) {
    let socket = stream.into_std().unwrap();
    let socket = TcpStream::from_std(socket).unwrap();
    socket.set_zero_linger().unwrap();
}

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// Reads one request; `None` at the end of the stream.
    pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut seen = Self::read_head(stream).await?;
        let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
        seen.body.resize(length, 0);
        stream.read_exact(&mut seen.body).await.ok()?;
        Some(seen)
    }

    pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        Some(Self { head: String::from_utf8(head).unwrap(), body: Vec::new() })
    }

    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        found.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A complete answer with a body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// Writes bytes, whatever becomes of them.
pub(crate) async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: impl AsRef<[u8]>) {
    let _ = stream.write_all(bytes.as_ref()).await;
    let _ = stream.flush().await;
}

// ===== shorthand =====

pub(crate) fn api_config(url: &str) -> ApiConfig {
    ApiConfig {
        url: url.parse().unwrap(),
        headers: BTreeMap::new(),
        auth: AuthConfig::default(),
        tls: None,
        proxy: None,
        retry_after: None,
        egress: EgressConfig { allow: vec!["127.0.0.0/8".parse().unwrap()] },
    }
}

pub(crate) fn target_config() -> HttpTargetConfig {
    HttpTargetConfig {
        upstream: "loyalty".into(),
        method: http::Method::POST,
        path: None,
        query: BTreeMap::new(),
        headers: BTreeMap::new(),
        body: BodyConfig::Data,
        encode: Encode::Json,
        success: vec![StatusPattern::Class(2)],
        retry_on: vec![RetryOn::Default],
        outcome: None,
        idempotency_header: Some("Idempotency-Key".into()),
        max_response: 64 << 10,
    }
}

pub(crate) fn event(data: Data) -> Event {
    Event {
        id: "1".into(),
        source: "/orders".into(),
        kind: "order.confirmed".into(),
        subject: None,
        time: None,
        datacontenttype: None,
        dataschema: None,
        extensions: BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data,
    }
}

pub(crate) fn delivery_of(event: Event) -> Arc<Delivery> {
    Arc::new(Delivery {
        id: DeliveryId(7),
        route: "award-points".into(),
        event: Arc::new(event),
        key: None,
        accepted_at: now(),
        attempts: 0,
        tries: 0,
        first_attempt_at: None,
        due_at: now(),
    })
}

pub(crate) fn delivery() -> Arc<Delivery> {
    delivery_of(event(Data::Json(Bytes::from_static(DATA))))
}

/// Data that no re-serialisation would leave alone.
pub(crate) const DATA: &[u8] = br#"{ "total": 12.50,"a":1, "a":12345678901234567890 }"#;

pub(crate) fn api_with(config: &ApiConfig, mask: &Mask) -> Arc<Api> {
    Arc::new(Api::new(config, 8, mask.clone(), now).unwrap())
}

pub(crate) fn api(config: &ApiConfig) -> Arc<Api> {
    api_with(config, &Mask::default())
}

pub(crate) fn target(config: &HttpTargetConfig, api: &Arc<Api>) -> HttpTarget {
    HttpTarget::new(config, Arc::clone(api), Duration::from_secs(3600)).unwrap()
}

/// Renders a first attempt.
pub(crate) fn prepare(
    target: &HttpTarget,
    delivery: &Arc<Delivery>,
) -> Result<HttpRequest, Failure> {
    target.prepare(delivery, 1, &crate::expression::Input::event(Arc::clone(&delivery.event)))
}

/// Renders and sends one attempt.
pub(crate) async fn attempt(api: &Arc<Api>, config: &HttpTargetConfig) -> Result<Receipt, Failure> {
    let delivery = delivery();
    let mut request = prepare(&target(config, api), &delivery).unwrap();
    request.carry(&TraceContext::root(true));
    send(api, request, &delivery, Arc::new(Gates::default())).await
}

pub(crate) async fn send(
    api: &Arc<Api>,
    request: HttpRequest,
    delivery: &Arc<Delivery>,
    gate: Arc<dyn Gate>,
) -> Result<Receipt, Failure> {
    let request = Request::Http(Arc::new(request));
    let call = Call { delivery: Arc::clone(delivery), attempt: 1, request, gate };
    Caller::new(Arc::clone(api)).call(call).await
}

/// A gate that is open and writes down who passed.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    pub(crate) passed: Mutex<Vec<&'static str>>,
}

impl Gates {
    pub(crate) fn passed(&self) -> Vec<&'static str> {
        self.passed.lock().clone()
    }
}

impl Gate for Gates {
    fn pass(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.passed.lock().push("pass") })
    }

    fn pass_again(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.passed.lock().push("again") })
    }

    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}
