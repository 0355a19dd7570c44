//! What can be seen from outside: metrics, traces and the log.
//!
//! Counters and histograms are pushed here by whoever knows; gauges are read at scrape time, from
//! the queue, the upstreams and the broker, so that they cannot drift from the truth.

mod damper;
mod export;
mod gauges;
mod log;
mod recorder;
mod span;
mod trace;

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use tidegate_adapters::{AttemptResult, DeadReason, Rejection};

use crate::{app::Inspect, config::Config};
pub use export::Exporter;
pub use log::{LogHandle, init_log};
pub use trace::{AttemptSpan, Received, SourceTracer, TargetTracer, Tracer};

/// The content type of [`Metrics::render`]: Prometheus' text format.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters and histograms of the process. Cheap to clone; clones are one set.
#[derive(Clone, Debug)]
pub struct Metrics {
    families: Arc<Families>,
    registry: Arc<Registry>,
}

#[derive(Debug)]
struct Families {
    accepted: Family<RouteLabels, Counter>,
    duplicate: Family<RouteLabels, Counter>,
    rejected: Family<RejectedLabels, Counter>,
    ended: Family<EndedLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    attempt_duration: Family<UpstreamLabels, Histogram, fn() -> Histogram>,
    lag: Family<RouteLabels, Histogram, fn() -> Histogram>,
    rate_limit_wait: Family<UpstreamLabels, Histogram, fn() -> Histogram>,
    commit: Histogram,
    reloads: Family<ReloadLabels, Counter>,
    spans: Family<SpanLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    upstream: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RejectedLabels {
    route: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndedLabels {
    route: Arc<str>,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    route: Arc<str>,
    upstream: Arc<str>,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabels {
    result: &'static str,
}

const EXPORTED: SpanLabels = SpanLabels { result: "exported" };
const DROPPED: SpanLabels = SpanLabels { result: "dropped" };

/// How a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// The target took it.
    Delivered,
    /// The route's `when` said no.
    Filtered,
    /// Given up.
    Dead(DeadReason),
    /// Discarded by an operator.
    Discarded,
}

impl Ending {
    fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::Delivered => ("delivered", ""),
            Self::Filtered => ("filtered", ""),
            Self::Dead(reason) => ("dead", reason.as_str()),
            Self::Discarded => ("discarded", ""),
        }
    }
}

/// What a reload came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadResult {
    /// Another configuration is in force.
    Changed,
    /// It was the same.
    Unchanged,
    /// It was invalid, or could not be taken up; nothing has changed.
    Invalid,
    /// It wanted what only a restart changes; nothing has changed.
    Restart,
}

impl ReloadResult {
    const ALL: [Self; 4] = [Self::Changed, Self::Unchanged, Self::Invalid, Self::Restart];

    fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Invalid => "invalid",
            Self::Restart => "restart",
        }
    }
}

