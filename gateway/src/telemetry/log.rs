//! The log: to stderr, text or JSON, every line masked.
//!
//! Secrets are kept out of messages where messages are made; the mask here is the second wall.
//! Dependencies log at warn at most, whatever our own level: at debug some print requests.
//! `RUST_LOG` is not read: the level is part of the configuration, and follows it at run time.
//! Floods are damped: see [`super::damper`].

use std::{
    io::{self, Write},
    sync::Arc,
};

use tidegate_adapters::secret::Mask;
use tokio_util::sync::CancellationToken;
use tracing::{Dispatch, Level};
use tracing_subscriber::{
    Registry,
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use super::damper::{Damper, DamperLayer};
use crate::config::{LogConfig, LogFormat, LogLevel};

/// The log while it runs. Clones are one.
#[derive(Clone, Debug)]
pub struct LogHandle {
    targets: reload::Handle<Targets, Registry>,
    damper: Arc<Damper>,
}

/// Starts logging. Nothing is logged by it when something else has begun to (tests).
#[must_use]
pub fn init_log(config: &LogConfig, mask: Mask) -> LogHandle {
    // With stderr gone there is nobody left to tell.
    let to_stderr = |line: &[u8]| drop(io::stderr().write_all(line));
    let (dispatch, handle) = subscriber(config, mask, to_stderr);
    // An error means that a subscriber is there already.
    let _ = dispatch.try_init();
    handle
}

impl LogHandle {
    /// From now on, lines of this level and above.
    pub fn set_level(&self, level: LogLevel) {
        // An error means that the log is gone, and with it those who could be told.
        let _ = self.targets.reload(targets(level));
    }

    /// Tells, while it runs, how many lines of a flood were left out; the last when it ends.
    pub async fn run(self, shutdown: CancellationToken) {
        self.damper.run(shutdown).await;
    }
}

/// Who turns what is logged into lines; `sink` gets them one by one, whole.
fn subscriber<S>(config: &LogConfig, mask: Mask, sink: S) -> (Dispatch, LogHandle)
where
    S: Fn(&[u8]) + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(targets(config.level));
    let damper = Arc::new(Damper::default());
    let lines = tracing_subscriber::fmt::layer().with_ansi(false);
    let lines = lines.with_writer(Masked { mask, sink });
    let registry = tracing_subscriber::registry().with(filter);
    let registry = registry.with(DamperLayer(Arc::clone(&damper)));
    let dispatch = match config.format {
        LogFormat::Text => registry.with(lines).into(),
        LogFormat::Json => registry.with(lines.json()).into(),
    };
    (dispatch, LogHandle { targets: handle, damper })
}

/// What is logged at `level`.
fn targets(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    // A target covers what begins with it: the adapters' crate, and everything beneath.
    // What lapin logs it also returns: each failure would be there twice.
    Targets::new()
        .with_default(ours.min(Level::WARN))
        .with_target("lapin", LevelFilter::OFF)
        .with_target("tidegate", ours)
}

/// Makes a writer for each line.
struct Masked<S> {
    mask: Mask,
    sink: S,
}

/// One line on its way out.
struct Line<'a, S: Fn(&[u8])> {
    masked: &'a Masked<S>,
    text: Vec<u8>,
}

impl<'a, S: Fn(&[u8]) + 'a> MakeWriter<'a> for Masked<S> {
    type Writer = Line<'a, S>;

    fn make_writer(&'a self) -> Self::Writer {
        Line { masked: self, text: Vec::new() }
    }
}

impl<S: Fn(&[u8])> Write for Line<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Fn(&[u8])> Drop for Line<'_, S> {
    fn drop(&mut self) {
        // Masked before it is escaped: a secret may have line breaks in it.
        let line = self.masked.mask.apply(&String::from_utf8_lossy(&self.text));
        let line = escaped(line.trim_end_matches('\n'));
        (self.masked.sink)(format!("{line}\n").as_bytes());
    }
}

/// One line stays one line: what came from outside may hold line breaks, and would forge others.
fn escaped(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for c in line.chars() {
        match c.is_control() {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
