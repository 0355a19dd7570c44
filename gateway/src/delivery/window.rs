//! What the loop of one route holds in memory: a bounded window of what is due.
//!
//! Three places, and every delivery in hand is in exactly one of them: `ready` (may be offered for
//! admission), `later` (only its rate-limit key is limited; soon), or under way. `held` names all
//! of them, so that a page read from the store leaves them out.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet, VecDeque},
    sync::Arc,
};

use tidegate_adapters::{Delivery, DeliveryId, Timestamp};
use tokio::time::Instant;

/// So many are read from the store at once.
pub(super) const PAGE: usize = 512;

/// With fewer than this ready, the next page is read.
const LOW: usize = 128;

/// The most that may wait in memory for their key; beyond, they go back to the store.
const LATER_MAX: usize = 1024;

/// A delivery in hand, and since when it waits for admission.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) delivery: Arc<Delivery>,
    pub(super) since: Instant,
}

/// The deliveries of one route that are in hand.
#[derive(Debug, Default)]
pub(super) struct Window {
    ready: VecDeque<Candidate>,
    later: BinaryHeap<Reverse<Later>>,
    held: HashSet<DeliveryId>,
}

#[derive(Debug)]
struct Later {
    at: Instant,
    candidate: Candidate,
}

impl Window {
    /// Takes `delivery` in hand, unless it already is.
    pub(super) fn hold(&mut self, delivery: Arc<Delivery>, now: Instant) {
        if self.held.insert(delivery.id) {
            self.ready.push_back(Candidate { delivery, since: now });
        }
    }

    /// The next to be offered for admission.
    pub(super) fn next(&mut self, now: Instant) -> Option<Candidate> {
        if let Some(Reverse(first)) = self.later.peek()
            && first.at <= now
        {
            return self.later.pop().map(|Reverse(later)| later.candidate);
        }
        self.ready.pop_front()
    }

    /// Puts one aside whose key is limited until `at`; gives it back if too many wait already.
    pub(super) fn put_aside(&mut self, candidate: Candidate, at: Instant) -> Option<Candidate> {
        if self.later.len() >= LATER_MAX {
            return Some(candidate);
        }
        self.later.push(Reverse(Later { at, candidate }));
        None
    }

    /// Puts one back that was offered and did not go: it is the next again.
    pub(super) fn give_back(&mut self, candidate: Candidate) {
        self.ready.push_front(candidate);
    }

    /// Lets go of all that is not under way.
    pub(super) fn forget_waiting(&mut self) {
        let later = std::mem::take(&mut self.later).into_iter();
        let waiting = later.map(|Reverse(later)| later.candidate).chain(self.ready.drain(..));
        for candidate in waiting {
            self.held.remove(&candidate.delivery.id);
        }
    }

    /// It is settled, or not pending any more.
    pub(super) fn release(&mut self, id: DeliveryId) {
        self.held.remove(&id);
    }

    /// Whether there is room for another page.
    pub(super) fn is_low(&self) -> bool {
        self.ready.len() < LOW
    }

    /// All that are in hand, under way included.
    pub(super) fn held(&self) -> HashSet<DeliveryId> {
        self.held.clone()
    }

    /// When the first of those put aside may go.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.later.peek().map(|Reverse(later)| later.at)
    }
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Later {}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let id = |later: &Self| later.candidate.delivery.id;
        self.at.cmp(&other.at).then_with(|| id(self).cmp(&id(other)))
    }
}

/// The earliest of two moments that may not be known.
pub(super) fn earliest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (some, None) | (None, some) => some,
    }
}
