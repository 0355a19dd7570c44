use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicI64, Ordering},
};

use tempfile::TempDir;
use tidegate_adapters::{AttemptResult, Data, DeadReason, Delivery, Event, Exchange, Invalid};

use bytes::Bytes;

use super::*;
use crate::queue::{AttemptRecord, Content, Fed, Outcome, State};

mod act;
mod format;
mod list;
mod many;
mod model;
mod pauses;
mod recent;
mod recount;
mod replies;
mod room;
mod seen;
mod window;

const MIB: u64 = 1 << 20;

struct Bench {
    folder: TempDir,
    queue: SqliteQueue,
    now: Arc<AtomicI64>,
    options: Options,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(adapt: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicI64::new(1_000_000));
        let clock = Arc::clone(&now);
        let mut options = Options {
            path: folder.path().join("queue").join("q.db"),
            bounds: Bounds {
                max_size: 64 * MIB,
                max_route_share: 0.5,
                keep_delivered: Duration::from_secs(3600),
                keep_dead: Duration::from_secs(36_000),
            },
            observer: Arc::new(|_| {}),
            clock: Arc::new(move || Timestamp(clock.load(Ordering::Relaxed))),
        };
        adapt(&mut options);
        let queue = SqliteQueue::open(options.clone()).unwrap();
        queue.configure(vec![settings("r", false), settings("other", false)]).await.unwrap();
        queue.connected(&"r".into(), true);
        queue.feed(&"r".into()).go_live();
        Self { folder, queue, now, options }
    }

    /// As a crash would leave it: the files as they are now, opened elsewhere.
    async fn crash(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.db");
        for ending in ["", "-wal"] {
            let from = format!("{}{ending}", self.options.path.display());
            std::fs::copy(from, format!("{}{ending}", path.display())).unwrap();
        }
        let options = Options { path, ..self.options.clone() };
        let queue = SqliteQueue::open(options.clone()).unwrap();
        queue.configure(vec![settings("r", false), settings("other", false)]).await.unwrap();
        queue.connected(&"r".into(), true);
        Self { folder, queue, now: Arc::clone(&self.now), options }
    }

    async fn append(&self, appends: Vec<Append>) -> Result<Vec<Appended>, AppendError> {
        self.queue.append(&"r".into(), appends, Space::Capped).await
    }

    async fn pending(&self, ids: &[&str]) -> Vec<Appended> {
        self.append(ids.iter().map(|id| pending(id, None)).collect()).await.unwrap()
    }

    fn fed(&self) -> Option<Arc<Delivery>> {
        match self.queue.feed(&"r".into()).take() {
            Fed::Fresh(delivery) => Some(delivery),
            Fed::Empty | Fed::Behind => None,
        }
    }

    async fn due(&self) -> Vec<Arc<Delivery>> {
        let now = Timestamp(self.now.load(Ordering::Relaxed));
        self.queue.page(&"r".into(), now, 1000, HashSet::new()).await.unwrap().due
    }

    async fn settle(&self, delivery: &Arc<Delivery>, outcome: Outcome) {
        assert!(self.queue.claim(delivery.id));
        let attempt = AttemptRecord {
            number: delivery.tries + 1,
            at: Timestamp(self.now.load(Ordering::Relaxed)),
            duration: Duration::from_millis(3),
            result: AttemptResult::Success,
            detail: String::new(),
            exchange: Exchange { request: "POST".into(), status: Some(200), response: "ok".into() },
        };
        let settlement = Settlement {
            delivery: Arc::clone(delivery),
            outcome,
            attempt: Some(attempt),
            reply: None,
            held: None,
        };
        self.queue.settle(settlement).await.unwrap();
        assert!(!self.queue.claimed(delivery.id), "settling gives the claim back");
    }

    async fn counts(&self) -> crate::queue::Counts {
        // Published right after each commit, before the answer's task runs or a moment later.
        self.queue.configure(vec![settings("r", false), settings("other", false)]).await.unwrap();
        self.queue.routes().iter().find(|route| &*route.name == "r").unwrap().counts
    }

    /// Opens the file anew, as a process that starts after this one.
    async fn again(&self, hold: bool) -> Self {
        let bench = self.crash().await;
        bench.queue.configure(vec![settings("r", hold), settings("other", false)]).await.unwrap();
        bench
    }

    async fn keyed(&self, batch: &[(&str, &str)]) -> Vec<Appended> {
        let appends = batch.iter().map(|(id, key)| pending(id, Some(key))).collect();
        self.append(appends).await.unwrap()
    }

    async fn act(&self, action: Action, id: DeliveryId) -> Result<(), QueueError> {
        self.queue.act(action, id).await
    }

    fn pass(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }
}

