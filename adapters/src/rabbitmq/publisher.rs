//! RabbitMQ as a target: messages published in windows, each confirmed.
//!
//! # The yes
//!
//! A delivery is delivered when RabbitMQ has confirmed its message and has not returned it, and
//! never else. Confirms come late and in bunches: one at a time would be a message a round trip. So
//! what has gathered is published as a window of up to 512 messages, and all its confirms
//! are awaited; meanwhile the next window gathers and goes out on another channel.
//!
//! ```text
//! callers ─► jobs (bounded) ─► window ─► publish all ─► await all confirms ─► answer each
//!                                │                        │ nothing in time, or cut off:
//!                                └─ another channel       └─► ambiguous: published again, same id
//! ```
//!
//! # What the library does
//!
//! - A channel is used by one task only: the library numbers and sends under two locks, and two
//!   tasks could swap their confirms.
//! - RabbitMQ returns an unroutable message before it confirms it, and confirms in bunches; the
//!   library hands a return to whichever confirm comes first. So returns are matched by
//!   `message_id`, over the window; two messages of one id never share a window.
//! - RabbitMQ answers a message that it will not have by closing the channel, and the rest of the
//!   window is ambiguous. So a window goes to one exchange: a route that may not publish, or whose
//!   messages are too large, costs no other route anything.
//!
//! # Down and blocked
//!
//! While there is no connection, or RabbitMQ has blocked it for want of memory or disk, nothing is
//! admitted ([`Publisher::flowing`]): waiting is no attempt. A window that is under way when the
//! block comes waits for its end. One that is under way when the connection breaks is ambiguous,
//! RabbitMQ may have it or not, and is published again under the same `message_id`.
//!
//! An exchange that is missing is declared before the first message to it on each channel. One that
//! is deleted under way costs the channel, and the window on it is ambiguous.

mod inbox;
mod leaf;
mod window;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Mutex, mpsc, oneshot, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{inbox::Inbox, window::Worker};
use super::{
    ConnectionState, Server,
    session::{Link, Role, SessionError},
    supervise,
};
use crate::event::Event;

pub use self::leaf::{PublishService, Published, rehearse};

/// Messages in a window at most.
const WINDOW: usize = 512;

/// Jobs waiting for a window at most; more callers wait for room.
const JOBS: usize = 2 * WINDOW;

/// Windows under way at once: channels.
const CHANNELS: usize = 3;

/// How often it is looked whether RabbitMQ has blocked the connection.
const LOOK: Duration = Duration::from_millis(50);

/// How long `emit` and the admin API wait for a connection and a confirm.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why an event was not published, or not known to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// RabbitMQ cannot be reached, or has blocked us; in one sentence.
    #[error("{0}")]
    Unavailable(String),
    /// No queue is bound for this exchange and key.
    #[error("no RabbitMQ queue is bound for it")]
    Unroutable,
    /// RabbitMQ would not take it: a queue is full.
    #[error("RabbitMQ did not take it: a queue is full, or failed")]
    Nacked,
    /// It may not be published, or not there; RabbitMQ's words.
    #[error("RabbitMQ refused it: {0}")]
    Refused(String),
    /// It is larger than RabbitMQ is set to take; RabbitMQ's words.
    #[error("too large for RabbitMQ: {0}")]
    TooLarge(String),
    /// RabbitMQ may have it or not.
    #[error("no confirm: {0}; RabbitMQ may have it or not")]
    Ambiguous(String),
}

/// One message on its way.
struct Job {
    exchange: Arc<str>,
    key: String,
    /// Whether the exchange is ours to declare.
    declare: bool,
    message: leaf::Message,
    answer: oneshot::Sender<Result<(), PublishError>>,
}

/// The connection that publishes, and what is to be published. Connects to nothing until it runs.
pub struct Publisher {
    server: Server,
    state: Arc<ConnectionState>,
    jobs: mpsc::Sender<Job>,
    inbox: mpsc::Receiver<Job>,
    flows: watch::Sender<bool>,
}

/// Publishes single events. Clones share the connection.
#[derive(Clone)]
pub struct PublishHandle {
    jobs: mpsc::Sender<Job>,
    state: Arc<ConnectionState>,
    flowing: watch::Receiver<bool>,
}

impl Publisher {
    /// To `server`.
    #[must_use]
    pub fn new(server: &Server) -> Self {
        let (jobs, inbox) = mpsc::channel(JOBS);
        let (flows, _) = watch::channel(false);
        Self { server: server.clone(), state: Arc::default(), jobs, inbox, flows }
    }

    /// The leaf that calls go to. Clones share the connection.
    #[must_use]
    pub fn service(&self) -> PublishService {
        PublishService::new(self.jobs.clone())
    }

    /// For single events.
    #[must_use]
    pub fn handle(&self) -> PublishHandle {
        PublishHandle { jobs: self.jobs.clone(), state: self.state(), flowing: self.flowing() }
    }

