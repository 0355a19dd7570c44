//! Reloads: asked for by an operator or by a file that changed, one at a time.
//!
//! ```text
//! read ─► validate ─► only what may change changed? ─► prepare ─► commit
//!   │ invalid            │ no                             │ cannot
//!   └────────────────────┴────────────────────────────────┴──► nothing changes, and it is said why
//! ```

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{ConfigSource, Generation, Parts, ReloadError, Reloaded, Shared};
use crate::{
    config::{Loaded, Report},
    telemetry::{LogHandle, ReloadResult},
};

/// Whom to tell what came of it.
pub(super) type Request = oneshot::Sender<Result<Reloaded, ReloadError>>;

/// What only a restart changes, by the beginnings of key paths: what is bound, opened or connected
/// once.
const RESTART: [&str; 8] = [
    "server.listen",
    "server.max_connections",
    "server.tls",
    "admin.listen",
    "queue.sqlite",
    "broker.embedded",
    "log.format",
    "telemetry.",
];

/// What reloads need, besides what they change.
pub(super) struct Reloads {
    /// Where the configuration is read from; `None` where it was handed over.
    pub(super) source: Option<Arc<ConfigSource>>,
    /// Whose level is configured.
    pub(super) log: Option<LogHandle>,
    asked: mpsc::Receiver<Request>,
}

impl Reloads {
    pub(super) fn new(asked: mpsc::Receiver<Request>) -> Self {
        Self { source: None, log: None, asked }
    }

    /// The next occasion: somebody asks, or a file has changed; none once `stop` is cancelled.
    pub(super) async fn next(&mut self, stop: &CancellationToken) -> Option<Request> {
        let changed = async {
            match &self.source {
                Some(source) => source.changed(stop).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(request) = self.asked.recv() => Some(request),
            () = changed => {
                tracing::info!("the configuration's files have changed");
                None
            }
        }
    }

    /// Reloads, and tells whoever asked.
    pub(super) async fn answer(
        &mut self,
        request: Option<Request>,
        shared: &Shared,
        parts: &mut Parts,
    ) {
        let done = self.reload(shared, parts).await;
        match &done {
            Ok(reloaded) if reloaded.changed.is_empty() => {
                tracing::info!(hash = reloaded.generation.hash, "configuration unchanged");
            }
            Ok(reloaded) => tracing::info!(
                generation = reloaded.generation.number,
                hash = reloaded.generation.hash,
                changed = reloaded.changed.join(" "),
                "configuration reloaded"
            ),
            Err(error) => tracing::error!(%error, "configuration not reloaded"),
        }
        shared.metrics.reloaded(match &done {
            Ok(reloaded) if reloaded.changed.is_empty() => ReloadResult::Unchanged,
            Ok(_) => ReloadResult::Changed,
            Err(ReloadError::Restart(_)) => ReloadResult::Restart,
            Err(ReloadError::Invalid(_) | ReloadError::Unavailable(_)) => ReloadResult::Invalid,
        });
        let failed = done.as_ref().err().map(ToString::to_string);
        shared.generation.write().failed = failed;
        if let Some(request) = request {
            // Whoever went away meanwhile finds it in the log.
            let _ = request.send(done);
        }
    }

    async fn reload(&self, shared: &Shared, parts: &mut Parts) -> Result<Reloaded, ReloadError> {
        let in_force = Arc::clone(&shared.view.read().config);
        let Loaded { config, warnings, .. } = self.read(&in_force.mask).await?;
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        let changed = in_force.fingerprints.changed(&config.fingerprints);
        let listens = shared.view.read().receiver.is_some();
        // The public listener takes its settings when the first route needs it.
        let bound = |path: &str| listens || !path.starts_with("server.");
        let fixed = |path: &&String| RESTART.iter().any(|fixed| path.starts_with(fixed));
        let fixed = changed.iter().filter(fixed).filter(|path| bound(path));
        let fixed: Vec<String> = fixed.cloned().collect();
        if !fixed.is_empty() {
            return Err(ReloadError::Restart(fixed));
        }
        if changed.is_empty() {
            let generation = Generation { failed: None, ..shared.generation.read().clone() };
            return Ok(Reloaded { generation, changed, warnings });
        }
        let unavailable = |error: &dyn std::fmt::Display| {
            ReloadError::Unavailable(in_force.mask.apply(&error.to_string()))
        };
        let config = Arc::new(config);
        let prepared = parts.fleet.prepare(Arc::clone(&config)).await;
        let prepared = prepared.map_err(|error| unavailable(&error))?;
        let started = parts.fleet.commit(prepared).await.map_err(|error| unavailable(&error))?;
        parts.start(started);
        parts.drain.send_replace(config.settings.shutdown.drain);
        if let Some(log) = &self.log {
            log.set_level(config.settings.log.level);
        }
        let generation = {
            let mut generation = shared.generation.write();
            *generation = Generation {
                number: generation.number + 1,
                hash: config.hash.clone(),
                since: (shared.clock)(),
                failed: None,
            };
            generation.clone()
        };
        *shared.view.write() = Arc::new(parts.fleet.view());
        Ok(Reloaded { generation, changed, warnings })
    }

    /// Reads and validates; on a thread of its own, since files may be slow.
    async fn read(&self, mask: &tidegate_adapters::secret::Mask) -> Result<Loaded, ReloadError> {
        let Some(source) = &self.source else {
            let why = "this gateway was not started from files";
            return Err(ReloadError::Unavailable(why.to_owned()));
        };
        let (source, mask) = (Arc::clone(source), mask.clone());
        let loaded: Result<Result<Loaded, Report>, _> =
            tokio::task::spawn_blocking(move || source.load(&mask)).await;
        match loaded {
            Ok(loaded) => loaded.map_err(ReloadError::Invalid),
            Err(failed) => Err(ReloadError::Unavailable(format!("reading it panicked: {failed}"))),
        }
    }
}
