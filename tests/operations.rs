//! What an operator is given: alert rules and a dashboard that ask for what a real gateway really
//! tells, a page that explains all of it, and its way to back up the queue, gone for real.
//! `deploy/prometheus/check.sh` plays the rules' own tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tidegate_adapters::{AttemptResult, DeadReason, Rejection};
use tidegate_tests::{
    Api, Gateway,
    container::{documents, repository},
    eventually,
    gateway::client,
};
use tokio::process::Command;

const IN_TIME: Duration = Duration::from_secs(60);

/// What Prometheus adds to each series of a target, and what a query itself makes.
const ADDED: [&str; 4] = ["job", "instance", "le", "alertname"];

// ===== metrics, and who asks for them =====

/// Both directions on the embedded broker, and whatever has a metric of its own.
fn everything(api: &str) -> String {
    format!(
        "\
broker: {{ embedded: {{}} }}
telemetry: {{ otlp: 'http://127.0.0.1:9', sample: 0 }}
upstreams:
  loyalty:
    url: {api}
    rate_limit: {{ limit: 1000, period: 1s }}
    egress: {{ allow: [127.0.0.0/8] }}
routes:
  award-points:
    from: {{ rabbitmq: {{ bind: [{{ exchange: orders, key: '#' }}] }} }}
    to: {{ http: {{ upstream: loyalty, path: /points }} }}
    reply: {{ exchange: done, event: {{ type: done }} }}
  hooks:
    from:
      webhook:
        path: /hooks
        verify: {{ api_key: {{ header: X-Api-Key, keys: [0123456789abcdef] }} }}
        dedupe: 24h
        event: {{ id: '{{.body.id}}', type: hook }}
    to: {{ rabbitmq: {{ exchange: orders, key: '{{.type}}' }} }}
"
    )
}

/// A scrape: of each metric its type, and of each of its labels the values that are there.
type Scrape = BTreeMap<String, (String, BTreeMap<String, BTreeSet<String>>)>;

async fn scrape() -> Scrape {
    let api = Api::start().await;
    let gateway = Gateway::start(&everything(&api.url())).await;
    // One that is refused, and one that goes all the way: only what happens is counted by reason.
    let url = format!("{}/hooks", gateway.webhooks().await);
    for (key, status) in [("wrong", 401), ("0123456789abcdef", 202)] {
        let post = client().post(&url).header("X-Api-Key", key);
        let post = post.header("Content-Type", "application/json").body("{\"id\": \"1\"}");
        assert_eq!(post.send().await.expect("an answer").status(), status);
    }
    eventually("it was called", IN_TIME, || async { (api.count() == 1).then_some(()) }).await;
    let text = gateway.text("/metrics").await;
    let mut scrape = Scrape::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').expect("a name and a type");
            scrape.insert(name.to_owned(), (kind.to_owned(), BTreeMap::new()));
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().expect("a name");
            let (_, labels) = scrape.get_mut(family(name)).expect("described before");
            for (label, _, value) in matchers(line) {
                labels.entry(label).or_default().insert(value);
            }
        }
    }
    scrape
}

/// A series of a histogram belongs to it.
fn family(series: &str) -> &str {
    let of = |suffix| series.strip_suffix(suffix).filter(|name| name.ends_with("_seconds"));
    ["_bucket", "_sum", "_count"].into_iter().find_map(of).unwrap_or(series)
}

/// What stands in the first braces: label, operator, value.
fn matchers(text: &str) -> Vec<(String, String, String)> {
    let Some((_, inside)) = text.split_once('{') else { return Vec::new() };
    let inside = inside.split_once('}').expect("closed").0;
    let mut parts = inside.split('"');
    let mut matchers = Vec::new();
    while let (Some(label), Some(value)) = (parts.next(), parts.next()) {
        let label = label.trim_start_matches([',', ' ']);
        let at = label.find(['=', '!']).expect("an operator");
        matchers.push((label[..at].to_owned(), label[at..].to_owned(), value.to_owned()));
    }
    matchers
}

