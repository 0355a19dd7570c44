//! The queue in one SQLite file.
//!
//! ```text
//!  append, settle ──► bounded channel ──► writer (one thread, one transaction, one fsync)
//!                                            │ after the commit
//!                                            ├──► feeds, answers, what is shown of routes
//!  page, list, show ◄── readers (two, short) └──► checkpoint (a thread of its own)
//! ```
//!
//! WAL with `synchronous=FULL`: every commit is fsynced before anyone is told. One process owns
//! the file; the lock beside it says who. See `writer` for what happens when the disk fails,
//! `schema` for the format.

mod act;
mod checkpoint;
mod command;
mod disk;
mod lane;
mod ledger;
mod list;
mod prune;
mod reader;
mod recent;
mod schema;
mod seen;
mod settle;
mod shared;
mod tend;
mod transaction;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    thread::JoinHandle,
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tidegate_adapters::{DeliveryId, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Acted, Action, Append, AppendError, Appended, Bounds, Feed, Filter, ListPage, Listed, Page,
    Queue, QueueError, QueueStatus, RouteSettings, RouteStatus, Settlement, Space,
};
use checkpoint::Pressure;
use command::{Command, Reply};
use disk::{Ballast, Lock};
use ledger::Ledger;
use reader::Readers;
use recent::Recent;
use shared::Shared;
use transaction::Caps;
use writer::Writer;

/// Commands waiting for the writer, at most; beyond, callers wait.
const COMMANDS: usize = 8192;

/// How a queue is opened.
#[derive(Clone)]
pub struct Options {
    /// The database file; folder and file are made when missing.
    pub path: PathBuf,
    /// What bounds it.
    pub bounds: Bounds,
    /// Told how long each commit took.
    pub observer: Arc<dyn Fn(Duration) + Send + Sync>,
    /// Wall time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// The queue in one SQLite file.
pub struct SqliteQueue {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    /// For the loops, whom no list is to delay.
    pages: Readers,
    lists: Readers,
    threads: Mutex<Vec<JoinHandle<()>>>,
    lock: Mutex<Option<Lock>>,
}

impl SqliteQueue {
    /// Opens the queue and starts its threads. Takes no longer with a large backlog.
    ///
    /// # Errors
    /// When another process owns it, its format is not known, or it cannot be opened.
    pub fn open(options: Options) -> Result<Self, QueueError> {
        disk::prepare(&options.path)?;
        let lock = Lock::take(&options.path)?;
        schema::check_format(&options.path)?;
        let mut connection = schema::open_writer(&options.path)?;
        let recent = Recent::load(&connection)?;
        let ledger = Ledger::load(&connection, &recent).map_err(schema::store)?;
        let next_id = reader::last_id(&connection)?;
        let ballast = Ballast::new(&options.path, options.bounds.max_size);
        let disk_full = Arc::new(AtomicBool::new(!ballast.take_up()));
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared::new(options.clone()));
        for row in ledger.rows().iter().filter(|row| row.paused_since.is_some()) {
            shared.feed(&row.name).pause(true);
        }
        shared.stopped(reader::stopped(&connection).map_err(schema::store)?);
        let pressure = Pressure::watch(&mut connection).map_err(schema::store)?;
        let checkpoints = schema::open_writer(&options.path)?;
        let no_thread = |error: std::io::Error| QueueError::Store(error.to_string().into());
        let checkpoint =
            checkpoint::start(checkpoints, Arc::clone(&pressure)).map_err(no_thread)?;
        let writer = Writer {
            connection,
            commands: inbox,
            ledger,
            recent,
            next_id,
            caps: Caps::new(&options.bounds),
            bounds: options.bounds,
            taken: Vec::new(),
            ballast,
            pressure,
            shared: Arc::clone(&shared),
            disk_full,
        };
        let writing = std::thread::Builder::new()
            .name("queue-writer".to_owned())
            .spawn(move || {
                let shared = Arc::clone(&writer.shared);
                let pressure = Arc::clone(&writer.pressure);
                let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| writer.run()));
                if ran.is_err() {
                    shared.fail("the writer panicked".to_owned());
                }
                pressure.stop();
            })
            .map_err(no_thread)?;
        let tending = tend::start(commands.downgrade()).map_err(no_thread)?;
        Ok(Self {
            commands,
            shared,
            pages: Readers::new(options.path.clone(), reader::PAGE_READERS),
            lists: Readers::new(options.path, reader::LIST_READERS),
            threads: Mutex::new(vec![writing, checkpoint, tending]),
            lock: Mutex::new(Some(lock)),
        })
    }
}

