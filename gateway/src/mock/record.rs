//! What a mock API got.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::Notify;

/// So many requests are kept whole; older ones are only counted.
const KEPT: usize = 10_000;

/// The most idempotency keys counted one by one.
const KEYS_MAX: usize = 1_000_000;

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct Recorded {
    /// Milliseconds since the mock's start.
    pub at_ms: u64,
    /// Request method.
    pub method: String,
    /// Path and query as sent.
    pub path: String,
    /// Headers, lower case; several of one name joined by a comma.
    pub headers: BTreeMap<String, String>,
    /// The body, as text.
    pub body: String,
    /// What it was answered.
    pub status: u16,
}

impl Recorded {
    /// The `Idempotency-Key` header.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&str> {
        self.headers.get("idempotency-key").map(String::as_str)
    }
}

/// Counts over everything a mock got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Requests.
    pub requests: u64,
    /// By status answered.
    pub statuses: BTreeMap<u16, u64>,
    /// Different idempotency keys that got a 2xx.
    pub accepted: u64,
    /// 2xx answers beyond the first of a key.
    pub accepted_again: u64,
}

/// All that a mock got.
#[derive(Debug, Default)]
pub(super) struct Record {
    requests: VecDeque<Recorded>,
    tally: Tally,
    accepted: HashMap<String, u32>,
    changed: Arc<Notify>,
}

impl Record {
    /// Keeps a request, and answers what is kept of it.
    pub(super) fn add(
        &mut self,
        at: Duration,
        head: &http::request::Parts,
        body: Bytes,
        status: u16,
    ) -> Recorded {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &head.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.as_str().to_owned())
                .and_modify(|known| *known = format!("{known}, {value}"))
                .or_insert_with(|| value.into_owned());
        }
        let recorded = Recorded {
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            method: head.method.to_string(),
            path: head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
            headers,
            body: String::from_utf8_lossy(&body).into_owned(),
            status,
        };
        self.count(&recorded);
        if self.requests.len() >= KEPT {
            self.requests.pop_front();
        }
        self.requests.push_back(recorded.clone());
        self.changed.notify_waiters();
        recorded
    }

    pub(super) fn requests(&self) -> Vec<Recorded> {
        self.requests.iter().cloned().collect()
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally.clone()
    }

    pub(super) fn changed(&self) -> Arc<Notify> {
        Arc::clone(&self.changed)
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.tally = Tally::default();
        self.accepted.clear();
    }

    fn count(&mut self, recorded: &Recorded) {
        self.tally.requests += 1;
        *self.tally.statuses.entry(recorded.status).or_default() += 1;
        let Some(key) = recorded.idempotency_key() else { return };
        if !(200..300).contains(&recorded.status) || self.accepted.len() >= KEYS_MAX {
            return;
        }
        let times = self.accepted.entry(key.to_owned()).or_default();
        *times += 1;
        match *times {
            1 => self.tally.accepted += 1,
            _ => self.tally.accepted_again += 1,
        }
    }
}
