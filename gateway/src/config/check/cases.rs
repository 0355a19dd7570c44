//! What must agree within a test, and between it and its route.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::Check;
use crate::config::report::did_you_mean;

/// Results that only RabbitMQ gives, and those that only HTTP does.
const OF_RABBITMQ: [&str; 3] = ["unroutable", "nack", "ambiguous"];

/// Looks at every test.
pub(super) fn check_all(check: &mut Check<'_>) {
    for (name, test) in check.section("tests") {
        let path = format!("tests.{name}");
        if let Some(now) = test.get("now").and_then(Value::as_str)
            && OffsetDateTime::parse(now, &Rfc3339).is_err()
        {
            let problem = format!("`{now}` is not a time: write it as 2026-01-31T12:00:00Z");
            check.tell(&format!("{path}.now"), problem);
        }
        bodies(check, &path, test);
        header_values(check, &format!("{path}.given.webhook"), &test["given"]["webhook"]);
        expectations(check, &path, test);
        let Some(route) = test.get("route").and_then(Value::as_str) else { continue };
        match check.root.pointer("/routes").and_then(|routes| routes.get(route)) {
            Some(tested) => ends(check, &path, test, tested),
            None => {
                let names = check.section("routes").map(|(name, _)| name.as_str());
                let near = did_you_mean(route, names);
                check.tell(&format!("{path}.route"), format!("there is no route `{route}`{near}"));
            }
        }
    }
}

/// One way to write a body is enough.
fn bodies(check: &mut Check<'_>, path: &str, test: &Value) {
    let mut holders = vec![
        format!("{path}.given.message"),
        format!("{path}.given.webhook"),
        format!("{path}.expect.answer"),
    ];
    let lists = [("answers", "/answers"), ("expect.requests", "/expect/requests")];
    let published = [("expect.published", "/expect/published")];
    for (key, pointer) in lists.into_iter().chain(published) {
        let count = test.pointer(pointer).and_then(Value::as_array).map_or(0, Vec::len);
        holders.extend((0..count).map(|n| format!("{path}.{key}[{n}]")));
    }
    for holder in holders {
        let written: Vec<&str> = ["body", "form", "raw"]
            .into_iter()
            .filter(|key| check.is_written(&format!("{holder}.{key}")))
            .collect();
        if let [first, second, ..] = written[..] {
            let problem = format!("says the body once more: `{first}` is there already");
            check.tell(&format!("{holder}.{second}"), problem);
        }
    }
}

/// What a message of HTTP carries must fit into one.
fn header_values(check: &mut Check<'_>, path: &str, holder: &Value) {
    for (name, value) in holder["headers"].as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if http::HeaderValue::from_str(text).is_err() {
            let problem = "does not fit into a header: it holds a line break or the like";
            check.tell(&format!("{path}.headers.{name}"), problem);
        }
    }
}

fn expectations(check: &mut Check<'_>, path: &str, test: &Value) {
    for (n, answer) in test["answers"].as_array().into_iter().flatten().enumerate() {
        let below = format!("{path}.answers[{n}]");
        header_values(check, &below, answer);
        let says = |key: &str| check.is_written(&format!("{below}.{key}"));
        if answer.get("fault").is_some()
            && let Some(key) = ["status", "headers", "body", "raw"].into_iter().find(|k| says(k))
        {
            let problem = "is part of an answer, and with `fault` there is none: keep one of them";
            check.tell(&format!("{below}.{key}"), problem);
        }
    }
    let outcomes = test.pointer("/expect/outcome").and_then(Value::as_array);
    let dead = outcomes.is_some_and(|outcomes| outcomes.iter().any(|outcome| outcome == "dead"));
    if outcomes.is_some_and(Vec::is_empty) {
        check.tell(&format!("{path}.expect.outcome"), "is empty: `nothing` means no event");
    }
    if test.pointer("/expect/reason").is_some() && !dead {
        let problem = "is why a delivery is dead: write `outcome: dead` beside it";
        check.tell(&format!("{path}.expect.reason"), problem);
    }
}

/// What is given and answered must be what the route's ends can take.
fn ends(check: &mut Check<'_>, path: &str, test: &Value, route: &Value) {
    let webhook = route.pointer("/from/webhook").is_some();
    let given = |kind: &str| test.pointer(&format!("/given/{kind}")).is_some();
    if webhook && given("message") {
        let problem = "the route takes in webhooks: give it `webhook` or `event`";
        check.tell(&format!("{path}.given.message"), problem);
    }
    if !webhook && given("webhook") {
        let problem = "the route takes in RabbitMQ's messages: give it `message` or `event`";
        check.tell(&format!("{path}.given.webhook"), problem);
    }
    if !webhook && test.pointer("/expect/answer").is_some() {
        let problem = "is what a webhook's sender hears, and the route takes in messages";
        check.tell(&format!("{path}.expect.answer"), problem);
    }
    let publishes = route.pointer("/to/rabbitmq").is_some();
    if publishes && test.pointer("/expect/requests").is_some() {
        let problem = "the route publishes: expect `published`";
        check.tell(&format!("{path}.expect.requests"), problem);
    }
    for (n, answer) in test["answers"].as_array().into_iter().flatten().enumerate() {
        let below = format!("{path}.answers[{n}]");
        match answer.get("fault").and_then(Value::as_str) {
            Some(fault) if OF_RABBITMQ.contains(&fault) != publishes => {
                let kind = if publishes { "publishes" } else { "calls an HTTP API" };
                let problem = format!("the route {kind}, where there is no `{fault}`");
                check.tell(&format!("{below}.fault"), problem);
            }
            None if publishes && answer.get("status").is_some() => {
                let problem = "the route publishes: RabbitMQ confirms (`{}`) or there is a `fault`";
                check.tell(&format!("{below}.status"), problem);
            }
            _ => {}
        }
    }
}
