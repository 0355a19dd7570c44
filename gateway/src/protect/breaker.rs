//! The circuit breaker of an upstream. Closed = flows, as in electricity.
//!
//! ```text
//!            `failures` in a row, of at least 3 deliveries if so many wait
//!  Closed ────────────────────────────────────────────────────────────────► Open(until)
//!    ▲                                                                        │ until has come,
//!    │ the probe got a complete answer                                        │ and someone asks
//!    │ other than 5xx, 401, 407                                               ▼
//!    └──────────────────────────────────────────────────────────────── HalfOpen(one probe)
//!                                                                             │
//!                                   Open(until + twice as long) ◄─────────────┘ the probe failed
//! ```
//!
//! - Open means *wait in the queue*; nothing fails fast, nothing dies of waiting.
//! - One poison delivery must not open it for all: failures count only from several deliveries,
//!   unless there are no others.
//! - A [`Ticket`] remembers the generation it was given in. Results of attempts begun before the
//!   breaker last changed state say nothing about the upstream now, and are ignored.
//! - A probe that never reached the network is given back: the next asker may probe.
//!
//! A pure step machine: time comes in as an argument, nothing here waits.

use std::time::Duration;

use tidegate_adapters::{DeliveryId, Health};
use tokio::time::Instant;

use super::{BreakerState, BreakerStatus};
use crate::config::BreakerConfig;

/// So many different deliveries must have failed, if so many are waiting.
const DELIVERIES_MIN: usize = 3;

/// The breaker of one upstream.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    generation: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32, failed: Vec<DeliveryId> },
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration },
}

/// Permission to call, to be returned with the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a ticket that is not returned keeps a half-open breaker waiting for its probe"]
pub struct Ticket {
    generation: u64,
    probe: bool,
}

impl Ticket {
    /// Whether it is the one call that a half-open breaker lets through.
    #[must_use]
    pub fn is_probe(self) -> bool {
        self.probe
    }
}

/// Whether a call may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It may.
    Go(Ticket),
    /// Open: ask again then.
    WaitUntil(Instant),
    /// Half-open, and the probe is under way: ask again when the breaker has changed.
    WaitForProbe,
}

/// What a returned ticket did to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It opened: for so long.
    Opened(Duration),
    /// It closed.
    Closed,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Self {
        Self { config, generation: 0, state: State::closed() }
    }

    /// Asks to call at `now`.
    pub fn ask(&mut self, now: Instant) -> Asked {
        match self.state {
            State::Closed { .. } => Asked::Go(self.ticket(false)),
            // Open => HalfOpen
            State::Open { until, pause } if until <= now => {
                self.enter(State::HalfOpen { pause });
                Asked::Go(self.ticket(true))
            }
            State::Open { until, .. } => Asked::WaitUntil(until),
            State::HalfOpen { .. } => Asked::WaitForProbe,
        }
    }

    /// Whether a call would go at `now`; changes nothing.
    #[must_use]
    pub fn would_go(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until, .. } => until <= now,
            State::HalfOpen { .. } => false,
        }
    }

    /// When an open breaker will let a probe through; `None` when it is not open.
    #[must_use]
    pub fn reopens_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Returns a ticket with what its call said of the upstream. `waiting` is how many deliveries
    /// wait for the upstream, this one included; it is asked only when it matters.
    pub fn record(
        &mut self,
        ticket: Ticket,
        delivery: DeliveryId,
        health: Health,
        waiting: impl FnOnce() -> u64,
        now: Instant,
    ) -> Change {
        if ticket.generation != self.generation {
            return Change::None;
        }
        match (&mut self.state, health) {
            (State::Closed { failures, failed }, Health::Bad) => {
                *failures = failures.saturating_add(1);
                if failed.len() < DELIVERIES_MIN && !failed.contains(&delivery) {
                    failed.push(delivery);
                }
                let enough = *failures >= self.config.failures.get();
                let others = failed.len() < DELIVERIES_MIN;
                if enough && (!others || failed.len() as u64 >= waiting()) {
                    return self.open(self.config.open, now);
                }
                Change::None
            }
            (State::Closed { .. }, Health::Good) => {
                self.state = State::closed();
                Change::None
            }
            // HalfOpen => (Closed | Open)
            (State::HalfOpen { .. }, Health::Good) => {
                self.enter(State::closed());
                Change::Closed
            }
            (State::HalfOpen { pause }, Health::Bad) => {
                let pause = pause.saturating_mul(2).min(self.config.open_max);
                self.open(pause.max(self.config.open), now)
            }
            (State::HalfOpen { .. }, Health::Silent) => {
                self.give_back(ticket, now);
                Change::None
            }
            (State::Closed { .. }, Health::Silent) | (State::Open { .. }, _) => Change::None,
        }
    }

    /// Returns a ticket whose call never reached the network.
    pub fn give_back(&mut self, ticket: Ticket, now: Instant) {
        if let State::HalfOpen { pause } = self.state
            && ticket.generation == self.generation
        {
            self.enter(State::Open { until: now, pause });
        }
    }

    /// Takes up other numbers; where it stands, it stays.
    pub fn reconfigure(&mut self, config: BreakerConfig) {
        self.config = config;
    }

    /// Closes it, whatever it has seen; a probe under way no longer counts.
    pub fn reset(&mut self) -> Change {
        let was_closed = matches!(self.state, State::Closed { .. });
        self.enter(State::closed());
        if was_closed { Change::None } else { Change::Closed }
    }

    /// As an operator sees it; `at` turns a moment into wall time.
    pub fn status(&self, at: impl Fn(Instant) -> tidegate_adapters::Timestamp) -> BreakerStatus {
        let (state, failures, probe_at) = match &self.state {
            State::Closed { failures, .. } => (BreakerState::Closed, *failures, None),
            State::Open { until, .. } => {
                (BreakerState::Open, self.config.failures.get(), Some(at(*until)))
            }
            State::HalfOpen { .. } => (BreakerState::HalfOpen, self.config.failures.get(), None),
        };
        BreakerStatus { state, failures, probe_at }
    }

    fn ticket(&self, probe: bool) -> Ticket {
        Ticket { generation: self.generation, probe }
    }

    fn open(&mut self, pause: Duration, now: Instant) -> Change {
        self.enter(State::Open { until: now + pause, pause });
        Change::Opened(pause)
    }

    fn enter(&mut self, state: State) {
        self.generation += 1;
        self.state = state;
    }
}

