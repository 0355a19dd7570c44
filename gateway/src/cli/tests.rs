use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Verb, ErrorKind> {
    let words = std::iter::once("tidegate").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.verb).map_err(|error| error.kind())
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_verb_is_read() {
    for line in [
        "run -c a.yaml -c folder",
        "check -c a.yaml --json",
        "test -c a.yaml",
        "test points refunds -c a.yaml -c b.yaml --json --require-tests --set A=b --set C=d=e",
        "demo",
        "demo --once",
        "mock -c mock.yaml",
        "emit order.confirmed --data {} --source /s --subject x --id 1 --exchange e --key k",
        "emit order.confirmed --data - --admin http://127.0.0.1:1",
        "routes",
        "routes list --json",
        "routes --json list",
        "upstreams --admin http://127.0.0.1:1",
        "upstreams list",
        "deliveries",
        "deliveries --state dead --json",
        "deliveries list --route r --upstream u --state dead --reason expired --type t --event e \
         --key k --since 1h --until 2026-01-31T12:00:00Z --limit 7",
        "deliveries --json list",
        "deliveries show 7",
        "deliveries show 7 --json --admin http://127.0.0.1:1",
        "healthcheck --admin http://127.0.0.1:1",
        "healthcheck --json",
        "emit order.confirmed --json",
        "reload",
        "reload --json --admin http://127.0.0.1:1",
        "routes pause award-points",
        "routes resume award-points/reply --json",
        "upstreams pause loyalty",
        "upstreams resume loyalty",
        "upstreams reset loyalty --json",
        "deliveries replay 7 8 9",
        "deliveries replay --route r --reason expired --since 1h --limit 7 --dry-run --json",
        "deliveries discard --state dead --upstream u --yes",
        "deliveries discard --all --yes",
    ] {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
    }
}

#[test]
fn wrong_options_are_refused_and_none_is_ignored() {
    for line in [
        "emit",
        "check",
        "demo --twice",
        "test -c a.yaml --set A",
        "test -c a.yaml --set =b",
        "mock",
        "deliveries show",
        "deliveries show 7 --state dead",
        "deliveries --limit 0",
        "deliveries --limit -1",
        "deliveries --state done",
        "deliveries --reason tired",
        "routes --state dead",
        "routes pause",
        "routes reset r",
        "upstreams reset",
        "reload --dry-run",
        "deliveries replay --state tired",
        "routes --token x",
    ] {
        // Without the environment's, a configuration must be named.
        if line != "check" || std::env::var_os("TIDEGATE_CONFIG").is_none() {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}

#[test]
fn filters_are_the_same_with_and_without_the_verb() {
    let filters = |line: &str| match parse(line) {
        Ok(Verb::Deliveries { verb: Some(DeliveriesVerb::List(filters)), .. }) => filters,
        Ok(Verb::Deliveries { verb: None, filters, .. }) => filters,
        other => panic!("{line}: {other:?}"),
    };
    let given = "--route r --state dead --limit 9";
    assert_eq!(
        filters(&format!("deliveries {given}")),
        filters(&format!("deliveries list {given}"))
    );
    assert!(filters("deliveries --limit 9").any());
    assert!(!filters("deliveries --json").any());
}

#[tokio::test]
async fn filters_before_a_verb_are_a_usage_error_and_not_dropped() {
    for line in [
        "deliveries --state dead list",
        "deliveries --state dead show 7",
        "deliveries --state dead replay --yes",
    ] {
        let code = run(Cli { verb: parse(line).unwrap() }).await;
        assert_eq!(code, ExitCode::from(2), "{line}");
    }
}
