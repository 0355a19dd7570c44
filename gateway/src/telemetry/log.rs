//! The log: to stderr, text or JSON, every line masked.
//!
//! Secrets are kept out of messages where messages are made; the mask here is the second wall.
//! Dependencies log at warn at most, whatever our own level: at debug some print requests.

use std::io::{self, Write};

use tidegate_adapters::secret::Mask;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::config::{LogConfig, LogFormat, LogLevel};

/// Starts logging. Does nothing when something else has (tests).
pub fn init_log(config: &LogConfig, mask: Mask) {
    let ours = match config.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let others = ours.min(tracing::Level::WARN);
    let targets = Targets::new()
        .with_default(others)
        // It logs what it also returns: each failure would be there twice.
        .with_target("lapin", LevelFilter::OFF)
        .with_target("tidegate", ours)
        .with_target("tidegate_adapters", ours);
    let lines = tracing_subscriber::fmt::layer().with_writer(Masked(mask)).with_ansi(false);
    let registry = tracing_subscriber::registry().with(targets);
    // An error means that a subscriber is there already.
    let _ = match config.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json()).try_init(),
    };
}

/// Makes a writer for each line.
struct Masked(Mask);

/// One line on its way to stderr.
struct Line {
    mask: Mask,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for Masked {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { mask: self.0.clone(), text: Vec::new() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = self.mask.apply(&String::from_utf8_lossy(&self.text));
        // With stderr gone there is nobody left to tell.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}
