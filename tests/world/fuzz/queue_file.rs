//! A queue file that somebody or something has written to.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use rusqlite::{Connection, types::Value as SqlValue};
use tempfile::TempDir;
use tidegate::queue::{
    Action, Append, Bounds, Content, Filter, Outcome, Queue, QueueError, RouteSettings, Settlement,
    Space,
    sqlite::{Options, SqliteQueue},
};
use tidegate_adapters::{DeadReason, Delivery, DeliveryId, Event, Invalid, Timestamp};
use tokio::time::timeout;

use super::{NOW, Parts, RUNTIME, now};

/// In which all is done, or the queue hangs.
const IN_TIME: Duration = Duration::from_secs(60);

/// SQLite's pages, as the queue makes them.
const PAGE: usize = 8192;

/// One change: the page, the place within it (two bytes), how many bytes, and these.
const HEAD: usize = 4;
const CHANGED_MAX: usize = 64;

/// The file and its write-ahead log.
type Files = [Vec<u8>; 2];

/// A queue that was closed, and one that was killed.
static SOUND: LazyLock<[Files; 2]> = LazyLock::new(|| RUNTIME.block_on(sound()));

/// Changes to the files of a queue: which queue, then changes one after the other; page 255 cuts
/// the file off at the place. Or, after a line `edit`, changes to what the file holds: lines
/// `table.column.row: value`, and `table.row:` for a row that is to go.
///
/// # Panics
/// When the queue does not refuse the file, nor work with it, nor say that it failed, in time; when
/// a list goes in circles.
pub fn queue_file(input: &[u8]) {
    let Some((first, changes)) = input.split_first() else { return };
    let folder = folder();
    if let Some(edits) = input.strip_prefix(b"edit\n") {
        write(folder.path(), &SOUND[0]);
        edit(&folder.path().join("q.db"), &Parts::of(edits));
    } else {
        let mut files = SOUND[usize::from(first & 1)].clone();
        change(&mut files, changes);
        write(folder.path(), &files);
    }
    RUNTIME.block_on(async {
        let used = timeout(IN_TIME, use_it(folder.path())).await;
        used.expect("neither done nor refused in time");
    });
}

fn change(files: &mut Files, mut changes: &[u8]) {
    while let [page, high, low, length, rest @ ..] = changes {
        let length = usize::from(*length) % CHANGED_MAX;
        let (bytes, after) = rest.split_at(length.min(rest.len()));
        changes = after;
        let place = usize::from(*high) << 8 | usize::from(*low);
        // Pages behind the file's end are the log's.
        let [database, log] = &mut *files;
        let pages = database.len() / PAGE;
        let (file, at) = match usize::from(*page) {
            255 => {
                database.truncate(place * 16);
                continue;
            }
            page if page < pages => (database, page * PAGE + place % PAGE),
            page => (log, (page - pages) * PAGE + place % PAGE),
        };
        let end = (at + bytes.len()).min(file.len());
        if at < end {
            file[at..end].copy_from_slice(&bytes[..end - at]);
        }
    }
    assert!(changes.len() < HEAD);
}

/// Changes values and removes rows; what SQLite will not have stays as it is.
fn edit(path: &Path, edits: &Parts<'_>) {
    let connection = Connection::open(path).expect("a sound file");
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    for (place, value) in &edits.lines {
        let mut names: Vec<&str> = place.split('.').collect();
        let row: u32 = names.pop().and_then(|row| row.parse().ok()).unwrap_or_default();
        if !names.iter().all(|name| !name.is_empty() && is_name(name)) {
            continue;
        }
        let one = |column: &str, table: &str| {
            format!("WHERE {column} IS (SELECT {column} FROM {table} LIMIT 1 OFFSET {row})")
        };
        let _ = match *names {
            [table, column] => {
                let sql = format!("UPDATE {table} SET {column} = ?1 {}", one(column, table));
                connection.execute(&sql, [sql_value(value)])
            }
            [table] => {
                let first = "SELECT name FROM pragma_table_info(?1) WHERE cid = 0";
                let first = connection.query_row(first, [table], |row| row.get::<_, String>(0));
                let column = first.unwrap_or_default();
                connection.execute(&format!("DELETE FROM {table} {}", one(&column, table)), [])
            }
            _ => continue,
        };
    }
}

/// A number or null where it is one, else bytes where it is no text.
fn sql_value(value: &[u8]) -> SqlValue {
    let Ok(text) = std::str::from_utf8(value) else { return SqlValue::Blob(value.to_vec()) };
    match (text, text.parse(), text.parse()) {
        ("null", ..) => SqlValue::Null,
        (_, Ok(whole), _) => SqlValue::Integer(whole),
        (_, _, Ok(number)) => SqlValue::Real(number),
        _ => SqlValue::Text(text.to_owned()),
    }
}

/// In memory where there is such a folder: what is tested here is no disk.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder")
}

fn write(folder: &Path, [database, log]: &Files) {
    fs::write(folder.join("q.db"), database).expect("a file can be written");
    if !log.is_empty() {
        fs::write(folder.join("q.db-wal"), log).expect("a file can be written");
    }
}

fn options(folder: &Path) -> Options {
    Options {
        path: folder.join("q.db"),
        bounds: Bounds {
            max_size: 1 << 20,
            max_route_share: 0.5,
            keep_delivered: Duration::from_secs(3600),
            keep_dead: Duration::from_secs(36_000),
        },
        observer: Arc::new(|_| {}),
        clock: Arc::new(now),
    }
}

