//! A busy service: it publishes without pause, whatever becomes of RabbitMQ.
//!
//! It does what a service with an outbox does. It connects again by itself, and it publishes again,
//! with the same id, all that was not confirmed, was refused, or found no queue. So whatever it was
//! asked to publish is confirmed in the end, and nothing of it may be missing anywhere.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ConnectionStatus,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    uri::AMQPUri,
};
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::amqp::Message;

/// The most messages published and not confirmed.
pub const WINDOW: usize = 64;

/// How long it waits for a confirm, or for a connection, before it connects anew.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long it may take to have the last ones confirmed.
const END: Duration = Duration::from_secs(60);

/// A publisher at work; ends when dropped.
pub struct Load {
    seen: Arc<Seen>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// What others may know of it.
#[derive(Default)]
struct Seen {
    /// When each was published first; so, how many different ones have been.
    sent: Mutex<Vec<Instant>>,
    confirmed: AtomicU64,
    connection: Mutex<Option<ConnectionStatus>>,
}

/// The side that works.
struct Worker {
    url: String,
    exchange: &'static str,
    make: fn(u64) -> Message,
    pace: Interval,
    per_tick: u32,
    /// The most of them published and not confirmed.
    window: usize,
    /// Published and not confirmed.
    open: BTreeSet<u64>,
    /// Those of them that must be published again.
    again: BTreeSet<u64>,
    seen: Arc<Seen>,
    stop: CancellationToken,
}

/// What to do next.
enum Step {
    Publish,
    Confirmed(u64),
    /// Nobody has it: nacked, or returned because no queue is bound.
    Again(u64),
    /// The connection is gone.
    Reconnect,
    Stop,
}

impl Load {
    /// Publishes what `make` makes of 0, 1, 2 and so on, `rate` a second, to the RabbitMQ at `url`.
    #[must_use]
    pub fn start(url: &str, exchange: &'static str, rate: u32, make: fn(u64) -> Message) -> Self {
        Self::with_window(url, exchange, rate, make, WINDOW)
    }

    /// The same, one at a time, so that RabbitMQ has them in order.
    #[must_use]
    pub fn in_order(
        url: &str,
        exchange: &'static str,
        rate: u32,
        make: fn(u64) -> Message,
    ) -> Self {
        Self::with_window(url, exchange, rate, make, 1)
    }

    fn with_window(
        url: &str,
        exchange: &'static str,
        rate: u32,
        make: fn(u64) -> Message,
        window: usize,
    ) -> Self {
        let (seen, stop) = (Arc::<Seen>::default(), CancellationToken::new());
        // A timer ticks a thousand times a second at best; above half of that, several a tick.
        let per_tick = rate.div_ceil(500);
        let mut pace = interval(Duration::from_secs(1) * per_tick / rate);
        // No bursts after a fault, or the backlog would say more about them than about the fault.
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let worker = Worker {
            url: url.to_owned(),
            exchange,
            make,
            pace,
            per_tick,
            window,
            open: BTreeSet::new(),
            again: BTreeSet::new(),
            seen: Arc::clone(&seen),
            stop: stop.clone(),
        };
        Self { seen, stop, task: tokio::spawn(worker.run()) }
    }

    /// How many different messages it has published, be they confirmed or not.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.seen.sent.lock().len() as u64
    }

    /// How many of them RabbitMQ has confirmed.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.seen.confirmed.load(Ordering::Relaxed)
    }

    /// When each was published first.
    #[must_use]
    pub fn sent(&self) -> Vec<Instant> {
        self.seen.sent.lock().clone()
    }

    /// Whether RabbitMQ has told it that it is blocked, and not that it no longer is.
    #[must_use]
    pub fn blocked(&self) -> bool {
        let connection = self.seen.connection.lock();
        connection.as_ref().is_some_and(|status| status.connected() && status.blocked())
    }

    /// Publishes nothing new, waits until all is confirmed, and says how many there were.
    pub async fn stop(&mut self) -> u64 {
        self.stop.cancel();
        let ended = timeout(END, &mut self.task).await;
        ended.expect("all confirmed in time").expect("it does not panic");
        self.published()
    }
}

impl Worker {
    async fn run(mut self) {
        let mut retry = interval(Duration::from_millis(50));
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(self.stop.is_cancelled() && self.open.is_empty()) {
            retry.tick().await;
            if let Ok(Some((connection, channel))) = timeout(PATIENCE, self.connect()).await {
                *self.seen.connection.lock() = Some(connection.status().clone());
                self.again.clone_from(&self.open);
                self.publish(&connection, &channel).await;
                *self.seen.connection.lock() = None;
            }
        }
    }

    async fn connect(&self) -> Option<(Connection, Channel)> {
        // The library never ends what it starts for a connection that cannot be dialled.
        let uri: AMQPUri = self.url.parse().expect("a node's own URL");
        TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await.ok()?;
        let connection = Connection::connect(&self.url, ConnectionProperties::default());
        let connection = connection.await.ok()?;
        let channel = connection.create_channel().await.ok()?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.ok()?;
        Some((connection, channel))
    }

    /// Publishes for as long as the connection is good.
    async fn publish(&mut self, connection: &Connection, channel: &Channel) {
        let mut confirms = FuturesUnordered::new();
        loop {
            let stopped = self.stop.is_cancelled();
            if stopped && self.open.is_empty() {
                return;
            }
            let more = !self.again.is_empty() || (self.open.len() < self.window && !stopped);
            let step = timeout(PATIENCE, async {
                tokio::select! {
                    Some(answered) = confirms.next(), if !confirms.is_empty() => answered,
                    _ = self.pace.tick(), if more => Step::Publish,
                    () = self.stop.cancelled(), if !stopped => Step::Stop,
                }
            });
            match step.await {
                Ok(Step::Publish) => {
                    for _ in 0..self.per_tick {
                        if self.again.is_empty() && self.open.len() >= self.window {
                            break;
                        }
                        let n = self.next();
                        confirms.push(publish(channel.clone(), self.exchange, n, (self.make)(n)));
                    }
                }
                Ok(Step::Confirmed(n)) => {
                    self.open.remove(&n);
                    self.seen.confirmed.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Step::Again(n)) => {
                    self.again.insert(n);
                }
                Ok(Step::Reconnect) => return,
                Ok(Step::Stop) => {}
                // Nothing for long: as it should be while it is blocked.
                Err(_) if connection.status().connected() && connection.status().blocked() => {}
                Err(_) => return,
            }
        }
    }

    /// The number to publish now.
    fn next(&mut self) -> u64 {
        if let Some(n) = self.again.pop_first() {
            return n;
        }
        let mut sent = self.seen.sent.lock();
        let n = sent.len() as u64;
        sent.push(Instant::now());
        self.open.insert(n);
        n
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Publishes `message`, number `n`, and waits for what RabbitMQ says to it.
async fn publish(channel: Channel, exchange: &'static str, n: u64, message: Message) -> Step {
    let properties = BasicProperties::default()
        .with_content_type(message.content_type.into())
        .with_delivery_mode(2);
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let key = message.key.as_str().into();
    let written =
        channel.basic_publish(exchange.into(), key, options, &message.body, properties).await;
    let Ok(confirm) = written else { return Step::Reconnect };
    match confirm.await {
        Ok(Confirmation::Ack(None)) => Step::Confirmed(n),
        Ok(_) => Step::Again(n),
        Err(_) => Step::Reconnect,
    }
}
