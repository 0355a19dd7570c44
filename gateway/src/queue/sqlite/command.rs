//! What the writer is asked, and what it answers.

use std::sync::Arc;

use tidegate_adapters::DeliveryId;
use tokio::sync::oneshot;

use super::{act::Step, transaction::Transaction};
use crate::queue::{
    Action, Append, AppendError, Appended, Bounds, QueueError, RouteSettings, Settlement, Space,
    State,
};

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, QueueError>>;

/// What the writer is asked.
pub(super) enum Command {
    Configure(Vec<RouteSettings>, Reply<()>),
    Append(Arc<str>, Vec<Append>, Space, oneshot::Sender<Result<Vec<Appended>, AppendError>>),
    Settle(Box<Settlement>, Reply<()>),
    Act(Action, DeliveryId, Reply<()>),
    /// To those found, if they still are in the state they were found in.
    ActOnMany(Action, Vec<(DeliveryId, State)>, Reply<Step>),
    PauseRoute(Arc<str>, bool, Reply<()>),
    PauseUpstream(Arc<str>, bool, Reply<()>),
    KeepNote(&'static str, String, Reply<()>),
    SetBounds(Bounds, Reply<()>),
    Connected(Arc<str>, bool),
    /// Look after pruning and, when the disk was full, whether it still is.
    Tend,
    Close(oneshot::Sender<()>),
}

/// What one command came to; told after the commit.
pub(super) enum Answer {
    Appended(Result<Vec<Appended>, AppendError>),
    Done(Result<(), QueueError>),
    Step(Step),
}

impl Command {
    /// How many deliveries it may add.
    pub(super) fn appends(&self) -> usize {
        match self {
            Self::Append(_, batch, ..) => batch.len(),
            Self::Settle(settlement, _) => usize::from(settlement.reply.is_some()),
            _ => 0,
        }
    }

    /// Tells whoever asked. One that does not wait any more has lost nothing by it.
    pub(super) fn answer(self, answer: Answer) {
        match (self, answer) {
            (Self::Append(.., reply), Answer::Appended(appended)) => {
                let _ = reply.send(appended);
            }
            (Self::ActOnMany(.., reply), Answer::Step(step)) => {
                let _ = reply.send(Ok(step));
            }
            (
                Self::Settle(.., reply)
                | Self::Act(.., reply)
                | Self::PauseRoute(.., reply)
                | Self::PauseUpstream(.., reply)
                | Self::KeepNote(.., reply),
                Answer::Done(done),
            ) => {
                let _ = reply.send(done);
            }
            _ => {}
        }
    }
}

impl Transaction<'_> {
    /// Does what is asked, as part of the transaction.
    pub(super) fn execute(&mut self, command: &Command) -> rusqlite::Result<Answer> {
        Ok(match command {
            Command::Append(route, batch, space, _) => {
                Answer::Appended(self.append(route, batch, *space)?)
            }
            Command::Settle(settlement, _) => Answer::Done(self.settle(settlement)?),
            Command::Act(action, id, _) => Answer::Done(self.act(*action, *id)?),
            Command::ActOnMany(action, found, _) => Answer::Step(self.act_on_many(*action, found)?),
            Command::PauseRoute(route, paused, _) => Answer::Done(self.pause_route(route, *paused)),
            Command::PauseUpstream(upstream, paused, _) => {
                self.pause_upstream(upstream, *paused)?;
                Answer::Done(Ok(()))
            }
            Command::KeepNote(name, text, _) => {
                self.connection
                    .prepare_cached("INSERT OR REPLACE INTO note (name, text) VALUES (?1, ?2)")?
                    .execute([*name, text])?;
                Answer::Done(Ok(()))
            }
            // These need no transaction.
            Command::Configure(..)
            | Command::SetBounds(..)
            | Command::Connected(..)
            | Command::Tend
            | Command::Close(_) => Answer::Done(Ok(())),
        })
    }

    fn pause_route(&mut self, route: &Arc<str>, paused: bool) -> Result<(), QueueError> {
        let known = self.ledger.find(route).and_then(|row| self.ledger.by_no(row.no));
        let Some(index) = known else { return Err(QueueError::NoRoute(Arc::clone(route))) };
        if self.ledger.change(index).pause(paused, self.wall) {
            self.effects.pauses.push((Arc::clone(route), paused));
        }
        Ok(())
    }

    fn pause_upstream(&mut self, upstream: &Arc<str>, paused: bool) -> rusqlite::Result<()> {
        let sql = match paused {
            true => "INSERT OR IGNORE INTO stopped (upstream) VALUES (?1)",
            false => "DELETE FROM stopped WHERE upstream = ?1",
        };
        self.connection.prepare_cached(sql)?.execute([&**upstream])?;
        self.effects.upstreams.push((Arc::clone(upstream), paused));
        Ok(())
    }
}
