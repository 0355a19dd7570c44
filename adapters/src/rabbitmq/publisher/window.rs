//! One channel and its windows.

use std::{collections::BTreeSet, sync::Arc};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesOrdered};
use lapin::{
    Channel, Confirmation, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{Job, PublishError, inbox::Inbox, tell};
use crate::rabbitmq::{
    CONFIRM,
    backoff::Backoff,
    session::{Link, STEADY, STEP, SessionError, short, within},
    supervise::next_link,
    topology,
};

/// AMQP's codes for a message that is larger than RabbitMQ takes, by its version. The second means
/// other things too, so its words are looked at.
const TOO_LARGE: [u16; 2] = [311, 406];
const TOO_LARGE_SAYS: &str = "max size";

/// AMQP's code for what may not be done, whoever tries again.
const ACCESS_REFUSED: u16 = 403;

/// One channel's task.
pub(super) struct Worker {
    inbox: Arc<Mutex<Inbox>>,
}

/// Why a channel is done with.
enum End {
    /// Told to, or nobody publishes any more.
    Stopped,
}

impl Worker {
    pub(super) fn new(inbox: Arc<Mutex<Inbox>>) -> Self {
        Self { inbox }
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

    /// The next window. Dropped while it waits, it has taken nothing.
    async fn gather(&self) -> Vec<Job> {
        self.inbox.lock().await.window().await
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
    let window = declare(link, window, declared).await?;
    // Numbered as they are first polled, one after the other; nobody waits for the wire in between.
    let sending: FuturesOrdered<_> = window.iter().map(|job| send(link, channel, job)).collect();
    let sent: Vec<_> = sending.collect().await;
    let mut answers = Vec::with_capacity(window.len());
    let mut deadline = Instant::now() + CONFIRM;
    let mut ended: Option<SessionError> = None;
    for sent in sent {
        let confirmed = match sent {
            Ok(confirm) if ended.is_none() => confirmed(link, confirm, &mut deadline).await,
            // It may have come before the end.
            Ok(confirm) => confirm.now_or_never().map_or(Err(SessionError::Cut), amqp),
            Err(error) => Err(error),
        };
        answers.push(confirmed.map_err(|error| {
            let why = error.to_string();
            // RabbitMQ's own words say more than what followed from them.
            if ended.as_ref().is_none_or(|ended| ended.code().is_none()) {
                ended = Some(error);
            }
            why
        }));
    }
    settle(window, answers, ended.as_ref());
    ended.map_or(Ok(()), Err)
}

/// Makes sure of the exchange of each, and answers those that have none.
async fn declare(
    link: &Link,
    window: Vec<Job>,
    declared: &mut BTreeSet<Arc<str>>,
) -> Result<Vec<Job>, SessionError> {
    let mut ready = Vec::with_capacity(window.len());
    let mut jobs = window.into_iter();
    for job in jobs.by_ref() {
        let found = match (declared.contains(&job.exchange), job.declare) {
            (true, _) => Ok(()),
            (false, true) => topology::exchange(link, &job.exchange).await,
            (false, false) => topology::look_for_exchange(link, &job.exchange).await,
        };
        match found {
            Ok(()) => {
                declared.insert(Arc::clone(&job.exchange));
                ready.push(job);
            }
            Err(refused) if refused.code().is_some() => {
                let why = refused.to_string();
                answer(job, Err(PublishError::Refused(why)));
            }
            Err(error) => {
                for job in ready.into_iter().chain([job]).chain(jobs) {
                    answer(job, Err(PublishError::Unavailable(error.to_string())));
                }
                return Err(error);
            }
        }
    }
    Ok(ready)
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
        tokio::select! {
            biased;
            sent = &mut sent => return amqp(sent),
            () = link.gone() => return Err(SessionError::Cut),
            () = tokio::time::sleep(CONFIRM) => {}
        }
        if !link.blocked() {
            return link.judge(Err(SessionError::Deadline { step: "publish" }));
        }
    }
}

fn amqp<T>(result: lapin::Result<T>) -> Result<T, SessionError> {
    result.map_err(|source| SessionError::Amqp { step: "publish", source })
}

/// Awaits one confirm, until `deadline` at most, which is put off while RabbitMQ takes nothing.
async fn confirmed(
    link: &Link,
    mut confirm: PublisherConfirm,
    deadline: &mut Instant,
) -> Result<Confirmation, SessionError> {
    loop {
        tokio::select! {
            biased;
            confirmed = &mut confirm => return amqp(confirmed),
            () = link.gone() => return Err(SessionError::Cut),
            () = tokio::time::sleep_until(*deadline) => {}
        }
        if !link.blocked() {
            link.give_up();
            return Err(SessionError::Unconfirmed);
        }
        *deadline = Instant::now() + CONFIRM;
    }
}

/// Answers each job of a window when all that can be known of them is. A return belongs to the
/// message whose id it has, whichever confirm it came with.
fn settle(
    window: Vec<Job>,
    answers: Vec<Result<Confirmation, String>>,
    ended: Option<&SessionError>,
) {
    let returned: BTreeSet<String> = answers.iter().filter_map(returned_id).collect();
    let code = ended.and_then(SessionError::code);
    let too_large = |why: &String| match code {
        Some(code) => TOO_LARGE.contains(&code) && why.contains(TOO_LARGE_SAYS),
        None => false,
    };
    // RabbitMQ does not name the message that is too large for it; if any is, the largest is.
    let largest = window
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.as_ref().is_err_and(too_large))
        .max_by_key(|(job, _)| job.message.body.len())
        .map(|(job, _)| job.message.id.clone());
    for (job, said) in window.into_iter().zip(answers) {
        let said = match said {
            Ok(Confirmation::Nack(_)) => Err(PublishError::Nacked),
            Ok(Confirmation::Ack(_)) if returned.contains(&job.message.id) => {
                Err(PublishError::Unroutable)
            }
            Ok(Confirmation::Ack(_)) => Ok(()),
            Ok(Confirmation::NotRequested) => unreachable!("confirms were asked for"),
            Err(why) if largest.as_ref() == Some(&job.message.id) => {
                Err(PublishError::TooLarge(why))
            }
            // A window goes to one exchange: what is forbidden is forbidden to all of it.
            Err(why) if code == Some(ACCESS_REFUSED) => Err(PublishError::Refused(why)),
            Err(why) => Err(PublishError::Ambiguous(why)),
        };
        answer(job, said);
    }
}

fn returned_id(answer: &Result<Confirmation, String>) -> Option<String> {
    match answer {
        Ok(Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message))) => {
            message.properties.message_id().as_ref().map(ToString::to_string)
        }
        _ => None,
    }
}

/// Whoever does not wait any more is published again, or was told another way.
fn answer(job: Job, said: Result<(), PublishError>) {
    let _ = job.answer.send(said);
}
