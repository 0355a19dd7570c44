//! What must agree within one upstream.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use url::{Host, Url};

use super::Check;

/// Headers that Standard Webhooks sets.
const WEBHOOK_HEADERS: [&str; 3] = ["webhook-id", "webhook-timestamp", "webhook-signature"];

/// Looks at one upstream; `called` is whether a route calls it.
pub(super) fn check(check: &mut Check<'_>, name: &str, upstream: &Value, called: bool) {
    let path = format!("upstreams.{name}");
    let url = upstream.get("url").and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
    if let Some(auth) = upstream.get("auth") {
        exclusive(check, &path, auth, &["bearer", "basic", "oauth2"]);
        let user = url.as_ref().is_some_and(|url| !url.username().is_empty());
        let first = ["bearer", "basic", "oauth2"].into_iter().find(|key| auth.get(*key).is_some());
        if let (true, Some(key)) = (user, first) {
            let message = "the url has a user already, and they exclude each other";
            check.tell(&format!("{path}.auth.{key}"), message);
        }
        exclusive(check, &path, auth, &["standard_webhooks", "hmac"]);
        headers(check, &path, upstream, auth);
        let username = auth.pointer("/basic/username").and_then(Value::as_str);
        if username.is_some_and(|name| name.contains(':')) {
            let message = "a user name cannot hold `:`, which ends it (RFC 7617)";
            check.tell(&format!("{path}.auth.basic.username"), message);
        }
        let needs_time = auth.pointer("/hmac/signed").and_then(Value::as_str);
        if needs_time.is_some_and(|signed| signed.contains("{timestamp}"))
            && auth.pointer("/hmac/timestamp_header").is_none()
            && !check.places.contains_key(&format!("{path}.auth.hmac.timestamp_header"))
        {
            check.tell(
                &format!("{path}.auth.hmac.signed"),
                "signs `{timestamp}`, which the receiver must see: set `timestamp_header`",
            );
        }
    }
    if upstream.get("tls").is_some() {
        let token_url = upstream.pointer("/auth/oauth2/token_url").and_then(Value::as_str);
        let used = url.as_ref().is_none_or(|url| url.scheme() == "https")
            || token_url.is_some_and(|url| url.starts_with("https:"));
        check.tls(&format!("{path}.tls"), used);
    }
    if let Some(retry) = upstream.get("retry") {
        check.ordered(&format!("{path}.retry"), retry, "initial_delay", "max_delay");
    }
    if let Some(breaker) = upstream.get("breaker") {
        check.ordered(&format!("{path}.breaker"), breaker, "open", "open_max");
    }
    if let Some(url) = &url
        && upstream.get("proxy").is_none()
    {
        guarded(check, &path, url, upstream);
    }
    if !called {
        check.warn(&path, "no route calls this upstream");
    }
}

fn exclusive(check: &mut Check<'_>, path: &str, auth: &Value, keys: &[&str]) {
    let mut there = keys.iter().filter(|key| auth.get(**key).is_some());
    if let Some(first) = there.next() {
        for second in there {
            let message = format!("`{first}` is there already, and they exclude each other");
            check.tell(&format!("{path}.auth.{second}"), message);
        }
    }
}

/// The headers that `auth` sets, lower case, each with the key that does.
pub(super) fn auth_headers(auth: &Value) -> Vec<(String, String)> {
    let mut owned = Vec::new();
    for kind in ["bearer", "basic", "oauth2"] {
        if auth.get(kind).is_some() {
            owned.push(("authorization".to_owned(), format!("auth.{kind}")));
            break;
        }
    }
    for name in names(auth.get("headers")) {
        owned.push((name.to_ascii_lowercase(), format!("auth.headers.{name}")));
    }
    if auth.get("standard_webhooks").is_some() {
        let set = |name: &&str| ((*name).to_owned(), "auth.standard_webhooks".to_owned());
        owned.extend(WEBHOOK_HEADERS.iter().map(set));
    }
    for key in ["header", "timestamp_header"] {
        if let Some(name) = auth.pointer(&format!("/hmac/{key}")).and_then(Value::as_str) {
            owned.push((name.to_ascii_lowercase(), format!("auth.hmac.{key}")));
        }
    }
    owned
}

/// The keys of a map.
pub(super) fn names(map: Option<&Value>) -> impl Iterator<Item = &String> {
    map.and_then(Value::as_object).into_iter().flat_map(|map| map.keys())
}

fn headers(check: &mut Check<'_>, path: &str, upstream: &Value, auth: &Value) {
    let owned = auth_headers(auth);
    for (n, (name, key)) in owned.iter().enumerate() {
        if let Some((_, first)) = owned[..n].iter().find(|(other, _)| other == name) {
            let message = format!("sets the header `{name}`, as `{first}` does");
            check.tell(&format!("{path}.{key}"), message);
        }
    }
    for name in names(upstream.get("headers")) {
        let lower = name.to_ascii_lowercase();
        if let Some((_, key)) = owned.iter().find(|(other, _)| *other == lower) {
            let message = format!("this header is set by `{key}` already");
            check.tell(&format!("{path}.headers.{name}"), message);
        } else if lower == "authorization" {
            let message = "shows in stored attempts; write it under `auth.headers` if it is secret";
            check.warn(&format!("{path}.headers.{name}"), message);
        }
    }
}

/// An address that is refused by default can be told from the URL when it is written in it.
fn guarded(check: &mut Check<'_>, path: &str, url: &Url, upstream: &Value) {
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::from(ip),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip),
        Some(Host::Domain("localhost")) => IpAddr::from([127, 0, 0, 1]),
        _ => return,
    };
    let private = match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    let allow = upstream.pointer("/egress/allow").and_then(Value::as_array);
    let allowed = allow.into_iter().flatten().any(|network| {
        let network = network.as_str().and_then(|text| text.parse::<IpNet>().ok());
        network.is_some_and(|network| network.contains(&ip))
    });
    if private && !allowed {
        check.warn(
            &format!("{path}.url"),
            format!(
                "{ip} is a private address, which is refused: list it under `egress.allow` if it \
                 is meant"
            ),
        );
    }
}
