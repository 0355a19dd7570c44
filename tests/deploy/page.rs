//! The operator's page leaves nothing out.

use tidegate_adapters::{AttemptResult, DeadReason, Rejection};

use super::{text, watched::Metrics};

/// The row of a table that begins with this, between backquotes.
fn row<'t>(page: &'t str, word: &str) -> &'t str {
    let start = format!("| `{word}` |");
    let mut rows = page.lines().filter(|line| line.starts_with(&start));
    let row = rows.next().unwrap_or_else(|| panic!("no row of a table begins `{start}`"));
    assert!(rows.next().is_none(), "two rows begin `{start}`");
    row
}

#[tokio::test]
async fn every_metric_stands_there_with_its_kind_and_labels() {
    let page = text("deploy/README.md");
    let metrics = Metrics::of_a_gateway().await;
    for (name, metric) in &metrics.0 {
        let row = row(&page, name);
        assert!(row.contains(&format!("| {} |", metric.kind)), "{name} is a {}", metric.kind);
        for label in &metric.labels {
            assert!(row.contains(&format!("`{label}`")), "{name} has the label {label}");
        }
    }
    let listed = page.lines().filter_map(|line| line.strip_prefix("| `tidegate_"));
    for name in listed.filter_map(|line| line.split('`').next()) {
        assert!(metrics.0.contains_key(&format!("tidegate_{name}")), "there is no tidegate_{name}");
    }
}

#[test]
fn every_dead_reason_and_every_result_of_an_attempt_stands_there() {
    let page = text("deploy/README.md");
    let dead = page.split("## Dead deliveries").nth(1).expect("a chapter");
    let dead = dead.split("\n## ").next().expect("its end");
    for reason in DeadReason::ALL {
        assert!(row(dead, reason.as_str()).len() > 60, "{}", reason.as_str());
    }
    let results = page.split("## Results of attempts").nth(1).expect("a chapter");
    let results = results.split("\n## ").next().expect("its end");
    for result in AttemptResult::ALL {
        assert!(row(results, result.as_str()).len() > 40, "{}", result.as_str());
    }
}

#[test]
fn every_reason_for_which_an_event_is_not_taken_stands_there() {
    let page = text("deploy/README.md");
    let refused = page.split("## Events that are not taken").nth(1).expect("a chapter");
    let refused = refused.split("\n## ").next().expect("its end");
    for reason in Rejection::ALL {
        assert!(row(refused, reason.as_str()).len() > 40, "{}", reason.as_str());
    }
}
