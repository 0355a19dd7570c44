//! SIGTERM before it is ready: in the middle of what it does to become so.

use std::{os::unix::process::ExitStatusExt as _, path::PathBuf, time::Duration};

use tidegate_tests::{Api, Both, both::Repeats, proxy::Proxy, rabbitmq::Node, strace::injector};
use tokio::time::Instant;

use super::signal;

/// What Kubernetes gives by default.
const GRACE: Duration = Duration::from_secs(30);

/// A system call, the how manieth of its thread, and the file it concerns. The signal comes with
/// it; only one thread makes so many of them, since a second signal is an order to end at once.
type Point = (&'static str, usize, File);

#[derive(Debug, Clone, Copy)]
enum File {
    Any,
    Config,
    /// The queue's, with this ending.
    Queue(&'static str),
}

/// While it reads its configuration, makes its queue, and binds its listeners.
const CREATION: [Point; 7] = [
    ("openat", 1, File::Config),
    ("openat", 1, File::Queue(".lock")),
    ("openat", 1, File::Queue("-journal")),
    ("unlink", 1, File::Queue("-journal")),
    ("openat", 1, File::Queue(".ballast")),
    ("bind", 1, File::Any),
    ("bind", 2, File::Any),
];

/// Before it reads a log that was not folded in, and after.
const RECOVERY: [Point; 2] =
    [("ftruncate", 1, File::Queue("-shm")), ("openat", 2, File::Queue("-wal"))];

/// Starts it and has it told to stop at `point`; it ends by itself, and in order.
async fn stopped_at(both: &mut Both, (call, n, file): Point) {
    let paths = match file {
        File::Any => Vec::new(),
        File::Config => vec![both.gateway.folder().join("gateway.yaml")],
        File::Queue(ending) => {
            vec![PathBuf::from(format!("{}{ending}", both.gateway.queue().display()))]
        }
    };
    let injection = format!("{call}:signal=SIGTERM:when={n}");
    both.gateway.set_behind(injector(&injection, &paths));
    let began = Instant::now();
    both.gateway.spawn();
    let status = both.gateway.exit().await;
    let log = both.gateway.log();
    assert_eq!(status.code(), Some(0), "{call} {n} {file:?}: {status}\n{log}");
    assert!(began.elapsed() < GRACE, "{call} {n} {file:?}: {:?}", began.elapsed());
    assert!(!log.contains("panicked"), "{log}");
    both.gateway.set_behind(Vec::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_sigterm_at_any_moment_of_its_first_start_ends_it_in_order() {
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    for point in CREATION {
        both.replace();
        both.gateway.set("TIDEGATE__SHUTDOWN__DRAIN", "100ms");
        stopped_at(&mut both, point).await;
        both.gateway.run().await;
        both.consuming().await;
        both.exchange(1, 0).await;
        assert_eq!(both.judge().await, Repeats::default(), "{point:?}");
        both.gateway.kill().await;
    }
    // Before it can have heard of anything: the system ends it, and nothing was begun.
    both.replace();
    both.gateway.set_behind(injector("openat:signal=SIGTERM:when=1", &[]));
    both.gateway.spawn();
    assert_eq!(both.gateway.exit().await.signal(), Some(15), "{}", both.gateway.log());
    assert!(!both.gateway.queue().exists());
    both.gateway.set_behind(Vec::new());
    both.gateway.run().await;
    assert!(both.gateway.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_sigterm_while_it_recovers_or_waits_for_rabbitmq_loses_nothing() {
    let broker = Node::shared().await.vhost().await;
    let url = broker.url();
    let (node, vhost) = url.rsplit_once('/').expect("a virtual host");
    let proxy = Proxy::to(&node.replace("amqp://guest:guest@", "http://")).await;
    let url = format!("{}/{vhost}", proxy.url().replace("http://", "amqp://guest:guest@"));
    let mut both = Both::through(broker, Api::start().await, Some(&url), None).await;
    both.gateway.run().await;
    both.consuming().await;
    both.gateway.kill().await;
    // It takes connections and says nothing.
    proxy.set_hangs(true);
    for point in RECOVERY {
        both.gateway.run().await;
        // What comes in stays, and most of it in the log.
        both.exchange(30, 60_000).await;
        both.gateway.kill().await;
        stopped_at(&mut both, point).await;
    }
    both.gateway.spawn();
    both.gateway.webhooks().await;
    let began = Instant::now();
    signal(both.gateway.pid(), "-TERM").await;
    assert!(both.gateway.exit().await.success(), "{}", both.gateway.log());
    assert!(began.elapsed() < GRACE, "{:?}", began.elapsed());
    proxy.set_hangs(false);
    both.gateway.run().await;
    assert_eq!(both.judge().await, Repeats::default());
}
