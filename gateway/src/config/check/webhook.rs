//! What must agree within one webhook, and between it and the listener.

use serde::Deserialize as _;
use serde_json::Value;
use tidegate_adapters::http::webhook::VerifyConfig;

use super::{Check, duration, in_words, upstream::names};

/// Looks at one `from.webhook`, which stands at `path`.
pub(super) fn check(check: &mut Check<'_>, path: &str, webhook: &Value) {
    if let Some(verify) = webhook.get("verify") {
        let below = format!("{path}.verify");
        credentials(check, &below, verify);
        if let Some(hmac) = verify.get("hmac") {
            signature(check, &format!("{below}.hmac"), hmac);
            if webhook.pointer("/event/id").is_none() {
                identity(check, &format!("{below}.hmac"), hmac);
            }
        }
        // One that does not read has a problem of its own.
        if let Ok(scheme) = VerifyConfig::deserialize(verify) {
            url(check, &below, &scheme);
            repeats(check, path, &scheme, webhook.get("dedupe"));
        }
    }
    if let Some(respond) = webhook.get("respond") {
        answer(check, &format!("{path}.respond"), respond);
    }
}

fn credentials(check: &mut Check<'_>, path: &str, verify: &Value) {
    for (kind, config) in verify.as_object().into_iter().flatten() {
        for key in ["secrets", "keys"] {
            let below = format!("{path}.{kind}.{key}");
            let none = config.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty);
            // A secret with a problem of its own is a hole here, not an absence.
            if none && !check.places.contains_key(&format!("{below}[0]")) {
                check.tell(
                    &below,
                    "is empty: no request could ever prove itself; list at least one",
                );
            }
        }
    }
    let username = verify.pointer("/basic/username").and_then(Value::as_str);
    if username.is_some_and(|name| name.contains(':')) {
        let message = "a user name cannot hold `:`, which ends it (RFC 7617)";
        check.tell(&format!("{path}.basic.username"), message);
    }
    if verify.get("none").is_some() {
        check.warn(
            &format!("{path}.none"),
            "no request is verified: whoever reaches the listener can send events to this route",
        );
    }
}

/// What is signed, and where the rest of it is read from.
fn signature(check: &mut Check<'_>, path: &str, hmac: &Value) {
    let has = |key| check.places.contains_key(&format!("{path}.{key}"));
    let (timestamp, id) = (has("timestamp_header"), has("id_header"));
    if check.is_written(&format!("{path}.tolerance")) && !timestamp {
        check.tell(
            &format!("{path}.tolerance"),
            "has no effect without `timestamp_header`, which says where the timestamp is",
        );
    }
    let header = |key: &str| hmac.get(key).and_then(Value::as_str);
    for key in ["timestamp_header", "id_header"] {
        if let (Some(one), Some(other)) = (header("header"), header(key))
            && one.eq_ignore_ascii_case(other)
        {
            let message = "is `header` too, which carries the signature";
            check.tell(&format!("{path}.{key}"), message);
        }
    }
    let Some(signed) = header("signed") else { return };
    let below = format!("{path}.signed");
    for (placeholder, key, there) in
        [("{timestamp}", "timestamp_header", timestamp), ("{id}", "id_header", id)]
    {
        if signed.contains(placeholder) && !there {
            let message = format!("holds `{placeholder}`: set `{key}`, which says where it is");
            check.tell(&below, message);
        }
    }
    if timestamp && !signed.contains("{timestamp}") {
        check.warn(
            &format!("{path}.timestamp_header"),
            "proves little while `signed` has no `{timestamp}`, for anyone could write a new one; \
             sign it where the sender does, as in '{timestamp}.{raw}'",
        );
    }
    if !signed.contains("{raw}") {
        check.tell(
            &below,
            "has no `{raw}`: who has seen one request can send any body with its signature",
        );
    }
}

/// A timestamp bounds how long a request can be sent again; that it is a repeat, only an id that
/// cannot be changed tells.
fn identity(check: &mut Check<'_>, path: &str, hmac: &Value) {
    let text = |key: &str| hmac.get(key).and_then(Value::as_str);
    let Some(signed) = text("signed").filter(|_| text("timestamp_header").is_some()) else {
        return;
    };
    let what = match text("id_header") {
        None => "names no id, so every request has a fresh one",
        Some(_) if !signed.contains("{id}") => "has an id that is not signed",
        Some(_) => return,
    };
    let message = format!(
        "{what}: a request that is sent again within its tolerance can pass for a new one; take \
         `event.id` from the body, or sign `{{id}}`, which `id_header` carries"
    );
    check.warn(path, message);
}

fn url(check: &mut Check<'_>, path: &str, scheme: &VerifyConfig) {
    if scheme.signs_url() && !check.places.contains_key("server.public_url") {
        check.tell(
            &format!("{path}.{scheme}"),
            "signs the URL, so `server.public_url` must say what its sender calls, as in \
             https://hooks.example.com",
        );
    }
}

/// A signed request is good for as long as its timestamp is within the tolerance, before and after
/// now. Who captured one can send it again in all that time, so it must be known as a repeat.
fn repeats(check: &mut Check<'_>, path: &str, scheme: &VerifyConfig, dedupe: Option<&Value>) {
    let Some(tolerance) = scheme.tolerance() else { return };
    let Some(window) = dedupe.and_then(Value::as_str) else { return };
    let least = tolerance.saturating_mul(2);
    let shown = in_words(least);
    let why = format!(
        "a request of `{scheme}` can be sent again for {shown}, twice its tolerance, and must be \
         known as a repeat for as long: write {shown} or more"
    );
    match duration(window) {
        None => check.tell(&format!("{path}.dedupe"), format!("cannot be `{window}`: {why}")),
        Some(length) if length < least => {
            check.tell(&format!("{path}.dedupe"), format!("{window} is too short: {why}"));
        }
        Some(_) => {}
    }
}

/// The answer to what was accepted is a yes, or its sender sends it again.
fn answer(check: &mut Check<'_>, path: &str, respond: &Value) {
    let status = respond.get("status").and_then(Value::as_u64);
    if let Some(status) = status {
        let below = format!("{path}.status");
        if !(200..300).contains(&status) {
            check.tell(
                &below,
                format!(
                    "{status} would say no to what has been accepted, and its sender would send \
                     it again; write a status from 200 to 299"
                ),
            );
        }
        if matches!(status, 204 | 205) && check.places.contains_key(&format!("{path}.body")) {
            check.tell(&format!("{path}.body"), format!("a {status} has no body; leave one out"));
        }
    }
    for name in names(respond.get("headers")) {
        if name.eq_ignore_ascii_case("tidegate-duplicate") {
            let message = "Tidegate sets this header itself; leave it out";
            check.tell(&format!("{path}.headers.{name}"), message);
        }
    }
}
