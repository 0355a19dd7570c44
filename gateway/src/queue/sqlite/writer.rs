//! The one thread that writes.
//!
//! It takes a command, then whatever else has gathered meanwhile, does all of it in one
//! transaction, and answers after the commit: while one fsync is under way the next batch gathers
//! by itself. It never waits for more to come, so an idle system answers at once.
//!
//! # When a commit fails
//!
//! - *Disk full*: rolled back; appends are told "full", the ballast goes, and settlements are tried
//!   again until there is room.
//! - *Anything else*, an fsync error above all: the queue has failed for good. Nobody knows what
//!   the disk holds, so nothing is answered, nothing is retried, and the process must end.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, ErrorCode};
use tidegate_adapters::{DeliveryId, Timestamp};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    Shared,
    checkpoint::Pressure,
    command::{Answer, Command},
    disk::Ballast,
    ledger::Ledger,
    recent::Recent,
    transaction::{Caps, Effects, Often, Transaction, append_bytes},
};
use crate::queue::{AppendError, Bounds, QueueError, RouteSettings};

/// The most commands in one transaction, and the most bytes of appends.
const COMMANDS_MAX: usize = 4096;
const BYTES_MAX: u64 = 32 << 20;

/// Rows pruned in one step when there is nothing else to do.
const PRUNE_IDLE: usize = 256;

/// While the disk is full: rows pruned, and pages given back, in one step.
const PRUNE_FULL: usize = 2048;
const SHRINK_PAGES: usize = 4096;

/// While the disk is full, how often settlements are tried again.
const FULL_PAUSE: Duration = Duration::from_millis(200);

/// The writer's state.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) ledger: Ledger,
    pub(super) recent: Recent,
    pub(super) next_id: i64,
    pub(super) caps: Caps,
    pub(super) bounds: Bounds,
    /// What the transaction under way has claimed.
    pub(super) taken: Vec<(Arc<str>, DeliveryId)>,
    pub(super) ballast: Ballast,
    pub(super) pressure: Arc<Pressure>,
    pub(super) shared: Arc<Shared>,
    pub(super) disk_full: Arc<AtomicBool>,
}

impl Writer {
    /// Runs until it is closed or has failed for good.
    pub(super) fn run(mut self) {
        self.publish();
        while let Some(first) = self.commands.blocking_recv() {
            let mut batch = vec![first];
            let mut bytes = 0;
            while batch.len() < COMMANDS_MAX && bytes < BYTES_MAX {
                let Ok(next) = self.commands.try_recv() else { break };
                if let Command::Append(_, appends, ..) = &next {
                    bytes += appends.iter().map(append_bytes).sum::<u64>();
                }
                batch.push(next);
            }
            if let Some(closed) = self.work(batch) {
                self.commands.close();
                self.finish(closed);
                return;
            }
            if self.shared.failed() {
                return;
            }
        }
    }

    /// Does a batch; answers whom to tell when it was to close.
    fn work(&mut self, batch: Vec<Command>) -> Option<oneshot::Sender<()>> {
        let mut closed = None;
        let mut commands = Vec::with_capacity(batch.len());
        let mut settings = Vec::new();
        let mut tend = false;
        for command in batch {
            match command {
                Command::Configure(routes, reply) => settings.push((self.configure(routes), reply)),
                Command::SetBounds(bounds, reply) => {
                    self.set_bounds(bounds);
                    settings.push((Ok(()), reply));
                }
                Command::Connected(route, up) => {
                    self.ledger.connected(&route, up, Instant::now());
                }
                Command::Tend => tend = true,
                Command::Close(answer) => closed = Some(answer),
                command => commands.push(command),
            }
        }
        self.commit(commands, tend);
        if tend && self.disk_full.load(Ordering::Relaxed) {
            self.shrink();
            if self.ballast.take_up() {
                self.disk_full.store(false, Ordering::Relaxed);
                tracing::info!("the disk has room again");
            }
        }
        self.publish();
        // Whoever asked sees what was asked for.
        for (done, reply) in settings {
            let _ = reply.send(done);
        }
        closed
    }

    /// Gives back to the disk what the files do not need: pages freed by what was pruned, and the
    /// log. Best effort: while it fails the disk stays full, and it is tried again.
    fn shrink(&self) {
        let vacuum = format!("PRAGMA incremental_vacuum({SHRINK_PAGES})");
        let _ = self.connection.execute_batch(&vacuum);
        self.pressure.truncate(&self.connection);
    }

