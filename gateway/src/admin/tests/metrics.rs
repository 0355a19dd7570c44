//! `/metrics`, read as Prometheus reads it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    routes::upstream,
    world::{NOW, open},
};
use crate::{
    app::Inspect as _,
    protect::{BreakerState, BreakerStatus, UpstreamStatus},
};
use tidegate_adapters::{AttemptResult, Timestamp};

/// What a scrape holds: samples by name and labels, as written; and every family's type.
#[derive(Default)]
struct Scrape {
    samples: BTreeMap<String, f64>,
    types: HashMap<String, String>,
}

/// The text format 0.0.4, strictly: a family is described once, before its samples, and its
/// samples stand together (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
fn parse(text: &str) -> Scrape {
    assert!(text.ends_with('\n'));
    let mut scrape = Scrape::default();
    let (mut family, mut helped) = (String::new(), HashSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()) && !help.is_empty(), "{line}");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(helped.contains(name), "no help: {line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
            name.clone_into(&mut family);
            continue;
        }
        assert!(!line.starts_with('#'), "neither help nor type: {line}");
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let bare = name.trim_end_matches("_bucket").trim_end_matches("_sum");
        let bare = bare.trim_end_matches("_count");
        let described = match scrape.types[&family].as_str() {
            "histogram" => bare,
            _ => name,
        };
        assert_eq!(described, family, "not under its own description: {line}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
        assert!(series == name || series.ends_with("\"}"), "{line}");
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(scrape.samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    scrape
}

#[tokio::test]
async fn a_scrape_has_every_family_and_is_what_the_older_parser_reads() {
    let admin = open().await;
    *admin.world.upstreams.lock() = vec![UpstreamStatus {
        name: "loyalty".into(),
        url: String::new(),
        breaker: Some(BreakerStatus { state: BreakerState::Open, failures: 5, probe_at: None }),
        concurrency: 1,
        in_flight: 0,
        limits: Vec::new(),
        paused: false,
        paused_until: Some(NOW),
    }];
    let said = admin.get("/metrics").await;
    assert_eq!(said.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let scrape = parse(&said.body);
    let mut families: Vec<(&str, &str)> =
        scrape.types.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    families.sort_unstable();
    let expected = [
        ("tidegate_attempt_duration_seconds", "histogram"),
        ("tidegate_attempts_total", "counter"),
        ("tidegate_breaker_state", "gauge"),
        ("tidegate_broker_blocked", "gauge"),
        ("tidegate_broker_connected", "gauge"),
        ("tidegate_build_info", "gauge"),
        ("tidegate_config_generation", "gauge"),
        ("tidegate_config_info", "gauge"),
        ("tidegate_config_last_reload_success", "gauge"),
        ("tidegate_config_reloads_total", "counter"),
        ("tidegate_dedupe_window_configured_seconds", "gauge"),
        ("tidegate_dedupe_window_seconds", "gauge"),
        ("tidegate_deliveries_pruned_total", "counter"),
        ("tidegate_deliveries_total", "counter"),
        ("tidegate_delivery_lag_seconds", "histogram"),
        ("tidegate_events_accepted_total", "counter"),
        ("tidegate_events_duplicate_total", "counter"),
        ("tidegate_events_rejected_total", "counter"),
        ("tidegate_queue_commit_seconds", "histogram"),
        ("tidegate_queue_deliveries", "gauge"),
        ("tidegate_queue_has_room", "gauge"),
        ("tidegate_queue_max_size_bytes", "gauge"),
        ("tidegate_queue_oldest_due_seconds", "gauge"),
        ("tidegate_queue_route_max_size_bytes", "gauge"),
        ("tidegate_queue_route_size_bytes", "gauge"),
        ("tidegate_queue_size_bytes", "gauge"),
        ("tidegate_rate_limit_wait_seconds", "histogram"),
        ("tidegate_route_paused", "gauge"),
        ("tidegate_source_up", "gauge"),
        ("tidegate_upstream_paused", "gauge"),
    ];
    assert_eq!(families, expected);
}

#[tokio::test]
async fn gauges_show_what_is_so_now() {
    let admin = open().await;
    let due = Timestamp(NOW.0 - 2500);
    admin.world.queue.oldest_due.lock().insert("award-points".into(), due);
    admin.world.routes.lock().get_mut("thank-you").unwrap().source_up = false;
    admin.world.broker.lock().publish_connected = false;
    admin.world.queue.routes.lock()[1].paused = true;
    admin.world.generation.lock().failed = Some("it is invalid".to_owned());
    let stopped = UpstreamStatus { paused: true, ..upstream("stopped") };
    let quiet = UpstreamStatus { paused_until: Some(NOW), ..upstream("quiet") };
    *admin.world.upstreams.lock() = vec![upstream("running"), stopped, quiet];
    let scrape = parse(&admin.get("/metrics").await.body);
    for (series, expected) in [
        ("tidegate_queue_deliveries{route=\"award-points\",state=\"pending\"}", 5.0),
        ("tidegate_queue_deliveries{route=\"award-points\",state=\"active\"}", 2.0),
        ("tidegate_queue_deliveries{route=\"award-points\",state=\"delivered\"}", 5.0),
        ("tidegate_queue_deliveries{route=\"award-points\",state=\"dead\"}", 3.0),
        ("tidegate_queue_deliveries{route=\"award-points\",state=\"discarded\"}", 1.0),
        ("tidegate_queue_oldest_due_seconds{route=\"award-points\"}", 2.5),
        ("tidegate_queue_oldest_due_seconds{route=\"thank-you\"}", 0.0),
        ("tidegate_queue_size_bytes", 8192.0),
        ("tidegate_queue_max_size_bytes", 1_073_741_824.0),
        ("tidegate_queue_has_room", 1.0),
        ("tidegate_queue_route_size_bytes{route=\"award-points\"}", 4096.0),
        ("tidegate_queue_route_max_size_bytes", 536_870_912.0),
        ("tidegate_deliveries_pruned_total{route=\"award-points\"}", 11.0),
        ("tidegate_deliveries_pruned_total{route=\"thank-you\"}", 0.0),
        ("tidegate_source_up{route=\"award-points\"}", 1.0),
        ("tidegate_source_up{route=\"thank-you\"}", 0.0),
        ("tidegate_broker_connected{role=\"consume\"}", 1.0),
        ("tidegate_broker_connected{role=\"publish\"}", 0.0),
        ("tidegate_broker_blocked", 0.0),
        ("tidegate_route_paused{route=\"award-points\"}", 0.0),
        ("tidegate_route_paused{route=\"thank-you\"}", 1.0),
        ("tidegate_upstream_paused{upstream=\"quiet\"}", 1.0),
        ("tidegate_upstream_paused{upstream=\"stopped\"}", 1.0),
        ("tidegate_upstream_paused{upstream=\"running\"}", 0.0),
        ("tidegate_config_info{hash=\"0123456789abcdef\"}", 1.0),
        ("tidegate_config_generation", 1.0),
        ("tidegate_config_last_reload_success", 0.0),
    ] {
        assert_eq!(scrape.samples.get(series), Some(&expected), "{series}");
    }
    let version = format!("tidegate_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(scrape.samples.get(&version), Some(&1.0));
}

#[tokio::test]
async fn every_route_and_upstream_begins_at_zero() {
    let admin = open().await;
    let scrape = parse(&admin.get("/metrics").await.body);
    for series in [
        "tidegate_events_accepted_total{route=\"thank-you\"}",
        "tidegate_events_duplicate_total{route=\"thank-you\"}",
        "tidegate_events_rejected_total{route=\"thank-you\",reason=\"queue_full\"}",
        "tidegate_deliveries_total{route=\"thank-you\",outcome=\"delivered\",reason=\"\"}",
        "tidegate_deliveries_total{route=\"thank-you\",outcome=\"discarded\",reason=\"\"}",
        "tidegate_deliveries_total{route=\"thank-you\",outcome=\"dead\",reason=\"exhausted\"}",
        "tidegate_attempts_total{route=\"thank-you\",upstream=\"mail\",result=\"2xx\"}",
        "tidegate_attempt_duration_seconds_count{upstream=\"mail\"}",
        "tidegate_rate_limit_wait_seconds_count{upstream=\"mail\"}",
        "tidegate_delivery_lag_seconds_count{route=\"thank-you\"}",
        "tidegate_queue_commit_seconds_count",
        "tidegate_config_reloads_total{result=\"changed\"}",
        "tidegate_config_reloads_total{result=\"unchanged\"}",
        "tidegate_config_reloads_total{result=\"invalid\"}",
        "tidegate_config_reloads_total{result=\"restart\"}",
    ] {
        assert_eq!(scrape.samples.get(series), Some(&0.0), "{series}");
    }
}

#[tokio::test]
async fn histograms_are_cumulative_and_end_at_infinity() {
    let admin = open().await;
    let metrics = admin.world.metrics();
    let (route, upstream) = ("award-points".into(), "loyalty".into());
    for ms in [1, 30, 30, 700_000] {
        let took = std::time::Duration::from_millis(ms);
        metrics.attempt(&route, &upstream, AttemptResult::Success, took);
    }
    let scrape = parse(&admin.get("/metrics").await.body);
    let name = "tidegate_attempt_duration_seconds";
    let bucket =
        |le: &str| scrape.samples[&format!("{name}_bucket{{le=\"{le}\",upstream=\"loyalty\"}}")];
    assert_eq!(
        (bucket("0.025"), bucket("0.05"), bucket("60.0"), bucket("+Inf")),
        (1.0, 3.0, 3.0, 4.0)
    );
    assert_eq!(scrape.samples[&format!("{name}_count{{upstream=\"loyalty\"}}")], 4.0);
    let sum = scrape.samples[&format!("{name}_sum{{upstream=\"loyalty\"}}")];
    assert!((sum - 700.061).abs() < 1e-6, "{sum}");
}

/// Every metric that is promised: name, type, and its labels besides `le`.
const PROMISED: [(&str, &str, &[&str]); 30] = [
    ("tidegate_events_accepted_total", "counter", &["route"]),
    ("tidegate_events_rejected_total", "counter", &["route", "reason"]),
    ("tidegate_events_duplicate_total", "counter", &["route"]),
    ("tidegate_deliveries_total", "counter", &["route", "outcome", "reason"]),
    ("tidegate_attempts_total", "counter", &["route", "upstream", "result"]),
    ("tidegate_attempt_duration_seconds", "histogram", &["upstream"]),
    ("tidegate_delivery_lag_seconds", "histogram", &["route"]),
    ("tidegate_queue_deliveries", "gauge", &["route", "state"]),
    ("tidegate_queue_oldest_due_seconds", "gauge", &["route"]),
    ("tidegate_queue_size_bytes", "gauge", &[]),
    ("tidegate_queue_max_size_bytes", "gauge", &[]),
    ("tidegate_queue_has_room", "gauge", &[]),
    ("tidegate_queue_route_size_bytes", "gauge", &["route"]),
    ("tidegate_queue_route_max_size_bytes", "gauge", &[]),
    ("tidegate_queue_commit_seconds", "histogram", &[]),
    ("tidegate_rate_limit_wait_seconds", "histogram", &["upstream"]),
    ("tidegate_breaker_state", "gauge", &["upstream"]),
    ("tidegate_upstream_paused", "gauge", &["upstream"]),
    ("tidegate_route_paused", "gauge", &["route"]),
    ("tidegate_source_up", "gauge", &["route"]),
    ("tidegate_deliveries_pruned_total", "counter", &["route"]),
    ("tidegate_broker_connected", "gauge", &["role"]),
    ("tidegate_broker_blocked", "gauge", &[]),
    ("tidegate_config_reloads_total", "counter", &["result"]),
    ("tidegate_config_info", "gauge", &["hash"]),
    ("tidegate_config_generation", "gauge", &[]),
    ("tidegate_config_last_reload_success", "gauge", &[]),
    ("tidegate_build_info", "gauge", &["version"]),
    ("tidegate_dedupe_window_seconds", "gauge", &["route"]),
    ("tidegate_dedupe_window_configured_seconds", "gauge", &["route"]),
];

/// The names of the labels in `name{a="…",b="…"}`; no value here holds a quote.
fn labels(series: &str) -> Vec<&str> {
    let labels = series.split_once('{').map_or("", |(_, labels)| labels);
    let names = labels.split('"').step_by(2).map(|name| name.trim_matches([',', '=', '}']));
    names.filter(|name| !name.is_empty() && *name != "le").collect()
}

#[tokio::test]
async fn every_metric_that_is_promised_is_there_with_its_type_and_its_labels() {
    let admin = open().await;
    *admin.world.upstreams.lock() = vec![upstream("loyalty")];
    for route in admin.world.queue.routes.lock().iter_mut() {
        route.dedupe = Some(std::time::Duration::from_secs(600));
    }
    let scrape = parse(&admin.get("/metrics").await.body);
    for (name, kind, expected) in PROMISED {
        assert_eq!(scrape.types.get(name).map(String::as_str), Some(kind), "{name}");
        let suffixes: &[&str] = match kind {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        for suffix in suffixes {
            let whole = format!("{name}{suffix}");
            let mut series =
                scrape.samples.keys().filter(|key| key.split('{').next() == Some(&whole));
            let first = series.next().unwrap_or_else(|| panic!("no series of {whole}"));
            assert_eq!(labels(first), expected, "{first}");
        }
    }
    assert_eq!(scrape.types.len(), PROMISED.len(), "none besides");
}