/// Whatever a test did: the counters are what the tables hold, and every lane is in order.
impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            recount::check(&self.options.path);
        }
    }
}

fn settings(name: &str, hold: bool) -> RouteSettings {
    RouteSettings { name: name.into(), dedupe: Some(Duration::from_secs(600)), hold }
}

fn event(id: &str) -> Arc<Event> {
    Arc::new(Event {
        id: id.to_owned(),
        source: "/orders".to_owned(),
        kind: "order.confirmed.v1".to_owned(),
        subject: None,
        time: None,
        datacontenttype: Some("application/json".to_owned()),
        dataschema: None,
        extensions: std::collections::BTreeMap::new(),
        traceparent: None,
        hops: 0,
        data: Data::Json(format!("{{\"id\":\"{id}\"}}").into()),
    })
}

fn pending(id: &str, key: Option<&str>) -> Append {
    Append { content: Content::Pending(event(id)), key: key.map(Into::into), dedupe: true }
}

fn ids(deliveries: &[Arc<Delivery>]) -> Vec<&str> {
    deliveries.iter().map(|delivery| &*delivery.event.id).collect()
}

fn dead(reason: DeadReason) -> Outcome {
    Outcome::Dead { reason, detail: "no".to_owned() }
}

#[test]
fn d15_sqlite_is_new_enough_to_trust() {
    // 3.51.3 mended a race in WAL resets that lost commits.
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

#[tokio::test]
async fn p13_a_writer_that_panics_is_a_queue_that_has_failed() {
    let panics = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&panics);
    let observer = move |_| assert!(!told.load(Ordering::SeqCst), "by the test");
    let bench = Bench::with(|options| options.observer = Arc::new(observer)).await;
    bench.pending(&["a"]).await;
    panics.store(true, Ordering::SeqCst);
    // Nobody waits for an answer that does not come, and nothing is said yes to.
    let refused = bench.append(vec![pending("b", None)]).await;
    assert!(matches!(refused, Err(AppendError::Closed)), "{refused:?}");
    assert_eq!(bench.queue.failed().await, "the writer panicked");
    assert!(bench.append(vec![pending("c", None)]).await.is_err());
    bench.queue.close().await;
    panics.store(false, Ordering::SeqCst);
    let again = SqliteQueue::open(bench.options.clone()).unwrap();
    let now = Timestamp(bench.now.load(Ordering::Relaxed));
    let page = again.page(&"r".into(), now, 10, HashSet::new()).await.unwrap();
    assert!(ids(&page.due).starts_with(&["a"]), "{page:?}");
    again.close().await;
}

#[tokio::test]
async fn what_was_appended_is_fed_in_order_and_found_again_after_a_crash() {
    let bench = Bench::new().await;
    bench.pending(&["a", "b", "c"]).await;
    let fed: Vec<_> = std::iter::from_fn(|| bench.fed()).collect();
    assert_eq!(ids(&fed), ["a", "b", "c"]);
    let again = bench.crash().await;
    let due = again.due().await;
    assert_eq!(ids(&due), ["a", "b", "c"]);
    assert_eq!(due[0].event, fed[0].event);
    assert_eq!(again.counts().await.pending, 3);
}