    /// How the connection is; may be asked at any time.
    #[must_use]
    pub fn state(&self) -> Arc<ConnectionState> {
        Arc::clone(&self.state)
    }

    /// Whether messages flow: connected and not blocked.
    #[must_use]
    pub fn flowing(&self) -> watch::Receiver<bool> {
        self.flows.subscribe()
    }

    /// Publishes until `shutdown`; then the windows under way get some seconds to be confirmed.
    ///
    /// # Panics
    /// When a part of it did: that is a defect, and its routes would stand still unnoticed.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { server, state, jobs, inbox, flows } = self;
        // The callers' own ends keep it open.
        drop(jobs);
        let inbox = Arc::new(Mutex::new(Inbox::new(inbox)));
        let (links, link) = watch::channel(None);
        let connection_stop = CancellationToken::new();
        let mut parts = JoinSet::new();
        for _ in 0..CHANNELS {
            let worker = Worker::new(Arc::clone(&inbox));
            parts.spawn(worker.run(link.clone(), shutdown.clone()));
        }
        let workers = async {
            while let Some(ended) = parts.join_next().await {
                if let Err(failed) = ended
                    && failed.is_panic()
                {
                    std::panic::resume_unwind(failed.into_panic());
                }
            }
            inbox.lock().await.close();
            connection_stop.cancel();
        };
        let supervising =
            supervise::supervise(&server, Role::Publish, &state, &links, connection_stop.clone());
        tokio::join!(workers, supervising, watch_flow(link, &flows, &connection_stop));
    }
}

/// Keeps `flows` true while there is a connection that RabbitMQ reads from.
async fn watch_flow(
    mut links: watch::Receiver<Option<Arc<Link>>>,
    flows: &watch::Sender<bool>,
    stop: &CancellationToken,
) {
    let mut blocked = false;
    loop {
        let link = links.borrow_and_update().clone();
        let is_blocked = link.as_ref().is_some_and(|link| link.blocked());
        if is_blocked != blocked {
            match is_blocked {
                true => warn!("RabbitMQ has blocked publishing: a memory or disk alarm"),
                false => info!("publishing is no longer blocked"),
            }
            blocked = is_blocked;
        }
        let flow = link.is_some() && !is_blocked;
        flows.send_if_modified(|flows| std::mem::replace(flows, flow) != flow);
        tokio::select! {
            () = stop.cancelled() => break,
            changed = links.changed() => if changed.is_err() { break },
            // The library tells one listener only, and the supervisor is that one.
            () = tokio::time::sleep(LOOK), if link.is_some() => {}
        }
    }
    flows.send_replace(false);
}

impl PublishHandle {
    /// Publishes `event` as a structured CloudEvent, persistent and mandatory, and waits for
    /// RabbitMQ's confirm. The exchange must be there.
    ///
    /// # Errors
    /// See [`PublishError`]; only after [`PublishError::Ambiguous`] may RabbitMQ have it all the
    /// same.
    pub async fn publish(
        &self,
        exchange: &str,
        key: &str,
        event: Event,
    ) -> Result<(), PublishError> {
        let unavailable = |why: &str| PublishError::Unavailable(why.to_owned());
        for text in [exchange, key, &event.id] {
            if text.len() > 255 {
                return Err(PublishError::Refused(format!("`{text}` is longer than 255 bytes")));
            }
        }
        let mut flowing = self.flowing.clone();
        let waiting = async { flowing.wait_for(|flowing| *flowing).await.is_ok() };
        let flows = timeout(PATIENCE, waiting).await.unwrap_or(false);
        if !flows {
            let blocked = "RabbitMQ has blocked publishing: a memory or disk alarm";
            let why = self.state.error().unwrap_or_else(|| blocked.to_owned());
            return Err(unavailable(&format!("RabbitMQ: {why}")));
        }
        let (answer, answered) = oneshot::channel();
        let message = leaf::Message::structured(&event);
        // An exchange that is not there is a typing error, most likely.
        let declare = false;
        let job = Job { exchange: exchange.into(), key: key.to_owned(), declare, message, answer };
        self.jobs.send(job).await.map_err(|_| unavailable("shutting down"))?;
        match timeout(PATIENCE, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(PublishError::Ambiguous("shutting down".to_owned())),
            Err(_) if self.state.blocked() => {
                let why = "it is blocked by a memory or disk alarm";
                Err(PublishError::Ambiguous(why.to_owned()))
            }
            Err(_) => Err(PublishError::Ambiguous(format!("nothing within {PATIENCE:?}"))),
        }
    }
}

/// What a worker says of the end of its channel, once for each reason.
fn tell(told: &mut String, error: &SessionError, alive: bool) {
    let text = error.to_string();
    // The connection's end is told once, where it is noticed.
    if alive && *told != text {
        warn!(%error, "cannot publish; trying again");
        *told = text;
    } else {
        debug!(%error, "publishing channel ended");
    }
}