    /// Commits the commands in one transaction, however long the disk is full.
    fn commit(&mut self, mut commands: Vec<Command>, tend: bool) {
        if self.disk_full.load(Ordering::Relaxed) {
            refuse_appends(&mut commands);
        }
        loop {
            if commands.is_empty() && !tend {
                return;
            }
            let began = Instant::now();
            match self.transact(&commands, tend) {
                Ok((answers, effects)) => {
                    self.shared.observe(began.elapsed());
                    self.publish();
                    self.tell(commands, answers, effects);
                    return;
                }
                Err(error) if is_full(&error) => {
                    if !self.disk_full.swap(true, Ordering::Relaxed) {
                        tracing::error!("the disk is full: intake pauses, deliveries go on");
                    }
                    self.ballast.give_up();
                    self.shrink();
                    refuse_appends(&mut commands);
                    self.publish();
                    // What was only tending is tried again at its next time.
                    if commands.is_empty() {
                        return;
                    }
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "the writer is a thread of its own with nothing else to do"
                    )]
                    std::thread::sleep(FULL_PAUSE);
                }
                Err(error) => {
                    self.shared.fail(format!("{error}; what the disk holds is not known"));
                    return;
                }
            }
        }
    }

    fn transact(
        &mut self,
        commands: &[Command],
        tend: bool,
    ) -> rusqlite::Result<(Vec<Answer>, Effects)> {
        let next_id = self.next_id;
        let done = self.attempt(commands, tend);
        match done {
            Ok(_) => {
                self.ledger.committed();
                self.recent.committed();
            }
            Err(_) => {
                // Fails when SQLite has rolled back by itself already.
                let _ = self.connection.execute_batch("ROLLBACK");
                self.ledger.undo();
                self.recent.undo();
                self.next_id = next_id;
                let taken = std::mem::take(&mut self.taken);
                self.shared.settled(taken.iter().map(|(_, id)| *id));
                // The loop may have met our claim and dropped what is still pending.
                taken.iter().for_each(|(route, _)| self.shared.feed(route).fall_behind());
            }
        }
        done
    }

    fn attempt(
        &mut self,
        commands: &[Command],
        tend: bool,
    ) -> rusqlite::Result<(Vec<Answer>, Effects)> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let wall = self.shared.wall();
        let now = Instant::now();
        // On a full disk history is the first to go: what waits is worth more than what is done.
        let full = self.disk_full.load(Ordering::Relaxed);
        let history = if full { 0 } else { self.caps.history };
        let mut transaction = Transaction {
            connection: &self.connection,
            ledger: &mut self.ledger,
            recent: &mut self.recent,
            next_id: &mut self.next_id,
            caps: Caps { history, ..self.caps },
            wall,
            now,
            shared: &self.shared,
            taken: &mut self.taken,
            bulk: false,
            effects: Effects::default(),
            often: Often::default(),
        };
        let mut answers = Vec::with_capacity(commands.len());
        for command in commands {
            answers.push(transaction.execute(command)?);
        }
        let appended = commands.iter().map(Command::appends).sum::<usize>();
        let most = match tend {
            true if full => PRUNE_FULL,
            true => PRUNE_IDLE.max(appended * 2),
            false => appended * 2,
        };
        if most > 0 {
            let before = |keep: Duration| {
                Timestamp(wall.0 - i64::try_from(keep.as_millis()).unwrap_or(i64::MAX))
            };
            let (delivered, dead) = (self.bounds.keep_delivered, self.bounds.keep_dead);
            transaction.prune(before(delivered), before(dead), most)?;
            transaction.keep_window(most, full)?;
        }
        let effects = std::mem::take(&mut transaction.effects);
        drop(transaction);
        self.ledger.write(&self.connection, now)?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok((answers, effects))
    }

    /// After the commit: feeds first, so that what was promised is on its way, then the answers.
    fn tell(&mut self, commands: Vec<Command>, answers: Vec<Answer>, effects: Effects) {
        self.shared.settled(commands.iter().filter_map(|command| match command {
            Command::Settle(settlement, _) => Some(settlement.delivery.id),
            _ => None,
        }));
        let taken = std::mem::take(&mut self.taken);
        let discarded: BTreeSet<&Arc<str>> = taken.iter().map(|(route, _)| route).collect();
        for route in discarded {
            self.shared.feed(route).next_epoch();
        }
        self.shared.settled(taken.iter().map(|(_, id)| *id));
        for route in &effects.replayed {
            self.shared.feed(route).replayed();
        }
        for delivery in effects.fresh {
            self.shared.feed(&delivery.route).push(delivery);
        }
        for route in &effects.behind {
            self.shared.feed(route).fall_behind();
        }
        for (route, paused) in effects.pauses {
            self.shared.feed(&route).pause(paused);
        }
        self.shared.stopped(effects.upstreams);
        for (route, pruned) in effects.pruned {
            self.shared.pruned(&route, pruned);
        }
        for (command, answer) in commands.into_iter().zip(answers) {
            command.answer(answer);
        }
        self.pressure.committed(&self.connection);
    }

    fn configure(&mut self, settings: Vec<RouteSettings>) -> Result<(), QueueError> {
        for route in &settings {
            self.ledger.index(&self.connection, &route.name).map_err(super::schema::store)?;
        }
        self.ledger.configure(settings);
        Ok(())
    }

    fn set_bounds(&mut self, bounds: Bounds) {
        self.caps = Caps::new(&bounds);
        self.ballast.resize(bounds.max_size);
        self.bounds = bounds;
        if !self.disk_full.load(Ordering::Relaxed) && !self.ballast.take_up() {
            self.disk_full.store(true, Ordering::Relaxed);
        }
    }

    /// Shows the rest of the process where things stand.
    fn publish(&self) {
        let full = self.disk_full.load(Ordering::Relaxed);
        self.shared.publish(&self.ledger, self.caps, full);
    }

    fn finish(self, closed: oneshot::Sender<()>) {
        self.pressure.stop();
        // Best effort: what is not folded in is read from the log at the next start.
        self.pressure.truncate(&self.connection);
        drop(self.connection);
        self.shared.closed();
        let _ = closed.send(());
    }
}

fn refuse_appends(commands: &mut Vec<Command>) {
    let (appends, rest) = std::mem::take(commands)
        .into_iter()
        .partition::<Vec<_>, _>(|command| matches!(command, Command::Append(..)));
    *commands = rest;
    for command in appends {
        if let Command::Append(.., reply) = command {
            let _ = reply.send(Err(AppendError::Full("the disk is full")));
        }
    }
}

fn is_full(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DiskFull | ErrorCode::ReadOnly)
        }
        _ => false,
    }
}
