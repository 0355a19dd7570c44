//! One channel and its windows.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use lapin::{
    Channel, Confirmation, ErrorKind, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Job, PublishError, WINDOW, tell};
use crate::rabbitmq::{
    CONFIRM,
    backoff::Backoff,
    session::{Link, STEADY, STEP, SessionError, reason, short, within},
    supervise::next_link,
    topology,
};

/// Bytes after which a window is not filled further.
const WINDOW_BYTES: usize = 8 << 20;

/// One channel's task.
pub(super) struct Worker {
    inbox: Arc<Mutex<mpsc::Receiver<Job>>>,
    /// A job that had to wait for the next window.
    held: Option<Job>,
}

/// Why a channel is done with.
enum End {
    /// Told to, or nobody publishes any more.
    Stopped,
}

impl Worker {
    pub(super) fn new(inbox: Arc<Mutex<mpsc::Receiver<Job>>>) -> Self {
        Self { inbox, held: None }
    }

    /// Publishes on whatever connection `links` holds, until `shutdown`.
    pub(super) async fn run(
        mut self,
        mut links: watch::Receiver<Option<Arc<Link>>>,
        shutdown: CancellationToken,
    ) {
        let mut backoff = Backoff::new();
        let mut told = String::new();
        loop {
            let link = tokio::select! {
                link = next_link(&mut links) => link,
                () = shutdown.cancelled() => return,
            };
            let Some(link) = link else { return };
            let since = Instant::now();
            match self.session(&link, &shutdown, &mut told).await {
                Ok(End::Stopped) => return,
                Err(error) => tell(&mut told, &error, link.alive()),
            }
            if since.elapsed() >= STEADY {
                backoff.reset();
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One channel's life: windows until something ends it.
    async fn session(
        &mut self,
        link: &Link,
        shutdown: &CancellationToken,
        told: &mut String,
    ) -> Result<End, SessionError> {
        let channel = link.channel().await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        link.judge(within("ask for confirms", confirms).await)?;
        let mut declared = BTreeSet::new();
        loop {
            let window = tokio::select! {
                window = self.gather() => window,
                () = shutdown.cancelled() => return Ok(End::Stopped),
                () = link.gone() => return Err(SessionError::Cut),
            };
            if window.is_empty() {
                return Ok(End::Stopped);
            }
            tokio::select! {
                published = publish(link, &channel, window, &mut declared) => published?,
                // What is not confirmed by then is ambiguous: its callers hear that it was dropped.
                () = last_moment(shutdown) => return Ok(End::Stopped),
            }
            told.clear();
        }
    }

    /// What is there, at least one, in the order it came; empty when nobody publishes any more.
    /// Dropped while it waits, it has taken nothing.
    async fn gather(&mut self) -> Vec<Job> {
        let mut inbox = self.inbox.lock().await;
        let first = match self.held.take() {
            Some(held) => held,
            None => match inbox.recv().await {
                Some(job) => job,
                None => return Vec::new(),
            },
        };
        let mut bytes = first.message.body.len();
        let mut ids = HashSet::from([first.message.id.clone()]);
        let mut window = vec![first];
        while window.len() < WINDOW && bytes < WINDOW_BYTES {
            let Ok(job) = inbox.try_recv() else { break };
            if !ids.insert(job.message.id.clone()) {
                self.held = Some(job);
                break;
            }
            bytes += job.message.body.len();
            window.push(job);
        }
        window
    }
}

/// Resolves some seconds after `shutdown`: so long a window under way is waited for.
async fn last_moment(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(STEP).await;
}

/// Publishes a window and answers each of its jobs. An error ends the channel, and everything that
/// was not confirmed is ambiguous.
async fn publish(
    link: &Link,
    channel: &Channel,
    window: Vec<Job>,
    declared: &mut BTreeSet<Arc<str>>,
) -> Result<(), SessionError> {
    let mut confirms = Vec::with_capacity(window.len());
    let mut failed = None;
    let mut jobs = window.into_iter();
    for job in jobs.by_ref() {
        if let Err(error) = declare(link, &job, declared).await {
            let refused = error.code().is_some();
            let why = error.to_string();
            answer(job, Err(if refused { PublishError::Refused(why) } else { unsent(&why) }));
            if refused {
                continue;
            }
            failed = Some(error);
            break;
        }
        match send(link, channel, &job).await {
            Ok(confirm) => confirms.push((job, confirm)),
            Err(error) => {
                // Part of it may be on the wire.
                answer(job, Err(PublishError::Ambiguous(error.to_string())));
                failed = Some(error);
                break;
            }
        }
    }
    for job in jobs {
        answer(job, Err(unsent("the connection broke before it was sent")));
    }
    let confirmed = confirm(link, confirms).await;
    match failed {
        Some(error) => Err(error),
        None => confirmed,
    }
}

fn unsent(why: &str) -> PublishError {
    PublishError::Unavailable(why.to_owned())
}

async fn declare(
    link: &Link,
    job: &Job,
    declared: &mut BTreeSet<Arc<str>>,
) -> Result<(), SessionError> {
    if !declared.contains(&job.exchange) {
        match job.declare {
            true => topology::exchange(link, &job.exchange).await?,
            false => topology::look_for_exchange(link, &job.exchange).await?,
        }
        declared.insert(Arc::clone(&job.exchange));
    }
    Ok(())
}

/// Writes one message. A connection that is blocked takes it later, whenever that is.
async fn send(link: &Link, channel: &Channel, job: &Job) -> Result<PublisherConfirm, SessionError> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let sent = channel.basic_publish(
        short(&job.exchange)?,
        short(&job.key)?,
        options,
        &job.message.body,
        job.message.properties.clone(),
    );
    tokio::pin!(sent);
    loop {
        match timeout(STEP, &mut sent).await {
            Ok(sent) => {
                return sent.map_err(|source| SessionError::Amqp { step: "publish", source });
            }
            Err(_) if link.alive() && link.blocked() => {}
            Err(_) => return link.judge(Err(SessionError::Deadline { step: "publish" })),
        }
    }
}

/// Awaits every confirm, then answers: a return belongs to the message whose id it has.
async fn confirm(link: &Link, confirms: Vec<(Job, PublisherConfirm)>) -> Result<(), SessionError> {
    let mut deadline = Instant::now() + CONFIRM;
    let mut answers = Vec::with_capacity(confirms.len());
    let mut returned = HashSet::new();
    let mut ended: Option<SessionError> = None;
    for (job, mut confirm) in confirms {
        let confirmed = loop {
            if ended.is_some() {
                break None;
            }
            match tokio::time::timeout_at(deadline, &mut confirm).await {
                Ok(confirmed) => break Some(confirmed),
                // It confirms nothing while it takes nothing.
                Err(_) if link.alive() && link.blocked() => deadline = Instant::now() + CONFIRM,
                Err(_) => {
                    link.give_up();
                    ended = Some(SessionError::Unconfirmed);
                }
            }
        };
        let said = match confirmed {
            Some(Ok(Confirmation::Ack(message))) => {
                let id = message.and_then(|message| message.properties.message_id().clone());
                returned.extend(id.map(|id| id.to_string()));
                Ok(())
            }
            Some(Ok(Confirmation::Nack(message))) => {
                let id = message.and_then(|message| message.properties.message_id().clone());
                returned.extend(id.map(|id| id.to_string()));
                Err(PublishError::Nacked)
            }
            Some(Ok(Confirmation::NotRequested)) => unreachable!("confirms were asked for"),
            Some(Err(error)) => {
                let why = reason(&error);
                let refused = matches!(error.kind(), ErrorKind::ProtocolError(_));
                ended.get_or_insert(SessionError::Amqp { step: "publish", source: error });
                // Which message of the window it refused, RabbitMQ does not say.
                let words = if refused { format!("RabbitMQ refused one: {why}") } else { why };
                Err(PublishError::Ambiguous(words))
            }
            None => Err(PublishError::Ambiguous("the connection broke".to_owned())),
        };
        answers.push((job, said));
    }
    for (job, said) in answers {
        let said = match said {
            Ok(()) if returned.contains(&job.message.id) => Err(PublishError::Unroutable),
            other => other,
        };
        answer(job, said);
    }
    ended.map_or(Ok(()), Err)
}

/// Whoever does not wait any more is published again, or was told another way.
fn answer(job: Job, said: Result<(), PublishError>) {
    let _ = job.answer.send(said);
}
