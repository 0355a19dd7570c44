//! One connection that is always there again, for whoever shares it. See [`super`].

use std::sync::Arc;

use lapin::ConnectionStatus;
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    backoff::Backoff,
    session::{Broker, Link, Role, STEADY, Server},
};

/// How a connection is, for health and metrics.
#[derive(Debug, Default)]
pub struct ConnectionState {
    status: RwLock<Option<ConnectionStatus>>,
    /// Why there is no connection.
    error: RwLock<Option<String>>,
}

impl ConnectionState {
    /// Whether there is a connection.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.status.read().as_ref().is_some_and(ConnectionStatus::connected)
    }

    /// Why there is no connection, where a try has failed.
    pub(super) fn error(&self) -> Option<String> {
        self.error.read().clone()
    }

    /// Whether RabbitMQ has blocked it: a memory or disk alarm.
    #[must_use]
    pub fn blocked(&self) -> bool {
        self.status.read().as_ref().is_some_and(|status| status.connected() && status.blocked())
    }
}

/// The next connection that lives; `None` when there will be none.
pub(super) async fn next_link(links: &mut watch::Receiver<Option<Arc<Link>>>) -> Option<Arc<Link>> {
    loop {
        let link = links.borrow_and_update().clone().filter(|link| link.alive());
        if link.is_some() {
            return link;
        }
        links.changed().await.ok()?;
    }
}

/// Keeps a connection for `role` in `links` until `shutdown`, then closes it.
pub(super) async fn supervise(
    server: &Server,
    role: Role,
    state: &ConnectionState,
    links: &watch::Sender<Option<Arc<Link>>>,
    shutdown: CancellationToken,
) {
    let mut backoff = Backoff::new();
    let mut told = String::new();
    let mut dialled = server.dialled();
    loop {
        let broker = Arc::clone(&dialled.borrow_and_update());
        let connected = tokio::select! {
            connected = broker.connect(role) => connected,
            () = shutdown.cancelled() => return,
        };
        match connected {
            Ok(link) => {
                info!(role = role.as_str(), "RabbitMQ connected");
                told.clear();
                let since = tokio::time::Instant::now();
                let link = Arc::new(link);
                *state.status.write() = Some(link.status().clone());
                *state.error.write() = None;
                links.send_replace(Some(Arc::clone(&link)));
                let ended = tokio::select! {
                    ended = link.ended() => Ended::Broken(ended),
                    () = moved(&mut dialled, &broker) => Ended::Moved,
                    () = shutdown.cancelled() => Ended::Stopped,
                };
                links.send_replace(None);
                *state.status.write() = None;
                let error = match ended {
                    Ended::Broken(error) => error,
                    Ended::Moved => {
                        info!(role = role.as_str(), "another RabbitMQ is configured");
                        link.close().await;
                        continue;
                    }
                    Ended::Stopped => return link.close().await,
                };
                warn!(role = role.as_str(), error, "RabbitMQ connection lost");
                *state.error.write() = Some(error);
                if since.elapsed() >= STEADY {
                    backoff.reset();
                }
            }
            // Once for each reason, not for each of the tries of a long night.
            Err(error) if told != error.to_string() => {
                warn!(
                    role = role.as_str(),
                    %error,
                    "RabbitMQ cannot be reached; trying again for as long as it takes"
                );
                *state.error.write() = Some(error.to_string());
                told = error.to_string();
            }
            Err(error) => debug!(%error, "RabbitMQ still cannot be reached"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next()) => {}
            // It may be what was wrong.
            Ok(()) = dialled.changed() => backoff.reset(),
            () = shutdown.cancelled() => return,
        }
    }
}

/// Why a connection is no longer used.
enum Ended {
    Broken(String),
    Moved,
    Stopped,
}

/// Resolves when another place than that of `broker` is to be dialled.
async fn moved(dialled: &mut watch::Receiver<Arc<Broker>>, broker: &Broker) {
    let other = |now: &Arc<Broker>| !now.is_where(broker);
    if dialled.wait_for(other).await.is_err() {
        std::future::pending().await
    }
}
