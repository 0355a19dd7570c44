//! RabbitMQ as a source: one route's queue, read until told to stop.
//!
//! # The yes
//!
//! A message is acked after the intake has accepted it, which means committed and fsynced, and
//! never else. Nothing is nacked: what was not acked goes back to its queue by itself when the
//! channel closes, in its old place. Messages are handed over in batches of what is there, several
//! batches under way at once, so that reading goes on while the disk is synced; and one ack,
//! awaited like everything else, covers all that is accepted with no gap before it.
//!
//! A refusal makes a gap. Behind it each accepted message is acked by itself: a later batch may
//! have found the room that an earlier one lacked. Routes with an order have one batch under way,
//! so theirs cannot overtake.
//!
//! # Full
//!
//! When the intake is full the consumer ends, its channel is closed, and nothing is consumed
//! until there is room. RabbitMQ keeps the messages, and other consumers of the queue may have
//! them.
//!
//! # Order
//!
//! A route with an order never cancels its consumer: RabbitMQ would activate the next consumer of
//! the queue at once, while what was not acked is still out, and comes back behind what that one
//! gets. When the channel closes it takes the consumer away, puts everything back in its place, and
//! activates the next, in one step.
//!
//! # What the library drops
//!
//! The client library drops, without a word, what comes for a consumer that it does not know:
//! before its consume is confirmed, or after its cancel is. For RabbitMQ such a message is unacked
//! like any other, and the next ack of several would cover it: it would be lost. So a consume does
//! not wait for its confirmation, and nothing is read until its consumer is known: see
//! `valve`. And the tags of deliveries, which count up from 1 on a channel, are checked
//! for gaps. A gap ends the session before anything behind it is acked, and everything comes again.

mod inflow;

