//! The operator's page on backups, done as it says.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use serde_json::json;
use tidegate::mock::Recorded;
use tidegate_tests::{Api, Gateway, eventually, gateway::client};
use tokio::process::Command;

use super::{PYTHON, file, text};

const IN_TIME: Duration = Duration::from_secs(60);

/// What is there before the backup begins.
const BEFORE: u64 = 300;

fn yaml(api: &str) -> String {
    format!(
        "
broker: {{ embedded: {{}} }}
upstreams:
  loyalty: {{ url: '{api}', egress: {{ allow: [127.0.0.0/8] }}, breaker: {{ open: 1s }} }}
routes:
  award-points:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to: {{ http: {{ upstream: loyalty, path: '/orders/{{.id}}' }} }}
"
    )
}

async fn publish(admin: &str, n: u64) {
    let event = json!({
        "specversion": "1.0", "id": format!("order-{n}"), "source": "/shop",
        "type": "order.confirmed", "data": { "n": n },
    });
    let request = client().post(format!("{admin}/api/v1/events?exchange=orders&key=order"));
    let request = request.header("content-type", "application/cloudevents+json");
    let answer = request.body(event.to_string()).send().await.expect("the admin listener answers");
    assert!(answer.status().is_success(), "{}", answer.status());
}

/// SQLite by another program, with the statement that the page tells to run.
async fn sqlite(database: &Path, statement: &str) -> String {
    let script = "import sqlite3, sys\n\
                  database = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n\
                  print(*[row[0] for row in database.execute(sys.argv[2])])";
    let mut python = Command::new(file(PYTHON));
    let output = python.args(["-c", script]).arg(database).arg(statement).output().await;
    let output = output.expect("run tests/install-deploy-tools.sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn queue_of(gateway: &Gateway) -> std::path::PathBuf {
    gateway.folder().join("queue/tidegate.db")
}

/// Paths that `api` has answered 2xx: one for each event.
fn arrived(api: &Api) -> HashSet<String> {
    api.requests().into_iter().filter(|got| got.status == 200).map(|got| got.path).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_taken_under_load_holds_everything_from_before_it_and_nothing_twice() {
    const STATEMENT: &str = "VACUUM INTO '/backup/tidegate.db'";
    assert!(text("deploy/README.md").contains(STATEMENT), "the page tells something else");
    let api = Api::start().await;
    api.set_down(true);
    let mut gateway = Gateway::start(&yaml(&api.url())).await;
    let admin = gateway.admin().await;
    for n in 0..BEFORE {
        publish(&admin, n).await;
    }

    let (taken, published) = (AtomicBool::new(false), AtomicU64::new(BEFORE));
    let backup = gateway.folder().join("backup.db");
    let load = async {
        while !taken.load(Ordering::Relaxed) {
            publish(&admin, published.fetch_add(1, Ordering::Relaxed)).await;
        }
    };
    let take = async {
        // The load is under way.
        eventually("load", IN_TIME, || async {
            (published.load(Ordering::Relaxed) > BEFORE + 20).then_some(())
        })
        .await;
        let statement = STATEMENT.replace("/backup/tidegate.db", &backup.display().to_string());
        sqlite(&queue_of(&gateway), &statement).await;
        taken.store(true, Ordering::Relaxed);
    };
    tokio::join!(load, take);
    assert_eq!(sqlite(&backup, "PRAGMA integrity_check").await, "ok");
    assert!(published.load(Ordering::Relaxed) > BEFORE + 20, "it went on meanwhile");
    gateway.kill().await;

    let mut restored = Gateway::new(&yaml(&api.url()));
    std::fs::create_dir_all(restored.folder().join("queue")).expect("writable");
    std::fs::rename(&backup, queue_of(&restored)).expect("one disk");
    api.set_down(false);
    restored.run().await;
    eventually("everything from before the backup arrives", IN_TIME, || async {
        let arrived = arrived(&api);
        (0..BEFORE).all(|n| arrived.contains(&format!("/orders/order-{n}"))).then_some(())
    })
    .await;
    eventually("nothing is left", IN_TIME, || async {
        (restored.count("award-points", "pending").await == 0).then_some(())
    })
    .await;
    assert_eq!(api.accepted().1, 0, "accepted twice");
}

/// Idempotency keys by path, in the order in which they were sent.
fn sent(api: &Api) -> Vec<(String, String)> {
    let requests = api.requests().into_iter();
    let key = |got: &Recorded| got.idempotency_key().expect("a key").to_owned();
    requests.map(|got| (got.path.clone(), key(&got))).collect()
}

/// While it delivers: what the copy had pending is sent, and of that only what had been delivered
/// since the copy was made is sent again, by the keys of before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_repeats_only_what_was_delivered_since_with_the_same_keys() {
    let slow = |url: &str| {
        yaml(url).replace("breaker:", "rate_limit: { limit: 40, period: 1s }, breaker:")
    };
    let lost = Api::start().await;
    let mut gateway = Gateway::start(&slow(&lost.url())).await;
    let admin = gateway.admin().await;
    for n in 0..BEFORE {
        publish(&admin, n).await;
    }
    eventually("some are delivered", IN_TIME, || async { (lost.count() > 20).then_some(()) }).await;
    let backup = gateway.folder().join("backup.db");
    let statement = format!("VACUUM INTO '{}'", backup.display());
    sqlite(&queue_of(&gateway), &statement).await;
    let count = lost.count();
    eventually("it goes on", IN_TIME, || async { (lost.count() > count + 40).then_some(()) }).await;
    gateway.kill().await;

    let held = sqlite(&backup, "SELECT pending || ' ' || delivered FROM route").await;
    let (pending, delivered) = held.split_once(' ').expect("two numbers");
    let number = |text: &str| text.parse::<usize>().expect("a number");
    let (pending, delivered) = (number(pending), number(delivered));
    let all = usize::try_from(BEFORE).expect("small");
    assert!(pending > 0 && delivered > 0 && pending + delivered == all, "{held}");

    let api = Api::start().await;
    let mut restored = Gateway::new(&slow(&api.url()));
    std::fs::create_dir_all(restored.folder().join("queue")).expect("writable");
    std::fs::rename(&backup, queue_of(&restored)).expect("one disk");
    restored.run().await;
    eventually("nothing is left", IN_TIME, || async {
        (restored.count("award-points", "pending").await == 0).then_some(())
    })
    .await;
    let (there, here) = (sent(&lost), sent(&api));
    assert_eq!(here.len(), pending, "each pending one, once");
    let before: HashMap<_, _> = there.iter().cloned().collect();
    let again = here.iter().filter(|(path, _)| before.contains_key(path));
    let again: Vec<_> = again.inspect(|(path, key)| assert_eq!(before[path], *key)).collect();
    assert!(!again.is_empty() && again.len() <= there.len() - delivered, "{}", again.len());
    let paths: HashSet<_> = there.iter().chain(&here).map(|(path, _)| path).collect();
    assert_eq!(paths.len(), all, "none is lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_gateways_file_is_whole_and_moves_to_another_place() {
    let api = Api::start().await;
    api.set_down(true);
    let mut gateway = Gateway::start(&yaml(&api.url())).await;
    let admin = gateway.admin().await;
    for n in 0..20 {
        publish(&admin, n).await;
    }
    assert!(gateway.stop().await.success());
    let mut moved = Gateway::new(&yaml(&api.url()));
    std::fs::create_dir_all(moved.folder().join("queue")).expect("writable");
    std::fs::copy(queue_of(&gateway), queue_of(&moved)).expect("one file");
    api.set_down(false);
    moved.run().await;
    eventually("all arrive", IN_TIME, || async { (arrived(&api).len() == 20).then_some(()) }).await;
    assert_eq!(api.accepted(), (20, 0));
}
