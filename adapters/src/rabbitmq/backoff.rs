//! How long to wait before the next try: full jitter, 0.2 s doubling to 4 s, for ever.

use std::time::Duration;

use uuid::Uuid;

const FIRST: Duration = Duration::from_millis(200);
const MOST: Duration = Duration::from_secs(4);

/// The waits of one thing that is tried again and again.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    /// The next wait: anything from nothing to the current ceiling, so that a thousand channels,
    /// or gateways, do not come back at once.
    pub(super) fn next(&mut self) -> Duration {
        let ceiling = self.0;
        self.0 = MOST.min(ceiling * 2);
        // The low 32 bits of a random UUID are all random.
        let random = Uuid::new_v4().as_u128() as u32;
        ceiling.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// After success.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_four_seconds_and_begin_anew_after_success() {
        let mut backoff = Backoff::new();
        let ceilings = [200, 400, 800, 1600, 3200, 4000, 4000].map(Duration::from_millis);
        for ceiling in ceilings {
            assert_eq!(backoff.0, ceiling);
            assert!(backoff.next() <= ceiling);
        }
        backoff.reset();
        assert!(backoff.next() <= FIRST);
    }

    #[test]
    fn waits_differ() {
        let waits: Vec<_> = (0..8).map(|_| Backoff(MOST).next()).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }
}
