//! What the public listener serves: which webhooks, by which rules. A reload changes it as a whole.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use http::request::Parts;
use tokio::task::spawn_blocking;

use super::{
    Site,
    body::{self, Budget},
    path::normalise,
};
use crate::{
    Intake, Timestamp,
    http::{
        verify::Verified,
        webhook::{Hook, Malformed, Reading, Received, ServerConfig},
    },
};

/// Bytes above which a body is read on a thread of its own.
const LARGE: usize = 32 << 10;

/// Says what the public listener serves, before it runs and while it does.
#[derive(Clone)]
pub struct ReceiverHandle {
    address: SocketAddr,
    site: Arc<Site>,
}

/// Which webhooks there are, on which paths.
#[derive(Default)]
pub struct Hooks(HashMap<String, Arc<Entry>>);

/// What is served; a reload changes it as a whole, and a request sees one of them.
pub(super) struct Served {
    pub(super) config: ServerConfig,
    /// `server.public_url` without a slash at its end.
    public: String,
    pub(super) hooks: Hooks,
    pub(super) budget: Budget,
}

/// One route.
pub(super) struct Entry {
    pub(super) hook: Hook,
    pub(super) intake: Arc<dyn Intake>,
}

/// Another route has this path already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is the path of the route `{first}` already")]
pub struct PathTaken {
    /// The path.
    pub path: String,
    /// Who has it.
    pub first: Arc<str>,
}

impl Hooks {
    /// Adds a route.
    ///
    /// # Errors
    /// When its path is another's.
    pub fn add(&mut self, hook: Hook, intake: Arc<dyn Intake>) -> Result<(), PathTaken> {
        let path = normalise(hook.path());
        if let Some(first) = self.0.get(&path) {
            return Err(PathTaken { path, first: Arc::clone(first.hook.route()) });
        }
        self.0.insert(path, Arc::new(Entry { hook, intake }));
        Ok(())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the route of `entry` is among them, on whatever path.
    fn has(&self, entry: &Entry) -> bool {
        self.0.values().any(|known| known.hook.route() == entry.hook.route())
    }

    /// The webhook on `path`, which is normalised.
    pub(super) fn at(&self, path: &str) -> Option<&Arc<Entry>> {
        self.0.get(path)
    }

    pub(super) fn connected(&self, up: bool) {
        for entry in self.0.values() {
            entry.intake.connected(up);
        }
    }
}

impl ReceiverHandle {
    pub(super) fn new(address: SocketAddr, site: Arc<Site>) -> Self {
        Self { address, site }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it serves `hooks`, and nothing else, by `config`: each request that comes, on
    /// open connections too. What was bound stays as it was: address, certificate, and how many
    /// connections there may be.
    pub fn set(&self, config: &ServerConfig, hooks: Hooks) {
        let mut served = self.site.served.write();
        let budget = match served.config.max_buffered == config.max_buffered {
            true => served.budget.clone(),
            false => Budget::new(config.max_buffered),
        };
        let now = Arc::new(Served::new(config, hooks, budget));
        let before = std::mem::replace(&mut *served, Arc::clone(&now));
        if self.site.running.load(Ordering::Acquire) {
            now.hooks.connected(true);
            for gone in before.hooks.0.values().filter(|entry| !now.hooks.has(entry)) {
                gone.intake.connected(false);
            }
        }
    }
}

impl Served {
    pub(super) fn new(config: &ServerConfig, hooks: Hooks, budget: Budget) -> Self {
        let public = config.public_url.as_ref().map_or("", url::Url::as_str);
        let public = public.trim_end_matches('/').to_owned();
        Self { config: config.clone(), public, hooks, budget }
    }

    /// A request as hooks see it.
    pub(super) fn received(&self, head: &Parts, body: &body::Body) -> Received {
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
        Received {
            method: head.method.clone(),
            url: format!("{}{target}", self.public),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers.clone(),
            raw: body.bytes(),
        }
    }
}

impl Entry {
    /// The events of a request. A large one may be split into a thousand, each with programs of its
    /// own to run: not on a thread that others wait for.
    pub(super) async fn read(
        self: &Arc<Self>,
        request: Received,
        verified: Verified,
        now: Timestamp,
    ) -> Result<Reading, Malformed> {
        if request.raw.len() <= LARGE {
            return self.hook.read(&request, &verified, now);
        }
        let entry = Arc::clone(self);
        let reading = spawn_blocking(move || entry.hook.read(&request, &verified, now));
        reading.await.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
    }
}
