//! Faults of the disk.

mod files;

use std::{path::PathBuf, time::Duration};

use tidegate_tests::{
    Both, Gateway, Strace, both::Repeats, eventually, gateway::client, rabbitmq::Node,
};

const IN_TIME: Duration = Duration::from_secs(60);

/// A gateway on the in-process broker, for what needs no other: webhooks into its own queue.
const ALONE: &str = "\
broker: { embedded: {} }
queue: { max_size: 16MiB }
routes:
  loyalty-webhooks:
    from:
      webhook:
        path: /hooks/loyalty
        verify: { api_key: { header: X-Api-Key, keys: [canary-api-key-77] } }
        event: { id: 'hook-{.body.n}', source: /loyalty, type: loyalty.points.v1, data: .body }
    to: { rabbitmq: { exchange: loyalty } }
";

/// What is done to a good file.
type Spoil = fn(&mut Vec<u8>);

fn log_and_file(gateway: &Gateway) -> [PathBuf; 2] {
    let queue = gateway.queue();
    [PathBuf::from(format!("{}-wal", queue.display())), queue]
}

/// Sends webhook `n` to a gateway; the status, if there was an answer.
async fn send(gateway: &Gateway, n: u64) -> Option<u16> {
    let url = format!("{}/hooks/loyalty", gateway.webhooks().await);
    let request = client().post(url).header("X-Api-Key", "canary-api-key-77");
    let request = request.header("Content-Type", "application/json");
    Some(request.body(format!("{{\"n\":{n}}}")).send().await.ok()?.status().as_u16())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d3_an_fsync_that_fails_once_ends_the_process_and_nothing_was_said_yes_to() {
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    both.gateway.run().await;
    both.consuming().await;
    both.exchange(2, 0).await;
    both.settle().await;
    both.drained().await;
    let before = both.answered().0;
    let files = log_and_file(&both.gateway);
    let strace =
        Strace::attach(both.gateway.pid(), "fsync,fdatasync:error=EIO:when=1", &files).await;
    // The next would succeed, and prove nothing.
    both.exchange(3, 0).await;
    assert_eq!(both.answered().0, before, "nothing is said yes to after a failed fsync");
    let status = both.gateway.exit().await;
    strace.detach().await;
    assert_eq!(status.code(), Some(1), "{}", both.gateway.log());
    let log = both.gateway.log();
    assert!(log.contains("what the disk holds is not known"), "{log}");
    both.gateway.run().await;
    let repeats = both.judge().await;
    assert!(repeats.messages <= 3 && repeats.calls <= 3, "{repeats:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d2_no_room_for_the_log_for_a_while_is_answered_503_and_heals() {
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    both.gateway.run().await;
    both.consuming().await;
    let files = log_and_file(&both.gateway);
    // Without room for a write; then also when it tries to make some.
    for calls in ["pwrite64", "pwrite64,ftruncate"] {
        let injection = format!("{calls}:error=ENOSPC");
        let strace = Strace::attach(both.gateway.pid(), &injection, &files).await;
        both.exchange(2, 0).await;
        assert_eq!(both.answered().1, 2, "nothing is said yes to");
        strace.detach().await;
        eventually("it says that there is room", IN_TIME, || async {
            let ready = both.gateway.get("/readyz").await;
            (ready["components"]["queue"] != "full").then_some(())
        })
        .await;
        assert_eq!(both.judge().await, Repeats::default(), "nothing is attempted twice");
    }
    // At its end, when the log is folded in.
    both.exchange(2, 0).await;
    both.settle().await;
    both.drained().await;
    let injection = "pwrite64,ftruncate:error=ENOSPC";
    let strace = Strace::attach(both.gateway.pid(), injection, &files).await;
    assert!(both.gateway.stop().await.success(), "{}", both.gateway.log());
    strace.detach().await;
    both.gateway.run().await;
    assert_eq!(both.judge().await, Repeats::default());
    let log = both.gateway.log();
    assert!(log.contains("the disk is full") && log.contains("the disk has room again"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d8_a_disk_that_turns_read_only_ends_the_process_and_a_start_on_it_is_refused() {
    let mut gateway = Gateway::start(ALONE).await;
    assert_eq!(send(&gateway, 1).await, Some(202));
    let files = log_and_file(&gateway);
    let strace = Strace::attach(gateway.pid(), "pwrite64:error=EROFS", &files).await;
    assert_ne!(send(&gateway, 2).await, Some(202));
    assert_eq!(gateway.exit().await.code(), Some(1), "{}", gateway.log());
    strace.detach().await;
    gateway.run().await;
    assert_eq!(send(&gateway, 2).await, Some(202), "it was not taken before");
    assert!(gateway.stop().await.success());

    let mut refused = Gateway::new(ALONE);
    refused.set_disk("1m,ro");
    refused.spawn();
    assert_eq!(refused.exit().await.code(), Some(1), "{}", refused.log());
    let log = refused.log().to_lowercase();
    assert!(log.contains("read-only file system") && !log.contains("panicked"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d9_an_fsync_of_5_s_holds_back_answers_and_nothing_else() {
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    both.gateway.run().await;
    both.consuming().await;
    let files = log_and_file(&both.gateway);
    let slow = "fsync,fdatasync:delay_enter=5000000:when=1";
    let strace = Strace::attach(both.gateway.pid(), slow, &files).await;
    let asks = {
        let admin = both.gateway.admin().await;
        tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            for _ in 0..40 {
                let asked = tokio::time::Instant::now();
                let answer = client().get(format!("{admin}/readyz")).send().await;
                assert!(answer.expect("an answer").status().is_success(), "ready all the while");
                slowest = slowest.max(asked.elapsed());
            }
            slowest
        })
    };
    let began = tokio::time::Instant::now();
    both.exchange(2, 0).await;
    assert!(began.elapsed() >= Duration::from_secs(4), "it was slow: {:?}", began.elapsed());
    let (answered, unanswered) = both.answered();
    assert_eq!((answered, unanswered), (2, 0), "the yes came late, and came");
    assert!(asks.await.expect("ready") < Duration::from_secs(4), "readiness waits for no disk");
    strace.detach().await;
    assert_eq!(both.judge().await, Repeats::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d14_d12_d15_a_file_that_is_not_to_be_used_is_refused_in_words_and_not_touched() {
    let mut gateway = Gateway::start(ALONE).await;
    assert_eq!(send(&gateway, 1).await, Some(202));

    let mut second = Gateway::new(ALONE);
    second.set("TIDEGATE__QUEUE__SQLITE__PATH", gateway.queue().display().to_string());
    second.spawn();
    assert_eq!(second.exit().await.code(), Some(1));
    let owner = format!("in use by process {}", gateway.pid());
    assert!(second.log().contains(&owner), "{}", second.log());
    assert_eq!(send(&gateway, 2).await, Some(202), "the first goes on");
    assert!(gateway.stop().await.success());

    let good = std::fs::read(gateway.queue()).expect("it is there");
    let cases: [(&str, Spoil); 4] = [
        ("on-disk format 99, this version reads 4", |file| {
            file[60..64].copy_from_slice(&[0, 0, 0, 99])
        }),
        ("not a database", |file| file[..16].fill(0xA5)),
        ("not a Tidegate queue", |file| file[68..72].fill(1)),
        ("malformed", |file| file[100..8192].fill(0xA5)),
    ];
    for (said, spoil) in cases {
        let mut spoilt = good.clone();
        spoil(&mut spoilt);
        std::fs::write(gateway.queue(), &spoilt).expect("writable");
        gateway.spawn();
        assert_eq!(gateway.exit().await.code(), Some(1), "{said}: {}", gateway.log());
        assert!(gateway.log().contains(said), "{said}: {}", gateway.log());
        assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
        let after = std::fs::read(gateway.queue()).expect("it is there");
        assert!(after == spoilt, "{said}: it was written to");
    }
    std::fs::write(gateway.queue(), &good).expect("writable");
    gateway.run().await;
    assert_eq!(send(&gateway, 3).await, Some(202));
}
