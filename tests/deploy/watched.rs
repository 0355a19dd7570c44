//! What the dashboard and the alerts ask for is what a gateway tells.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidegate_tests::Gateway;

use super::text;

/// Labels that the scrape adds, and those of histograms.
const ADDED: [&str; 3] = ["job", "instance", "le"];

/// One of everything that has metrics of its own.
const YAML: &str = "
broker: { embedded: {} }
telemetry: { otlp: 'http://127.0.0.1:9' }
upstreams:
  loyalty: { url: 'http://127.0.0.1:9', egress: { allow: [127.0.0.0/8] } }
routes:
  award-points:
    from: { rabbitmq: { bind: [{ exchange: orders, key: '#' }] } }
    to: { http: { upstream: loyalty, path: / } }
  hooks:
    from: { webhook: { path: /hooks, verify: { none: {} }, event: { type: t } } }
    to: { rabbitmq: { exchange: hooks } }
";

/// A page of metrics: name to kind, help and labels.
pub(crate) struct Metrics(pub(crate) BTreeMap<String, Metric>);

#[derive(Default)]
pub(crate) struct Metric {
    pub(crate) kind: String,
    pub(crate) labels: BTreeSet<String>,
}

impl Metrics {
    /// What a gateway tells that has everything.
    pub(crate) async fn of_a_gateway() -> Self {
        let gateway = Gateway::start(YAML).await;
        gateway.post("/api/v1/reload", &json!({})).await;
        Self::parse(&gateway.text("/metrics").await)
    }

    fn parse(page: &str) -> Self {
        let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a name and a kind");
            metrics.entry(name.to_owned()).or_default().kind = kind.to_owned();
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let end = line.find(['{', ' ']).expect("a value");
            let parts = ["_bucket", "_sum", "_count"];
            let family = parts.iter().find_map(|part| line[..end].strip_suffix(part));
            let family = family.filter(|family| metrics.contains_key(*family));
            let name = family.unwrap_or(&line[..end]);
            let metric = metrics.get_mut(name).unwrap_or_else(|| panic!("not described: {name}"));
            let labels = line[end..].strip_prefix('{').and_then(|rest| rest.rsplit_once('}'));
            let labels = labels_of_matchers(labels.map_or("", |(labels, _)| labels));
            metric.labels.extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
        Self(metrics)
    }

    /// What an expression of PromQL asks for and we do not tell.
    fn unknown(&self, expr: &str) -> Vec<String> {
        let mut unknown = Vec::new();
        let mut known: BTreeSet<&str> = ADDED.into();
        for (at, _) in expr.match_indices("tidegate_") {
            let rest = &expr[at..];
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let name = &rest[..end.unwrap_or(rest.len())];
            let bucket = name.strip_suffix("_bucket");
            let Some(metric) = self.0.get(bucket.unwrap_or(name)) else {
                unknown.push(name.to_owned());
                continue;
            };
            assert_eq!(bucket.is_some(), metric.kind == "histogram", "{name}: {expr}");
            known.extend(metric.labels.iter().map(String::as_str));
            let matchers = rest[name.len()..].strip_prefix('{');
            let matchers = matchers.map_or("", |rest| rest.split('}').next().expect("an end"));
            for label in labels_of_matchers(matchers) {
                if !ADDED.contains(&label) && !metric.labels.contains(label) {
                    unknown.push(format!("{name}{{{label}}}"));
                }
            }
        }
        for word in ["by (", "on (", "group_left ("] {
            for list in expr.split(word).skip(1) {
                let list = list.split(')').next().expect("an end").split(',').map(str::trim);
                let strange = list.filter(|label| !label.is_empty() && !known.contains(label));
                unknown.extend(strange.map(|label| format!("{word}{label})")));
            }
        }
        unknown
    }
}

/// `a="b", c=~"d"`: a and c.
fn labels_of_matchers(matchers: &str) -> impl Iterator<Item = &str> {
    matchers.split('"').step_by(2).filter_map(|part| {
        let label = part.trim_start_matches([',', ' ']).trim_end_matches(['=', '~', '!']);
        (!label.is_empty()).then_some(label)
    })
}

/// The expressions of the alerts, by the alert's name, from their YAML as it is written.
pub(crate) fn alerts() -> BTreeMap<String, String> {
    let yaml = text("deploy/prometheus/alerts.yaml");
    let rules = yaml.split("- alert: ").skip(1);
    rules
        .map(|rule| {
            let name = rule.lines().next().expect("a name").to_owned();
            let expr = rule.split("expr: ").nth(1).expect("an expression");
            let end = ["\n        for:", "\n        labels:"];
            let end = end.iter().filter_map(|end| expr.find(end)).min().expect("an end");
            (name, expr[..end].to_owned())
        })
        .collect()
}

#[tokio::test]
async fn every_metric_and_label_of_the_alerts_is_told() {
    let metrics = Metrics::of_a_gateway().await;
    let alerts = alerts();
    assert!(alerts.len() >= 12, "{:?}", alerts.keys());
    for (alert, expr) in alerts {
        assert_eq!(metrics.unknown(&expr), Vec::<String>::new(), "{alert}: {expr}");
    }
    let wrong = "sum by (nonsense) (tidegate_breaker_state{route=\"r\"} + tidegate_no_such)";
    assert_eq!(metrics.unknown(wrong).len(), 3, "what is wrong is found");
}

#[tokio::test]
async fn every_alert_has_a_runbook_and_both_a_firing_and_a_calm_case() {
    let (page, tests) = (text("deploy/README.md"), text("deploy/prometheus/alerts_test.yaml"));
    let rules = text("deploy/prometheus/alerts.yaml");
    for alert in alerts().into_keys() {
        assert!(page.lines().any(|line| line == format!("### {alert}")), "{alert}");
        let link = format!("runbook_url: deploy/README.md#{}\n", alert.to_lowercase());
        assert_eq!(rules.matches(&link).count(), 1, "{alert}");
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} never fires");
    }
    assert!(tests.contains("exp_samples: []"), "nothing is ever calm");
}

#[tokio::test]
async fn the_dashboard_is_well_formed_and_asks_for_what_is_told() {
    let metrics = Metrics::of_a_gateway().await;
    let dashboard: Value = serde_json::from_str(&text("deploy/grafana/tidegate.json")).expect("ok");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "ids repeat");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let source = variables.iter().find(|variable| variable["type"] == "datasource");
    assert_eq!(source.expect("a data source to choose")["name"], "datasource");

    let mut asked = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().expect("a title");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(defaults["unit"].as_str().is_some_and(|unit| !unit.is_empty()), "{title}");
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{title}");
        let place = &panel["gridPos"];
        let (x, w) = (place["x"].as_u64().expect("x"), place["w"].as_u64().expect("w"));
        assert!(x + w <= 24 && place["y"].is_u64(), "{title}");
        for target in panel["targets"].as_array().expect("targets") {
            let expr = target["expr"].as_str().expect("an expression");
            assert_eq!(metrics.unknown(expr), Vec::<String>::new(), "{title}: {expr}");
            asked.extend(metrics.0.keys().filter(|name| expr.contains(*name)).cloned());
        }
    }
    for variable in variables.iter().filter(|variable| variable["type"] == "query") {
        let query = variable["definition"].as_str().expect("a query");
        assert_eq!(metrics.unknown(query), Vec::<String>::new(), "{query}");
    }
    let told: BTreeSet<String> = metrics.0.keys().cloned().collect();
    let hidden: Vec<&String> = told.difference(&asked).collect();
    assert!(hidden.is_empty(), "no panel shows {hidden:?}");
}
