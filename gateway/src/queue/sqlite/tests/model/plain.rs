//! What a queue with one route is, in as few words as there are.

use std::collections::{BTreeMap, HashMap};

use super::*;

/// What comes in: the number stands for the event's id.
#[derive(Debug, Clone)]
pub(super) enum Incoming {
    Pending(u8, Option<u8>),
    Filtered(u8),
    Dead(u8, Option<u8>),
    Invalid,
}

#[derive(Debug)]
pub(super) struct Item {
    state: State,
    key: Option<u8>,
    /// `None` is no event.
    event: Option<u8>,
    due_at: i64,
    settled_at: i64,
    pub(super) attempts: u32,
    pub(super) tries: u32,
    pub(super) first_attempt: Option<i64>,
}

#[derive(Debug)]
pub(super) struct Model {
    pub(super) hold: bool,
    pub(super) now: i64,
    /// How long delivered and discarded ones are kept, and dead ones.
    keep_ms: (i64, i64),
    pub(super) items: BTreeMap<i64, Item>,
    /// Every id there ever was.
    pub(super) ever: Vec<i64>,
    lanes: HashMap<u8, Vec<i64>>,
    /// The delivery that an event became; 0 is filtered.
    seen: HashMap<u8, i64>,
    paused_ms: i64,
    paused_since: Option<i64>,
}

impl Model {
    pub(super) fn new(hold: bool, now: i64, keep: (&Duration, &Duration)) -> Self {
        let ms = |keep: &Duration| i64::try_from(keep.as_millis()).unwrap();
        Self {
            hold,
            now,
            keep_ms: (ms(keep.0), ms(keep.1)),
            items: BTreeMap::new(),
            ever: Vec::new(),
            lanes: HashMap::new(),
            seen: HashMap::new(),
            paused_ms: 0,
            paused_since: None,
        }
    }

