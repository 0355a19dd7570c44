//! A kill at any write, and the disk as a loss of power leaves it.

use std::{os::unix::process::ExitStatusExt as _, path::PathBuf};

use tidegate_tests::{
    Both, Strace,
    both::{CONCURRENCY, Repeats},
    rabbitmq::Node,
};

/// A system call, and the how manieth of a thread is the last thing the process does.
type Point = (&'static str, usize);

/// A few of each phase: appends, settlements, the checkpoint and the end.
const TRAFFIC: &[Point] = &[
    ("pwrite64", 1),
    ("pwrite64", 30),
    ("fdatasync", 1),
    ("fdatasync", 3),
    ("ftruncate", 1),
    ("sendto", 2),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_killed_at_a_write_of_its_traffic_nothing_is_lost() {
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    both.gateway.run().await;
    for point in TRAFFIC {
        let began = tokio::time::Instant::now();
        let hit = kill_in_traffic(&mut both, *point).await;
        println!("{point:?} {hit:?} {:?}", began.elapsed());
    }
}

/// Plays the scenario, in which the process is killed at `point`, and judges; the repeats, or
/// `None` where the scenario ended before it came to that point.
async fn kill_in_traffic(both: &mut Both, (call, n): Point) -> Option<Repeats> {
    both.consuming().await;
    let paths = match call {
        "pwrite64" | "fdatasync" | "ftruncate" | "unlink" => queue_files(both),
        _ => Vec::new(),
    };
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

/// Everything in the queue's folder.
fn queue_files(both: &Both) -> Vec<PathBuf> {
    let queue = both.gateway.queue();
    let beside = |ending: &str| PathBuf::from(format!("{}{ending}", queue.display()));
    ["", "-wal", ".lock", ".ballast"].into_iter().map(beside).collect()
}
