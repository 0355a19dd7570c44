//! Power is lost: for points of a recorded run, what the disk may hold then is opened, and all that
//! was answered yes before that point must be there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tidegate::queue::{
    Bounds, Filter, Queue, State,
    sqlite::{Options, SqliteQueue},
};
use tidegate_adapters::Timestamp;
use tidegate_tests::{
    Both, eventually,
    power::{CALLS, Disk, Ignored, Kept, Step, read},
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
async fn d5_whatever_a_loss_of_power_leaves_holds_all_that_was_answered_yes() {
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
        let pid = both.gateway.pid();
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
                (said.contains(&format!("\n{pid} +++ ")) && said.ends_with('\n')).then_some(said)
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
                opened(&folder, &owed).await.map_err(|why| format!("{what}: {why}"))?;
            }
        }
        Ok((points, images))
    }
}

/// Opens what is left, and finds all that is owed.
async fn opened(folder: &TempDir, owed: &BTreeSet<&str>) -> Result<(), String> {
    let path = folder.path().join("queue/tidegate.db");
    if path.exists() {
        // As large as it would be made, and made faster.
        let ballast = std::fs::File::create(folder.path().join("queue/tidegate.db.ballast"));
        ballast.and_then(|file| file.set_len(4 << 20)).map_err(|error| error.to_string())?;
    }
    let queue = SqliteQueue::open(options(&path)).map_err(|error| error.to_string())?;
    let mut found = BTreeMap::new();
    let mut states = HashMap::<_, u64>::new();
    let mut cursor = None;
    loop {
        let page = queue.list(Filter::default(), cursor, 500).await;
        let page = page.map_err(|error| error.to_string())?;
        for listed in page.deliveries {
            *states.entry((Arc::clone(&listed.delivery.route), listed.state)).or_default() += 1;
            found.insert(listed.delivery.event.id.to_string(), listed.delivery.id);
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let lost: Vec<_> = owed.iter().filter(|id| !found.contains_key(**id)).collect();
    if !lost.is_empty() {
        return Err(format!("lost: {lost:?} of {owed:?}"));
    }
    for (id, number) in &found {
        let shown = queue.show(*number).await.map_err(|error| format!("{id}: {error}"))?;
        let data: serde_json::Value = serde_json::from_slice(&shown.delivery.event.data_bytes())
            .map_err(|error| format!("{id}: {error}"))?;
        let n = id.rsplit('-').next().and_then(|n| n.parse::<u64>().ok());
        if data["n"].as_u64() != n {
            return Err(format!("{id} is altered: {data}"));
        }
    }
    for route in queue.routes() {
        let counted = |state| states.get(&(Arc::clone(&route.name), state)).copied().unwrap_or(0);
        let (counts, name) = (route.counts, &route.name);
        let drift = (counts.pending, counts.delivered)
            != (counted(State::Pending), counted(State::Delivered));
        if drift {
            return Err(format!("{name}: {counts:?} are counted, there are {states:?}"));
        }
    }
    queue.close().await;
    whole(&path)
}

/// What SQLite itself says of the file.
fn whole(path: &Path) -> Result<(), String> {
    let check = || -> rusqlite::Result<String> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))
    };
    match check() {
        Ok(said) if said == "ok" => Ok(()),
        Ok(said) => Err(format!("not whole: {said}")),
        Err(error) => Err(format!("not whole: {error}")),
    }
}

fn options(path: &Path) -> Options {
    Options {
        path: path.to_owned(),
        bounds: Bounds {
            max_size: 64 << 20,
            max_route_share: 0.5,
            keep_delivered: Duration::from_secs(1 << 40),
            keep_dead: Duration::from_secs(1 << 40),
        },
        observer: Arc::new(|_| {}),
        clock: Arc::new(|| Timestamp(0)),
    }
}
