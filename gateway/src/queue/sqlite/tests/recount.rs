//! Counts everything again from the tables, and compares.

use std::{collections::BTreeMap, path::Path};

use rusqlite::Connection;
use tidegate_adapters::Event;

use crate::queue::sqlite::transaction::ROW_BYTES;

/// Pending, delivered, dead, discarded; live and history bytes; ids remembered.
type Counters = [u64; 7];

/// Panics where a counter is not what the tables hold, or a lane is out of order.
pub(super) fn check(path: &Path) {
    let mut connection = Connection::open(path).unwrap();
    let snapshot = connection.transaction().unwrap();
    assert_eq!(kept(&snapshot), counted(&snapshot), "the counters are what the tables hold");
    for (sql, what) in ODD {
        let mut statement = snapshot.prepare(sql).unwrap();
        let odd: Vec<i64> =
            statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
        assert!(odd.is_empty(), "{what}: {odd:?}");
    }
}

/// What must find nothing.
const ODD: [(&str, &str); 7] = [
    (
        "SELECT due.id FROM due JOIN settled USING (id)
         UNION SELECT id FROM due WHERE id NOT IN (SELECT id FROM delivery)",
        "due and not pending",
    ),
    (
        "SELECT d.id FROM delivery d WHERE d.lane IS NULL
         AND d.id NOT IN (SELECT id FROM settled) AND d.id NOT IN (SELECT id FROM due)",
        "pending without a key and not due",
    ),
    (
        "SELECT d.id FROM delivery d WHERE d.lane IS NOT NULL
         AND d.id NOT IN (SELECT id FROM settled) AND NOT EXISTS (SELECT 1 FROM lane l
         WHERE l.route = d.route AND l.lane = d.lane AND l.id = d.id)",
        "pending with a key and not in its lane",
    ),
    (
        "SELECT l.id FROM lane l JOIN settled s ON s.id = l.id WHERE s.state <> 2 OR EXISTS
         (SELECT 1 FROM lane b WHERE b.route = l.route AND b.lane = l.lane AND b.pos < l.pos)",
        "finished with, and in its lane without holding it",
    ),
    (
        "SELECT l.id FROM lane l WHERE (l.id IN (SELECT id FROM due)) = EXISTS
         (SELECT 1 FROM lane b WHERE b.route = l.route AND b.lane = l.lane AND b.pos < l.pos)
         AND l.id NOT IN (SELECT id FROM settled)",
        "the first of a lane and not due, or due behind another",
    ),
    (
        "SELECT m.id FROM moved m WHERE NOT EXISTS
         (SELECT 1 FROM lane l WHERE l.id = m.id AND l.pos = m.pos)
         UNION SELECT l.id FROM lane l WHERE l.pos <> l.id
         AND l.id NOT IN (SELECT id FROM moved)",
        "places that nobody has",
    ),
    (
        "SELECT slot FROM attempt WHERE slot >> 2 NOT IN (SELECT id FROM delivery)",
        "attempts of no delivery",
    ),
];

fn kept(connection: &Connection) -> BTreeMap<i64, Counters> {
    let mut statement = connection
        .prepare(
            "SELECT no, pending, delivered, dead, discarded, live_bytes, history_bytes, seen
             FROM route",
        )
        .unwrap();
    let rows = statement.query_map([], |row| {
        let mut counters = [0; 7];
        for (column, counter) in (1..).zip(&mut counters) {
            *counter = u64::try_from(row.get::<_, i64>(column)?).unwrap();
        }
        Ok((row.get(0)?, counters))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}

fn counted(connection: &Connection) -> BTreeMap<i64, Counters> {
    let mut routes: BTreeMap<i64, Counters> =
        kept(connection).into_keys().map(|no| (no, [0; 7])).collect();
    let mut statement = connection
        .prepare(
            "SELECT d.route, coalesce(s.state, 0), s.bytes, d.attrs, d.data
             FROM delivery d LEFT JOIN settled s ON s.id = d.id",
        )
        .unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let counters = routes.get_mut(&row.get(0).unwrap()).unwrap();
        let state = usize::from(row.get::<_, u8>(1).unwrap());
        let settled: Option<i64> = row.get(2).unwrap();
        let bytes = match settled {
            Some(bytes) => u64::try_from(bytes).unwrap(),
            None => {
                let attributes: Vec<u8> = row.get(3).unwrap();
                let data: Vec<u8> = row.get(4).unwrap();
                let event = Event::decode(&attributes, data.into()).unwrap();
                event.size_hint() as u64 + ROW_BYTES
            }
        };
        counters[state] += 1;
        counters[if matches!(state, 0 | 2) { 4 } else { 5 }] += bytes;
    }
    for (no, ids) in remembered(connection) {
        routes.get_mut(&no).unwrap()[6] = ids.len() as u64;
    }
    routes
}

/// The ids that are remembered, by route: bucket and hash, and when they were seen.
pub(super) fn remembered(connection: &Connection) -> BTreeMap<i64, BTreeMap<(i64, Vec<u8>), i64>> {
    let mut ids: BTreeMap<i64, BTreeMap<(i64, Vec<u8>), i64>> = BTreeMap::new();
    let mut statement = connection.prepare("SELECT route, bucket, key, at FROM seen").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let id = (row.get(1).unwrap(), row.get(2).unwrap());
        ids.entry(row.get(0).unwrap()).or_default().insert(id, row.get(3).unwrap());
    }
    let mut statement = connection.prepare("SELECT ids FROM recent ORDER BY n").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let bytes: Vec<u8> = row.get(0).unwrap();
        let (entries, rest) = bytes.as_chunks::<48>();
        assert!(rest.is_empty(), "whole ids");
        for entry in entries {
            let number = |at: usize| i64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
            let id = (number(24), entry[..16].to_vec());
            ids.entry(number(16)).or_default().insert(id, number(40));
        }
    }
    ids
}
