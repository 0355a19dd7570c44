//! What must agree where a route publishes: its target, and its replies.

use bytes::Bytes;
use serde_json::Value;
use tidegate_adapters::{
    embedded::topic_matches,
    expression::{Input, Place, Template, Variables},
};

use super::Check;

/// Looks at one `to.rabbitmq` of the route at `path`.
pub(super) fn target(check: &mut Check<'_>, path: &str, route: &Value, to: &Value) {
    let below = format!("{path}.to.rabbitmq");
    on_the_embedded_broker(check, &below);
    ring(check, &below, route, to, None);
    let retry_after = format!("{path}.retry.retry_after_max");
    if check.is_written(&retry_after) {
        check.tell(
            &retry_after,
            "has no effect where a route publishes, for a broker names no time to wait; leave it \
             out",
        );
    }
}

/// Looks at one `reply` of the route at `path`.
pub(super) fn reply(check: &mut Check<'_>, path: &str, route: &Value, reply: &Value) {
    let below = format!("{path}.reply");
    if route.pointer("/to/rabbitmq").is_some() {
        check.tell(
            &below,
            "tells of an API's answer, which only a route with `to.http` gets; leave it out",
        );
        return;
    }
    let on = format!("{below}.on");
    if reply.get("on").and_then(Value::as_array).is_some_and(Vec::is_empty)
        && !check.places.contains_key(&format!("{on}[0]"))
    {
        check.tell(&on, "is empty: no reply would ever be sent; leave out `reply` as a whole");
    }
    on_the_embedded_broker(check, &below);
    let kind = reply.pointer("/event/type").and_then(Value::as_str);
    ring(check, &below, route, reply, kind);
}

/// Events travel there as they are, not in an envelope.
fn on_the_embedded_broker(check: &mut Check<'_>, path: &str) {
    if check.root.pointer("/broker/embedded").is_none() {
        return;
    }
    for key in ["headers", "envelope"] {
        let below = format!("{path}.{key}");
        if check.is_written(&below) {
            check.tell(
                &below,
                "has no effect on the embedded broker, where an event stays in process and needs \
                 no envelope; leave it out",
            );
        }
    }
}

/// Whether a route takes in again what it publishes itself. `kind` is the event's type, where it
/// is known; a key that depends on more is told only where any key would come back.
fn ring(check: &mut Check<'_>, path: &str, route: &Value, to: &Value, kind: Option<&str>) {
    let exchange = to.get("exchange").and_then(Value::as_str);
    let key = match to.get("key").and_then(Value::as_str) {
        Some("{.type}") => kind.and_then(literal),
        Some(key) => literal(key),
        None => None,
    };
    let bindings = route.pointer("/from/rabbitmq/bind").and_then(Value::as_array);
    let comes_back = bindings.into_iter().flatten().any(|binding| {
        let text = |key| binding.get(key).and_then(Value::as_str);
        let Some(pattern) = text("key") else { return false };
        let taken = key.as_ref().map_or(pattern == "#", |key| topic_matches(pattern, key));
        exchange.is_some() && text("exchange") == exchange && taken
    });
    if comes_back {
        check.warn(
            &format!("{path}.exchange"),
            "a ring: this route is bound to this exchange, so what it publishes comes back to it; \
             publish to another exchange, or bind it to narrower keys",
        );
    }
}

/// What a template gives that has no placeholder.
fn literal(template: &str) -> Option<String> {
    let template = Template::compile(template).ok().filter(Template::is_literal)?;
    let nothing = Input::json(Bytes::from_static(b"null")).ok()?;
    template.render(&nothing, &Variables::default(), Place::RoutingKey).ok()?
}
