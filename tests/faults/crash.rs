//! A kill at any write, and the disk as a loss of power leaves it.

mod power;

use std::{
    os::unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    path::PathBuf,
    time::Duration,
};

use tidegate_tests::{
    Api, Both, Strace,
    both::{CONCURRENCY, Repeats},
    eventually,
    proxy::Proxy,
    rabbitmq::Node,
    strace::injector,
};

const IN_TIME: Duration = Duration::from_secs(60);

/// A system call, and the how manieth of a thread is the last thing the process does.
type Point = (&'static str, usize);

/// Whichever of the two SQLite was built with.
const SYNC: &str = "fsync,fdatasync";

/// The calls that change files.
const WRITING: [&str; 5] = ["pwrite64", "write", SYNC, "ftruncate", "unlink"];

/// While the queue is made: the folder, SQLite's own journal, the tables, the log, the ballast.
const CREATION: &[Point] = &[
    ("openat", 3),
    ("pwrite64", 3),
    ("pwrite64", 20),
    (SYNC, 4),
    ("unlink", 1),
    ("write", 20),
    ("ftruncate", 1),
];

/// Appends, settlements, what is said to the sides, and the checkpoint at the end.
const TRAFFIC: &[Point] = &[
    ("pwrite64", 1),
    ("pwrite64", 12),
    ("pwrite64", 30),
    ("pwrite64", 55),
    (SYNC, 1),
    (SYNC, 2),
    (SYNC, 4),
    ("ftruncate", 1),
    ("sendto", 1),
    ("sendto", 3),
    ("recvfrom", 3),
];

/// Whether every point is wanted, as the long form does it.
fn every_point() -> bool {
    std::env::var("TIDEGATE_CRASH_POINTS").is_ok_and(|wanted| wanted == "all")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_p2_p3_p4_killed_at_any_call_of_its_traffic_nothing_is_lost() {
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    both.gateway.run().await;
    let mut hit = 0;
    if every_point() {
        for call in WRITING.into_iter().chain(["sendto", "recvfrom", "connect"]) {
            for n in 1.. {
                let Some(repeats) = kill_in_traffic(&mut both, (call, n)).await else { break };
                println!("{call} {n}: {repeats:?}");
                hit += 1;
            }
        }
    } else {
        for point in TRAFFIC {
            hit += usize::from(kill_in_traffic(&mut both, *point).await.is_some());
        }
    }
    assert!(hit >= TRAFFIC.len() - 3, "only {hit} points were come to");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_killed_at_any_call_while_the_queue_is_made_it_starts_the_next_time() {
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    let mut hit = 0;
    if every_point() {
        for call in WRITING.into_iter().chain(["openat", "mkdir"]) {
            for n in 1.. {
                if !kill_in_creation(&mut both, (call, n)).await {
                    break;
                }
                hit += 1;
            }
        }
        println!("{hit} points");
    } else {
        for point in CREATION {
            hit += usize::from(kill_in_creation(&mut both, *point).await);
        }
    }
    assert!(hit >= CREATION.len() - 1, "only {hit} points were come to");
}

/// Plays the scenario, in which the process is killed at `point`, and judges; the repeats, or
/// `None` where the scenario ended before it came to that point.
async fn kill_in_traffic(both: &mut Both, (call, n): Point) -> Option<Repeats> {
    both.consuming().await;
    let paths = if WRITING.contains(&call) { queue_files(both) } else { Vec::new() };
    let injection = format!("{call}:signal=SIGKILL:when={n}");
    let strace = Strace::attach(both.gateway.pid(), &injection, &paths).await;
    both.exchange(4, 0).await;
    both.settle().await;
    let status = both.gateway.stop().await;
    strace.detach().await;
    let killed = status.signal() == Some(9);
    assert!(killed || status.success(), "{call} {n}: {status}\n{}", both.gateway.log());
    both.gateway.run().await;
    let repeats = both.judge().await;
    assert!(repeats.calls <= 2 * CONCURRENCY, "{call} {n}: {repeats:?}");
    killed.then_some(repeats)
}

/// Starts a gateway without a queue, which is killed at `point`, then starts it again and judges;
/// false where it was ready before it came to that point.
async fn kill_in_creation(both: &mut Both, (call, n): Point) -> bool {
    both.replace();
    let injection = format!("{call}:signal=SIGKILL:when={n}");
    let mut paths = queue_files(both);
    paths.push(both.gateway.folder().join("queue"));
    both.gateway.set_behind(injector(&injection, &paths));
    both.gateway.spawn();
    let killed = eventually("it is ready, or gone", IN_TIME, || async {
        if both.gateway.ended() {
            return Some(true);
        }
        both.gateway.log().contains("webhooks listening").then_some(false)
    })
    .await;
    if killed {
        assert_eq!(both.gateway.exit().await.signal(), Some(9), "{}", both.gateway.log());
    } else {
        both.gateway.kill().await;
    }
    both.gateway.set_behind(Vec::new());
    both.gateway.run().await;
    both.consuming().await;
    both.exchange(1, 0).await;
    assert_eq!(both.judge().await, Repeats::default(), "{call} {n}");
    let queue = std::fs::metadata(both.gateway.queue()).expect("it was made");
    assert_eq!(queue.mode() & 0o777, 0o600, "{call} {n}");
    both.gateway.kill().await;
    killed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_killed_after_the_api_said_yes_it_calls_once_more_with_the_same_key() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let proxy = Proxy::to(&api.url()).await;
    let mut both = Both::through(broker, api, None, Some(&proxy.url())).await;
    both.gateway.run().await;
    both.consuming().await;
    // The API has done it and said so; the gateway never hears of it.
    proxy.set_hangs(true);
    both.publish(1).await;
    eventually("the API has it", IN_TIME, || async { both.arrived().then_some(()) }).await;
    both.gateway.kill().await;
    proxy.set_hangs(false);
    both.gateway.run().await;
    assert_eq!(both.judge().await, Repeats { calls: 1, messages: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_killed_before_rabbitmq_had_the_ack_the_event_is_known_and_not_called_again() {
    let broker = Node::shared().await.vhost().await;
    let (proxy, url) = proxied(&broker.url()).await;
    let mut both = Both::through(broker, Api::start().await, Some(&url), None).await;
    both.gateway.run().await;
    both.consuming().await;
    // What RabbitMQ delivers comes through; what the gateway says to it does not.
    proxy.set_deaf(true);
    both.publish(3).await;
    eventually("they have been called", IN_TIME, || async { both.arrived().then_some(()) }).await;
    both.gateway.kill().await;
    proxy.set_deaf(false);
    both.gateway.run().await;
    assert_eq!(both.judge().await, Repeats::default());
    let again = r#"tidegate_events_duplicate_total{route="award-points"} 3"#;
    assert!(both.gateway.text("/metrics").await.contains(again), "RabbitMQ sent them again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p4_killed_between_confirm_and_settlement_it_publishes_again_with_the_same_id() {
    let broker = Node::shared().await.vhost().await;
    let (proxy, url) = proxied(&broker.url()).await;
    let mut both = Both::through(broker, Api::start().await, Some(&url), None).await;
    both.gateway.run().await;
    both.consuming().await;
    // RabbitMQ has it and confirms; the gateway never hears of it.
    proxy.set_hangs_at("hook-0");
    both.send_webhooks(1).await;
    eventually("it is published", IN_TIME, || async { both.arrived().then_some(()) }).await;
    both.gateway.kill().await;
    proxy.set_hangs(false);
    both.gateway.run().await;
    assert_eq!(both.judge().await, Repeats { calls: 0, messages: 1 });
}

/// A proxy before RabbitMQ, and its URL by way of it.
async fn proxied(url: &str) -> (Proxy, String) {
    let (node, vhost) = url.rsplit_once('/').expect("a virtual host");
    let proxy = Proxy::to(&node.replace("amqp://guest:guest@", "http://")).await;
    let by_way = proxy.url().replace("http://", "amqp://guest:guest@");
    (proxy, format!("{by_way}/{vhost}"))
}

/// Everything in the queue's folder.
fn queue_files(both: &Both) -> Vec<PathBuf> {
    let queue = both.gateway.queue();
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", queue.display()));
    ["", "-wal", "-journal", ".lock", ".ballast"].into_iter().map(beside).collect()
}