    /// Due now, by due time, then id.
    pub(super) fn due(&self) -> Vec<i64> {
        let may_go = |id: i64, key| match key {
            None => true,
            Some(key) => self.lanes[&key].first() == Some(&id),
        };
        let mut due: Vec<(i64, i64)> = self
            .items
            .iter()
            .filter(|(_, item)| item.state == State::Pending && item.due_at <= self.now)
            .filter(|(id, item)| may_go(**id, item.key))
            .map(|(id, item)| (item.due_at, *id))
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, id)| id).collect()
    }

    /// Newest first.
    pub(super) fn in_state(&self, wanted: State) -> Vec<i64> {
        let all = self.items.iter().rev().filter(|(_, item)| item.state == wanted);
        all.map(|(id, _)| *id).collect()
    }

    pub(super) fn is_event(&self, id: i64) -> bool {
        self.items[&id].event.is_some()
    }

    /// What is to be answered; `id` is the one that it got.
    pub(super) fn append(&mut self, incoming: &Incoming, id: i64) -> Appended {
        if let Incoming::Pending(event, _) | Incoming::Filtered(event) = incoming
            && let Some(known) = self.seen.get(event)
            && !self.given_up(*known)
        {
            return Appended::Duplicate(DeliveryId(*known));
        }
        match *incoming {
            Incoming::Filtered(event) => {
                self.seen.insert(event, 0);
                Appended::Filtered
            }
            Incoming::Pending(event, key) => {
                self.seen.insert(event, id);
                self.insert(id, State::Pending, Some(event), key);
                if let Some(key) = key {
                    self.lanes.entry(key).or_default().push(id);
                }
                Appended::Pending(DeliveryId(id))
            }
            Incoming::Dead(event, key) => {
                self.insert(id, State::Dead, Some(event), key);
                Appended::Dead(DeliveryId(id))
            }
            Incoming::Invalid => {
                self.insert(id, State::Dead, None, None);
                Appended::Dead(DeliveryId(id))
            }
        }
    }

    fn given_up(&self, id: i64) -> bool {
        let item = self.items.get(&id);
        item.is_some_and(|item| matches!(item.state, State::Dead | State::Discarded))
    }

    fn insert(&mut self, id: i64, state: State, event: Option<u8>, key: Option<u8>) {
        assert!(self.ever.iter().all(|before| *before < id), "{id} is given again");
        self.ever.push(id);
        let (due_at, settled_at) = (self.now, self.now);
        let (attempts, tries, first_attempt) = (0, 0, None);
        let item = Item { state, key, event, due_at, settled_at, attempts, tries, first_attempt };
        self.items.insert(id, item);
    }

    /// Due now, as if never tried.
    fn make_due(&mut self, id: i64) {
        let now = self.now;
        let item = self.items.get_mut(&id).unwrap();
        (item.due_at, item.attempts, item.tries, item.first_attempt) = (now, 0, 0, None);
    }

    pub(super) fn again(&mut self, id: i64, at: i64) {
        let first = self.now - self.paused_for();
        let item = self.items.get_mut(&id).unwrap();
        item.due_at = at;
        item.attempts += 1;
        item.tries += 1;
        item.first_attempt.get_or_insert(first);
    }

    pub(super) fn finish(&mut self, id: i64, state: State) {
        let now = self.now;
        let item = self.items.get_mut(&id).unwrap();
        (item.state, item.settled_at) = (state, now);
        let key = item.key;
        if state == State::Dead && self.hold {
            return;
        }
        let Some(lane) = key.and_then(|key| self.lanes.get_mut(&key)) else { return };
        let was_first = lane.first() == Some(&id);
        lane.retain(|other| *other != id);
        if was_first && let Some(next) = lane.first().copied() {
            self.make_due(next);
        }
    }

    pub(super) fn replay(&mut self, id: i64) -> bool {
        let Some(item) = self.items.get_mut(&id) else { return false };
        if !matches!(item.state, State::Dead | State::Delivered) || item.event.is_none() {
            return false;
        }
        item.state = State::Pending;
        let key = item.key;
        self.make_due(id);
        if let Some(key) = key {
            let lane = self.lanes.entry(key).or_default();
            if lane.first() != Some(&id) {
                lane.push(id);
            }
        }
        true
    }

    pub(super) fn discard(&mut self, id: i64) -> bool {
        let fits = self
            .items
            .get(&id)
            .is_some_and(|item| matches!(item.state, State::Dead | State::Pending));
        if fits {
            self.finish(id, State::Discarded);
        }
        fits
    }

    pub(super) fn pause(&mut self, paused: bool) {
        match (paused, self.paused_since) {
            (true, None) => self.paused_since = Some(self.now),
            (false, Some(since)) => {
                self.paused_ms += self.now - since;
                self.paused_since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    pub(super) fn paused_for(&self) -> i64 {
        self.paused_ms + self.paused_since.map_or(0, |since| self.now - since)
    }

    /// By state, up to the first that is too young; one that holds its key stays.
    pub(super) fn pass(&mut self, ms: i64) {
        self.now += ms;
        for (state, keep_ms) in [
            (State::Delivered, self.keep_ms.0),
            (State::Discarded, self.keep_ms.0),
            (State::Dead, self.keep_ms.1),
        ] {
            let before = self.now - keep_ms;
            let of_state = self.items.iter().filter(|(_, item)| item.state == state);
            let old = of_state.take_while(|(_, item)| item.settled_at < before);
            let holds = |id: &i64, item: &Item| {
                let lane = item.key.and_then(|key| self.lanes.get(&key));
                state == State::Dead && lane.is_some_and(|lane| lane.first() == Some(id))
            };
            let gone: Vec<i64> =
                old.filter(|(id, item)| !holds(id, item)).map(|(id, _)| *id).collect();
            for id in gone {
                // Who was given up may come again, also when nothing is left of it.
                let given_up = self.given_up(id);
                self.seen.retain(|_, known| !(given_up && *known == id));
                self.items.remove(&id);
            }
        }
    }
}
