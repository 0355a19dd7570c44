//! Spans to the collector, in batches.
//!
//! Telemetry is a guest: it never makes anybody wait. Ended spans go into a bounded queue, or are
//! dropped and counted; one task takes them out and sends them. While the collector is away a batch
//! is kept and tried again, the queue fills behind it, and what comes then is dropped. Going away
//! and coming back is told once each.

use std::{sync::Arc, time::Duration};

use tidegate_adapters::{
    otlp::{Collector, ExportError},
    secret::Mask,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Metrics,
    span::{Span, encode},
    trace::Tracer,
};
use crate::config::TelemetryConfig;

/// Spans in a batch at most.
const BATCH: usize = 512;

/// How long a batch is gathered at most.
const GATHER: Duration = Duration::from_secs(1);

/// After a failed export, how long until the next try; doubling up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// For what is left at the end; the second where the collector was away already.
const FLUSH: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(500));

/// Sends what a [`Tracer`] records.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<Span>,
    collector: Collector,
    /// Tells this process from others of its kind.
    instance: Arc<str>,
    mask: Mask,
    metrics: Metrics,
    /// Dropped spans that the log knows of.
    told: u64,
    /// The last export failed, and may succeed later.
    away: bool,
}

impl Exporter {
    /// A tracer and what sends its spans, as `config` says. Connects to nothing; runs nothing.
    ///
    /// # Errors
    /// When the collector's address cannot be used.
    pub fn new(
        config: &TelemetryConfig,
        mask: &Mask,
        metrics: &Metrics,
    ) -> Result<(Tracer, Self), String> {
        let collector = Collector::new(&config.otlp)?;
        let (tracer, spans) = Tracer::recording(config.sample, metrics.clone());
        let instance = Uuid::new_v4().to_string().into();
        let (mask, metrics) = (mask.clone(), metrics.clone());
        Ok((tracer, Self { spans, collector, instance, mask, metrics, told: 0, away: false }))
    }

    /// Sends until `shutdown`; then what is left, for some seconds at most.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.gather(&mut batch) => {}
            }
            if !batch.is_empty() {
                self.send_until(&mut batch, &shutdown).await;
                self.tell_dropped();
            }
        }
        let patience = if self.away { FLUSH.1 } else { FLUSH.0 };
        if timeout(patience, self.flush(&mut batch)).await.is_err() {
            tracing::debug!("the collector did not take the last spans in time");
        }
        // What is in neither of them was sent or counted.
        let left = batch.len() + self.spans.len();
        if left > 0 {
            self.metrics.spans_dropped(left as u64);
        }
        self.tell_dropped();
    }

    /// Fills `batch`: until it is full, or for [`GATHER`] after its first. What it holds survives
    /// being dropped while it waits.
    async fn gather(&mut self, batch: &mut Vec<Span>) {
        if batch.is_empty() {
            match self.spans.recv().await {
                Some(span) => batch.push(span),
                // No tracer is left: nothing will come.
                None => return std::future::pending().await,
            }
        }
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH {
            tokio::select! {
                span = self.spans.recv() => match span {
                    Some(span) => batch.push(span),
                    None => return,
                },
                () = sleep_until(until) => return,
            }
        }
    }

    /// Sends `batch` until it is taken or refused for good, or until `shutdown`.
    async fn send_until(&mut self, batch: &mut Vec<Span>, shutdown: &CancellationToken) {
        let (mut pause, longest) = PAUSES;
        loop {
            let sent = tokio::select! {
                () = shutdown.cancelled() => return,
                sent = self.send(batch) => sent,
            };
            match sent {
                Ok(()) if self.away => tracing::info!("spans are exported again"),
                Ok(()) => {}
                Err(error) if error.again => {
                    if !self.away {
                        tracing::warn!(%error, "cannot export spans; trying again");
                        self.away = true;
                    }
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(longest);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "the collector refused spans");
                    self.metrics.spans_dropped(batch.len() as u64);
                }
            }
            self.away = false;
            batch.clear();
            return;
        }
    }

    /// Nothing vanishes without a word.
    fn tell_dropped(&mut self) {
        let dropped = self.metrics.spans_dropped_total();
        if dropped > self.told {
            tracing::warn!(dropped = dropped - self.told, "spans were dropped");
            self.told = dropped;
        }
    }

    /// Everything that is there, each batch once.
    async fn flush(&mut self, batch: &mut Vec<Span>) {
        loop {
            while batch.len() < BATCH {
                let Ok(span) = self.spans.try_recv() else { break };
                batch.push(span);
            }
            if batch.is_empty() || self.send(batch).await.is_err() {
                return;
            }
            batch.clear();
        }
    }

    async fn send(&self, batch: &[Span]) -> Result<(), ExportError> {
        self.collector.export(&encode(batch, &self.instance, &self.mask)).await?;
        self.metrics.spans_exported(batch.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