use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesOrdered};
use lapin::{
    Acker, Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use inflow::Inflow;

use super::{
    ConsumerConfig,
    backoff::Backoff,
    message::convert,
    prefetch::Prefetch,
    session::{Link, STEADY, STEP, SessionError, short, within},
    supervise::next_link,
    topology, wall_clock,
};
use crate::{Accepted, Arrival, Intake, Refused, event};

/// Messages in a batch at most.
const BATCH: usize = 256;

/// Bytes after which a batch is not filled further.
const BATCH_BYTES: u64 = 4 << 20;

/// Batches under way at once, where there is no order to keep.
const UNDER_WAY: usize = 4;

/// One route's consumer.
pub struct Consumer {
    route: Arc<str>,
    config: Arc<ConsumerConfig>,
    ordered: bool,
    intake: Arc<dyn Intake>,
    prefetch: Prefetch,
    /// Told when everything is declared, for whoever unbinds.
    declared: watch::Sender<bool>,
}

/// Why a consumer no longer consumes.
enum End {
    /// Told to.
    Stopped,
    /// The intake has no room.
    Refused(Refused),
    /// The prefetch no longer fits the messages.
    Resize,
}

/// What the intake said to a batch, and how to ack it.
type Answer = (Result<Vec<Accepted>, Refused>, Vec<Acker>);

/// Batches handed over and not answered, oldest first.
type UnderWay = FuturesOrdered<BoxFuture<'static, Answer>>;

impl Consumer {
    /// The consumer of `route`. With `ordered` its queue serves one consumer at a time.
    #[must_use]
    pub fn new(
        route: Arc<str>,
        config: Arc<ConsumerConfig>,
        ordered: bool,
        intake: Arc<dyn Intake>,
    ) -> Self {
        let prefetch = Prefetch::new(config.prefetch, config.max_message, ordered);
        let declared = watch::channel(false).0;
        Self { route, config, ordered, intake, prefetch, declared }
    }

    /// The same, telling `declared` when all is declared.
    #[must_use]
    pub(super) fn telling(mut self, declared: watch::Sender<bool>) -> Self {
        self.declared = declared;
        self
    }

    /// Consumes on whatever connection `links` holds, until `shutdown` or until the intake closes.
    pub(super) async fn run(
        mut self,
        mut links: watch::Receiver<Option<Arc<Link>>>,
        shutdown: CancellationToken,
    ) {
        self.intake.connected(false);
        let mut backoff = Backoff::new();
        let mut told = String::new();
        loop {
            let link = tokio::select! {
                link = next_link(&mut links) => link,
                () = shutdown.cancelled() => return,
            };
            let Some(link) = link else { return };
            let ended = self.session(&link, &shutdown, &mut backoff, &mut told).await;
            self.intake.connected(false);
            match ended {
                Ok(End::Stopped) | Err(_) if shutdown.is_cancelled() => return,
                Ok(End::Refused(Refused::Closed)) => return,
                Ok(End::Refused(Refused::Full)) => {
                    info!(
                        route = &*self.route,
                        "queue full: consumer cancelled until there is room"
                    );
                    tokio::select! {
                        () = self.intake.room() => continue,
                        () = shutdown.cancelled() => return,
                    }
                }
                Ok(End::Stopped | End::Resize) => {}
                // The connection's end is told once, where it is noticed.
                Err(error) if !link.alive() => debug!(route = &*self.route, %error, "cut off"),
                Err(error) if told != error.to_string() => {
                    warn!(route = &*self.route, %error, "cannot consume; trying again");
                    told = error.to_string();
                }
                Err(error) => debug!(route = &*self.route, %error, "still cannot consume"),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// One channel's life: declare, consume, and consume again with another prefetch.
    async fn session(
        &mut self,
        link: &Link,
        shutdown: &CancellationToken,
        backoff: &mut Backoff,
        told: &mut String,
    ) -> Result<End, SessionError> {
        let declaring = topology::declare(link, &self.config, self.ordered);
        let channel = tokio::select! {
            channel = declaring => channel?,
            () = shutdown.cancelled() => return Ok(End::Stopped),
        };
        self.declared.send_replace(true);
        let mut last_tag = 0;
        loop {
            let mut inflow = self.consume(link, &channel, last_tag).await?;
            self.intake.connected(true);
            let since = Instant::now();
            if !told.is_empty() {
                info!(route = &*self.route, "consuming again");
                told.clear();
            }
            let ended = self.flow(link, &channel, &mut inflow, shutdown).await;
            if since.elapsed() >= STEADY {
                backoff.reset();
            }
            let end = ended?;
            if let End::Resize = end {
                last_tag = inflow.last_tag;
                continue;
            }
            let closing = channel.close(200, "OK".into());
            link.judge(within("close the channel", closing).await)?;
            return Ok(end);
        }
    }

    async fn consume(
        &self,
        link: &Link,
        channel: &Channel,
        last_tag: u64,
    ) -> Result<Inflow, SessionError> {
        let prefetch = channel.basic_qos(self.prefetch.get(), BasicQosOptions::default());
        link.judge(within("set the prefetch", prefetch).await)?;
        // Without waiting for its confirmation: see "What the library drops".
        let held = link.hold();
        let consumer = channel.basic_consume(
            short(&self.config.queue)?,
            short(&format!("tidegate.{}", self.route))?,
            BasicConsumeOptions { nowait: true, ..BasicConsumeOptions::default() },
            FieldTable::default(),
        );
        let deliveries = link.judge(within("consume", consumer).await)?;
        drop(held);
        // RabbitMQ works in order: once it has answered this, it has not refused that.
        let answered = channel.basic_qos(self.prefetch.get(), BasicQosOptions::default());
        link.judge(within("consume", answered).await)?;
        Ok(Inflow { deliveries, last_tag, ended: None })
    }

    /// Moves messages from `inflow` to the intake, and acks, until something ends it.
    async fn flow(
        &mut self,
        link: &Link,
        channel: &Channel,
        inflow: &mut Inflow,
        shutdown: &CancellationToken,
    ) -> Result<End, SessionError> {
        let most = if self.ordered { 1 } else { UNDER_WAY };
        let mut under_way = UnderWay::new();
        let mut accepted: Option<Acker> = None;
        let mut resizing = false;
        let end = loop {
            match inflow.ended.take() {
                Some(SessionError::Cancelled) if resizing => {
                    if under_way.is_empty() && accepted.is_none() {
                        break Ok(End::Resize);
                    }
                    inflow.ended = Some(SessionError::Cancelled);
                }
                Some(error) => break Err(error),
                None => {}
            }
            if !resizing && self.prefetch.misfits() {
                resizing = true;
                if let Err(error) = cancel(link, channel, inflow).await {
                    break Err(error);
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(End::Stopped),
                Some((answer, mut ackers)) = under_way.next(), if !under_way.is_empty() => {
                    match answer {
                        Ok(_) => accepted = ackers.pop().or(accepted),
                        Err(refused) => break Ok(End::Refused(refused)),
                    }
                }
                // Only when no further answer is there: one ack for all of them.
                () = std::future::ready(()), if accepted.is_some() => {
                    if let Some(acker) = accepted.take()
                        && let Err(error) = ack(&acker, true).await
                    {
                        break Err(error);
                    }
                }
                first = inflow.next(), if inflow.ended.is_none() && under_way.len() < most => {
                    if let Some(first) = first {
                        under_way.push_back(self.hand_over(first, inflow));
                    }
                }
            }
        };
        let refused = matches!(end, Ok(End::Refused(_)));
        let cancelled = match end {
            Ok(End::Stopped | End::Refused(_)) if !self.ordered => {
                cancel(link, channel, inflow).await
            }
            Ok(End::Stopped | End::Refused(_) | End::Resize) | Err(_) => Ok(()),
        };
        let settled = self.settle_rest(under_way, accepted, !refused).await;
        link.judge(end.and_then(|end| cancelled.and(settled).map(|()| end)))
    }

    /// Takes what is there, `first` and what follows it, to the intake.
    fn hand_over(&mut self, first: Delivery, inflow: &mut Inflow) -> BoxFuture<'static, Answer> {
        let (mut batch, mut ackers, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(delivery) = next {
            let size = delivery.data.len() as u64;
            self.prefetch.note(size);
            bytes += size;
            let (arrival, acker) = self.read(delivery);
            batch.push(arrival);
            ackers.push(acker);
            let room = batch.len() < BATCH && bytes < BATCH_BYTES;
            next = if room { inflow.ready() } else { None };
        }
        self.intake.accept(batch).map(|answer| (answer, ackers)).boxed()
    }

    fn read(&self, delivery: Delivery) -> (Arrival, Acker) {
        let Delivery { exchange, routing_key, properties, data, acker, .. } = delivery;
        let size = data.len() as u64;
        let (message, wrong) = convert(exchange.as_str(), routing_key.as_str(), &properties, data);
        let most = self.config.max_message;
        let wrong =
            if size > most { Some(format!("{size} bytes; max_message is {most}")) } else { wrong };
        let arrival = match wrong {
            Some(why) => event::message::invalid(&message, why),
            None => {
                let mapping = &self.config.event;
                event::message::read(&message, &self.route, mapping, wall_clock())
            }
        };
        (arrival, acker)
    }

    /// Waits, [`STEP`] at most, for what is under way, and acks it: together while `contiguous`,
    /// after a refusal one by one.
    async fn settle_rest(
        &self,
        mut under_way: UnderWay,
        accepted: Option<Acker>,
        mut contiguous: bool,
    ) -> Result<(), SessionError> {
        if let Some(acker) = accepted {
            ack(&acker, true).await?;
        }
        let rest = async {
            while let Some((answer, ackers)) = under_way.next().await {
                contiguous &= answer.is_ok();
                if answer.is_err() {
                    continue;
                }
                let skip = if contiguous { ackers.len().saturating_sub(1) } else { 0 };
                for acker in &ackers[skip..] {
                    ack(acker, contiguous).await?;
                }
            }
            Ok(())
        };
        timeout(STEP, rest).await.unwrap_or(Ok(()))
    }
}

async fn ack(acker: &Acker, multiple: bool) -> Result<(), SessionError> {
    if within("ack", acker.ack(BasicAckOptions { multiple })).await? {
        Ok(())
    } else {
        Err(SessionError::Stale)
    }
}

async fn cancel(link: &Link, channel: &Channel, inflow: &Inflow) -> Result<(), SessionError> {
    let cancelled = channel.basic_cancel(inflow.deliveries.tag(), BasicCancelOptions::default());
    link.judge(within("cancel the consumer", cancelled).await)
}
