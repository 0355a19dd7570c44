//! What arrived, and what is wrong with it.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Where numbers are counted from 0, each side by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// Events to the API, in any order.
    Points,
    /// Events to the API, in the order of their key.
    Kitchen,
    /// Events to the API, so many a second.
    Limited,
    /// Webhooks to RabbitMQ.
    Hooks,
}

impl Side {
    pub(super) const ALL: [Self; 4] = [Self::Points, Self::Kitchen, Self::Limited, Self::Hooks];
    pub(super) const EVENTS: [Self; 3] = [Self::Points, Self::Kitchen, Self::Limited];

    /// Of its exchange, and of the path of its calls.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Kitchen => "kitchen",
            Self::Limited => "limited",
            Self::Hooks => "hooks",
        }
    }
}

/// Keys of the ordered side: number `n` has the key `n % KEYS`.
pub(super) const KEYS: u64 = 8;

/// What arrived.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sides: Mutex<HashMap<Side, Arrivals>>,
}

#[derive(Debug, Default)]
struct Arrivals {
    /// By number: the key it came with first, and how often it came.
    seen: HashMap<u64, (String, u64)>,
    /// All below have arrived.
    first: u64,
    /// The last that was new, by order key.
    last: HashMap<u64, u64>,
    repeats: u64,
    /// What is wrong.
    breaks: Vec<String>,
}

impl Ledger {
    /// Number `n` has arrived, with this idempotency key or message id. `whole` tells whether it
    /// is what was sent.
    pub(super) fn note(&self, side: Side, n: u64, key: &str, whole: bool) {
        let mut sides = self.sides.lock();
        let arrivals = sides.entry(side).or_default();
        if !whole {
            arrivals.breaks.push(format!("{n} is altered"));
        }
        if let Some((first, times)) = arrivals.seen.get_mut(&n) {
            *times += 1;
            arrivals.repeats += 1;
            if first != key {
                arrivals.breaks.push(format!("{n} came again with another key"));
            }
            return;
        }
        arrivals.seen.insert(n, (key.to_owned(), 1));
        while arrivals.seen.contains_key(&arrivals.first) {
            arrivals.first += 1;
        }
        if side == Side::Kitchen
            && let Some(last) = arrivals.last.insert(n % KEYS, n)
            && last > n
        {
            arrivals.breaks.push(format!("{n} came after {last}, which has its key"));
        }
    }

    /// How many different ones have arrived.
    pub(super) fn arrived(&self, side: Side) -> u64 {
        self.sides.lock().get(&side).map_or(0, |arrivals| arrivals.seen.len() as u64)
    }

    /// Whether all below `count` have arrived.
    pub(super) fn holds_first(&self, side: Side, count: u64) -> bool {
        count == 0 || self.sides.lock().get(&side).is_some_and(|arrivals| arrivals.first >= count)
    }

    /// How often something came again.
    pub(super) fn repeats(&self, side: Side) -> u64 {
        self.sides.lock().get(&side).map_or(0, |arrivals| arrivals.repeats)
    }

    /// Panics where anything is wrong, or came again far too often.
    pub(super) fn check(&self) {
        for (side, arrivals) in &*self.sides.lock() {
            assert!(arrivals.breaks.is_empty(), "{side:?}: {:?}", arrivals.breaks);
            let most = arrivals.seen.iter().max_by_key(|(_, (_, times))| *times);
            assert!(most.is_none_or(|(_, (_, times))| *times <= 4), "{side:?}: {most:?}");
        }
    }
}

#[test]
fn the_ledger_sees_what_is_wrong() {
    let broken = |note: &dyn Fn(&Ledger)| {
        let ledger = Ledger::default();
        for n in 0..20 {
            ledger.note(Side::Kitchen, n, &format!("key-{n}"), true);
        }
        ledger.check();
        assert!(ledger.holds_first(Side::Kitchen, 20) && !ledger.holds_first(Side::Kitchen, 21));
        note(&ledger);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ledger.check())).is_err()
    };
    assert!(!broken(&|ledger| ledger.note(Side::Kitchen, 3, "key-3", true)), "a repeat is none");
    assert!(broken(&|ledger| ledger.note(Side::Kitchen, 3, "key-4", true)), "another key");
    assert!(broken(&|ledger| ledger.note(Side::Kitchen, 20, "key-20", false)), "altered");
    assert!(broken(&|ledger| (0..4).for_each(|_| ledger.note(Side::Kitchen, 3, "key-3", true))));
    assert!(broken(&|ledger| {
        ledger.note(Side::Kitchen, 20 + KEYS, "later", true);
        ledger.note(Side::Kitchen, 20, "earlier", true);
    }));
    let ledger = Ledger::default();
    ledger.note(Side::Points, 1, "b", true);
    assert!(!ledger.holds_first(Side::Points, 2), "0 is lost");
}
