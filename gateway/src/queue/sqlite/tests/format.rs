//! A file of the format before is taken over.

use rusqlite::Connection;

use super::*;

/// The tables of format 2, word for word.
const TWO: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE route (
    no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, paused INTEGER NOT NULL DEFAULT 0,
    clock_ms INTEGER NOT NULL DEFAULT 0, pending INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
    discarded INTEGER NOT NULL DEFAULT 0, live_bytes INTEGER NOT NULL DEFAULT 0,
    history_bytes INTEGER NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0,
    seen_from_ms INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY, route INTEGER NOT NULL, at INTEGER NOT NULL, key TEXT, lane BLOB,
    invalid INTEGER NOT NULL, attrs BLOB NOT NULL, data BLOB NOT NULL
);
CREATE TABLE due (
    route INTEGER NOT NULL, at INTEGER NOT NULL, id INTEGER NOT NULL, attempts INTEGER NOT NULL,
    tries INTEGER NOT NULL, first_attempt INTEGER, PRIMARY KEY (route, at, id)
) WITHOUT ROWID;
CREATE INDEX due_by_id ON due (id);
CREATE TABLE lane (
    route INTEGER NOT NULL, lane BLOB NOT NULL, id INTEGER NOT NULL,
    PRIMARY KEY (route, lane, id)
) WITHOUT ROWID;
CREATE TABLE settled (
    id INTEGER PRIMARY KEY, route INTEGER NOT NULL, state INTEGER NOT NULL, at INTEGER NOT NULL,
    bytes INTEGER NOT NULL, tries INTEGER NOT NULL, reason INTEGER, detail TEXT
);
CREATE INDEX settled_by_state ON settled (state, id);
CREATE TABLE attempt (
    delivery INTEGER NOT NULL, n INTEGER NOT NULL, at INTEGER NOT NULL, us INTEGER NOT NULL,
    result TEXT NOT NULL, detail TEXT NOT NULL, status INTEGER, request TEXT NOT NULL,
    response TEXT NOT NULL, PRIMARY KEY (delivery, n)
) WITHOUT ROWID;
CREATE TABLE seen (
    route INTEGER NOT NULL, bucket INTEGER NOT NULL, key BLOB NOT NULL, id INTEGER NOT NULL,
    at INTEGER NOT NULL, PRIMARY KEY (route, bucket, key)
) WITHOUT ROWID;
PRAGMA application_id = 0x54444754; PRAGMA user_version = 2;
";

/// What stood in it: two of a key waiting, one dead that holds another key, one delivered.
fn write_two(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL;").unwrap();
    connection.execute_batch(TWO).unwrap();
    let sizes: Vec<i64> =
        (1..=4).map(|n| i64::try_from(event(&n.to_string()).size_hint()).unwrap() + 256).collect();
    connection
        .execute(
            "INSERT INTO route (no, name, pending, delivered, dead, live_bytes, history_bytes)
             VALUES (1, 'r', 2, 1, 1, ?1, ?2)",
            [sizes[0] + sizes[1] + sizes[2], sizes[3]],
        )
        .unwrap();
    let lane = |key: &str| super::super::transaction::lane_of(key).to_vec();
    for (id, key) in [(1, "a"), (2, "a"), (3, "b"), (4, "c")] {
        let event = event(&id.to_string());
        let values = (id, key, lane(key), event.encode_attributes(), event.data_bytes().to_vec());
        let sql = "INSERT INTO delivery VALUES (?1, 1, 900000, ?2, ?3, 0, ?4, ?5)";
        connection.execute(sql, values).unwrap();
    }
    for (id, key) in [(1, "a"), (2, "a"), (3, "b")] {
        connection.execute("INSERT INTO lane VALUES (1, ?1, ?2)", (lane(key), id)).unwrap();
    }
    connection.execute("INSERT INTO due VALUES (1, 900000, 1, 0, 0, NULL)", []).unwrap();
    let settled = "INSERT INTO settled VALUES (?1, 1, ?2, 900000, ?3, 1, ?4, ?5)";
    connection.execute(settled, (3, 2, sizes[2], Some(0), Some("no"))).unwrap();
    connection.execute(settled, (4, 1, sizes[3], None::<i64>, None::<&str>)).unwrap();
    let attempt = "INSERT INTO attempt VALUES (?1, ?2, 900000, 1, ?3, '', 200, ?4, '')";
    for n in 4..7 {
        let request = format!("request {n}");
        connection.execute(attempt, (3, n, "client_error", request)).unwrap();
    }
    connection.execute(attempt, (4, 1, "success", "the only request")).unwrap();
}