#[tokio::test]
async fn a_delivered_one_is_never_due_again() {
    let bench = Bench::new().await;
    bench.pending(&["a", "b"]).await;
    let first = bench.fed().unwrap();
    bench.settle(&first, Outcome::Delivered).await;
    assert_eq!(ids(&bench.due().await), ["b"]);
    let again = bench.crash().await;
    assert_eq!(ids(&again.due().await), ["b"]);
    let counts = again.counts().await;
    assert_eq!((counts.pending, counts.delivered), (1, 1));
    let shown = again.queue.show(first.id).await.unwrap();
    assert_eq!(shown.state, State::Delivered);
    assert_eq!(shown.attempts.len(), 1);
}

#[tokio::test]
async fn p10_what_a_wrong_clock_put_off_for_years_is_due_once_it_is_right() {
    const YEARS: i64 = 10 * 365 * 86_400_000;
    let bench = Bench::new().await;
    bench.pending(&["wrong", "waits"]).await;
    let (wrong, waits) = (bench.fed().unwrap(), bench.fed().unwrap());
    let now = bench.now.load(Ordering::Relaxed);
    let put_off = |at| Outcome::Retry { at: Timestamp(at), attempts: 1 };
    bench.settle(&wrong, put_off(now + YEARS)).await;
    bench.settle(&waits, put_off(now + 5_000)).await;
    let page = bench.queue.page(&"r".into(), Timestamp(now), 10, HashSet::new()).await.unwrap();
    assert_eq!(ids(&page.due), ["wrong"]);
    assert_eq!((page.more, page.next_at), (false, Some(Timestamp(now + 5_000))));
}

#[tokio::test]
async fn a_retry_is_due_at_its_time_with_its_attempts() {
    let bench = Bench::new().await;
    bench.pending(&["a"]).await;
    let mut delivery = bench.fed().unwrap();
    for n in 1..=5 {
        let now = bench.now.load(Ordering::Relaxed);
        let outcome = Outcome::Retry { at: Timestamp(now + 5_000), attempts: n };
        bench.settle(&delivery, outcome).await;
        assert!(bench.due().await.is_empty());
        let page = bench.queue.page(&"r".into(), Timestamp(now), 10, HashSet::new()).await.unwrap();
        assert_eq!(page.next_at, Some(Timestamp(now + 5_000)));
        bench.pass(5_000);
        delivery = bench.due().await.remove(0);
        assert_eq!((delivery.attempts, delivery.tries), (n, n));
        assert_eq!(delivery.first_attempt_at, Some(Timestamp(1_000_000)));
    }
    let shown = bench.queue.show(delivery.id).await.unwrap();
    let kept: Vec<u32> = shown.attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(kept, [3, 4, 5], "the last three are kept");
}

#[tokio::test]
async fn x12_one_of_a_key_at_a_time_in_the_order_of_our_yes() {
    let bench = Bench::new().await;
    let batch = [("a1", "a"), ("b1", "b"), ("a2", "a"), ("a3", "a")];
    bench.append(batch.iter().map(|(id, key)| pending(id, Some(key))).collect()).await.unwrap();
    let heads: Vec<_> = std::iter::from_fn(|| bench.fed()).collect();
    assert_eq!(ids(&heads), ["a1", "b1"]);
    bench.settle(&heads[0], Outcome::Delivered).await;
    let next = bench.fed().unwrap();
    assert_eq!(next.event.id, "a2");
    bench.settle(&next, dead(DeadReason::Rejected)).await;
    assert_eq!(bench.fed().unwrap().event.id, "a3", "a dead one lets the next go");
    let again = bench.crash().await;
    assert_eq!(ids(&again.due().await), ["b1", "a3"]);
}

#[tokio::test]
async fn x12_a_dead_one_holds_its_key_where_the_route_says_so() {
    let bench = Bench::new().await;
    bench.queue.configure(vec![settings("r", true)]).await.unwrap();
    bench.append(vec![pending("a1", Some("a")), pending("a2", Some("a"))]).await.unwrap();
    let head = bench.fed().unwrap();
    bench.settle(&head, dead(DeadReason::Rejected)).await;
    assert!(bench.fed().is_none());
    bench.append(vec![pending("a3", Some("a"))]).await.unwrap();
    assert!(bench.fed().is_none(), "nor do later ones pass it");
    assert!(bench.due().await.is_empty());
}

