//! The wall clock of those who cannot be handed one as an argument, and how a rehearsal stops it.
//!
//! Time is an argument wherever it can be. jq's `now` has none, and an upstream is built once and
//! asked often: these read [`now`], which is the time of the [`Stopped`] clock they run under, if
//! there is one.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use crate::Timestamp;

tokio::task_local! {
    /// Set within a rehearsal, and only there.
    static STOPPED: Stopped;
}

/// A clock that moves only when it is told to. Clones are one clock.
#[derive(Debug, Clone)]
pub struct Stopped(Arc<AtomicI64>);

impl Stopped {
    /// A clock that stands at `at`.
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(at.0)))
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    /// Sets it to `at`.
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.0, Ordering::Relaxed);
    }

    /// Runs `work` by this clock.
    pub async fn scope<F: Future>(&self, work: F) -> F::Output {
        STOPPED.scope(self.clone(), work).await
    }
}

/// What time it is: by the clock that this runs under, else by the wall's.
#[must_use]
pub fn now() -> Timestamp {
    STOPPED.try_with(Stopped::now).unwrap_or_else(|_| wall())
}

#[expect(clippy::disallowed_methods, reason = "the wall clock, where no rehearsal stops it")]
fn wall() -> Timestamp {
    let since_epoch = time::OffsetDateTime::now_utc() - time::OffsetDateTime::UNIX_EPOCH;
    Timestamp(i64::try_from(since_epoch.whole_milliseconds()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{Expression, Input, Variables};

    fn jq_now() -> f64 {
        let now = Expression::compile("now").unwrap();
        let input = Input::json("null".into()).unwrap();
        now.run(&input, &Variables::default()).unwrap().to_value().as_f64().unwrap()
    }

    #[tokio::test]
    async fn a_stopped_clock_is_the_time_of_what_runs_by_it_and_of_nothing_else() {
        let clock = Stopped::new(Timestamp(1_500));
        let moved = clock.clone();
        let seen = clock.scope(async move {
            let first = (now(), jq_now());
            moved.set(Timestamp(2_250));
            (first, (now(), jq_now()))
        });
        assert_eq!(seen.await, ((Timestamp(1_500), 1.5), (Timestamp(2_250), 2.25)));
        assert!(now() > Timestamp(1_700_000_000_000) && jq_now() > 1.7e9);
    }
}
