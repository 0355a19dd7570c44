//! Anything in any order on virtual time, against the promises in plain words.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Ask,
    /// The oldest call, or another, of the delivery ends so, while so many wait.
    End(usize, i64, Health, u64),
    /// It never reached the network, or was cancelled.
    GiveBack(usize),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let health = prop_oneof![
        5 => Just(Health::Bad), 2 => Just(Health::Good), 1 => Just(Health::Silent)
    ];
    prop_oneof![
        4 => prop_oneof![0..3_000_u64, 0..90_000_u64].prop_map(Step::Pass),
        8 => Just(Step::Ask),
        8 => (0..6_usize, 0..5_i64, health, 1..6_u64)
            .prop_map(|(which, id, health, waiting)| Step::End(which, id, health, waiting)),
        2 => (0..6_usize).prop_map(Step::GiveBack),
        1 => prop::bool::weighted(0.2)
            .prop_map(|reset| if reset { Step::Reset } else { Step::Ask }),
    ]
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    /// The place of the one probe among the calls ever let through.
    Probing(usize),
}

/// What the breaker is to be, told by what was let through and what came back.
struct Model {
    config: BreakerConfig,
    phase: Phase,
    pause: Duration,
    /// Bad answers in a row, by delivery, of calls begun since it closed.
    bad: Vec<i64>,
    /// Calls let through since the last change of phase begin here.
    since: usize,
    asked: usize,
}

impl Model {
    fn new(config: BreakerConfig) -> Self {
        let pause = config.open;
        Self { config, phase: Phase::Closed, pause, bad: Vec::new(), since: 0, asked: 0 }
    }

    fn turn(&mut self, phase: Phase) {
        self.phase = phase;
        self.bad.clear();
        self.since = self.asked;
    }

    fn open(&mut self, pause: Duration, now: Instant) -> Change {
        self.pause = pause;
        self.turn(Phase::Open { until: now + pause });
        Change::Opened(pause)
    }

    fn end(&mut self, call: usize, id: i64, health: Health, waiting: u64, now: Instant) -> Change {
        if call < self.since {
            return Change::None;
        }
        match (&self.phase, health) {
            (Phase::Closed, Health::Bad) => {
                self.bad.push(id);
                let mut different = self.bad.clone();
                different.sort_unstable();
                different.dedup();
                let several = (different.len() as u64) >= waiting.min(3);
                if self.bad.len() >= self.config.failures.get() as usize && several {
                    return self.open(self.config.open, now);
                }
                Change::None
            }
            (Phase::Closed, Health::Good) => {
                self.bad.clear();
                Change::None
            }
            (Phase::Probing(_), Health::Good) => {
                self.turn(Phase::Closed);
                Change::Closed
            }
            (Phase::Probing(_), Health::Bad) => {
                let twice = (self.pause * 2).min(self.config.open_max);
                self.open(twice.max(self.config.open), now)
            }
            (Phase::Probing(_), Health::Silent) => {
                self.turn(Phase::Open { until: now });
                Change::None
            }
            _ => Change::None,
        }
    }
}

/// Both, and the calls under way: the ticket, and the place among all ever let through.
struct Pair {
    breaker: Breaker,
    model: Model,
    calls: Vec<(Ticket, usize)>,
    now: Instant,
}

impl Pair {
    fn ask(&mut self) {
        let would_go = self.breaker.would_go(self.now);
        let asked = self.breaker.ask(self.now);
        assert_eq!(would_go, matches!(asked, Asked::Go(_)), "{asked:?}");
        match self.model.phase {
            Phase::Closed => assert!(matches!(asked, Asked::Go(ticket) if !ticket.is_probe())),
            Phase::Open { until } if self.now < until => {
                assert_eq!(asked, Asked::WaitUntil(until));
            }
            Phase::Open { .. } => {
                assert!(matches!(asked, Asked::Go(ticket) if ticket.is_probe()), "{asked:?}");
                self.model.turn(Phase::Probing(self.model.asked));
            }
            Phase::Probing(_) => assert_eq!(asked, Asked::WaitForProbe),
        }
        if let Asked::Go(ticket) = asked {
            self.calls.push((ticket, self.model.asked));
            self.model.asked += 1;
        }
    }

    fn end(&mut self, which: usize, id: i64, health: Health, waiting: u64) {
        let (ticket, call) = self.calls.remove(which);
        let id_of = DeliveryId(id);
        let change = self.breaker.record(ticket, id_of, health, || waiting, self.now);
        assert_eq!(change, self.model.end(call, id, health, waiting, self.now));
    }

    fn give_back(&mut self, which: usize) {
        let (ticket, call) = self.calls.remove(which);
        self.breaker.give_back(ticket, self.now);
        if matches!(self.model.phase, Phase::Probing(probe) if probe == call) {
            self.model.turn(Phase::Open { until: self.now });
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Pass(ms) => self.now += Duration::from_millis(ms),
            Step::Ask => self.ask(),
            Step::End(which, id, health, waiting) if which < self.calls.len() => {
                self.end(which, id, health, waiting);
            }
            Step::GiveBack(which) if which < self.calls.len() => self.give_back(which),
            Step::End(..) | Step::GiveBack(_) => {}
            Step::Reset => {
                self.breaker.reset();
                self.model.turn(Phase::Closed);
            }
        }
        let shown = self.breaker.status(|_| tidegate_adapters::Timestamp(0)).state;
        let expected = match self.model.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::Probing(_) => BreakerState::HalfOpen,
        };
        assert_eq!(shown, expected);
    }

    /// Whatever it has been through: once all calls have ended, the upstream is well and the
    /// longest pause is over, calls go again.
    fn recover(&mut self) {
        while !self.calls.is_empty() {
            self.give_back(0);
        }
        self.now += self.model.config.open_max;
        self.ask();
        assert_eq!(self.calls.len(), 1, "stuck open");
        self.end(0, 1, Health::Good, 1);
        self.ask();
        assert!(matches!(self.model.phase, Phase::Closed), "a good answer closes it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn it_does_what_it_promises_whatever_happens_and_is_never_stuck(
        failures in 1_u32..8,
        open_ms in 1_u64..20_000,
        longer in 1_u32..6,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let open = Duration::from_millis(open_ms);
        let failures = NonZeroU32::new(failures).unwrap();
        let config = BreakerConfig { failures, open, open_max: open * longer };
        let (breaker, model) = (Breaker::new(config.clone()), Model::new(config));
        let mut pair = Pair { breaker, model, calls: Vec::new(), now: Instant::now() };
        for step in &steps {
            pair.take(step);
        }
        pair.recover();
    }
}
