//! The ids that came last: moved, displaced, forgotten, read again.

use std::collections::HashMap;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

fn filtered(id: &str) -> Append {
    Append { content: Content::Filtered(event(id)), ..pending(id, None) }
}

/// One batch that goes beyond the bound must not forget more than it needs to.
#[tokio::test]
async fn a_batch_beyond_the_bound_leaves_the_route_near_its_bound() {
    let bench = Bench::with(|options| options.bounds.max_size = 64 * 8 * 64 * 2).await;
    bench.append((0..100).map(|n| filtered(&format!("e-{n}"))).collect()).await.unwrap();
    let connection = rusqlite::Connection::open(&bench.options.path).unwrap();
    let seen: i64 =
        connection.query_row("SELECT max(seen) FROM route", [], |row| row.get(0)).unwrap();
    assert!((60..=64).contains(&seen), "{seen} of at most 64");
}

/// However few ids they are, what is written of them does not grow.
#[tokio::test]
async fn an_id_that_is_taken_anew_again_and_again_does_not_fill_the_table() {
    let bench = Bench::new().await;
    for _ in 0..60 {
        assert!(matches!(bench.pending(&["a"]).await[..], [Appended::Pending(_)]));
        let delivery = bench.fed().unwrap();
        bench.settle(&delivery, dead(DeadReason::Rejected)).await;
    }
    let connection = rusqlite::Connection::open(&bench.options.path).unwrap();
    let written: i64 = connection
        .query_row("SELECT coalesce(sum(length(ids)), 0) / 48 FROM recent", [], |row| row.get(0))
        .unwrap();
    assert!(written <= 16, "{written}, of batches of 8");
}

/// The number of a row of `recent` near the top of its range.
#[tokio::test]
async fn a_damaged_row_number_is_no_panic() {
    let bench = Bench::new().await;
    bench.pending(&["a"]).await;
    bench.queue.close().await;
    rusqlite::Connection::open(&bench.options.path)
        .unwrap()
        .execute("UPDATE recent SET n = 9223372036854775807", [])
        .unwrap();
    let Ok(queue) = SqliteQueue::open(bench.options.clone()) else { return };
    queue.configure(vec![settings("r", false)]).await.unwrap();
    let appended = queue.append(&"r".into(), vec![pending("b", None)], Space::Capped).await;
    assert!(appended.is_ok(), "{appended:?}");
}

/// Dead in one bucket, taken anew as the first of the next bucket, moved into the tree: a repeat?
#[tokio::test]
async fn an_id_taken_anew_in_a_later_bucket_is_known_once_moved() {
    let bench = Bench::new().await;
    const BUCKET: Duration = Duration::from_secs(2);
    let short = || RouteSettings { dedupe: Some(BUCKET * 4), ..settings("r", false) };
    let routes = || vec![short(), settings("other", false)];
    bench.queue.configure(routes()).await.unwrap();
    bench.pending(&["a"]).await;
    let delivery = bench.fed().unwrap();
    bench.settle(&delivery, dead(DeadReason::Rejected)).await;
    // The clock of the route is real.
    let later = Instant::now() + BUCKET;
    while Instant::now() < later {
        bench.append(vec![filtered("b")]).await.unwrap();
    }
    assert!(matches!(bench.pending(&["a"]).await[..], [Appended::Pending(_)]));
    // Another route fills batches, until it is in the tree.
    let other: Arc<str> = "other".into();
    for n in 0..60 {
        let append = vec![filtered(&format!("o-{n}"))];
        bench.queue.append(&other, append, Space::Capped).await.unwrap();
    }
    let again = bench.pending(&["a"]).await;
    assert!(matches!(again[..], [Appended::Duplicate(_)]), "{again:?}");
}

/// What may happen to ids, on a route that remembers 64 of them.
#[derive(Debug, Clone)]
enum Step {
    Take(Vec<u8>),
    Kill,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec(0..200u8, 1..6).prop_map(Step::Take),
        2 => Just(Step::Kill),
        2 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn counts_hold_where_ids_are_forgotten_for_room(
        steps in proptest::collection::vec(step(), 20..80), small in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let size = if small { 64 * 8 * 64 * 2 } else { 64 * MIB };
            let mut bench = Bench::with(|options| options.bounds.max_size = size).await;
            let mut known: HashMap<u8, Appended> = HashMap::new();
            for step in &steps {
                match step {
                    Step::Take(ids) => for id in ids {
                        let append = vec![filtered(&id.to_string())];
                        let is = bench.append(append).await.unwrap().remove(0);
                        let was = known.insert(*id, is);
                        if !small {
                            let repeat = matches!(is, Appended::Duplicate(_));
                            assert_eq!(repeat, was.is_some(), "{id}");
                        }
                    },
                    Step::Kill => recount::check(&bench.options.path),
                    Step::Crash => bench = bench.crash().await,
                }
            }
        });
    }
}
