//! Real sockets, and bytes where HTTP libraries would be too polite.

use std::path::Path;

use futures_util::future::BoxFuture;
use http::Version;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

use super::*;
use crate::{Accepted, Arrival, DeliveryId, http::webhook::ServerTlsConfig};
use crate::{Intake, http::Hook};

const IN_TIME: Duration = Duration::from_secs(20);

/// An intake that answers what it was told, when it is let go.
struct Recorder {
    answer: Mutex<Result<(), Refused>>,
    limit: Mutex<Result<(), Duration>>,
    taken: Mutex<Vec<Arrival>>,
    rejected: Mutex<Vec<Rejection>>,
    connected: Mutex<Vec<bool>>,
    /// Held: whoever accepts waits for `go`.
    held: Mutex<bool>,
    arrived: Notify,
    go: Notify,
}

impl Recorder {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            answer: Mutex::new(Ok(())),
            limit: Mutex::new(Ok(())),
            taken: Mutex::default(),
            rejected: Mutex::default(),
            connected: Mutex::default(),
            held: Mutex::default(),
            arrived: Notify::new(),
            go: Notify::new(),
        })
    }
}

/// The test's own handle of an intake.
struct Shared(Arc<Recorder>);

impl Intake for Shared {
    fn accept(&self, batch: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        let recorder = Arc::clone(&self.0);
        Box::pin(async move {
            recorder.arrived.notify_one();
            if *recorder.held.lock() {
                recorder.go.notified().await;
            }
            (*recorder.answer.lock())?;
            let accepted = vec![Accepted::Pending(DeliveryId(1)); batch.len()];
            recorder.taken.lock().extend(batch);
            Ok(accepted)
        })
    }

    fn admit(&self) -> Result<(), Duration> {
        *self.0.limit.lock()
    }