impl SqliteQueue {
    /// Asks the writer, and waits for its answer.
    fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueueError>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            commands.send(command(reply)).await.map_err(|_| QueueError::Closed)?;
            answer.await.map_err(|_| QueueError::Closed)?
        })
    }
}

impl Queue for SqliteQueue {
    fn configure(&self, routes: Vec<RouteSettings>) -> BoxFuture<'_, Result<(), QueueError>> {
        self.ask(|reply| Command::Configure(routes, reply))
    }

    fn append(
        &self,
        route: &Arc<str>,
        batch: Vec<Append>,
        space: Space,
    ) -> BoxFuture<'static, Result<Vec<Appended>, AppendError>> {
        let (reply, answer) = oneshot::channel();
        // Sent here and now if there is room, so that calls keep their order however their
        // futures are polled.
        let command = Command::Append(Arc::clone(route), batch, space, reply);
        let unsent = match self.commands.try_send(command) {
            Ok(()) => None,
            Err(mpsc::error::TrySendError::Full(command)) => Some((self.commands.clone(), command)),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                return Box::pin(std::future::ready(Err(AppendError::Closed)));
            }
        };
        Box::pin(async move {
            if let Some((commands, command)) = unsent {
                commands.send(command).await.map_err(|_| AppendError::Closed)?;
            }
            answer.await.map_err(|_| AppendError::Closed)?
        })
    }

    fn room(&self, route: &Arc<str>) -> BoxFuture<'static, ()> {
        let (shared, route) = (Arc::clone(&self.shared), Arc::clone(route));
        Box::pin(async move {
            loop {
                let changed = shared.room.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if shared.has_room(&route) {
                    return;
                }
                changed.await;
            }
        })
    }

    fn connected(&self, route: &Arc<str>, up: bool) {
        // Lost only when the writer is overwhelmed or gone; the window then runs a little longer.
        let _ = self.commands.try_send(Command::Connected(Arc::clone(route), up));
    }

    fn feed(&self, route: &Arc<str>) -> Arc<Feed> {
        self.shared.feed(route)
    }

    fn page(
        &self,
        route: &Arc<str>,
        now: Timestamp,
        limit: usize,
        held: HashSet<DeliveryId>,
    ) -> BoxFuture<'_, Result<Page, QueueError>> {
        let route = Arc::clone(route);
        Box::pin(
            self.pages.read(move |connection| reader::page(connection, &route, now, limit, &held)),
        )
    }

    fn claim(&self, id: DeliveryId) -> bool {
        self.shared.claims.lock().insert(id)
    }

    fn unclaim(&self, id: DeliveryId) {
        self.shared.claims.lock().remove(&id);
    }

    fn claimed(&self, id: DeliveryId) -> bool {
        self.shared.claims.lock().contains(&id)
    }

    fn active(&self) -> Vec<DeliveryId> {
        self.shared.claims.lock().iter().copied().collect()
    }

    fn settle(&self, settlement: Settlement) -> BoxFuture<'static, Result<(), QueueError>> {
        self.ask(|reply| Command::Settle(Box::new(settlement), reply))
    }

    fn list(
        &self,
        filter: Filter,
        cursor: Option<DeliveryId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<ListPage, QueueError>> {
        let asked = Instant::now();
        Box::pin(
            self.lists
                .read(move |connection| list::page(connection, &filter, cursor, limit, asked)),
        )
    }

    fn show(&self, id: DeliveryId) -> BoxFuture<'_, Result<Listed, QueueError>> {
        Box::pin(async move {
            let shown = self.lists.read(move |connection| reader::show(connection, id)).await?;
            shown.ok_or(QueueError::Missing(id))
        })
    }

    fn act(&self, action: Action, id: DeliveryId) -> BoxFuture<'_, Result<(), QueueError>> {
        self.ask(move |reply| Command::Act(action, id, reply))
    }

    fn act_on_many(
        &self,
        action: Action,
        filter: Filter,
        cursor: Option<DeliveryId>,
        dry: bool,
    ) -> BoxFuture<'_, Result<Acted, QueueError>> {
        Box::pin(async move {
            let active = self.shared.claims.lock().clone();
            let asked = Instant::now();
            let search = list::Search { action, filter, cursor, active, asked };
            if dry {
                return self.lists.read(move |connection| list::count(connection, &search)).await;
            }
            let (found, next) =
                self.lists.read(move |connection| list::find(connection, &search)).await?;
            if found.is_empty() {
                return Ok(Acted { routes: BTreeMap::new(), next });
            }
            let step = self.ask(move |reply| Command::ActOnMany(action, found, reply)).await?;
            Ok(Acted { routes: step.routes, next: step.stopped_at.or(next) })
        })
    }

    fn pause_route(&self, route: &Arc<str>, paused: bool) -> BoxFuture<'_, Result<(), QueueError>> {
        let route = Arc::clone(route);
        self.ask(move |reply| Command::PauseRoute(route, paused, reply))
    }

    fn paused_for(&self, route: &Arc<str>) -> Duration {
        self.shared.paused_for(route)
    }

    fn pause_upstream(
        &self,
        upstream: &Arc<str>,
        paused: bool,
    ) -> BoxFuture<'_, Result<(), QueueError>> {
        let upstream = Arc::clone(upstream);
        self.ask(move |reply| Command::PauseUpstream(upstream, paused, reply))
    }

    fn paused_upstreams(&self) -> BTreeSet<Arc<str>> {
        self.shared.stopped.lock().clone()
    }

    fn note(&self, name: &'static str) -> BoxFuture<'_, Result<Option<String>, QueueError>> {
        Box::pin(self.pages.read(move |connection| reader::note(connection, name)))
    }

    fn keep_note(
        &self,
        name: &'static str,
        text: String,
    ) -> BoxFuture<'static, Result<(), QueueError>> {
        self.ask(move |reply| Command::KeepNote(name, text, reply))
    }

    fn set_bounds(&self, bounds: Bounds) -> BoxFuture<'_, Result<(), QueueError>> {
        self.ask(move |reply| Command::SetBounds(bounds, reply))
    }

    fn routes(&self) -> Vec<RouteStatus> {
        self.shared.seen.read().routes.clone()
    }

    fn oldest_due(
        &self,
        route: &Arc<str>,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<Timestamp>, QueueError>> {
        let route = Arc::clone(route);
        Box::pin(self.pages.read(move |connection| reader::oldest_due(connection, &route, now)))
    }

    fn status(&self) -> QueueStatus {
        self.shared.seen.read().status
    }

    fn pruned(&self) -> Vec<(Arc<str>, u64)> {
        self.shared.pruned.lock().iter().map(|(name, n)| (Arc::clone(name), *n)).collect()
    }

    fn failed(&self) -> BoxFuture<'static, String> {
        let mut failure = self.shared.failure.subscribe();
        Box::pin(async move {
            let reason = failure.wait_for(Option::is_some).await.map(|reason| reason.clone());
            match reason {
                Ok(reason) => reason.unwrap_or_default(),
                // The queue is gone without having failed: there is nothing to report, ever.
                Err(_) => std::future::pending().await,
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            if self.commands.send(Command::Close(reply)).await.is_ok() {
                // An error means that it failed before it could close: then it is as closed.
                let _ = answer.await;
            }
            self.pages.close();
            self.lists.close();
            let threads = std::mem::take(&mut *self.threads.lock());
            for thread in &threads {
                thread.thread().unpark();
            }
            let joined = tokio::task::spawn_blocking(move || {
                for thread in threads {
                    let _ = thread.join();
                }
            });
            let _ = joined.await;
            self.lock.lock().take();
        })
    }
}

#[cfg(test)]
mod tests;