/// What is wrong with `query`, held against what is there.
fn wrong(query: &str, scrape: &Scrape) -> Option<String> {
    let mut open = Vec::new();
    for character in query.chars() {
        let opening = match character {
            '(' | '[' | '{' => {
                open.push(character);
                continue;
            }
            ')' => '(',
            ']' => '[',
            '}' => '{',
            _ => continue,
        };
        if open.pop() != Some(opening) {
            return Some(format!("`{character}` closes nothing"));
        }
    }
    if !open.is_empty() {
        return Some(format!("{open:?} are not closed"));
    }
    let mut known: BTreeSet<&str> = ADDED.into();
    let mut asked = 0;
    for (at, _) in query.match_indices("tidegate_") {
        let rest = &query[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (series, rest) = rest.split_at(end.unwrap_or(rest.len()));
        let Some((kind, labels)) = scrape.get(family(series)) else {
            return Some(format!("there is no {series}"));
        };
        asked += 1;
        if kind == "histogram" && family(series) == series {
            return Some(format!("{series} is a histogram: its series end in _bucket and so on"));
        }
        known.extend(labels.keys().map(String::as_str));
        if !rest.starts_with('{') {
            continue;
        }
        for (label, operator, value) in matchers(rest) {
            let values = labels.get(&label);
            let free = ADDED.contains(&&*label) || value.contains('$');
            if values.is_none() && !ADDED.contains(&&*label) {
                return Some(format!("{series} has no label {label}"));
            }
            let there = |value: &str| values.is_some_and(|values| values.contains(value));
            if !free && operator.starts_with('=') && !value.split('|').all(there) {
                return Some(format!("{series} is never {label}{operator}\"{value}\""));
            }
        }
    }
    if asked == 0 {
        return Some("it asks for nothing of ours".to_owned());
    }
    for keyword in ["by (", "on (", "without (", "group_left ("] {
        for (at, _) in query.match_indices(keyword) {
            let labels = query[at + keyword.len()..].split_once(')').expect("balanced").0;
            let mut labels = labels.split(',').map(str::trim).filter(|label| !label.is_empty());
            if let Some(unknown) = labels.find(|label| !known.contains(label)) {
                return Some(format!("nothing in it has the label {unknown}"));
            }
        }
    }
    None
}

fn read(path: &str) -> String {
    let whole = repository().join(path);
    std::fs::read_to_string(&whole).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The alert rules, by name.
fn alerts() -> BTreeMap<String, Value> {
    let file = documents(&read("deploy/prometheus/alerts.yaml")).remove(0);
    let groups = file["groups"].as_array().expect("groups").iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().expect("rules").clone());
    let mut alerts = BTreeMap::new();
    for rule in rules {
        let name = rule["alert"].as_str().expect("a name").to_owned();
        assert!(alerts.insert(name.clone(), rule).is_none(), "{name} is there twice");
    }
    alerts
}

/// The panels of the dashboard that show something.
fn panels(dashboard: &Value) -> Vec<&Value> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    panels.filter(|panel| panel["type"] != "row").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dashboard_and_alerts_ask_for_what_a_gateway_tells_and_the_page_explains_it() {
    let scrape = scrape().await;
    let mut problems = String::new();
    let mut shown = BTreeSet::new();
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/tidegate.json")).unwrap();
    for panel in panels(&dashboard) {
        for target in panel["targets"].as_array().expect("targets") {
            let query = target["expr"].as_str().expect("a query");
            if let Some(wrong) = wrong(query, &scrape) {
                let _ = writeln!(problems, "panel {}: {wrong}\n    {query}", panel["title"]);
            }
            let asked = |name: &&String| query.contains(&***name);
            shown.extend(scrape.keys().filter(asked).cloned());
        }
    }
    for (name, rule) in alerts() {
        let query = rule["expr"].as_str().expect("a query");
        if let Some(wrong) = wrong(query, &scrape) {
            let _ = writeln!(problems, "alert {name}: {wrong}\n    {query}");
        }
    }
    for hidden in scrape.keys().filter(|name| !shown.contains(*name)) {
        let _ = writeln!(problems, "no panel shows {hidden}");
    }
    let page = read("deploy/README.md");
    let section = section(&page, "## Metrics");
    for (name, (kind, labels)) in &scrape {
        let labels: Vec<String> =
            labels.keys().filter(|name| *name != "le").map(|name| format!("`{name}`")).collect();
        // In the order of the page, whatever it is: all of them, and no other.
        let row = section.lines().find(|line| line.starts_with(&format!("| `{name}` | {kind} |")));
        let written = row.and_then(|row| row.split('|').nth(3)).map(|cell| {
            let mut cell: Vec<&str> = cell.split(',').map(str::trim).collect();
            cell.retain(|label| !label.is_empty());
            cell.sort_unstable();
            cell.join(",")
        });
        if written != Some(labels.join(",")) {
            let _ = writeln!(problems, "deploy/README.md: | `{name}` | {kind} | {labels:?} | …");
        }
    }
    for line in section.lines().filter(|line| line.starts_with("| `tidegate_")) {
        let name = line.split('`').nth(1).expect("a name");
        if !scrape.contains_key(name) {
            let _ = writeln!(problems, "deploy/README.md explains {name}, which is not there");
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

#[test]
fn a_query_for_what_is_not_there_is_found() {
    let labels = |pairs: &[(&str, &[&str])]| -> BTreeMap<String, BTreeSet<String>> {
        let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        pairs.iter().map(|(name, values)| ((*name).to_owned(), set(values))).collect()
    };
    let scrape = Scrape::from([
        ("tidegate_a_total".to_owned(), ("counter".to_owned(), labels(&[("route", &["r"])]))),
        ("tidegate_b_seconds".to_owned(), ("histogram".to_owned(), labels(&[("le", &["1"])]))),
    ]);
    for good in [
        "sum by (route) (rate(tidegate_a_total{route=~\"$route\",job=\"x\"}[5m]))",
        "tidegate_a_total{route!=\"none\"} unless on (route) tidegate_a_total{route=\"r\"}",
        "histogram_quantile(0.5, rate(tidegate_b_seconds_bucket[5m]))",
    ] {
        assert_eq!(wrong(good, &scrape), None, "{good}");
    }
    for bad in [
        "sum(tidegate_a_total",
        "tidegate_a_total{)}",
        "up",
        "tidegate_a",
        "tidegate_b_seconds",
        "tidegate_a_total{upstream=\"r\"}",
        "tidegate_a_total{route=\"s\"}",
        "tidegate_a_total{route=~\"r|s\"}",
        "sum by (upstream) (tidegate_a_total)",
    ] {
        assert!(wrong(bad, &scrape).is_some(), "{bad}");
    }
}

#[test]
fn every_panel_has_an_id_of_its_own_a_title_and_a_unit() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/tidegate.json")).unwrap();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{panel}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
    }
    let mut titles = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("seen above");
        assert!(titles.insert(title), "{title} is there twice");
        let said = |at: &str| panel.pointer(at).and_then(Value::as_str).is_some_and(|s| s != "");
        assert!(said("/fieldConfig/defaults/unit"), "{title} has no unit");
        assert!(said("/description"), "{title} is not described");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let place = &panel["gridPos"];
        let (x, w) = (place["x"].as_u64().expect("x"), place["w"].as_u64().expect("w"));
        assert!(x + w <= 24, "{title} is not on the page");
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables").iter();
    let variables: Vec<&str> = variables.filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(variables, ["datasource", "job", "instance", "route", "upstream"]);
}

// ===== the operator's page =====

/// From a heading to the next of its level.
fn section<'p>(page: &'p str, heading: &str) -> &'p str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading}"));
    let text = &page[start + 1 + heading.len()..];
    let level = heading.split(' ').next().expect("#s");
    let end = text.find(&format!("\n{level} "));
    &text[..end.unwrap_or(text.len())]
}