#[tokio::test]
async fn a_repeat_is_told_apart_also_within_a_batch_and_after_a_crash() {
    let bench = Bench::new().await;
    let first = bench.pending(&["a", "a", "b"]).await;
    let Appended::Pending(id) = first[0] else { panic!("{first:?}") };
    assert_eq!(first[1], Appended::Duplicate(id));
    let again = bench.crash().await;
    assert_eq!(again.pending(&["a"]).await, [Appended::Duplicate(id)]);
    assert_eq!(again.counts().await.pending, 2);
}

#[tokio::test]
async fn a_repeat_of_a_dead_one_is_enqueued_anew() {
    let bench = Bench::new().await;
    bench.pending(&["a"]).await;
    let delivery = bench.fed().unwrap();
    bench.settle(&delivery, dead(DeadReason::Rejected)).await;
    assert!(matches!(bench.pending(&["a"]).await[..], [Appended::Pending(_)]));
    assert!(matches!(bench.pending(&["a"]).await[..], [Appended::Duplicate(_)]));
}

#[tokio::test(start_paused = true)]
async fn the_repeat_window_stands_still_while_the_source_is_away() {
    let route: Arc<str> = "r".into();
    let mut ledger_clock = Vec::new();
    let connection = rusqlite::Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE route (no INTEGER PRIMARY KEY, name TEXT)").unwrap();
    let mut ledger = Ledger::default();
    let index = ledger.index(&connection, &route).unwrap();
    for (up, seconds) in [(true, 10), (false, 1000), (true, 5)] {
        ledger.connected(&route, up, tokio::time::Instant::now());
        tokio::time::advance(Duration::from_secs(seconds)).await;
        ledger_clock.push(ledger.get(index).clock_ms(tokio::time::Instant::now()));
    }
    assert_eq!(ledger_clock, [10_000, 10_000, 15_000]);
}

#[tokio::test]
async fn what_is_no_event_is_kept_dead_with_its_bytes_and_spends_no_id() {
    let bench = Bench::new().await;
    let invalid = Invalid {
        why: "not JSON".to_owned(),
        raw: Bytes::from_static(b"\xff\x00{"),
        about: serde_json::Map::from_iter([("routing_key".to_owned(), "k".into())]),
    };
    let content = Content::Invalid(invalid);
    let appended = bench.append(vec![Append { content, key: None, dedupe: true }]).await.unwrap();
    let Appended::Dead(id) = appended[0] else { panic!("{appended:?}") };
    let failed = Content::Dead(event("a"), DeadReason::Expression, "when: no".to_owned());
    bench.append(vec![Append { content: failed, key: None, dedupe: true }]).await.unwrap();
    assert!(matches!(bench.pending(&["a"]).await[..], [Appended::Pending(_)]));
    let shown = bench.queue.show(id).await.unwrap();
    assert_eq!(shown.dead, Some((DeadReason::Invalid, "not JSON".to_owned())));
    assert_eq!(shown.raw.as_deref(), Some(&b"\xff\x00{"[..]));
    assert_eq!(shown.delivery.event.extensions["routing_key"], "k");
}

#[tokio::test]
async fn a_filtered_one_leaves_only_its_id() {
    let bench = Bench::new().await;
    let filtered = || Append { content: Content::Filtered(event("a")), key: None, dedupe: true };
    assert_eq!(bench.append(vec![filtered()]).await.unwrap(), [Appended::Filtered]);
    assert!(matches!(bench.append(vec![filtered()]).await.unwrap()[..], [Appended::Duplicate(_)]));
    assert!(bench.due().await.is_empty());
    let page = bench.queue.list(Filter::default(), None, 10).await.unwrap();
    assert!(page.deliveries.is_empty());
}

