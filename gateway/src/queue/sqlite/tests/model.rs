//! Anything in any order, against a plain model in memory.

mod plain;

use proptest::prelude::*;

use super::*;
use plain::{Incoming, Model};

/// What may happen. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Incoming>),
    /// A due one is attempted and settled.
    Settle(usize, Fate),
    Replay(usize),
    Discard(usize),
    /// One is claimed while it is discarded.
    DiscardActive(usize),
    ReplayDead,
    DiscardPending,
    Pause(bool),
    /// Time passes, and what is old enough is pruned.
    Pass(i64),
    /// A crash, perhaps with one under way.
    Crash(Option<usize>),
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Delivered,
    Dead,
    /// Again after so many milliseconds.
    Retry(i64),
}

fn incoming() -> impl Strategy<Value = Incoming> {
    let key = || proptest::option::of(0..3u8);
    prop_oneof![
        8 => (0..40u8, key()).prop_map(|(event, key)| Incoming::Pending(event, key)),
        1 => (0..40u8).prop_map(Incoming::Filtered),
        1 => (0..40u8, key()).prop_map(|(event, key)| Incoming::Dead(event, key)),
        1 => Just(Incoming::Invalid),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let later = prop::sample::select(vec![0, 1_000, 2_000_000]);
    let fate = prop_oneof![Just(Fate::Delivered), Just(Fate::Dead), later.prop_map(Fate::Retry)];
    let passes = vec![1, 5_000, 1_800_001, 3_600_001, 36_000_001];
    prop_oneof![
        6 => prop::collection::vec(incoming(), 1..4).prop_map(Step::Append),
        8 => (any::<usize>(), fate).prop_map(|(which, fate)| Step::Settle(which, fate)),
        3 => any::<usize>().prop_map(Step::Replay),
        3 => any::<usize>().prop_map(Step::Discard),
        1 => any::<usize>().prop_map(Step::DiscardActive),
        1 => Just(Step::ReplayDead),
        1 => Just(Step::DiscardPending),
        1 => any::<bool>().prop_map(Step::Pause),
        2 => prop::sample::select(passes).prop_map(Step::Pass),
        1 => proptest::option::of(any::<usize>()).prop_map(Step::Crash),
    ]
}

fn append_of(incoming: &Incoming) -> Append {
    let name = |event: &u8| super::event(&event.to_string());
    let (content, key) = match incoming {
        Incoming::Pending(event, key) => (Content::Pending(name(event)), *key),
        Incoming::Filtered(event) => (Content::Filtered(name(event)), None),
        Incoming::Dead(event, key) => {
            (Content::Dead(name(event), DeadReason::Expression, "no".to_owned()), *key)
        }
        Incoming::Invalid => {
            let raw = Bytes::from_static(b"{");
            let about = serde_json::Map::new();
            (Content::Invalid(Invalid { why: "not JSON".to_owned(), raw, about }), None)
        }
    };
    Append { content, key: key.map(|key| key.to_string().into()), dedupe: true }
}

async fn append(bench: &Bench, model: &mut Model, incoming: &[Incoming]) {
    let appended = bench.append(incoming.iter().map(append_of).collect()).await.unwrap();
    assert_eq!(appended.len(), incoming.len());
    for (incoming, appended) in incoming.iter().zip(appended) {
        let id = match appended {
            Appended::Pending(id) | Appended::Dead(id) => id.0,
            Appended::Filtered | Appended::Duplicate(_) => 0,
        };
        assert_eq!(appended, model.append(incoming, id), "{incoming:?}");
    }
}

async fn settle(bench: &Bench, model: &mut Model, which: usize, fate: Fate) {
    let due = bench.due().await;
    let Some(delivery) = due.get(which % due.len().max(1)) else { return };
    let outcome = match fate {
        Fate::Delivered => Outcome::Delivered,
        Fate::Dead => dead(DeadReason::Rejected),
        Fate::Retry(ms) => {
            Outcome::Retry { at: Timestamp(model.now + ms), attempts: delivery.attempts + 1 }
        }
    };
    bench.settle(delivery, outcome).await;
    let id = delivery.id.0;
    match fate {
        Fate::Delivered => model.finish(id, State::Delivered),
        Fate::Dead => model.finish(id, State::Dead),
        Fate::Retry(ms) => model.again(id, model.now + ms),
    }
}

async fn many(bench: &Bench, action: Action, state: State) {
    let filter = Filter { state: Some(state), ..Filter::default() };
    let mut cursor = None;
    loop {
        let step = bench.queue.act_on_many(action, filter.clone(), cursor, false).await.unwrap();
        cursor = step.next;
        if cursor.is_none() {
            return;
        }
    }
}

/// What was asked of the writer before is done: it answers in order.
async fn barrier(bench: &Bench, model: &Model) {
    let routes = vec![settings("r", model.hold), settings("other", false)];
    bench.queue.configure(routes).await.unwrap();
}

async fn take(bench: Bench, model: &mut Model, step: &Step) -> Bench {
    let nth = |which: usize, ids: &[i64]| ids.get(which % ids.len().max(1)).copied();
    match step {
        Step::Append(incoming) => append(&bench, model, incoming).await,
        Step::Settle(which, fate) => settle(&bench, model, *which, *fate).await,
        Step::Replay(which) => {
            let Some(id) = nth(*which, &model.ever) else { return bench };
            let done = bench.act(Action::Replay, DeliveryId(id)).await;
            assert_eq!(done.is_ok(), model.replay(id), "{done:?}");
        }
        Step::Discard(which) => {
            let Some(id) = nth(*which, &model.ever) else { return bench };
            let done = bench.act(Action::Discard, DeliveryId(id)).await;
            assert_eq!(done.is_ok(), model.discard(id), "{done:?}");
        }
        Step::DiscardActive(which) => {
            let Some(id) = nth(*which, &model.due()) else { return bench };
            assert!(bench.queue.claim(DeliveryId(id)));
            let done = bench.act(Action::Discard, DeliveryId(id)).await;
            assert!(matches!(done, Err(QueueError::Unfit { state: "active", .. })), "{done:?}");
            bench.queue.unclaim(DeliveryId(id));
        }
        Step::ReplayDead => {
            many(&bench, Action::Replay, State::Dead).await;
            let dead = model.in_state(State::Dead);
            dead.into_iter().rev().for_each(|id| assert_eq!(model.replay(id), model.is_event(id)));
        }
        Step::DiscardPending => {
            many(&bench, Action::Discard, State::Pending).await;
            let pending = model.in_state(State::Pending);
            pending.into_iter().rev().for_each(|id| assert!(model.discard(id)));
        }
        Step::Pause(paused) => {
            bench.queue.pause_route(&"r".into(), *paused).await.unwrap();
            model.pause(*paused);
        }
        Step::Pass(ms) => {
            bench.pass(*ms);
            bench.queue.commands.send(Command::Tend).await.unwrap();
            barrier(&bench, model).await;
            model.pass(*ms);
        }
        Step::Crash(under_way) => {
            if let Some(id) = under_way.and_then(|which| nth(which, &model.due())) {
                assert!(bench.queue.claim(DeliveryId(id)));
            }
            return bench.again(model.hold).await;
        }
    }
    bench
}

async fn compare_due(bench: &Bench, model: &Model) {
    let due = bench.due().await;
    let ids: Vec<i64> = due.iter().map(|delivery| delivery.id.0).collect();
    assert_eq!(ids, model.due());
    for delivery in due {
        let item = &model.items[&delivery.id.0];
        assert_eq!(delivery.attempts, item.attempts);
        assert_eq!(delivery.tries, item.tries);
        assert_eq!(delivery.first_attempt_at, item.first_attempt.map(Timestamp));
    }
    let paused = Duration::from_millis(u64::try_from(model.paused_for()).unwrap());
    assert_eq!(bench.queue.paused_for(&"r".into()), paused);
}

async fn compare(bench: &Bench, model: &Model) {
    for state in [State::Pending, State::Delivered, State::Dead, State::Discarded] {
        let filter = Filter { state: Some(state), ..Filter::default() };
        let (mut listed, mut cursor) = (Vec::new(), None);
        loop {
            let page = bench.queue.list(filter.clone(), cursor, 10).await.unwrap();
            listed.extend(page.deliveries.iter().map(|listed| listed.delivery.id.0));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(listed, model.in_state(state), "{state:?}");
    }
    recount::check(&bench.options.path);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_in_whatever_order_the_queue_is_what_a_plain_model_says(
        hold in any::<bool>(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new().await;
            let now = bench.now.load(Ordering::Relaxed);
            let keep = (&bench.options.bounds.keep_delivered, &bench.options.bounds.keep_dead);
            let mut model = Model::new(hold, now, keep);
            barrier(&bench, &model).await;
            for step in &steps {
                bench = take(bench, &mut model, step).await;
                compare_due(&bench, &model).await;
            }
            compare(&bench, &model).await;
        });
    }
}
