//! A wall clock that jumps, under the real binary: a library loaded before the system's moves it.

use std::{io::Write as _, path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;
use tidegate_tests::{Both, Gateway, both::Repeats, eventually, gateway::client, rabbitmq::Node};

use super::IN_TIME;
use crate::{
    faults::input::signed::{NEW, genuine},
    products::now,
};

const HOUR: i64 = 3600;
const YEARS: i64 = 10 * 365 * 24 * HOUR;

/// A wall clock of one's own.
struct Clock {
    folder: TempDir,
}

impl Clock {
    /// One that is right. Needs a C compiler, as the build does.
    fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        std::fs::write(clock.moved(), [0; 8]).expect("writable");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/faults/process/clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(clock.library())
            .args([source, "-ldl"])
            .status();
        assert!(built.expect("a C compiler").success());
        clock
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("clock.so")
    }

    fn moved(&self) -> PathBuf {
        self.folder.path().join("moved")
    }

    /// Has `gateway` go by it.
    fn given_to(&self, gateway: &mut Gateway) {
        gateway.set("LD_PRELOAD", self.library().display().to_string());
        gateway.set("TEST_CLOCK", self.moved().display().to_string());
    }

    /// Sets it to so many seconds after the right time.
    fn set(&self, seconds: i64) {
        // In place: what is mapped is this file.
        let file = std::fs::OpenOptions::new().write(true).open(self.moved());
        file.expect("it is there").write_all(&seconds.to_ne_bytes()).expect("writable");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_a_clock_that_jumps_an_hour_or_ten_years_holds_nothing_up() {
    let clock = Clock::new();
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    clock.given_to(&mut both.gateway);
    both.gateway.run().await;
    for moved in [HOUR, 0, -HOUR, YEARS, 0, -YEARS, 0] {
        both.consuming().await;
        clock.set(moved);
        both.exchange(4, 0).await;
        assert_eq!(both.judge().await, Repeats::default(), "{moved}");
    }
    // What was put off by a clock that is far ahead is due by the right one, after a restart too.
    clock.set(YEARS);
    both.api.set_down(true);
    both.publish(4).await;
    let tried = both.api.count();
    eventually("attempts fail", IN_TIME, || async {
        (both.api.count() >= tried + 4).then_some(())
    })
    .await;
    both.gateway.kill().await;
    both.api.set_down(false);
    clock.set(0);
    both.gateway.run().await;
    both.judge().await;
    let log = both.gateway.log();
    assert!(!log.contains("panicked"), "{log}");
    assert!(both.gateway.stop().await.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p10_by_a_clock_that_is_wrong_no_signature_is_taken() {
    let clock = Clock::new();
    let mut gateway = Gateway::new(&format!(
        "\
broker: {{ embedded: {{}} }}
queue: {{ max_size: 16MiB }}
routes:
  signed:
    from:
      webhook:
        path: /hooks
        verify: {{ standard_webhooks: {{ secrets: ['{NEW}'] }} }}
        event: {{ source: /s, type: s, data: .body }}
    to: {{ rabbitmq: {{ exchange: s }} }}
"
    ));
    clock.given_to(&mut gateway);
    gateway.run().await;
    let url = format!("{}/hooks", gateway.webhooks().await);
    for (n, moved, expected) in [
        (1, 0, 202),
        (2, HOUR, 401),
        (3, -HOUR, 401),
        (4, YEARS, 401),
        (5, -YEARS, 401),
        (6, 0, 202),
    ] {
        clock.set(moved);
        let mut request = client().post(&url).timeout(Duration::from_secs(20));
        for line in genuine(NEW, &n.to_string(), now().as_secs(), "{}").lines() {
            let (name, value) = line.split_once(": ").expect("a header");
            request = request.header(name, value);
        }
        let answer = request.body("{}").send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), expected, "{moved}");
    }
    let rejected = gateway.text("/metrics").await;
    let rejected = rejected.lines().find(|line| line.contains("unauthorized"));
    assert!(rejected.is_some_and(|line| line.ends_with(" 4")), "{rejected:?}");
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    assert!(gateway.stop().await.success());
}
