//! No memory left.

use std::{os::unix::process::ExitStatusExt as _, process::Command};

use tidegate_tests::{Both, eventually, process::data, rabbitmq::Node};

use super::IN_TIME;

/// What a small container has.
const CONTAINER: u64 = 256 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p7_under_load_it_fits_a_small_container_and_out_of_memory_it_loses_nothing() {
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    both.gateway.run().await;
    both.consuming().await;
    // A backlog of large bodies, and then all of it at once.
    both.api.set_down(true);
    for _ in 0..5 {
        both.exchange(16, 200_000).await;
    }
    both.api.set_down(false);
    both.judge().await;
    let peak = both.gateway.peak_memory();
    assert!(peak < CONTAINER, "{peak}");

    for spare in [0, 1 << 20] {
        let pid = both.gateway.pid();
        let most = data(pid) + spare;
        let limit =
            ["--pid", &pid.to_string(), &format!("--data={most}:{most}")].map(str::to_owned);
        let limited = Command::new("prlimit").args(limit).status();
        assert!(limited.expect("prlimit(1)").success());
        both.exchange(8, 400_000).await;
        // It ends where it finds out, or gets by with what it has.
        eventually("all has arrived, or it is gone", IN_TIME, || async {
            (both.gateway.ended() || both.arrived()).then_some(())
        })
        .await;
        if both.gateway.ended() {
            let status = both.gateway.exit().await;
            assert!(!status.success() && status.signal() != Some(9), "{status}");
        } else {
            // As the system does it to whom it picks.
            both.gateway.kill().await;
        }
        both.gateway.run().await;
        both.consuming().await;
        let repeats = both.judge().await;
        assert!(repeats.calls <= 8 && repeats.messages <= 8, "{repeats:?}");
    }
}
