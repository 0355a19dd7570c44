//! What is kept within which bounds, whatever comes in.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// An event for the route `r` or the other, with so much data.
    Append { other: bool, bytes: usize },
    /// The oldest due one of a route is settled so; true is delivered.
    Settle { other: bool, delivered: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![0..2_000_usize, 40_000..120_000_usize];
    prop_oneof![
        3 => (any::<bool>(), bytes).prop_map(|(other, bytes)| Step::Append { other, bytes }),
        2 => (any::<bool>(), prop::bool::weighted(0.7))
            .prop_map(|(other, delivered)| Step::Settle { other, delivered }),
    ]
}

fn name(other: bool) -> Arc<str> {
    if other { "other".into() } else { "r".into() }
}

/// Bytes live of that route, and of all.
async fn live(bench: &Bench, route: &str) -> (u64, u64) {
    bench.counts().await;
    let routes = bench.queue.routes();
    let of = routes.iter().find(|known| &*known.name == route).unwrap().bytes;
    (of, routes.iter().map(|known| known.bytes).sum())
}

/// Appends it, and says whether it was taken; that it is taken wherever there is room, and
/// nowhere else.
async fn append(bench: &Bench, other: bool, bytes: usize) -> bool {
    let Bounds { max_size, .. } = bench.options.bounds;
    let mut event = Event::clone(&event("e"));
    event.data = Data::Binary(vec![7; bytes].into());
    let content = Content::Pending(Arc::new(event));
    let append = Append { content, key: None, dedupe: false };
    let size = super::super::transaction::append_bytes(&append);
    let route = name(other);
    let (of, all) = live(bench, &route).await;
    let appended = bench.queue.append(&route, vec![append], Space::Capped).await;
    let fits = of + size <= max_size / 2 && all + size <= max_size;
    assert_eq!(appended.is_ok(), fits, "{size} more on {of} and {all}: {appended:?}");
    let (now_of, now_all) = live(bench, &route).await;
    let more = if fits { size } else { 0 };
    assert_eq!((now_of, now_all), (of + more, all + more));
    fits
}

async fn settle(bench: &Bench, other: bool, delivered: bool) -> Option<bool> {
    let now = Timestamp(bench.now.load(Ordering::Relaxed));
    let page = bench.queue.page(&name(other), now, 1, HashSet::new()).await.unwrap();
    let delivery = page.due.first()?;
    let outcome = if delivered { Outcome::Delivered } else { dead(DeadReason::Rejected) };
    bench.settle(delivery, outcome).await;
    Some(delivered)
}

async fn play(steps: &[Step]) {
    let bench = Bench::with(|options| options.bounds.max_size = MIB).await;
    let (mut pending, mut dead) = (0, 0);
    for step in steps {
        match step {
            Step::Append { other, bytes } => {
                pending += u64::from(append(&bench, *other, *bytes).await);
            }
            Step::Settle { other, delivered } => {
                let settled = settle(&bench, *other, *delivered).await;
                pending -= u64::from(settled.is_some());
                dead += u64::from(settled == Some(false));
            }
        }
        bench.queue.commands.send(Command::Tend).await.unwrap();
        let (_, live) = live(&bench, "r").await;
        let history = bench.queue.status().bytes - live;
        assert!(history <= MIB / 4, "history of {history} bytes");
        let counts = bench.queue.routes().into_iter().map(|route| route.counts);
        let (waits, gone) = counts
            .fold((0, 0), |(waits, gone), counts| (waits + counts.pending, gone + counts.dead));
        assert_eq!((waits, gone), (pending, dead), "only history makes room");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_is_taken_where_there_is_room_and_only_history_makes_room(
        steps in prop::collection::vec(step(), 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(&steps));
    }
}