impl Metrics {
    /// All families, with a series at 0 for what every route and upstream of `config` may count: a
    /// series that begins at 1 hides its first increase. Results of attempts other than success
    /// are too many to be there before they happen.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        let metrics = Self::empty();
        metrics.expect(config);
        if config.settings.telemetry.is_some() {
            drop(metrics.families.spans.get_or_create(&EXPORTED));
            drop(metrics.families.spans.get_or_create(&DROPPED));
        }
        metrics
    }

    /// Has a series at 0 for what routes and upstreams of `config` may count and have not yet.
    pub fn expect(&self, config: &Config) {
        for (route, settings) in &config.routes {
            self.families.expect_route(route, &settings.upstream().unwrap_or_default().into());
        }
        for upstream in config.upstreams.keys() {
            let labels = UpstreamLabels { upstream: Arc::clone(upstream) };
            drop(self.families.attempt_duration.get_or_create(&labels));
            drop(self.families.rate_limit_wait.get_or_create(&labels));
        }
    }

    /// All families, without a series of any route or upstream.
    #[must_use]
    pub fn empty() -> Self {
        let families = Families::new();
        for result in ReloadResult::ALL {
            drop(families.reloads.get_or_create(&ReloadLabels { result: result.as_str() }));
        }
        let registry = Arc::new(families.register());
        Self { families: Arc::new(families), registry }
    }

    /// `tidegate_events_accepted_total`.
    pub fn accepted(&self, route: &Arc<str>, events: u64) {
        let labels = RouteLabels { route: Arc::clone(route) };
        self.families.accepted.get_or_create(&labels).inc_by(events);
    }

    /// `tidegate_events_duplicate_total`.
    pub fn duplicate(&self, route: &Arc<str>, events: u64) {
        let labels = RouteLabels { route: Arc::clone(route) };
        self.families.duplicate.get_or_create(&labels).inc_by(events);
    }

    /// `tidegate_events_rejected_total`.
    pub fn rejected(&self, route: &Arc<str>, reason: Rejection, events: u64) {
        let labels = RejectedLabels { route: Arc::clone(route), reason: reason.as_str() };
        self.families.rejected.get_or_create(&labels).inc_by(events);
    }

    /// `tidegate_deliveries_total`.
    pub fn ended(&self, route: &Arc<str>, ending: Ending) {
        self.ended_many(route, ending, 1);
    }

    /// `tidegate_deliveries_total`, by so many at once.
    pub fn ended_many(&self, route: &Arc<str>, ending: Ending, deliveries: u64) {
        self.families.ended.get_or_create(&ended_labels(route, ending)).inc_by(deliveries);
    }

    /// `tidegate_config_reloads_total`.
    pub fn reloaded(&self, result: ReloadResult) {
        let labels = ReloadLabels { result: result.as_str() };
        self.families.reloads.get_or_create(&labels).inc();
    }

    /// `tidegate_attempts_total` and `tidegate_attempt_duration_seconds`.
    pub fn attempt(
        &self,
        route: &Arc<str>,
        upstream: &Arc<str>,
        result: AttemptResult,
        took: Duration,
    ) {
        let labels = AttemptLabels {
            route: Arc::clone(route),
            upstream: Arc::clone(upstream),
            result: result.as_str(),
        };
        self.families.attempts.get_or_create(&labels).inc();
        let labels = UpstreamLabels { upstream: Arc::clone(upstream) };
        self.families.attempt_duration.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// `tidegate_delivery_lag_seconds`: accepted to delivered.
    pub fn lag(&self, route: &Arc<str>, lag: Duration) {
        let labels = RouteLabels { route: Arc::clone(route) };
        self.families.lag.get_or_create(&labels).observe(lag.as_secs_f64());
    }

    /// `tidegate_rate_limit_wait_seconds`.
    pub fn rate_limit_wait(&self, upstream: &Arc<str>, waited: Duration) {
        let labels = UpstreamLabels { upstream: Arc::clone(upstream) };
        self.families.rate_limit_wait.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// `tidegate_queue_commit_seconds`.
    pub fn commit(&self, took: Duration) {
        self.families.commit.observe(took.as_secs_f64());
    }

    /// `tidegate_spans_total`: taken by the collector.
    pub(crate) fn spans_exported(&self, spans: u64) {
        self.families.spans.get_or_create(&EXPORTED).inc_by(spans);
    }

    /// `tidegate_spans_total`: there was no room, or the collector would not have them.
    pub(crate) fn spans_dropped(&self, spans: u64) {
        self.families.spans.get_or_create(&DROPPED).inc_by(spans);
    }

    pub(crate) fn spans_dropped_total(&self) -> u64 {
        self.families.spans.get_or_create(&DROPPED).get()
    }

    #[cfg(test)]
    pub(crate) fn spans_exported_total(&self) -> u64 {
        self.families.spans.get_or_create(&EXPORTED).get()
    }

    /// Everything, gauges included, in Prometheus' text format.
    pub async fn render(&self, inspect: &dyn Inspect) -> String {
        let mut text = String::new();
        // Fails only when the writer does, and memory does not.
        let _ = encode(&mut text, &self.registry);
        let mut text = classic(&text);
        gauges::write(&mut text, inspect).await;
        text
    }
}

impl Families {
    fn new() -> Self {
        Self {
            accepted: Family::default(),
            duplicate: Family::default(),
            rejected: Family::default(),
            ended: Family::default(),
            attempts: Family::default(),
            attempt_duration: Family::new_with_constructor(short_times),
            lag: Family::new_with_constructor(long_times),
            rate_limit_wait: Family::new_with_constructor(short_times),
            commit: short_times(),
            reloads: Family::default(),
            spans: Family::default(),
        }
    }

    fn expect_route(&self, route: &Arc<str>, upstream: &Arc<str>) {
        let labels = RouteLabels { route: Arc::clone(route) };
        drop(self.accepted.get_or_create(&labels));
        drop(self.duplicate.get_or_create(&labels));
        drop(self.lag.get_or_create(&labels));
        for reason in [Rejection::QueueFull, Rejection::Closed] {
            let route = Arc::clone(route);
            drop(self.rejected.get_or_create(&RejectedLabels { route, reason: reason.as_str() }));
        }
        let dead = DeadReason::ALL.into_iter().map(Ending::Dead);
        for ending in dead.chain([Ending::Delivered, Ending::Filtered, Ending::Discarded]) {
            drop(self.ended.get_or_create(&ended_labels(route, ending)));
        }
        drop(self.attempts.get_or_create(&AttemptLabels {
            route: Arc::clone(route),
            upstream: Arc::clone(upstream),
            result: AttemptResult::Success.as_str(),
        }));
    }

    fn register(&self) -> Registry {
        let mut registry = Registry::with_prefix("tidegate");
        registry.register("events_accepted", "Events taken durably", self.accepted.clone());
        registry.register("events_rejected", "Events not taken", self.rejected.clone());
        registry.register(
            "events_duplicate",
            "Events known as repeats within the window",
            self.duplicate.clone(),
        );
        registry.register("deliveries", "Deliveries ended", self.ended.clone());
        registry.register(
            "attempts",
            "Attempts that reached for the network",
            self.attempts.clone(),
        );
        registry.register(
            "attempt_duration_seconds",
            "Time an attempt took, connect included",
            self.attempt_duration.clone(),
        );
        registry.register(
            "delivery_lag_seconds",
            "Time from accepted to delivered",
            self.lag.clone(),
        );
        registry.register(
            "queue_commit_seconds",
            "Time a commit of the queue took, fsync included",
            self.commit.clone(),
        );
        registry.register("spans", "Spans of traces, by what became of them", self.spans.clone());
        registry.register(
            "rate_limit_wait_seconds",
            "Time an admitted call waited for the rate limit",
            self.rate_limit_wait.clone(),
        );
        registry.register(
            "config_reloads",
            "Reloads of the configuration, by what they came to",
            self.reloads.clone(),
        );
        registry
    }
}

fn ended_labels(route: &Arc<str>, ending: Ending) -> EndedLabels {
    let (outcome, reason) = ending.labels();
    EndedLabels { route: Arc::clone(route), outcome, reason }
}

/// From half a millisecond to a minute.
fn short_times() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        60.0,
    ])
}

/// From a millisecond to a week: a lag is an outage long.
fn long_times() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
        300.0, 1800.0, 3600.0, 21_600.0, 86_400.0, 259_200.0, 604_800.0,
    ])
}

/// From OpenMetrics to the older text format that every parser reads: there the name of a counter
/// includes `_total`, also where it is described.
fn classic(open_metrics: &str) -> String {
    let counters: Vec<&str> = open_metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF") {
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|keyword| {
            let (name, rest) = line.strip_prefix(keyword)?.split_once(' ')?;
            counters.contains(&name).then(|| format!("{keyword}{name}_total {rest}"))
        });
        text.push_str(described.as_deref().unwrap_or(line));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
