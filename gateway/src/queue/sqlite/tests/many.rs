//! Replay and discard of many, a step at a time.

use std::collections::BTreeMap;

use super::*;

async fn run(bench: &Bench, action: Action, filter: &Filter, dry: bool) -> BTreeMap<String, u64> {
    let (mut all, mut cursor) = (BTreeMap::new(), None);
    loop {
        let step = bench.queue.act_on_many(action, filter.clone(), cursor, dry).await.unwrap();
        for (route, count) in step.routes {
            *all.entry(route.to_string()).or_default() += count;
        }
        let Some(next) = step.next else { return all };
        let onwards = |cursor| if dry { next < cursor } else { next > cursor };
        assert!(cursor.is_none_or(onwards), "counting goes downwards only, acting upwards");
        cursor = Some(next);
    }
}

/// `count` dead ones of route `r`, every tenth of type `rare`, every second with one of 20 keys.
async fn dead_ones(bench: &Bench, count: usize) {
    let all: Vec<usize> = (0..count).collect();
    for chunk in all.chunks(200) {
        let appends = chunk.iter().map(|n| {
            let mut event = Event::clone(&event(&n.to_string()));
            if n % 10 == 0 {
                event.kind = "rare".to_owned();
            }
            let content = Content::Pending(Arc::new(event));
            let key = (n % 2 == 0).then(|| format!("k{}", n % 40).into());
            Append { content, key, dedupe: true }
        });
        bench.append(appends.collect()).await.unwrap();
        loop {
            let due = bench.due().await;
            if due.is_empty() {
                break;
            }
            let settled = due.iter().map(|delivery| {
                assert!(bench.queue.claim(delivery.id));
                bench.queue.settle(Settlement {
                    delivery: Arc::clone(delivery),
                    outcome: dead(DeadReason::Rejected),
                    attempt: None,
                    reply: None,
                    held: None,
                })
            });
            for done in futures_util::future::join_all(settled).await {
                done.unwrap();
            }
        }
    }
}

fn filter(state: State) -> Filter {
    Filter { state: Some(state), ..Filter::default() }
}

fn of_r(count: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("r".to_owned(), count)])
}

#[tokio::test]
async fn all_that_the_filter_finds_are_replayed_and_nothing_else() {
    let bench = Bench::new().await;
    dead_ones(&bench, 1000).await;
    let rare = Filter { kind: Some("rare".to_owned()), ..Filter::default() };
    assert_eq!(run(&bench, Action::Replay, &rare, true).await, of_r(100));
    assert_eq!(bench.counts().await.dead, 1000, "a dry run only counts");
    assert_eq!(run(&bench, Action::Replay, &rare, false).await, of_r(100));
    let counts = bench.counts().await;
    assert_eq!((counts.dead, counts.pending), (900, 100));
    assert_eq!(run(&bench, Action::Replay, &Filter::default(), false).await, of_r(900));
    let bench = bench.crash().await;
    bench.queue.feed(&"r".into()).go_live();
    let mut orders = BTreeMap::<_, Vec<i64>>::new();
    while let Some(delivery) = bench.due().await.first() {
        orders.entry(delivery.key.clone()).or_default().push(delivery.id.0);
        bench.settle(delivery, Outcome::Delivered).await;
    }
    assert_eq!(orders.values().map(Vec::len).sum::<usize>(), 1000);
}

#[tokio::test]
async fn all_that_the_filter_finds_are_discarded() {
    let bench = Bench::new().await;
    dead_ones(&bench, 300).await;
    bench.pending(&["x", "y"]).await;
    bench.keyed(&[("z1", "z"), ("z2", "z"), ("z3", "z")]).await;
    let feed = bench.queue.feed(&"r".into());
    let before = feed.epoch();
    assert_eq!(run(&bench, Action::Discard, &filter(State::Pending), false).await, of_r(5));
    assert!(feed.epoch() > before, "the loop drops what it holds");
    assert!(bench.queue.active().is_empty(), "claims are given back");
    assert_eq!(bench.counts().await.dead, 300, "of the state that was asked for");
    assert_eq!(run(&bench, Action::Discard, &Filter::default(), false).await, of_r(300));
    assert_eq!(bench.counts().await.discarded, 305);
    assert!(bench.due().await.is_empty());
    assert_eq!(run(&bench, Action::Discard, &Filter::default(), false).await, BTreeMap::new());
    assert_eq!(run(&bench, Action::Replay, &filter(State::Pending), false).await, BTreeMap::new());
}

#[tokio::test]
async fn those_that_are_attempted_are_left_alone_and_not_counted() {
    let bench = Bench::new().await;
    bench.pending(&["a", "b", "c"]).await;
    let active = bench.fed().unwrap();
    assert!(bench.queue.claim(active.id));
    assert_eq!(run(&bench, Action::Discard, &Filter::default(), true).await, of_r(2));
    assert_eq!(run(&bench, Action::Discard, &Filter::default(), false).await, of_r(2));
    assert_eq!(ids(&bench.due().await), ["a"]);
    assert_eq!(bench.queue.active(), [active.id]);
}

#[tokio::test]
async fn what_is_no_event_is_not_counted_as_to_be_replayed() {
    let bench = Bench::new().await;
    let invalid = || Invalid {
        why: "not JSON".to_owned(),
        raw: Bytes::from_static(b"{"),
        about: serde_json::Map::new(),
    };
    for _ in 0..3 {
        let append = Append { content: Content::Invalid(invalid()), key: None, dedupe: true };
        bench.append(vec![append]).await.unwrap();
    }
    for dry in [true, false] {
        assert_eq!(run(&bench, Action::Replay, &Filter::default(), dry).await, BTreeMap::new());
    }
    assert_eq!(run(&bench, Action::Discard, &Filter::default(), false).await, of_r(3));
}

#[tokio::test]
async fn x11_live_events_are_committed_between_the_steps() {
    let bench = Bench::new().await;
    dead_ones(&bench, 2000).await;
    let everything = Filter::default();
    let replaying = run(&bench, Action::Replay, &everything, false);
    let live = async {
        for n in 0..50 {
            bench.pending(&[&format!("live {n}")]).await;
        }
    };
    let (replayed, ()) = tokio::join!(replaying, live);
    assert_eq!(replayed, of_r(2000));
    assert_eq!(bench.counts().await.pending, 2050);
}