impl State {
    fn closed() -> Self {
        Self::Closed { failures: 0, failed: Vec::new() }
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const OPEN: Duration = Duration::from_secs(10);

    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig {
            failures: NonZeroU32::new(5).unwrap(),
            open: OPEN,
            open_max: Duration::from_secs(25),
        })
    }

    fn go(breaker: &mut Breaker, now: Instant) -> Ticket {
        match breaker.ask(now) {
            Asked::Go(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    fn fail(breaker: &mut Breaker, ids: impl IntoIterator<Item = i64>, now: Instant) -> Change {
        let mut last = Change::None;
        for id in ids {
            let ticket = go(breaker, now);
            last = breaker.record(ticket, DeliveryId(id), Health::Bad, || 100, now);
        }
        last
    }

    #[test]
    fn failures_in_a_row_of_several_deliveries_open_it() {
        let (mut breaker, now) = (breaker(), Instant::now());
        assert_eq!(fail(&mut breaker, [1, 2, 3, 1], now), Change::None);
        assert_eq!(fail(&mut breaker, [2], now), Change::Opened(OPEN));
        assert_eq!(breaker.ask(now), Asked::WaitUntil(now + OPEN));
    }

    #[test]
    fn one_poison_delivery_among_others_does_not() {
        let (mut breaker, now) = (breaker(), Instant::now());
        assert_eq!(fail(&mut breaker, [1; 50], now), Change::None);
        assert_eq!(fail(&mut breaker, [2], now), Change::None);
        assert_eq!(fail(&mut breaker, [3], now), Change::Opened(OPEN));
    }

    #[test]
    fn a_single_delivery_that_waits_alone_does() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for n in 1..=5 {
            let ticket = go(&mut breaker, now);
            let change = breaker.record(ticket, DeliveryId(1), Health::Bad, || 1, now);
            assert_eq!(change == Change::Opened(OPEN), n == 5, "failure {n}");
        }
    }

    #[test]
    fn an_answer_between_starts_the_count_anew() {
        let (mut breaker, now) = (breaker(), Instant::now());
        fail(&mut breaker, [1, 2, 3, 4], now);
        let ticket = go(&mut breaker, now);
        breaker.record(ticket, DeliveryId(9), Health::Good, || 100, now);
        assert_eq!(fail(&mut breaker, [1, 2, 3, 4], now), Change::None);
    }

    #[test]
    fn silence_neither_counts_nor_clears() {
        let (mut breaker, now) = (breaker(), Instant::now());
        fail(&mut breaker, [1, 2, 3, 4], now);
        let ticket = go(&mut breaker, now);
        breaker.record(ticket, DeliveryId(9), Health::Silent, || 100, now);
        assert_eq!(fail(&mut breaker, [5], now), Change::Opened(OPEN));
    }

    #[test]
    fn u11_half_open_lets_exactly_one_probe_through() {
        let (mut breaker, now) = (breaker(), Instant::now());
        fail(&mut breaker, [1, 2, 3, 4, 5], now);
        let later = now + OPEN;
        let probe = go(&mut breaker, later);
        assert!(probe.is_probe());
        assert_eq!(breaker.ask(later), Asked::WaitForProbe);
        assert_eq!(breaker.record(probe, DeliveryId(1), Health::Good, || 1, later), Change::Closed);
        assert!(!go(&mut breaker, later).is_probe());
    }

    #[test]
    fn failed_probes_double_the_pause_up_to_its_maximum() {
        let (mut breaker, mut now) = (breaker(), Instant::now());
        fail(&mut breaker, [1, 2, 3, 4, 5], now);
        for pause_s in [20, 25, 25] {
            now += Duration::from_secs(60);
            let probe = go(&mut breaker, now);
            let pause = Duration::from_secs(pause_s);
            let change = breaker.record(probe, DeliveryId(1), Health::Bad, || 1, now);
            assert_eq!(change, Change::Opened(pause));
        }
    }

    #[test]
    fn results_from_before_it_opened_say_nothing() {
        let (mut breaker, now) = (breaker(), Instant::now());
        let early = go(&mut breaker, now);
        fail(&mut breaker, [1, 2, 3, 4, 5], now);
        assert_eq!(breaker.record(early, DeliveryId(8), Health::Good, || 1, now), Change::None);
        let probe = go(&mut breaker, now + OPEN);
        assert_eq!(breaker.record(early, DeliveryId(8), Health::Good, || 1, now), Change::None);
        assert_eq!(breaker.ask(now + OPEN), Asked::WaitForProbe);
        breaker.give_back(probe, now + OPEN);
    }

    #[test]
    fn a_probe_that_never_left_is_given_back() {
        let (mut breaker, now) = (breaker(), Instant::now());
        fail(&mut breaker, [1, 2, 3, 4, 5], now);
        let later = now + OPEN;
        let probe = go(&mut breaker, later);
        breaker.give_back(probe, later);
        assert!(go(&mut breaker, later).is_probe());
    }
}
