//! Anything in any order, against a plain model in memory.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What may happen. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Append(Option<u8>),
    /// A due one is attempted and settled.
    Settle(usize, Fate),
    Replay(usize),
    Discard(usize),
    /// One is claimed while it is discarded.
    DiscardActive(usize),
    ReplayDead,
    DiscardPending,
    Reopen,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Delivered,
    Dead,
    Retry,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![Just(Fate::Delivered), Just(Fate::Dead), Just(Fate::Retry)];
    prop_oneof![
        6 => proptest::option::of(0..3u8).prop_map(Step::Append),
        8 => (any::<usize>(), fate).prop_map(|(which, fate)| Step::Settle(which, fate)),
        3 => any::<usize>().prop_map(Step::Replay),
        3 => any::<usize>().prop_map(Step::Discard),
        1 => any::<usize>().prop_map(Step::DiscardActive),
        1 => Just(Step::ReplayDead),
        1 => Just(Step::DiscardPending),
        1 => Just(Step::Reopen),
    ]
}

/// What a queue with one route is.
#[derive(Debug, Default)]
struct Model {
    hold: bool,
    states: BTreeMap<i64, (State, Option<u8>)>,
    lanes: BTreeMap<u8, Vec<i64>>,
}

impl Model {
    fn state(&self, id: i64) -> State {
        self.states[&id].0
    }

    fn key(&self, id: i64) -> Option<u8> {
        self.states[&id].1
    }

    fn due(&self) -> Vec<i64> {
        let may_go = |id: &i64| match self.key(*id) {
            None => true,
            Some(key) => self.lanes[&key].first() == Some(id),
        };
        let pending = self.states.iter().filter(|(_, (state, _))| *state == State::Pending);
        pending.map(|(id, _)| *id).filter(may_go).collect()
    }

    fn append(&mut self, id: i64, key: Option<u8>) {
        self.states.insert(id, (State::Pending, key));
        if let Some(key) = key {
            self.lanes.entry(key).or_default().push(id);
        }
    }

    fn finish(&mut self, id: i64, state: State) {
        self.states.get_mut(&id).unwrap().0 = state;
        if let Some(key) = self.key(id)
            && !(state == State::Dead && self.hold)
        {
            self.lanes.get_mut(&key).unwrap().retain(|other| *other != id);
        }
    }

    fn replay(&mut self, id: i64) -> bool {
        if !matches!(self.state(id), State::Dead | State::Delivered) {
            return false;
        }
        self.states.get_mut(&id).unwrap().0 = State::Pending;
        if let Some(key) = self.key(id) {
            let lane = self.lanes.get_mut(&key).unwrap();
            if lane.first() != Some(&id) {
                lane.push(id);
            }
        }
        true
    }

    fn discard(&mut self, id: i64) -> bool {
        let fits = matches!(self.state(id), State::Dead | State::Pending);
        if fits {
            self.finish(id, State::Discarded);
        }
        fits
    }

    fn in_state(&self, wanted: State) -> Vec<i64> {
        let all = self.states.iter().rev().filter(|(_, (state, _))| *state == wanted);
        all.map(|(id, _)| *id).collect()
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

async fn take(bench: Bench, model: &mut Model, step: &Step, number: usize) -> Bench {
    let nth = |which: usize, ids: &[i64]| ids.get(which % ids.len().max(1)).copied();
    let every: Vec<i64> = model.states.keys().copied().collect();
    match step {
        Step::Append(key) => {
            let text = key.map(|key| key.to_string());
            let append = pending(&number.to_string(), text.as_deref());
            let appended = bench.append(vec![append]).await.unwrap();
            let Appended::Pending(id) = appended[0] else { panic!("{appended:?}") };
            model.append(id.0, *key);
        }
        Step::Settle(which, fate) => {
            let due = bench.due().await;
            let Some(delivery) = due.get(which % due.len().max(1)) else { return bench };
            let outcome = match fate {
                Fate::Delivered => Outcome::Delivered,
                Fate::Dead => dead(DeadReason::Rejected),
                Fate::Retry => Outcome::Retry { at: delivery.due_at, attempts: 1 },
            };
            bench.settle(delivery, outcome).await;
            match fate {
                Fate::Delivered => model.finish(delivery.id.0, State::Delivered),
                Fate::Dead => model.finish(delivery.id.0, State::Dead),
                Fate::Retry => {}
            }
        }
        Step::Replay(which) => {
            let Some(id) = nth(*which, &every) else { return bench };
            let done = bench.act(Action::Replay, DeliveryId(id)).await;
            assert_eq!(done.is_ok(), model.replay(id), "{done:?}");
        }
        Step::Discard(which) => {
            let Some(id) = nth(*which, &every) else { return bench };
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
            // The oldest first, so that those of a key keep their order.
            model.in_state(State::Dead).into_iter().rev().for_each(|id| assert!(model.replay(id)));
        }
        Step::DiscardPending => {
            many(&bench, Action::Discard, State::Pending).await;
            model.in_state(State::Pending).into_iter().for_each(|id| assert!(model.discard(id)));
        }
        Step::Reopen => return bench.again(model.hold).await,
    }
    bench
}

async fn compare(bench: &Bench, model: &Model) {
    let mut due: Vec<i64> = bench.due().await.iter().map(|delivery| delivery.id.0).collect();
    due.sort_unstable();
    assert_eq!(due, model.due());
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
            let routes = vec![settings("r", hold), settings("other", false)];
            bench.queue.configure(routes).await.unwrap();
            let mut model = Model { hold, ..Model::default() };
            for (number, step) in steps.iter().enumerate() {
                bench = take(bench, &mut model, step, number).await;
            }
            compare(&bench, &model).await;
        });
    }
}