    fn rejected(&self, why: Rejection) {
        self.0.rejected.lock().push(why);
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn connected(&self, up: bool) {
        self.0.connected.lock().push(up);
    }
}

/// A running receiver with one webhook at `/hook`, whose key is `k3y`.
struct Scene {
    address: SocketAddr,
    recorder: Arc<Recorder>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn config() -> ServerConfig {
    serde_json::from_value(serde_json::json!({
        "listen": "127.0.0.1:0", "max_body": "64KiB", "max_connections": 100,
        "max_buffered": "1MiB", "header_timeout": "10s", "body_timeout": "10s",
    }))
    .unwrap()
}

impl Scene {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(adapt: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = config();
        adapt(&mut config);
        let webhook = serde_json::from_value(serde_json::json!({
            "path": "/hook",
            "verify": { "api_key": { "header": "X-Key", "keys": ["k3y"] } },
            "dedupe": "24h",
            "event": { "id": "{.body.id}", "type": "t" },
        }))
        .unwrap();
        let hook = Hook::new("r".into(), &webhook).unwrap();
        let receiver = Receiver::bind(&config, || Timestamp(0)).await.unwrap();
        let (recorder, stop) = (Recorder::new(), CancellationToken::new());
        let mut hooks = Hooks::default();
        hooks.add(hook, Arc::new(Shared(Arc::clone(&recorder)))).unwrap();
        let handle = receiver.handle();
        handle.set(&config, hooks);
        let address = handle.address();
        let task = tokio::spawn(receiver.run(stop.clone()));
        Self { address, recorder, stop, task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` and reads until the connection is closed.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(IN_TIME, stream.read_to_end(&mut answer)).await;
        read.expect("the connection is closed").unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn rejected(&self) -> Vec<Rejection> {
        std::mem::take(&mut *self.recorder.rejected.lock())
    }
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nx-key: k3y\r\ncontent-type: application/json\r\n\
         connection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_is_taken_is_answered_with_its_id_after_the_intake_has_said_yes() {
    let scene = Scene::start().await;
    *scene.recorder.held.lock() = true;
    let mut stream = scene.connect().await;
    stream.write_all(post("/hook?a=b", "", r#"{"id": "e-1"}"#).as_bytes()).await.unwrap();
    scene.recorder.arrived.notified().await;
    let mut answer = [0; 1024];
    let early = timeout(Duration::from_millis(50), stream.read(&mut answer)).await;
    assert!(early.is_err(), "answered before the intake has");
    scene.recorder.go.notify_one();
    let mut text = String::new();
    timeout(IN_TIME, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(status(&text), 202, "{text}");
    assert!(text.ends_with(r#"{"id":"e-1"}"#), "{text}");
    let taken = scene.recorder.taken.lock()[0].event.clone().unwrap();
    assert_eq!((&*taken.id, &*taken.source), ("e-1", "/r"));
}

#[tokio::test]
async fn each_refusal_has_its_status_its_problem_and_its_count() {
    let scene = Scene::start().await;
    let good = r#"{"id": "e-1"}"#;
    let large = "x".repeat(65 << 10);
    let other_key = post("/hook", "", good).replace("k3y", "other");
    let get = "GET /hook HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned();
    let hostless = post("/hook", "", good).replace("host: x\r\n", "");
    let cases = [
        (post("/other", "", good), 404, None),
        (post("/hook/", "", good), 404, None),
        (post("/hook/../hook", "", good), 404, None),
        (get, 405, Some(Rejection::Method)),
        (post("/hook", "", &large), 413, Some(Rejection::TooLarge)),
        (other_key, 401, Some(Rejection::Unauthorized)),
        (post("/hook", "", "{"), 400, Some(Rejection::Malformed)),
        (post("/hook", "content-encoding: gzip\r\n", good), 415, Some(Rejection::MediaType)),
        (hostless, 400, Some(Rejection::Malformed)),
    ];
    for (request, expected, rejection) in cases {
        let answer = scene.exchange(&request).await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains(&format!("\"status\":{expected}")), "{answer}");
        assert_eq!(scene.rejected(), rejection.into_iter().collect::<Vec<_>>(), "{answer}");
    }
    assert!(scene.recorder.taken.lock().is_empty());
    assert_eq!(status(&scene.exchange(&post("/%68ook", "", good)).await), 202, "one spelling");
}

#[tokio::test]
async fn who_sends_a_large_body_whole_before_it_listens_still_reads_why_it_is_refused() {
    let scene = Scene::start().await;
    // More than the buffers of both sockets hold, and more than the receiver wants to read.
    let large = "x".repeat(16 << 20);
    let chunked = post("/hook", "", "").replace("content-length: 0", "transfer-encoding: chunked");
    let chunked = format!("{chunked}{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    for request in [post("/hook", "", &large), chunked] {
        let mut stream = scene.connect().await;
        stream.write_all(request.as_bytes()).await.expect("no reset while it sends");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("no reset before the answer is read");
        assert_eq!(status(&answer), 413, "{answer}");
    }
}

#[tokio::test]
async fn a_limit_and_a_full_queue_say_when_to_come_again() {
    let scene = Scene::start().await;
    *scene.recorder.limit.lock() = Err(Duration::from_millis(1_200));
    let answer = scene.exchange(&post("/hook", "", r#"{"id": "1"}"#)).await;
    assert_eq!(status(&answer), 429);
    assert!(answer.contains("retry-after: 2\r\n"), "{answer}");
    assert_eq!(scene.rejected(), [Rejection::RateLimited]);
    *scene.recorder.limit.lock() = Ok(());
    for refused in [Refused::Full, Refused::Closed] {
        *scene.recorder.answer.lock() = Err(refused);
        let answer = scene.exchange(&post("/hook", "", r#"{"id": "1"}"#)).await;
        assert_eq!(status(&answer), 503);
        assert!(answer.contains("retry-after: "), "{answer}");
        assert_eq!(scene.rejected(), [], "the gateway counts its own");
    }
}

#[tokio::test]
async fn n20_who_expects_to_be_invited_is_only_when_the_body_is_wanted() {
    let scene = Scene::start().await;
    let body = r#"{"id": "1"}"#;
    let head = |length: usize| {
        format!(
            "POST /hook HTTP/1.1\r\nhost: x\r\nx-key: k3y\r\ncontent-type: application/json\r\n\
             expect: 100-continue\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )
    };
    let mut stream = scene.connect().await;
    stream.write_all(head(body.len()).as_bytes()).await.unwrap();
    let mut invited = [0; 25];
    timeout(IN_TIME, stream.read_exact(&mut invited)).await.unwrap().unwrap();
    assert_eq!(&invited, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), 202);
    let refused = scene.exchange(&head(100 << 10)).await;
    assert_eq!(status(&refused), 413, "not invited first: {refused}");
}

#[tokio::test]
async fn options_are_answered_and_cloudevents_senders_get_their_validation() {
    let scene = Scene::start().await;
    let options = |headers: &str| {
        format!("OPTIONS /hook HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n")
    };
    let plain = scene.exchange(&options("")).await;
    assert_eq!(status(&plain), 204);
    assert!(plain.contains("allow: POST, OPTIONS"), "{plain}");
    let asked = scene.exchange(&options("webhook-request-origin: events.example\r\n")).await;
    assert_eq!(status(&asked), 200);
    for header in ["webhook-allowed-origin: events.example", "webhook-allowed-rate: *"] {
        assert!(asked.contains(header), "{asked}");
    }
}

#[tokio::test]
async fn n8_bodies_are_timed_and_all_together_bounded() {
    let scene = Scene::with(|config| {
        config.body_timeout = Duration::from_millis(200);
        config.max_buffered = 64 << 10;
    })
    .await;
    let slow = post("/hook", "", "{}").replace("content-length: 2", "content-length: 100");
    let answer = scene.exchange(&slow).await;
    assert_eq!(status(&answer), 408, "{answer}");
    assert_eq!(scene.rejected(), [Rejection::Timeout]);
    *scene.recorder.held.lock() = true;
    let half = format!(r#"{{"id": "1", "filler": "{}"}}"#, "x".repeat(40 << 10));
    let mut first = scene.connect().await;
    first.write_all(post("/hook", "", &half).as_bytes()).await.unwrap();
    scene.recorder.arrived.notified().await;
    let answer = scene.exchange(&post("/hook", "", &half)).await;
    assert_eq!(status(&answer), 503, "{answer}");
    assert_eq!(scene.rejected(), [Rejection::Busy]);
    *scene.recorder.held.lock() = false;
    scene.recorder.go.notify_one();
    let mut answer = String::new();
    first.read_to_string(&mut answer).await.unwrap();
    assert_eq!(status(&answer), 202);
    assert_eq!(status(&scene.exchange(&post("/hook", "", &half)).await), 202, "given back");
}

#[tokio::test]
async fn n8_whoever_says_nothing_or_half_a_head_is_hung_up_on() {
    let scene = Scene::with(|config| config.header_timeout = Duration::from_millis(200)).await;
    for said in ["", "POST /hook HT", "POST /hook HTTP/1.1\r\nhost: x\r\n", "PRI * HT"] {
        let mut stream = scene.connect().await;
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = timeout(IN_TIME, stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "`{said}` is waited on for ever");
    }
}

#[tokio::test]
async fn n9_a_connection_serves_several_requests_unless_its_framing_is_doubtful() {
    let scene = Scene::start().await;
    let keep = post("/hook", "", r#"{"id": "1"}"#).replace("connection: close\r\n", "");
    let answers = scene.exchange(&format!("{keep}{keep}{}", post("/hook", "", "{"))).await;
    assert_eq!(answers.matches("HTTP/1.1 202").count(), 2, "{answers}");
    let chunked = keep
        .replace("content-length: 11\r\n", "transfer-encoding: chunked\r\n")
        .replace("{\"id\": \"1\"}", "b\r\n{\"id\": \"1\"}\r\n0\r\n\r\n");
    let answers = scene.exchange(&format!("{chunked}{keep}")).await;
    assert_eq!(answers.matches("HTTP/1.1").count(), 1, "a coding ends the connection: {answers}");
    assert_eq!(status(&answers), 202);
    let both = chunked.replace("transfer-encoding", "content-length: 5\r\ntransfer-encoding");
    let answers = scene.exchange(&format!("{both}{keep}")).await;
    assert_eq!((status(&answers), answers.matches("HTTP/1.1").count()), (400, 1), "{answers}");
}

#[tokio::test]
async fn http_2_is_spoken_with_prior_knowledge() {
    let scene = Scene::start().await;
    let stream = TokioIo::new(scene.connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    for expected in [StatusCode::NO_CONTENT, StatusCode::NO_CONTENT] {
        let uri = format!("http://{}/hook", scene.address);
        let request = Request::options(uri).body(Empty::<bytes::Bytes>::new()).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!((answer.version(), answer.status()), (Version::HTTP_2, expected));
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    connection.abort();
}

#[tokio::test]
async fn told_to_stop_it_finishes_what_is_under_way_and_takes_nothing_new() {
    let scene = Scene::start().await;
    assert_eq!(status(&scene.exchange(&post("/hook", "", r#"{"id": "1"}"#)).await), 202);
    let mut idle = scene.connect().await;
    let keep = post("/hook", "", r#"{"id": "1"}"#).replace("connection: close\r\n", "");
    *scene.recorder.held.lock() = true;
    let mut under_way = scene.connect().await;
    under_way.write_all(keep.as_bytes()).await.unwrap();
    scene.recorder.arrived.notified().await;
    scene.recorder.arrived.notified().await;
    let before = scene.recorder.connected.lock().clone();
    assert_eq!(before, [true]);
    scene.stop.cancel();
    // It listens no more once the first connection is refused.
    while TcpStream::connect(scene.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    scene.recorder.go.notify_one();
    let mut answer = String::new();
    timeout(IN_TIME, under_way.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(status(&answer), 202, "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    // A connection that was open before may be closed on us, or told 503; never 202.
    let _ = idle.write_all(keep.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(IN_TIME, idle.read_to_end(&mut answer)).await.expect("it ends");
    assert!(!String::from_utf8_lossy(&answer).contains(" 202 "));
    timeout(IN_TIME, scene.task).await.unwrap().unwrap();
    assert_eq!(*scene.recorder.connected.lock(), [true, false]);
}

fn write_certificate(folder: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("cert.pem"), cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_changed_certificate_is_taken_up_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let files = ServerTlsConfig {
        cert: folder.path().join("cert.pem"),
        key: folder.path().join("key.pem"),
    };
    let missing = Certificates::load(&files).err().unwrap().to_string();
    assert!(missing.starts_with("tls.cert: ") && missing.contains("cert.pem"), "{missing}");
    write_certificate(folder.path(), "one.example");
    let certificates = Certificates::load(&files).unwrap();
    assert_eq!(certificates.look(), Ok(false));
    write_certificate(folder.path(), "two.example");
    assert_eq!(certificates.look(), Ok(true));
    let key = std::fs::read(&files.key).unwrap();
    write_certificate(folder.path(), "three.example");
    std::fs::write(&files.key, &key).unwrap();
    assert!(matches!(certificates.look(), Err(TlsError::Pair(_))), "key of another");
    std::fs::write(&files.cert, "none").unwrap();
    assert!(matches!(certificates.look(), Err(TlsError::File { key: "cert", .. })));
    write_certificate(folder.path(), "four.example");
    assert_eq!(certificates.look(), Ok(true), "a good one after bad ones");
}

#[tokio::test]
async fn https_is_spoken_and_nothing_else_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    write_certificate(folder.path(), "hooks.example");
    let path = |name| folder.path().join(name);
    let tls = ServerTlsConfig { cert: path("cert.pem"), key: path("key.pem") };
    let scene = Scene::with(|config| config.tls = Some(tls)).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(path("cert.pem")).unwrap();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = "hooks.example".try_into().unwrap();
    let mut stream = connector.connect(name, scene.connect().await).await.unwrap();
    stream.write_all(post("/hook", "", r#"{"id": "1"}"#).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The peer may close without saying so in TLS.
    let _ = timeout(IN_TIME, stream.read_to_end(&mut answer)).await.expect("it ends");
    assert_eq!(status(&String::from_utf8_lossy(&answer)), 202);
    let mut plain = scene.connect().await;
    plain.write_all(post("/hook", "", "{}").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(IN_TIME, plain.read_to_end(&mut answer)).await.expect("it is hung up on");
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn two_routes_on_one_path_are_told() {
    let webhook = serde_json::from_value(serde_json::json!({
        "path": "/%68ook", "verify": { "none": {} }, "dedupe": "off", "event": { "type": "t" },
    }))
    .unwrap();
    let mut hooks = Hooks::default();
    for (route, expected) in [("first", Ok(())), ("second", Err(()))] {
        let hook = Hook::new(route.into(), &webhook).unwrap();
        let added = hooks.add(hook, Arc::new(Shared(Recorder::new())));
        assert_eq!(added.as_ref().map_err(|_| ()), expected.as_ref().map_err(|_| ()), "{added:?}");
    }
}