/// The words in the first column of the section's table.
fn rows(page: &str, heading: &str) -> BTreeSet<String> {
    let rows = section(page, heading).lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split('`').next().expect("a word").to_owned()).collect()
}

#[test]
fn the_page_explains_every_dead_reason_every_result_and_every_refusal() {
    let page = read("deploy/README.md");
    let words = |all: &[&str]| all.iter().map(|&word| word.to_owned()).collect::<BTreeSet<_>>();
    let reasons = words(&DeadReason::ALL.map(DeadReason::as_str));
    assert_eq!(rows(&page, "## Dead reasons"), reasons);
    let results = words(&AttemptResult::ALL.map(AttemptResult::as_str));
    assert_eq!(rows(&page, "## Attempt results"), results);
    let refusals = words(&Rejection::ALL.map(Rejection::as_str));
    assert_eq!(rows(&page, "## Events that are not taken"), refusals);
}

#[test]
fn every_alert_says_what_to_do_has_a_runbook_and_is_tested() {
    let page = read("deploy/README.md");
    let runbooks = section(&page, "## Alerts");
    let tests = read("deploy/prometheus/alerts_test.yaml");
    let mut wanted = BTreeSet::new();
    for (name, rule) in alerts() {
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning")), "{name}: {severity:?}");
        for annotation in ["summary", "description"] {
            let text = rule["annotations"][annotation].as_str().unwrap_or_default();
            assert!(text.len() > 15, "{name} has no {annotation}");
        }
        let anchor = format!("deploy/README.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], anchor.as_str(), "{name}");
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} never fires in a test");
        wanted.insert(name);
    }
    let headings = runbooks.lines().filter_map(|line| line.strip_prefix("### "));
    assert_eq!(headings.map(str::to_owned).collect::<BTreeSet<_>>(), wanted);
}
