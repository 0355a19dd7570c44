//! The public listener's bytes, over a real socket.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use tidegate_adapters::{
    Accepted, Arrival, DeliveryId, Intake, Refused,
    http::{Hook, Hooks, Receiver, webhook::ServerConfig},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{RUNTIME, find, now, sound::assert_sound};

/// In which every connection has come to its end; it takes less than a millisecond.
const IN_TIME: Duration = Duration::from_secs(20);

/// One body at most.
const BODY_MAX: usize = 16 << 10;

/// Counts what it takes.
#[derive(Default)]
struct Taken(Mutex<Vec<Arrival>>);

struct Counting(Arc<Taken>);

impl Intake for Counting {
    fn accept(&self, batch: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        let accepted = vec![Accepted::Pending(DeliveryId(1)); batch.len()];
        self.0.0.lock().extend(batch);
        Box::pin(async move { Ok(accepted) })
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }

    fn connected(&self, _: bool) {}
}

/// A listener with one webhook, at `/hook`, for as long as the process lives.
struct Scene {
    address: SocketAddr,
    taken: Arc<Taken>,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let config: ServerConfig = serde_json::from_value(json!({
        "listen": "127.0.0.1:0", "max_body": "16KiB", "max_connections": 100,
        "max_buffered": "1MiB", "header_timeout": "10s", "body_timeout": "10s",
    }))
    .expect("a sound listener");
    let hook = serde_json::from_value(json!({
        "path": "/hook", "verify": { "none": {} }, "dedupe": "off", "event": { "type": "t" },
    }));
    let hook = Hook::new("hooks".into(), &hook.expect("a sound webhook")).expect("a webhook");
    let taken = Arc::new(Taken::default());
    let mut hooks = Hooks::default();
    hooks.add(hook, Arc::new(Counting(Arc::clone(&taken)))).expect("the only path");
    let receiver = RUNTIME.block_on(Receiver::bind(&config, now)).expect("loopback has room");
    let handle = receiver.handle();
    handle.set(&config, hooks);
    RUNTIME.spawn(receiver.run(CancellationToken::new()));
    Scene { address: handle.address(), taken }
});

/// What a stranger sends on one connection, after which it says no more.
///
/// # Panics
/// When the connection does not end, a yes was said to what was not taken, or more was taken than
/// was sent.
pub fn listener(input: &[u8]) {
    let scene = &*SCENE;
    scene.taken.0.lock().clear();
    let answer = RUNTIME.block_on(async {
        timeout(IN_TIME, exchange(scene.address, input)).await.expect("the connection ends")
    });
    let taken = std::mem::take(&mut *scene.taken.0.lock());
    for arrival in &taken {
        match &arrival.event {
            Ok(event) => {
                assert_sound(event);
                assert!(event.data_bytes().len() <= BODY_MAX * 4 / 3);
            }
            Err(invalid) => assert!(!invalid.why.is_empty()),
        }
    }
    if input.starts_with(b"PRI * HTTP/2.0") {
        return;
    }
    // One request, one yes, one event: nothing within a body is taken for another request.
    let yes = count(&answer, b"HTTP/1.1 202 ") + count(&answer, b"HTTP/1.0 202 ");
    // A batch may hold no events at all.
    let batch = find(&input.to_ascii_lowercase(), b"cloudevents-batch").is_some();
    assert!(batch || yes <= taken.len(), "{yes} times yes to {} events", taken.len());
    assert!(batch || taken.len() <= count(input, b"POST "), "more requests than were sent");
    if !answer.is_empty() {
        assert!(answer.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answer));
    }
}

/// What is answered until the other side closes. A peer may close before it has read all.
async fn exchange(address: SocketAddr, input: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the listener listens");
    let (mut reader, mut writer) = stream.split();
    let send = async {
        let _ = writer.write_all(input).await;
        let _ = writer.shutdown().await;
    };
    let mut answer = Vec::new();
    let receive = async {
        let _ = reader.read_to_end(&mut answer).await;
    };
    tokio::join!(send, receive);
    answer
}

fn count(mut bytes: &[u8], wanted: &[u8]) -> usize {
    let mut count = 0;
    while let Some(at) = find(bytes, wanted) {
        bytes = &bytes[at + wanted.len()..];
        count += 1;
    }
    count
}
