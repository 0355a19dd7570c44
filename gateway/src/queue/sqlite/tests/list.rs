//! Lists: complete over their cursors, nothing twice, whatever is walked for them.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use super::*;

/// All ids over all pages, and how many pages there were.
async fn all(bench: &Bench, filter: &Filter, limit: usize) -> (Vec<i64>, usize) {
    let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = bench.queue.list(filter.clone(), cursor, limit).await.unwrap();
        assert!(page.deliveries.len() <= limit);
        found.extend(page.deliveries.iter().map(|listed| listed.delivery.id.0));
        pages += 1;
        let Some(next) = page.next else { break };
        assert!(cursor.is_none_or(|cursor| next < cursor), "downwards only");
        cursor = Some(next);
    }
    assert!(found.is_sorted_by(|a, b| a > b), "newest first, nothing twice");
    (found, pages)
}

/// Many deliveries, written past the queue: every state, with and without keys, with gaps.
fn fill(path: &Path, count: i64, keys: bool) {
    let mut connection = Connection::open(path).unwrap();
    let transaction = connection.transaction().unwrap();
    let attributes = |id: i64| {
        let mut event = Event::clone(&event(&id.to_string()));
        if id % 997 == 0 {
            event.kind = "rare \"quoted\"".to_owned();
        }
        event.encode_attributes()
    };
    let lane = |key: &str| super::super::transaction::lane_of(key).to_vec();
    let mut live = BTreeMap::<i64, usize>::new();
    for id in (1..=count).filter(|id| !(count / 3..count / 2).contains(id)) {
        let route = if id % 5000 == 7 { 2 } else { 1 };
        let key = (keys && id % 10 == 3).then(|| format!("k{}", id % 7));
        let lane = key.as_deref().map(lane);
        transaction
            .prepare_cached("INSERT INTO delivery VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, x'7b7d')")
            .unwrap()
            .execute((id, route, id * 10, &key, &lane, attributes(id)))
            .unwrap();
        let state = match id % 100 {
            0..60 => 1,
            60 if id % 1000 == 60 => 2,
            61 => 3,
            _ => 0,
        };
        if state != 0 {
            let reason = (state == 2).then_some(id % 3);
            transaction
                .prepare_cached("INSERT INTO settled VALUES (?1, ?2, ?3, 0, 10, 1, ?4, '')")
                .unwrap()
                .execute((id, route, state, reason))
                .unwrap();
            continue;
        }
        let stored = Event::decode(&attributes(id), Bytes::from_static(b"{}")).unwrap();
        *live.entry(route).or_default() += stored.size_hint() + 256;
        let mut is_first = true;
        if let Some(lane) = &lane {
            let mut first = transaction
                .prepare_cached("SELECT 1 FROM lane WHERE route = ?1 AND lane = ?2 LIMIT 1")
                .unwrap();
            is_first = !first.exists((route, lane)).unwrap();
            transaction
                .prepare_cached("INSERT INTO lane VALUES (?1, ?2, ?3, ?3)")
                .unwrap()
                .execute((route, lane, id))
                .unwrap();
        }
        if is_first {
            transaction
                .prepare_cached("INSERT INTO due VALUES (?1, ?2, ?3, 0, 0, NULL)")
                .unwrap()
                .execute((route, id * 10, id))
                .unwrap();
        }
    }
    transaction
        .execute_batch(
            "UPDATE route SET
             pending = (SELECT count(*) FROM delivery d WHERE d.route = no
                        AND d.id NOT IN (SELECT id FROM settled)),
             delivered = (SELECT count(*) FROM settled s WHERE s.route = no AND s.state = 1),
             dead = (SELECT count(*) FROM settled s WHERE s.route = no AND s.state = 2),
             discarded = (SELECT count(*) FROM settled s WHERE s.route = no AND s.state = 3),
             history_bytes = (SELECT 10 * count(*) FROM settled s WHERE s.route = no
                              AND s.state IN (1, 3)),
             live_bytes = (SELECT 10 * count(*) FROM settled s WHERE s.route = no
                           AND s.state = 2);",
        )
        .unwrap();
    for (no, bytes) in live {
        let add = "UPDATE route SET live_bytes = live_bytes + ?2 WHERE no = ?1";
        transaction.execute(add, (no, i64::try_from(bytes).unwrap())).unwrap();
    }
    transaction.commit().unwrap();
}

/// What a list must give, by the plainest means.
fn expected(path: &Path, condition: &str) -> Vec<i64> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection
        .prepare(&format!(
            "SELECT d.id FROM delivery d LEFT JOIN settled s ON s.id = d.id
             WHERE {condition} ORDER BY d.id DESC"
        ))
        .unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

async fn filled(count: i64, keys: bool) -> Bench {
    let mut bench = Bench::new().await;
    bench.queue.close().await;
    fill(&bench.options.path, count, keys);
    bench.queue = SqliteQueue::open(bench.options.clone()).unwrap();
    bench
}

