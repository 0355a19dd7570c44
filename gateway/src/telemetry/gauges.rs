//! Gauges, read from those who know at scrape time.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::Arc,
};

use crate::{app::Inspect, protect::BreakerState};

/// Appends every gauge.
pub(super) async fn write(text: &mut String, inspect: &dyn Inspect) {
    let queue = inspect.queue();
    let activity = inspect.routes();
    let now = inspect.now();
    let mut page = Page { text };
    page.describe("tidegate_queue_deliveries", "Deliveries by state");
    for route in queue.routes() {
        let active = activity.get(&route.name).map_or(0, |activity| activity.active);
        let counts = route.counts;
        for (state, count) in [
            ("pending", counts.pending.saturating_sub(active)),
            ("active", active),
            ("delivered", counts.delivered),
            ("dead", counts.dead),
            ("discarded", counts.discarded),
        ] {
            let labels = [("route", &*route.name), ("state", state)];
            page.sample("tidegate_queue_deliveries", &labels, count);
        }
    }
    page.describe("tidegate_route_paused", "Whether an operator has paused the route");
    for route in queue.routes() {
        let paused = u8::from(route.paused);
        page.sample("tidegate_route_paused", &[("route", &*route.name)], paused);
    }
    page.describe("tidegate_queue_oldest_due_seconds", "Age of the oldest delivery that is due");
    for name in activity.keys() {
        let oldest = queue.oldest_due(name, now).await.ok().flatten();
        let age = oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
        page.sample("tidegate_queue_oldest_due_seconds", &[("route", name)], age);
    }
    let about = "Repeat window that is really kept; shorter than configured where ids had no room";
    page.describe("tidegate_dedupe_window_seconds", about);
    for route in queue.routes() {
        if let Some(window) = route.dedupe {
            let labels = [("route", &*route.name)];
            page.sample("tidegate_dedupe_window_seconds", &labels, window.as_secs_f64());
        }
    }
    let status = queue.status();
    page.describe("tidegate_queue_size_bytes", "Live data in the queue");
    page.sample("tidegate_queue_size_bytes", &[], status.bytes);
    configured(&mut page, inspect);
    page.describe_as("tidegate_deliveries_pruned_total", "Finished deliveries removed", "counter");
    let mut pruned: BTreeMap<Arc<str>, u64> =
        activity.keys().map(|route| (Arc::clone(route), 0)).collect();
    pruned.extend(queue.pruned());
    for (route, pruned) in &pruned {
        page.sample("tidegate_deliveries_pruned_total", &[("route", route)], pruned);
    }
    upstreams(&mut page, inspect);
    configuration(&mut page, inspect);
    page.describe("tidegate_source_up", "Whether the route's source is connected");
    for (name, activity) in &activity {
        let up = u8::from(activity.source_up);
        page.sample("tidegate_source_up", &[("route", name)], up);
    }
    let broker = inspect.broker();
    page.describe("tidegate_broker_connected", "Whether the connection to RabbitMQ is up");
    for (role, up) in [("consume", broker.consume_connected), ("publish", broker.publish_connected)]
    {
        page.sample("tidegate_broker_connected", &[("role", role)], u8::from(up));
    }
    page.describe("tidegate_broker_blocked", "Whether RabbitMQ has blocked the connection");
    page.sample("tidegate_broker_blocked", &[], u8::from(broker.blocked));
    page.describe("tidegate_build_info", "The version that runs");
    page.sample("tidegate_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

/// What the queue is held to, so that alerts can say how near to it it is.
fn configured(page: &mut Page<'_>, inspect: &dyn Inspect) {
    let config = inspect.config();
    page.describe("tidegate_queue_max_size_bytes", "Live data the queue may hold");
    page.sample("tidegate_queue_max_size_bytes", &[], config.settings.queue.max_size);
    let about = "Repeat window that was asked for";
    page.describe("tidegate_dedupe_window_configured_seconds", about);
    for (name, route) in &config.routes {
        if let Some(window) = route.dedupe() {
            let labels = [("route", &**name)];
            page.sample("tidegate_dedupe_window_configured_seconds", &labels, window.as_secs_f64());
        }
    }
}

fn upstreams(page: &mut Page<'_>, inspect: &dyn Inspect) {
    let upstreams = inspect.upstreams();
    page.describe("tidegate_breaker_state", "0 closed, 1 half-open, 2 open");
    for upstream in &upstreams {
        let state = match upstream.breaker.map(|breaker| breaker.state) {
            None | Some(BreakerState::Closed) => 0,
            Some(BreakerState::HalfOpen) => 1,
            Some(BreakerState::Open) => 2,
        };
        page.sample("tidegate_breaker_state", &[("upstream", &*upstream.name)], state);
    }
    let about = "Whether the upstream asked for quiet, or an operator has paused it";
    page.describe("tidegate_upstream_paused", about);
    for upstream in &upstreams {
        let paused = u8::from(upstream.paused || upstream.paused_until.is_some());
        page.sample("tidegate_upstream_paused", &[("upstream", &*upstream.name)], paused);
    }
}

fn configuration(page: &mut Page<'_>, inspect: &dyn Inspect) {
    let generation = inspect.generation();
    page.describe("tidegate_config_info", "The configuration in force, by its hash");
    page.sample("tidegate_config_info", &[("hash", &generation.hash)], 1);
    let about = "1 at the start, one more with each reload that changed something";
    page.describe("tidegate_config_generation", about);
    page.sample("tidegate_config_generation", &[], generation.number);
    let about = "Whether the last reload went well; 1 until there is one";
    page.describe("tidegate_config_last_reload_success", about);
    let success = u8::from(generation.failed.is_none());
    page.sample("tidegate_config_last_reload_success", &[], success);
}

struct Page<'t> {
    text: &'t mut String,
}

impl Page<'_> {
    fn describe(&mut self, name: &str, help: &str) {
        self.describe_as(name, help, "gauge");
    }

    fn describe_as(&mut self, name: &str, help: &str, kind: &str) {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (position, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let opening = if position == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{opening}{label}=\"{value}\"");
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{closing} {value}");
    }
}