async fn use_it(folder: &Path) {
    let queue = match SqliteQueue::open(options(folder)) {
        Ok(queue) => queue,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    // Whatever of this fails says so; none of it may hang, or end in a panic.
    let done = go_through(&queue).await;
    if let Err(error) = &done {
        assert!(!error.to_string().is_empty());
    }
    let failed = timeout(Duration::ZERO, queue.failed()).await.ok();
    assert!(!failed.as_ref().is_some_and(|why| why.contains("panicked")), "the writer panicked");
    // What an open queue says when a reader panicked.
    assert!(failed.is_some() || !matches!(done, Err(QueueError::Closed)), "a reader panicked");
    queue.close().await;
}

/// What a gateway does with its queue, and an operator.
async fn go_through(queue: &SqliteQueue) -> Result<(), QueueError> {
    let route: Arc<str> = "r".into();
    queue.configure(vec![settings(&route), settings(&"other".into())]).await?;
    let mut known = BTreeSet::new();
    let mut cursor = None;
    loop {
        let page = queue.list(Filter::default(), cursor, 3).await?;
        for listed in &page.deliveries {
            let id = listed.delivery.id;
            assert!(cursor.is_none_or(|cursor| id < cursor), "{id} after {cursor:?}");
            assert!(known.insert(id), "{id} is listed twice");
        }
        let Some(next) = page.next else { break };
        assert!(cursor.is_none_or(|cursor| next < cursor), "{next} after {cursor:?}");
        cursor = Some(next);
    }
    for id in known.iter().take(8) {
        let shown = queue.show(*id).await;
        assert!(!matches!(shown, Err(QueueError::Closed)), "a reader panicked");
    }
    let far = Timestamp(i64::MAX / 2);
    let page = queue.page(&route, far, 100, HashSet::new()).await?;
    for delivery in page.due.iter().take(3) {
        assert!(queue.claim(delivery.id), "{} is claimed by nobody", delivery.id);
        let _ = settle(queue, delivery, Outcome::Delivered).await;
    }
    let _ = queue.oldest_due(&route, far).await;
    let _ = queue.append(&route, vec![pending("fresh", Some("a"))], Space::Capped).await;
    let _ = queue.note("bindings").await;
    for id in known.iter().take(4) {
        let _ = queue.act(Action::Replay, *id).await;
    }
    let mut cursor = None;
    for _ in 0..8 {
        let discard = queue.act_on_many(Action::Discard, Filter::default(), cursor, false).await?;
        let Some(next) = discard.next else { break };
        assert!(cursor.is_none_or(|cursor| next > cursor), "{next} after {cursor:?}");
        cursor = Some(next);
    }
    Ok(())
}

async fn settle(
    queue: &SqliteQueue,
    delivery: &Arc<Delivery>,
    outcome: Outcome,
) -> Result<(), QueueError> {
    let delivery = Arc::clone(delivery);
    queue.settle(Settlement { delivery, outcome, attempt: None, reply: None, held: None }).await
}

fn settings(name: &Arc<str>) -> RouteSettings {
    let dedupe = Some(Duration::from_secs(3600));
    RouteSettings { name: Arc::clone(name), dedupe, hold: true }
}

fn pending(id: &str, key: Option<&str>) -> Append {
    let event = Event::decode(
        format!(r#"{{"id":"{id}","source":"/s","type":"t","tenant":"acme"}}"#).as_bytes(),
        Bytes::from(format!(r#"{{"id":"{id}","n":[1,2,3]}}"#)),
    );
    let event = Arc::new(event.expect("an event"));
    Append { content: Content::Pending(event), key: key.map(Into::into), dedupe: true }
}

/// The files of a queue in which there is some of everything.
async fn sound() -> [Files; 2] {
    let folder = folder();
    let queue = SqliteQueue::open(options(folder.path())).expect("a fresh queue");
    fill(&queue).await.expect("a fresh queue works");
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap_or_default();
    let killed = [read("q.db"), read("q.db-wal")];
    queue.close().await;
    let closed = [read("q.db"), read("q.db-wal")];
    [closed, killed]
}

async fn fill(queue: &SqliteQueue) -> Result<(), QueueError> {
    let route: Arc<str> = "r".into();
    queue.configure(vec![settings(&route), settings(&"gone".into())]).await?;
    queue.connected(&route, true);
    let mut batch = vec![pending("1", None), pending("2", Some("a")), pending("3", Some("a"))];
    batch.extend([pending("4", Some("b")), pending("5", None), pending("6", Some("a"))]);
    let about = serde_json::Map::new();
    let invalid = Invalid { why: "not JSON".into(), raw: Bytes::from_static(b"\xff"), about };
    batch.push(Append { content: Content::Invalid(invalid), key: None, dedupe: false });
    queue.append(&route, batch, Space::Capped).await.expect("there is room");
    let gone = queue.append(&"gone".into(), vec![pending("1", None)], Space::Capped).await;
    gone.expect("there is room");
    let due = queue.page(&route, NOW, 100, HashSet::new()).await?.due;
    let dead = Outcome::Dead { reason: DeadReason::Rejected, detail: "no".to_owned() };
    let later = Outcome::Retry { at: NOW.after(Duration::from_secs(60)), attempts: 1 };
    for (delivery, outcome) in due.iter().zip([Outcome::Delivered, later, dead]) {
        queue.claim(delivery.id);
        settle(queue, delivery, outcome).await?;
    }
    queue.act(Action::Replay, DeliveryId(1)).await?;
    queue.pause_route(&"gone".into(), true).await?;
    queue.pause_upstream(&"u".into(), true).await?;
    queue.keep_note("bindings", "{\"orders\":[\"#\"]}".to_owned()).await
}
