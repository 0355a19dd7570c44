//! Floods of log lines, damped.
//!
//! Most lines tell of a change and come once. Some may come once per message (a delivery that is
//! dead), and a thousand of them a second help nobody. So of each line, which is its place in the
//! code and the route and upstream it names, a burst is let through, then one now and then; and how
//! many were left out is told meanwhile, the last of them included.
//!
//! Debug and trace are not damped: whoever turns them on wants every line.

use std::{collections::HashMap, fmt, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Lines that come through at once.
const BURST: u32 = 10;

/// After the burst, one line in this time; and in this time it is told how many were left out.
const PERIOD: Duration = Duration::from_secs(10);

/// Lines kept apart at most. Beyond it, those of one place in the code are counted together.
const LINES_MAX: usize = 1024;

/// What is kept of the text of a line, in characters.
const TEXT_MAX: usize = 200;

/// Whose `suppressed` field says that a line is about others, and is never left out itself.
const SUPPRESSED: &str = "suppressed";

/// Decides which lines are let through.
#[derive(Debug, Default)]
pub(super) struct Damper {
    lines: Mutex<HashMap<Key, Line>>,
}

/// The damper as part of a subscriber.
#[derive(Clone, Debug, Default)]
pub(super) struct DamperLayer(pub(super) std::sync::Arc<Damper>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    place: Identifier,
    route: Option<String>,
    upstream: Option<String>,
}

#[derive(Debug)]
struct Line {
    level: Level,
    message: String,
    /// When it will have its whole burst again; each line let through moves it on.
    rested_at: Instant,
    suppressed: u64,
}

/// What is read of an event.
#[derive(Default)]
struct Fields {
    route: Option<String>,
    upstream: Option<String>,
    message: String,
    about_others: bool,
}

impl Damper {
    /// Tells every [`PERIOD`], and at the end, how many lines were left out.
    pub(super) async fn run(&self, shutdown: CancellationToken) {
        let mut ticks = interval_at(Instant::now() + PERIOD, PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => self.tell(),
            }
        }
        self.tell();
    }

    fn tell(&self) {
        for (key, level, message, suppressed) in self.take_suppressed() {
            let (route, upstream) = (key.route.as_deref(), key.upstream.as_deref());
            let line = &*message;
            let text = "log lines like this were left out";
            // The level of a line is fixed where it is written.
            if level == Level::ERROR {
                tracing::error!(route, upstream, line, suppressed, "{text}");
            } else if level == Level::WARN {
                tracing::warn!(route, upstream, line, suppressed, "{text}");
            } else {
                tracing::info!(route, upstream, line, suppressed, "{text}");
            }
        }
    }

    /// What was left out since it was asked last, without the lock: telling writes lines, too.
    fn take_suppressed(&self) -> Vec<(Key, Level, String, u64)> {
        let mut taken = Vec::new();
        for (key, line) in self.lines.lock().iter_mut().filter(|(_, line)| line.suppressed > 0) {
            let suppressed = std::mem::take(&mut line.suppressed);
            taken.push((key.clone(), line.level, line.message.clone(), suppressed));
        }
        taken
    }

    fn lets_through(&self, level: Level, mut key: Key, message: &str, now: Instant) -> bool {
        let mut lines = self.lines.lock();
        if !lines.contains_key(&key) && lines.len() >= LINES_MAX {
            lines.retain(|_, line| line.suppressed > 0 || line.rested_at > now);
            if lines.len() >= LINES_MAX {
                key = Key { route: None, upstream: None, ..key };
            }
        }
        let line = lines.entry(key).or_insert_with(|| {
            let message = message.chars().take(TEXT_MAX).collect();
            Line { level, message, rested_at: now, suppressed: 0 }
        });
        // A bucket that leaks: its level is how far the time of rest lies ahead.
        let rested_at = line.rested_at.max(now) + PERIOD;
        let through = rested_at <= now + PERIOD * BURST;
        if through {
            line.rested_at = rested_at;
        } else {
            line.suppressed += 1;
        }
        through
    }
}

impl<S: Subscriber> Layer<S> for DamperLayer {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // More verbose is greater.
        if *metadata.level() > Level::INFO {
            return true;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { route, upstream, message, about_others } = fields;
        let key = Key { place: metadata.callsite(), route, upstream };
        about_others || self.0.lets_through(*metadata.level(), key, &message, Instant::now())
    }
}

impl Fields {
    fn take(&mut self, field: &Field, text: impl FnOnce() -> String) {
        match field.name() {
            "route" => self.route = Some(text()),
            "upstream" => self.upstream = Some(text()),
            "message" => self.message = text(),
            SUPPRESSED => self.about_others = true,
            _ => {}
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, || value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, || format!("{value:?}"));
    }
}
