//! Which traces are recorded, and spans while they are under way.

use std::sync::Arc;

use tidegate_adapters::{Accepted, TraceContext};
use tokio::{sync::mpsc, time::Instant};

use super::{
    Metrics,
    span::{About, Attribute, Span, Value},
};

/// Ended spans that wait for the exporter at most; further ones are dropped and counted.
pub(super) const WAITING_MAX: usize = 4096;

/// Decides which traces are recorded, and takes the spans that have ended.
#[derive(Clone, Debug)]
pub(super) struct Recorder {
    spans: mpsc::Sender<Span>,
    /// Of 2^63 trace ids so many are recorded.
    sampled: u64,
    metrics: Metrics,
}

/// A span under way.
#[derive(Debug)]
pub(super) struct Open {
    span: Span,
    began: Instant,
}

impl Recorder {
    /// One that records the share `sample` of all traces that begin here, and where its spans go.
    pub(super) fn new(sample: f64, metrics: Metrics) -> (Self, mpsc::Receiver<Span>) {
        let (spans, ended) = mpsc::channel(WAITING_MAX);
        (Self { spans, sampled: threshold(sample), metrics }, ended)
    }

    /// A new place beneath `parent`, or the one that `root` makes, recorded if its id says so.
    pub(super) fn beneath(
        &self,
        parent: Option<&TraceContext>,
        root: impl FnOnce() -> TraceContext,
    ) -> TraceContext {
        match parent {
            Some(parent) => parent.child(),
            None => {
                let root = root();
                let sampled = self.samples(root.trace_id());
                root.sampled(sampled)
            }
        }
    }

    /// OpenTelemetry's ratio sampler: the last 63 bits below the threshold, first bit left out.
    fn samples(&self, trace: u128) -> bool {
        const LAST: u128 = u64::MAX as u128;
        u64::try_from(trace & LAST).is_ok_and(|last| last >> 1 < self.sampled)
    }

    pub(super) fn record(&self, open: Open) {
        if self.spans.try_send(open.ended()).is_err() {
            self.metrics.spans_dropped(1);
        }
    }
}

impl Open {
    pub(super) fn new(
        about: &Arc<About>,
        context: &TraceContext,
        parent: Option<&TraceContext>,
        attributes: Vec<Attribute>,
    ) -> Self {
        let start = wall_nanoseconds();
        let span = Span {
            about: Arc::clone(about),
            context: context.clone(),
            parent: parent.map(TraceContext::span_id),
            start,
            end: start,
            attributes,
            failed: false,
        };
        Self { span, began: Instant::now() }
    }

    pub(super) fn add(&mut self, name: &'static str, value: Value) {
        self.span.attributes.push((name, value));
    }

    pub(super) fn accepted(&mut self, accepted: Option<&Accepted>) {
        let (word, id) = match accepted {
            Some(Accepted::Pending(id)) => ("pending", Some(id)),
            Some(Accepted::Duplicate(id)) => ("duplicate", Some(id)),
            Some(Accepted::Dead(id)) => ("dead", Some(id)),
            Some(Accepted::Filtered) => ("filtered", None),
            None => return,
        };
        self.add("tidegate.outcome", Value::Word(word));
        if let Some(id) = id {
            self.add("tidegate.delivery", Value::Text(id.to_string()));
        }
    }

    pub(super) fn fail(&mut self, why: &'static str) {
        self.add("error.type", Value::Word(why));
        self.span.failed = true;
    }

    fn ended(self) -> Span {
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Span { end: self.span.start.saturating_add(took), ..self.span }
    }
}

/// Of 2^63 trace ids so many are the share `sample`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of 2^63 as a whole number; off by a few is no share anybody sees"
)]
fn threshold(sample: f64) -> u64 {
    (sample.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64
}

#[expect(clippy::disallowed_methods, reason = "spans carry nanoseconds; nothing depends on them")]
fn wall_nanoseconds() -> u64 {
    let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
    u64::try_from(now).unwrap_or(0)
}
