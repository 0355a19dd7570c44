//! Requests that say they are signed, to a verifier of every kind.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hyper::{HeaderMap, Method, header::CONTENT_TYPE, header::HeaderValue};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_adapters::{
    Timestamp,
    http::{
        verify::{Verifier, sender},
        webhook::{Received, VerifyConfig},
    },
};

use super::{NOW, Parts, envelopes};

/// A request: headers, and `?` for the query. Then the body.
///
/// The key is drawn from the input itself, so that no input can have been signed with it: whatever
/// is believed is a forgery.
///
/// # Panics
/// When a forgery is believed, or what was signed is not, or is still believed when it was changed
/// or grew old; when a refusal shows the key.
pub fn signatures(input: &[u8]) {
    let request = request(&Parts::of(input));
    let key: [u8; 32] = Sha256::digest(input).into();
    for (kind, config) in schemes(&key) {
        let config: VerifyConfig =
            serde_json::from_value(json!({ kind: config })).expect("a sound scheme");
        let verifier = Verifier::new(&config).expect("a sound scheme");
        let given = verifier.verify(&request, NOW);
        match &given {
            Ok(_) => assert_eq!(kind, "none", "believed a forgery"),
            Err(why) => assert!(!why.0.is_empty() && !why.0.contains(&hex(&key)[..16]), "{why}"),
        }
        assert_signed_is_believed(kind, &config, &verifier, &request);
    }
}

/// Every kind, with keys made of `key`.
fn schemes(key: &[u8; 32]) -> Vec<(&'static str, Value)> {
    let text = hex(key);
    let preset = json!({ "secrets": ["other-secret", text] });
    let names = ["stripe", "github", "shopify", "slack", "square", "twilio"];
    let mut schemes: Vec<_> = names.iter().map(|name| (*name, preset.clone())).collect();
    let webhook = format!("whsec_{}", STANDARD.encode(key));
    schemes.extend([
        ("standard_webhooks", json!({ "secrets": [webhook], "tolerance": "5m" })),
        ("api_key", json!({ "header": "X-Api-Key", "keys": [text] })),
        ("basic", json!({ "username": "u", "password": text })),
        ("none", json!({})),
        (
            "hmac",
            json!({
                "header": "X-Signature", "encoding": "base64", "prefix": "v1=",
                "secrets": [text], "secret_encoding": "hex", "tolerance": "5m",
                "signed": "{id}.{timestamp}.{url}.{raw}",
                "timestamp_header": "X-Timestamp", "id_header": "X-Id",
            }),
        ),
        (
            "hmac",
            json!({
                "header": "X-Signature", "algorithm": "sha512", "encoding": "hex",
                "secrets": [text], "signed": "{raw}", "tolerance": "5m",
            }),
        ),
    ]);
    schemes
}

/// Signs the request's body as a sender would, and lays the request's own headers over that.
fn assert_signed_is_believed(
    kind: &str,
    config: &VerifyConfig,
    verifier: &Verifier,
    request: &Received,
) {
    // Twilio's forms; and of texts that are none its sender and we make different bytes.
    let form = HeaderValue::from_static("application/x-www-form-urlencoded");
    let decoded = url::form_urlencoded::parse(&request.raw);
    let text = decoded.into_iter().all(|(name, value)| !(name + &*value).contains('\u{fffd}'));
    let few = request.raw.iter().filter(|byte| **byte == b'&').count() < 1000;
    if kind == "twilio" && !(text && few && request.query.is_empty()) {
        return;
    }
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, form)]);
    let mut signed = Received { headers, ..request.clone() };
    sender::sign(config, &mut signed, NOW);
    let verified = verifier.verify(&signed, NOW);
    assert!(verified.is_ok(), "{kind}: {verified:?}");

    let old = Timestamp(NOW.0 + Duration::from_secs(3600).as_millis() as i64);
    assert_eq!(verifier.verify(&signed, old).is_err(), config.tolerance().is_some(), "{kind}");

    let mut changed = signed.clone();
    changed.raw = [&request.raw[..], b"x"].concat().into();
    let covered = !matches!(kind, "api_key" | "basic" | "none");
    assert_eq!(verifier.verify(&changed, NOW).is_err(), covered, "{kind}");

    // Whatever stands beside the signature, the body is still the one that was signed.
    for (name, value) in &request.headers {
        signed.headers.append(name, value.clone());
        changed.headers.append(name, value.clone());
    }
    let _ = verifier.verify(&signed, NOW);
    assert!(!covered || verifier.verify(&changed, NOW).is_err(), "{kind}");
}

fn request(parts: &Parts<'_>) -> Received {
    let query = parts.text("?").unwrap_or_default();
    let mark = if query.is_empty() { "" } else { "?" };
    Received {
        method: Method::POST,
        url: format!("https://hooks.example/hook{mark}{query}"),
        path: "/hook".to_owned(),
        query,
        headers: envelopes::headers(parts),
        raw: Bytes::copy_from_slice(parts.rest),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