#[tokio::test]
async fn at_its_cap_a_batch_is_refused_whole_and_room_comes_back_by_settling() {
    let bench = Bench::with(|options| {
        options.bounds.max_size = 4 * MIB;
        options.bounds.max_route_share = 0.25;
    })
    .await;
    let big = |id: &str| {
        let mut event = Event::clone(&event(id));
        event.data = Data::Binary(vec![7; 300 << 10].into());
        Append { content: Content::Pending(Arc::new(event)), key: None, dedupe: true }
    };
    bench.append(vec![big("a"), big("b"), big("c")]).await.unwrap();
    let refused = bench.append(vec![pending("small", None), big("d")]).await;
    assert!(matches!(refused, Err(AppendError::Full(_))), "{refused:?}");
    assert_eq!(bench.counts().await.pending, 3, "nothing of the batch was taken");
    let other: Arc<str> = "other".into();
    bench
        .queue
        .append(&other, vec![big("x")], Space::Capped)
        .await
        .expect("the other route has its own share");
    let room = bench.queue.room(&"r".into());
    let delivery = bench.fed().unwrap();
    bench.settle(&delivery, Outcome::Delivered).await;
    tokio::time::timeout(Duration::from_secs(10), room).await.expect("room again");
    bench.append(vec![big("d")]).await.unwrap();
}

#[tokio::test]
async fn history_is_the_first_to_go_and_never_more_than_its_quarter() {
    let bench = Bench::with(|options| {
        options.bounds.max_size = 4 * MIB;
        options.bounds.max_route_share = 1.0;
    })
    .await;
    for n in 0..60 {
        let mut event = Event::clone(&event(&n.to_string()));
        event.data = Data::Binary(vec![7; 100 << 10].into());
        let content = Content::Pending(Arc::new(event));
        bench.append(vec![Append { content, key: None, dedupe: true }]).await.unwrap();
        let delivery = bench.fed().unwrap();
        bench.settle(&delivery, Outcome::Delivered).await;
    }
    let counts = bench.counts().await;
    assert!((5..=11).contains(&counts.delivered), "{counts:?}");
    let filter = Filter { state: Some(State::Delivered), ..Filter::default() };
    let kept = bench.queue.list(filter, None, 100).await.unwrap();
    assert_eq!(kept.deliveries[0].delivery.event.id, "59", "the newest are kept");
}

#[tokio::test]
async fn d15_x9_a_second_process_is_told_who_owns_the_file() {
    let bench = Bench::new().await;
    let Err(QueueError::Owned { owner, .. }) = SqliteQueue::open(bench.options.clone()) else {
        panic!("opened twice")
    };
    assert_eq!(owner, std::process::id().to_string());
    bench.queue.close().await;
    SqliteQueue::open(bench.options.clone()).expect("free again once closed");
}

#[tokio::test]
async fn its_files_are_ours_alone() {
    let bench = Bench::new().await;
    bench.pending(&["a"]).await;
    for entry in std::fs::read_dir(bench.options.path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
    assert!(bench.folder.path().exists());
}

#[tokio::test]
async fn d12_an_unknown_format_is_refused_untouched() {
    let bench = Bench::new().await;
    bench.pending(&["a"]).await;
    bench.queue.close().await;
    let newer = |path: &Path| {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch("PRAGMA user_version = 99").unwrap();
    };
    newer(&bench.options.path);
    let before = std::fs::read(&bench.options.path).unwrap();
    let opened = SqliteQueue::open(bench.options.clone());
    assert!(matches!(opened, Err(QueueError::Format { found: 99, .. })));
    assert_eq!(std::fs::read(&bench.options.path).unwrap(), before);
}

#[tokio::test]
async fn a_feed_that_overflows_loses_nothing() {
    let bench = Bench::new().await;
    let many = Feed::MOST + 10;
    for batch in (0..many).collect::<Vec<_>>().chunks(100) {
        let appends = batch.iter().map(|n| pending(&n.to_string(), None)).collect();
        bench.append(appends).await.unwrap();
    }
    assert!(matches!(bench.queue.feed(&"r".into()).take(), Fed::Behind));
    let now = Timestamp(bench.now.load(Ordering::Relaxed));
    let mut held = HashSet::new();
    loop {
        let page = bench.queue.page(&"r".into(), now, 300, held.clone()).await.unwrap();
        held.extend(page.due.iter().map(|delivery| delivery.id));
        if !page.more {
            break;
        }
    }
    assert_eq!(held.len(), many);
}
