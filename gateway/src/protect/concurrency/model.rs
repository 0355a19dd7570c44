//! Callers that ask, are cancelled, end and settle in any order, while the bound changes.

use std::pin::Pin;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Ask,
    /// One that waits looks whether it may go.
    Look(usize),
    Cancel(usize),
    /// A call ends; it is to be settled still.
    End(usize),
    Settle(usize),
    /// It is dropped whole.
    Drop(usize),
    Resize(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..8_usize;
    prop_oneof![
        5 => Just(Step::Ask),
        5 => which().prop_map(Step::Look),
        2 => which().prop_map(Step::Cancel),
        4 => which().prop_map(Step::End),
        3 => which().prop_map(Step::Settle),
        2 => which().prop_map(Step::Drop),
        2 => (1..6_u32).prop_map(Step::Resize),
    ]
}

type Asking = Pin<Box<dyn Future<Output = (CallPermit, UnsettledPermit)>>>;

struct World {
    concurrency: Arc<Concurrency>,
    limit: usize,
    /// The highest limit there was: who waits for a call has its place among the unsettled, which
    /// it keeps when there are to be fewer.
    most: usize,
    waiting: Vec<Asking>,
    calls: Vec<(CallPermit, UnsettledPermit)>,
    ended: Vec<UnsettledPermit>,
}

impl World {
    fn look(&mut self, which: usize) -> bool {
        let Some(granted) = self.waiting[which].as_mut().now_or_never() else { return false };
        assert!(self.calls.len() < self.limit, "more calls than {}", self.limit);
        let unsettled = self.calls.len() + self.ended.len();
        assert!(unsettled < 2 * self.most, "more unsettled than {}", 2 * self.most);
        drop(self.waiting.remove(which));
        self.calls.push(granted);
        true
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Ask => {
                let concurrency = Arc::clone(&self.concurrency);
                self.waiting.push(Box::pin(async move { concurrency.acquire().await }));
                self.look(self.waiting.len() - 1);
            }
            Step::Look(which) if which < self.waiting.len() => drop(self.look(which)),
            Step::Cancel(which) if which < self.waiting.len() => {
                drop(self.waiting.remove(which));
            }
            Step::End(which) if which < self.calls.len() => {
                self.ended.push(self.calls.remove(which).1);
            }
            Step::Settle(which) if which < self.ended.len() => drop(self.ended.remove(which)),
            Step::Drop(which) if which < self.calls.len() => drop(self.calls.remove(which)),
            Step::Resize(limit) => {
                self.limit = limit as usize;
                self.most = self.most.max(self.limit);
                self.concurrency.resize(NonZeroU32::new(limit).unwrap());
                assert_eq!(self.concurrency.limit(), limit);
            }
            _ => {}
        }
        // One that has got a permit and not looked yet is under way already.
        assert!(self.concurrency.in_flight() as usize >= self.calls.len());
    }

    /// Everyone who waits looks until nobody gets on: then nothing is free.
    fn everyone_looks(&mut self) {
        while (0..self.waiting.len()).any(|which| self.look(which)) {}
        assert_eq!(self.concurrency.in_flight() as usize, self.calls.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_is_never_exceeded_never_unused_and_nothing_leaks(
        limit in 1..6_u32,
        steps in prop::collection::vec(step(), 1..120),
        settled in any::<bool>(),
    ) {
        let concurrency = Arc::new(Concurrency::new(NonZeroU32::new(limit).unwrap()));
        let (waiting, calls, ended) = (Vec::new(), Vec::new(), Vec::new());
        let limit = limit as usize;
        let mut world = World { concurrency, limit, most: limit, waiting, calls, ended };
        for step in &steps {
            world.take(step);
        }
        world.everyone_looks();
        if settled {
            world.ended.clear();
            world.everyone_looks();
            let free = world.limit.saturating_sub(world.calls.len());
            prop_assert!(world.waiting.is_empty() || free == 0, "{} wait, {free} free",
                world.waiting.len());
        }
        world.waiting.clear();
        world.calls.clear();
        world.ended.clear();
        prop_assert_eq!(world.concurrency.in_flight(), 0);
        for _ in 0..world.limit {
            world.take(&Step::Ask);
        }
        prop_assert_eq!(world.calls.len(), world.limit, "a permit has leaked");
        prop_assert!(world.concurrency.is_full());
        world.take(&Step::Ask);
        prop_assert_eq!(world.waiting.len(), 1);
    }
}
