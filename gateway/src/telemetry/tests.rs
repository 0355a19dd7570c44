use super::*;

fn text(metrics: &Metrics) -> String {
    let mut text = String::new();
    encode(&mut text, &metrics.registry).unwrap();
    classic(&text)
}

#[test]
fn counters_are_named_and_described_as_the_older_format_wants() {
    let metrics = Metrics::empty();
    let route: Arc<str> = "a\"b".into();
    metrics.accepted(&route, 3);
    metrics.ended(&route, Ending::Dead(DeadReason::Rejected));
    let text = text(&metrics);
    assert!(text.contains("# TYPE tidegate_events_accepted_total counter\n"), "{text}");
    assert!(text.contains("tidegate_events_accepted_total{route=\"a\\\"b\"} 3\n"), "{text}");
    let dead = "tidegate_deliveries_total{route=\"a\\\"b\",outcome=\"dead\",reason=\"rejected\"} 1";
    assert!(text.contains(dead), "{text}");
    assert!(!text.contains("# EOF"), "{text}");
}

#[test]
fn clones_are_one_set_of_counters() {
    let metrics = Metrics::empty();
    let (route, upstream): (Arc<str>, Arc<str>) = ("r".into(), "u".into());
    metrics.clone().attempt(&route, &upstream, AttemptResult::Timeout, Duration::from_secs(2));
    metrics.attempt(&route, &upstream, AttemptResult::Timeout, Duration::from_secs(2));
    let text = text(&metrics);
    let attempts = "tidegate_attempts_total{route=\"r\",upstream=\"u\",result=\"timeout\"} 2\n";
    assert!(text.contains(attempts), "{text}");
    let bucket = |le| format!("attempt_duration_seconds_bucket{{le=\"{le}\",upstream=\"u\"}}");
    assert!(text.contains(&format!("{} 0\n", bucket("1.0"))), "{text}");
    assert!(text.contains(&format!("{} 2\n", bucket("2.5"))), "{text}");
}

#[test]
fn a_lag_of_days_still_has_a_bucket() {
    let metrics = Metrics::empty();
    metrics.lag(&"r".into(), Duration::from_secs(4 * 86_400));
    let text = text(&metrics);
    assert!(text.contains("delivery_lag_seconds_bucket{le=\"604800.0\",route=\"r\"} 1"), "{text}");
    assert!(text.contains("delivery_lag_seconds_bucket{le=\"259200.0\",route=\"r\"} 0"), "{text}");
}