fn filters() -> Vec<(Filter, &'static str)> {
    let none = Filter::default;
    let text = |text: &str| Some(text.to_owned());
    let mut filters = vec![
        (none(), "true"),
        (Filter { routes: vec!["other".into()], ..none() }, "d.route = 2"),
        (Filter { routes: vec!["other".into(), "r".into()], ..none() }, "true"),
        (Filter { routes: vec!["nobody".into()], ..none() }, "false"),
        (Filter { kind: text("rare \"quoted\""), ..none() }, "d.id % 997 = 0"),
        (Filter { event: text("4242"), ..none() }, "d.id = 4242"),
        (Filter { event: text("424"), ..none() }, "d.id = 424"),
        (Filter { key: text("k3"), ..none() }, "d.key = 'k3'"),
        (Filter { since: Some(Timestamp(600_000)), ..none() }, "d.at >= 600000"),
        (Filter { until: Some(Timestamp(200_000)), ..none() }, "d.at < 200000"),
        (
            Filter { since: Some(Timestamp(50_000)), until: Some(Timestamp(50_100)), ..none() },
            "d.at >= 50000 AND d.at < 50100",
        ),
        (Filter { reason: Some(DeadReason::ALL[1]), ..none() }, "s.reason = 1"),
        (
            Filter { key: text("k3"), state: Some(State::Pending), ..none() },
            "d.key = 'k3' AND s.id IS NULL",
        ),
        (
            Filter { kind: text("rare \"quoted\""), state: Some(State::Pending), ..none() },
            "d.id % 997 = 0 AND s.id IS NULL",
        ),
    ];
    for (state, condition) in [
        (State::Pending, "s.id IS NULL"),
        (State::Delivered, "s.state = 1"),
        (State::Dead, "s.state = 2"),
        (State::Discarded, "s.state = 3"),
    ] {
        filters.push((Filter { state: Some(state), ..none() }, condition));
    }
    filters.push((
        Filter { state: Some(State::Pending), routes: vec!["other".into()], ..none() },
        "s.id IS NULL AND d.route = 2",
    ));
    filters.push((
        Filter { state: Some(State::Delivered), routes: vec!["other".into()], ..none() },
        "s.state = 1 AND d.route = 2",
    ));
    filters
}

#[tokio::test]
async fn every_filter_finds_all_over_its_cursors_and_nothing_twice() {
    let bench = filled(80_000, true).await;
    for (filter, condition) in filters() {
        let expected = expected(&bench.options.path, condition);
        let (found, pages) = all(&bench, &filter, 5_000).await;
        assert!(found == expected, "{filter:?}: {} of {}", found.len(), expected.len());
        assert!(pages > expected.len() / 5_000, "{filter:?}");
    }
}

#[tokio::test]
async fn a_long_backlog_without_keys_is_listed_completely() {
    let bench = filled(80_000, false).await;
    for (filter, condition) in filters() {
        let expected = expected(&bench.options.path, condition);
        let (found, _) = all(&bench, &filter, 5_000).await;
        assert!(found == expected, "{filter:?}: {} of {}", found.len(), expected.len());
    }
}

#[tokio::test]
async fn pages_are_short_where_the_limit_is_and_go_on_from_there() {
    let bench = filled(3_000, true).await;
    for (filter, condition) in filters() {
        let expected = expected(&bench.options.path, condition);
        let (found, _) = all(&bench, &filter, 7).await;
        assert!(found == expected, "{filter:?}: {} of {}", found.len(), expected.len());
    }
}

#[tokio::test]
async fn what_an_action_fits_is_counted_completely() {
    let bench = filled(30_000, true).await;
    for (action, condition) in
        [(Action::Replay, "s.state IN (1, 2)"), (Action::Discard, "s.id IS NULL OR s.state = 2")]
    {
        for (filter, also) in filters() {
            let expected =
                expected(&bench.options.path, &format!("({condition}) AND {also}")).len();
            let (mut count, mut cursor) = (0, None);
            loop {
                let step = bench.queue.act_on_many(action, filter.clone(), cursor, true);
                let step = step.await.unwrap();
                count += step.routes.values().sum::<u64>();
                cursor = step.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(count, expected as u64, "{action:?} {filter:?}");
        }
    }
}

#[tokio::test]
async fn a_dead_one_that_holds_its_key_is_listed_once_and_is_not_pending() {
    let bench = Bench::new().await;
    bench.queue.configure(vec![settings("r", true)]).await.unwrap();
    bench.keyed(&[("a1", "a"), ("a2", "a"), ("b1", "b")]).await;
    bench.settle(&bench.fed().unwrap(), dead(DeadReason::Rejected)).await;
    let events = |filter: Filter| async {
        let page = bench.queue.list(filter, None, 10).await.unwrap();
        let ids = page.deliveries.iter().map(|listed| listed.delivery.event.id.clone());
        ids.collect::<Vec<_>>()
    };
    let key = Filter { key: Some("a".to_owned()), ..Filter::default() };
    assert_eq!(events(Filter::default()).await, ["b1", "a2", "a1"]);
    assert_eq!(events(key.clone()).await, ["a2", "a1"]);
    let pending = Filter { state: Some(State::Pending), ..Filter::default() };
    assert_eq!(events(pending.clone()).await, ["b1", "a2"]);
    assert_eq!(events(Filter { state: pending.state, ..key }).await, ["a2"]);
    let both = bench.queue.act_on_many(Action::Discard, Filter::default(), None, true);
    assert_eq!(both.await.unwrap().routes.values().sum::<u64>(), 3);
}

#[tokio::test]
async fn many_lists_at_once_are_all_answered() {
    let bench = filled(20_000, true).await;
    let rare = Filter { event: Some("nobody's".to_owned()), ..Filter::default() };
    let lists = (0..16).map(|_| bench.queue.list(rare.clone(), None, 10));
    let pages = futures_util::future::join_all(lists).await;
    let cursors: BTreeSet<bool> =
        pages.into_iter().map(|page| page.unwrap().deliveries.is_empty()).collect();
    assert_eq!(cursors, BTreeSet::from([true]));
}
