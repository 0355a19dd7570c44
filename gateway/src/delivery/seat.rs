//! A source's place at an intake.
//!
//! A reload may give a route another kind of source, and the one before takes a moment to end. What
//! it still brings is taken; what it says of its connection must not be heard over the new one.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tidegate_adapters::{Accepted, Arrival, Intake, Refused, Rejection};

use super::intake::RouteIntake;

/// A source's place at an intake, until it is given to another.
pub struct Seat {
    intake: Arc<RouteIntake>,
    left: Mutex<bool>,
}

impl Seat {
    /// A place at `intake`.
    #[must_use]
    pub fn at(intake: Arc<RouteIntake>) -> Self {
        Self { intake, left: Mutex::new(false) }
    }

    /// Another has the place: from now on nothing is heard of this one's connection.
    pub fn leave(&self) {
        *self.left.lock() = true;
        self.intake.connected(false);
    }
}

impl Intake for Seat {
    fn accept(&self, batch: Vec<Arrival>) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        self.intake.accept(batch)
    }

    fn accept_inside(
        &self,
        batch: Vec<Arrival>,
    ) -> BoxFuture<'static, Result<Vec<Accepted>, Refused>> {
        self.intake.accept_inside(batch)
    }

    fn admit(&self) -> Result<(), Duration> {
        self.intake.admit()
    }

    fn rejected(&self, why: Rejection) {
        self.intake.rejected(why);
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        self.intake.room()
    }

    fn connected(&self, up: bool) {
        let left = self.left.lock();
        if !*left {
            self.intake.connected(up);
        }
    }
}
