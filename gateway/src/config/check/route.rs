//! What must agree within a route, between routes, and between a route and its upstream.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Check, publisher,
    upstream::{auth_headers, names},
    webhook,
};
use crate::config::report::did_you_mean;

/// Looks at every route, and at what they share.
pub(super) fn check_all(check: &mut Check<'_>) {
    let embedded = check.root.pointer("/broker/embedded").is_some();
    let mut queues: BTreeMap<&str, &str> = BTreeMap::new();
    let mut paths: BTreeMap<&str, &str> = BTreeMap::new();
    let mut count = 0;
    for (name, route) in check.section("routes") {
        count += 1;
        let path = format!("routes.{name}");
        if let Some(rabbitmq) = route.pointer("/from/rabbitmq") {
            let below = format!("{path}.from.rabbitmq");
            source(check, &below, rabbitmq, embedded);
            if let Some(queue) = rabbitmq.get("queue").and_then(Value::as_str)
                && let Some(first) = queues.insert(queue, name)
            {
                check.tell(
                    &format!("{below}.queue"),
                    format!(
                        "the route `{first}` consumes `{queue}` too: each would get a part of its \
                         messages; give each a queue of its own"
                    ),
                );
            }
        }
        if let Some(from) = route.pointer("/from/webhook") {
            let below = format!("{path}.from.webhook");
            webhook::check(check, &below, from);
            if let Some(at) = from.get("path").and_then(Value::as_str)
                && let Some(first) = paths.insert(at, name)
            {
                check.tell(
                    &format!("{below}.path"),
                    format!("is the path of the route `{first}` too; give each one of its own"),
                );
            }
        }
        if route.get("on_dead").and_then(Value::as_str) == Some("hold")
            && !check.places.contains_key(&format!("{path}.order_by"))
        {
            check.tell(
                &format!("{path}.on_dead"),
                "`hold` holds the deliveries of one order key, so it needs `order_by`",
            );
        }
        if let Some(http) = route.pointer("/to/http") {
            target(check, &format!("{path}.to.http"), http);
        }
        if let Some(to) = route.pointer("/to/rabbitmq") {
            publisher::target(check, &path, route, to);
        }
        if let Some(reply) = route.get("reply") {
            publisher::reply(check, &path, route, reply);
        }
        if let Some(retry) = route.get("retry") {
            check.ordered(&format!("{path}.retry"), retry, "initial_delay", "max_delay");
        }
    }
    if count == 0 {
        check.warn("routes", "there are no routes: nothing will be delivered");
    }
}

fn source(check: &mut Check<'_>, path: &str, rabbitmq: &Value, embedded: bool) {
    let filled = |key: &str| match rabbitmq.get(key) {
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        _ => false,
    };
    let declare = rabbitmq.get("declare").and_then(Value::as_bool);
    let bound = filled("bind");
    let bind = format!("{path}.bind");
    let queue = rabbitmq.get("queue").and_then(Value::as_str).unwrap_or_default();
    if queue.starts_with("amq.") {
        check.tell(&format!("{path}.queue"), "names that begin with `amq.` are RabbitMQ's own");
    }
    if queue.len() > 255 {
        check.tell(&format!("{path}.queue"), "longer than 255 bytes, which is AMQP's limit");
    }
    // A binding with a problem of its own is a hole here, not an absence.
    let unbound = !bound && !check.places.contains_key(&format!("{bind}[0]"));
    if embedded {
        if unbound {
            check.tell(
                &bind,
                "the embedded broker has no queues of its own: a route without `bind` would get \
                 nothing",
            );
        }
        return;
    }
    match declare {
        Some(true) if unbound => {
            check.warn(
                &bind,
                "the queue is declared and bound to nothing: only messages sent to it by name \
                 arrive",
            );
        }
        Some(false) => {
            for key in ["bind", "arguments"] {
                if filled(key) {
                    check.tell(
                        &format!("{path}.{key}"),
                        "has no effect with `declare: false`, which takes the queue as it is; \
                         leave out one of them",
                    );
                }
            }
        }
        _ => {}
    }
}

fn target(check: &mut Check<'_>, path: &str, http: &Value) {
    let Some(name) = http.get("upstream").and_then(Value::as_str) else { return };
    let upstreams = check.root.get("upstreams");
    // An upstream with problems of its own is still there.
    let there = check.places.contains_key(&format!("upstreams.{name}"));
    if !there {
        let near = did_you_mean(name, names(upstreams).map(String::as_str));
        check.tell(&format!("{path}.upstream"), format!("there is no upstream `{name}`{near}"));
    }
    let auth = upstreams.and_then(|all| all.get(name)).and_then(|one| one.get("auth"));
    let mut owned = auth.map(auth_headers).unwrap_or_default();
    for (_, key) in &mut owned {
        *key = format!("upstreams.{name}.{key}");
    }
    match http.get("idempotency_header").and_then(Value::as_str) {
        None | Some("off") => {}
        Some(header) => {
            let lower = header.to_ascii_lowercase();
            if let Some((_, key)) = owned.iter().find(|(other, _)| *other == lower) {
                let message = format!("this header is set by `{key}` already");
                check.tell(&format!("{path}.idempotency_header"), message);
            }
            owned.push((lower, "idempotency_header".to_owned()));
        }
    }
    for header in names(http.get("headers")) {
        let lower = header.to_ascii_lowercase();
        if let Some((_, key)) = owned.iter().find(|(other, _)| *other == lower) {
            let message = format!("this header is set by `{key}` already");
            check.tell(&format!("{path}.headers.{header}"), message);
        }
    }
    let success = http.get("success").and_then(Value::as_array);
    if success.is_some_and(Vec::is_empty)
        && !check.places.contains_key(&format!("{path}.outcome"))
        && !check.places.contains_key(&format!("{path}.success[0]"))
    {
        check.tell(
            &format!("{path}.success"),
            "without a status here and without `outcome` nothing could ever be delivered",
        );
    }
    let method = http.get("method").and_then(Value::as_str).unwrap_or_default();
    if matches!(method, "GET" | "HEAD") && !check.places.contains_key(&format!("{path}.body")) {
        check.warn(
            &format!("{path}.method"),
            format!(
                "a {method} would carry the event's data as its body; write `body: none` if it \
                 should not"
            ),
        );
    }
}
