//! Power is lost: for points of a recorded run, what the disk may hold then is opened, and all that
//! was answered yes before that point must be there.

use std::{collections::BTreeSet, path::Path};

use tidegate::queue::Queue as _;
use tidegate_tests::{
    Both, eventually,
    power::{CALLS, Disk, Ignored, Kept, Step, read},
    queue_file::{events, open, whole},
    rabbitmq::Node,
    strace::recorder,
};

use super::{IN_TIME, every_point};

/// A run that was written down.
struct Recording {
    /// What it did to the disk, and what it sent.
    steps: Vec<Step>,
    /// What was owed once so many of the steps were done.
    owed: Vec<(usize, String)>,
    /// Holds the folder of the run, whose path the steps name.
    both: Both,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d5_d13_whatever_a_loss_of_power_leaves_holds_all_that_was_answered_yes() {
    let recording = record().await;
    for kind in ["order-", "hook-"] {
        let owed = recording.owed.iter().filter(|(_, id)| id.starts_with(kind));
        let owed: BTreeSet<_> = owed.map(|(_, id)| id).collect();
        assert!(owed.len() >= 12, "it was never said yes to these: {owed:?}");
    }
    let seeds = if every_point() { 8 } else { 2 };
    let judged = recording.judge(Ignored::None, seeds).await;
    let (points, images) = judged.unwrap_or_else(|why| panic!("{why}"));
    println!("{images} images of {points} points");
    assert!(points >= 50, "{points} points");
    // The judge can fail: with a disk that lies about its syncs there is a loss to be seen.
    let lied = recording.judge(Ignored::All, 1).await;
    assert!(lied.is_err(), "nothing was synced, and nobody missed it");
    let lied = recording.judge(Ignored::Log, 1).await;
    assert!(lied.is_err(), "the log was not synced, and nobody missed it");
}

/// A fresh queue, both directions, a log that grows until it is folded in, an orderly end, a second
/// life, and a kill.
async fn record() -> Recording {
    let mut both = Both::new(Node::shared().await.vhost().await).await;
    let mut steps = Vec::new();
    let mut owed = Vec::new();
    for life in 0..2 {
        let log = both.gateway.folder().join(format!("calls-{life}"));
        both.gateway.set_behind(recorder(&log, CALLS));
        both.gateway.run().await;
        both.consuming().await;
        let first = both.events();
        let pid = both.gateway.pid().to_string();
        both.exchange(3, 0).await;
        both.settle().await;
        let mut said = String::new();
        if life == 0 {
            both.exchange(6, 900 << 10).await;
            both.settle().await;
            both.drained().await;
            assert!(both.gateway.stop().await.success());
            said = eventually("strace has written it all down", IN_TIME, || async {
                let said = std::fs::read_to_string(&log).ok()?;
                let over = |line: &str| {
                    let (thread, what) = line.split_once(' ').unwrap_or_default();
                    thread == pid && what.trim_start().starts_with("+++")
                };
                said.lines().rev().take(64).any(over).then_some(said)
            })
            .await;
        } else {
            both.exchange(3, 0).await;
            both.settle().await;
            both.drained().await;
            // As far as it got: any line may be the last that is played.
            said.push_str(&std::fs::read_to_string(&log).expect("it is being written"));
            said.truncate(said.rfind('\n').expect("lines"));
            both.gateway.kill().await;
        }
        let new = read(&said, both.gateway.folder());
        let before = steps.len();
        for (number, step) in new.iter().enumerate() {
            if let Step::Sent(bytes) = step {
                let promised = promised(bytes, first);
                owed.extend(promised.into_iter().map(|id| (before + number, id)));
            }
        }
        steps.extend(new);
    }
    Recording { steps, owed, both }
}

/// The ids of the events that these bytes say yes to: webhooks that are answered 202, and acks of
/// what RabbitMQ delivered, in the order it was published, from number `first` on.
fn promised(bytes: &[u8], first: u64) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let mut ids = Vec::new();
    for answer in text.split("HTTP/1.1 ").filter(|answer| answer.starts_with("202")) {
        let id = answer.split("\"id\":\"").nth(1).and_then(|id| id.split('"').next());
        ids.extend(id.map(str::to_owned));
    }
    // Class 60, method 80; the tag; whether all before it are meant too; the end of the frame.
    for ack in bytes.windows(14).filter(|frame| frame.starts_with(&[0, 60, 0, 80])) {
        if let ([_, _, _, _, tag @ .., several, 0xCE], true) = (ack, ack[12] < 2) {
            let tag = u64::from_be_bytes(tag.try_into().expect("eight bytes"));
            let from = if *several == 1 { 1 } else { tag };
            ids.extend((from..=tag).map(|tag| format!("order-{}", first + tag - 1)));
        }
    }
    ids
}

impl Recording {
    /// Judges images of the disk as it may be at points of the run: how many points and images
    /// there were, or what was wrong with the first.
    async fn judge(&self, ignored: Ignored, seeds: u64) -> Result<(usize, usize), String> {
        let mut disk = Disk::new(self.both.gateway.folder(), ignored);
        let (mut candidates, mut points, mut images) = (0_usize, 0, 0);
        let mut since = 0;
        for (number, step) in self.steps.iter().enumerate() {
            let sync = matches!(step, Step::Synced(..) | Step::SyncBegins(..));
            since += 1;
            // Right before and after each sync, and now and then among many writes; what was
            // sent is a point of its own.
            let wanted = sync || matches!(step, Step::Sent(_)) || since >= 40;
            disk.play(step);
            if !wanted {
                continue;
            }
            (since, candidates) = (0, candidates + 1);
            // A spread of them: most of the beginning, few of the mass in the middle.
            let chosen = (candidates < 60 && candidates % 2 == 0) || candidates % 9 == 0;
            if !(chosen || every_point()) {
                continue;
            }
            points += 1;
            let owed = self.owed.iter().filter(|(at, _)| *at <= number);
            let owed: BTreeSet<&str> = owed.map(|(_, id)| id.as_str()).collect();
            let seeded = (0..seeds).map(|seed| fastrand::Rng::with_seed(number as u64 * 31 + seed));
            let mut kept = vec![Kept::Nothing, Kept::Everything, Kept::NoNames];
            for rng in seeded {
                kept.extend([Kept::Some(rng.clone()), Kept::UpTo(rng)]);
            }
            for kept in kept {
                images += 1;
                let what = format!("step {number}, {kept:?}");
                let folder = tempfile::tempdir().expect("a temporary folder");
                disk.write(folder.path(), kept);
                opened(folder.path(), &owed).await.map_err(|why| format!("{what}: {why}"))?;
            }
        }
        Ok((points, images))
    }
}

/// Opens what is left, and finds all that is owed.
async fn opened(folder: &Path, owed: &BTreeSet<&str>) -> Result<(), String> {
    let path = folder.join("queue/tidegate.db");
    let queue = open(&path)?;
    let found = events(&queue).await?;
    let lost: Vec<_> = owed.iter().filter(|id| !found.contains_key(**id)).collect();
    if !lost.is_empty() {
        return Err(format!("lost: {lost:?} of {owed:?}"));
    }
    for (id, data) in found {
        let data: serde_json::Value =
            serde_json::from_slice(&data).map_err(|error| format!("{id}: {error}"))?;
        let n = id.rsplit('-').next().and_then(|n| n.parse::<u64>().ok());
        if data["n"].as_u64() != n {
            return Err(format!("{id} is altered: {data}"));
        }
    }
    queue.close().await;
    whole(&path)
}