#[tokio::test]
async fn d12_a_file_of_the_format_before_is_taken_over_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.db");
    write_two(&path);
    let now = Arc::new(AtomicI64::new(1_000_000));
    let clock = Arc::clone(&now);
    let options = Options {
        path: path.clone(),
        bounds: Bounds {
            max_size: 64 * MIB,
            max_route_share: 0.5,
            keep_delivered: Duration::from_secs(3600),
            keep_dead: Duration::from_secs(3600),
        },
        observer: Arc::new(|_| {}),
        clock: Arc::new(move || Timestamp(clock.load(Ordering::Relaxed))),
    };
    let queue = SqliteQueue::open(options.clone()).unwrap();
    queue.configure(vec![settings("r", true), settings("other", false)]).await.unwrap();
    queue.connected(&"r".into(), true);
    queue.feed(&"r".into()).go_live();
    let bench = Bench { folder, queue, now, options };
    assert_eq!(ids(&bench.due().await), ["1"]);
    assert_eq!(requests(&bench, 3).await, ["request 4", "request 5", "request 6"]);
    assert_eq!(requests(&bench, 4).await, ["the only request"]);
    bench.act(Action::Replay, DeliveryId(4)).await.unwrap();
    assert_eq!(requests(&bench, 4).await, [""; 0]);
    bench.act(Action::Replay, DeliveryId(3)).await.unwrap();
    assert_eq!(ids(&bench.due().await), ["1", "3", "4"]);
    bench.settle(&bench.due().await[0], Outcome::Delivered).await;
    assert_eq!(ids(&bench.due().await), ["2", "3", "4"]);
    bench.queue.pause_route(&"r".into(), true).await.unwrap();
    bench.queue.close().await;
    let version = number(&path, "PRAGMA user_version");
    assert_eq!(version, 4);
    assert_eq!(number(&path, "SELECT count(*) FROM pragma_integrity_check"), 1);
    SqliteQueue::open(bench.options.clone()).expect("and is opened again as it is now");
}

async fn requests(bench: &Bench, id: i64) -> Vec<String> {
    let shown = bench.queue.show(DeliveryId(id)).await.unwrap();
    shown.attempts.into_iter().map(|attempt| attempt.exchange.request).collect()
}

#[tokio::test]
async fn all_ways_lead_to_the_same_tables() {
    let fresh = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.db");
    write_two(&path);
    super::super::schema::open_writer(&path).unwrap();
    let path_of_three = folder.path().join("three.db");
    write_two(&path_of_three);
    let three = format!("{} PRAGMA user_version = 3;", super::super::schema::FROM_2);
    Connection::open(&path_of_three).unwrap().execute_batch(&three).unwrap();
    super::super::schema::open_writer(&path_of_three).unwrap();
    let columns = |path: &Path| -> Vec<String> {
        let connection = Connection::open(path).unwrap();
        let mut statement = connection
            .prepare(
                "SELECT s.type || ' ' || s.name || ' ' || coalesce(group_concat(c.name || ' ' ||
                 c.type || c.pk || c.\"notnull\" || coalesce(c.dflt_value, '-')), '')
                 FROM sqlite_schema s LEFT JOIN pragma_table_info(s.name) c
                 GROUP BY s.type, s.name ORDER BY 1",
            )
            .unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(columns(&path), columns(&fresh.options.path));
    assert_eq!(columns(&path_of_three), columns(&fresh.options.path));
}

#[tokio::test]
async fn taking_over_happens_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.db");
    write_two(&path);
    // What stands in the way of one of the last steps.
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE note (odd)").unwrap();
    assert!(super::super::schema::open_writer(&path).is_err());
    assert_eq!(number(&path, "PRAGMA user_version"), 2);
    assert_eq!(number(&path, "SELECT count(*) FROM lane"), 3);
    assert_eq!(number(&path, "SELECT sum(paused) FROM route"), 0);
    connection.execute_batch("DROP TABLE note").unwrap();
    drop(connection);
    super::super::schema::open_writer(&path).expect("it can be taken over afterwards");
    assert_eq!(number(&path, "SELECT sum(pos) FROM lane"), 6);
}

#[tokio::test]
async fn d12_what_is_older_still_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("q.db");
    write_two(&path);
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 1").unwrap();
    let refused = super::super::schema::check_format(&path);
    assert!(matches!(refused, Err(QueueError::Format { found: 1, known: 4, .. })), "{refused:?}");
}

fn number(path: &Path, sql: &str) -> i64 {
    Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}
