//! The other side of verification, for rehearsals: a request as its sender would have signed it.
//!
//! What the request says already is kept: whoever writes a signature means that one. The verifier
//! itself then has the last word, here as anywhere.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, HeaderValue};

use crate::{
    Timestamp,
    http::{
        HmacAlgorithm, HmacEncoding,
        hmac::{self, Key, Signed},
        webhook::{HmacVerifyConfig, Received, VerifyConfig},
    },
    secret::Secret,
};

/// The id of a message that was given none.
const ID: &str = "msg_test";

/// Adds to `request` what proves it to a verifier of `config` at `now`, by the first of its
/// secrets, and the headers that its sender always has. Headers that are there stay as they are.
pub fn sign(config: &VerifyConfig, request: &mut Received, now: Timestamp) {
    let seconds = now.0.div_euclid(1000).to_string();
    match config {
        VerifyConfig::StandardWebhooks(config) => {
            let id = kept(request, "webhook-id", ID);
            let timestamp = kept(request, "webhook-timestamp", &seconds);
            let first = config.secrets.first().map(Secret::expose).unwrap_or_default();
            let Ok(key) = hmac::webhook_key(first) else { return };
            let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", &request.raw];
            let signature = format!("v1,{}", STANDARD.encode(key.mac(signed)));
            kept(request, "webhook-signature", &signature);
        }
        VerifyConfig::Hmac(config) => sign_hmac(config, request, &seconds),
        VerifyConfig::Stripe(config) => {
            let key = first_key(HmacAlgorithm::Sha256, &config.secrets);
            let mac = key.mac([seconds.as_bytes(), b".", &request.raw]);
            kept(request, "stripe-signature", &format!("t={seconds},v1={}", hmac::hex(&mac)));
        }
        VerifyConfig::Github(config) => {
            let mac = first_key(HmacAlgorithm::Sha256, &config.secrets).mac([&request.raw[..]]);
            kept(request, "x-hub-signature-256", &format!("sha256={}", hmac::hex(&mac)));
            kept(request, "x-github-delivery", ID);
        }
        VerifyConfig::Shopify(config) => {
            let mac = first_key(HmacAlgorithm::Sha256, &config.secrets).mac([&request.raw[..]]);
            kept(request, "x-shopify-hmac-sha256", &STANDARD.encode(mac));
            kept(request, "x-shopify-webhook-id", ID);
        }
        VerifyConfig::Slack(config) => {
            let timestamp = kept(request, "x-slack-request-timestamp", &seconds);
            let key = first_key(HmacAlgorithm::Sha256, &config.secrets);
            let mac = key.mac([b"v0:", timestamp.as_bytes(), b":", &request.raw]);
            kept(request, "x-slack-signature", &format!("v0={}", hmac::hex(&mac)));
        }
        VerifyConfig::Square(config) => {
            let key = first_key(HmacAlgorithm::Sha256, &config.secrets);
            let mac = key.mac([request.url.as_bytes(), &request.raw]);
            kept(request, "x-square-hmacsha256-signature", &STANDARD.encode(mac));
        }
        VerifyConfig::Twilio(config) => {
            let mut form: Vec<(String, String)> =
                url::form_urlencoded::parse(&request.raw).into_owned().collect();
            form.sort_unstable();
            form.dedup();
            let parameters: String =
                form.into_iter().flat_map(|(name, value)| [name, value]).collect();
            let key = first_key(HmacAlgorithm::Sha1, &config.secrets);
            let mac = key.mac([request.url.as_bytes(), parameters.as_bytes()]);
            kept(request, "x-twilio-signature", &STANDARD.encode(mac));
        }
        VerifyConfig::ApiKey(config) => {
            let first = config.keys.first().map(Secret::expose).unwrap_or_default();
            kept(request, &config.header, first);
        }
        VerifyConfig::Basic(config) => {
            let pair = format!("{}:{}", config.username, config.password.expose());
            kept(request, "authorization", &format!("Basic {}", STANDARD.encode(pair)));
        }
        VerifyConfig::None(_) => {}
    }
}

fn sign_hmac(config: &HmacVerifyConfig, request: &mut Received, seconds: &str) {
    let mut set = |header: &Option<String>, value| {
        header.as_deref().map(|header| kept(request, header, value)).unwrap_or_default()
    };
    let timestamp = set(&config.timestamp_header, seconds);
    let id = set(&config.id_header, ID);
    let first = config.secrets.first().map(Secret::expose).unwrap_or_default();
    let key = super::hmac::decode(config.secret_encoding, first).unwrap_or_default();
    let Ok(pieces) = hmac::pieces("signed", &config.signed) else { return };
    let signed = Signed { id: &id, timestamp: &timestamp, url: &request.url, raw: &request.raw };
    let mac = Key::new(config.algorithm, &key).mac(pieces.iter().map(|piece| signed.piece(piece)));
    let signature = match config.encoding {
        HmacEncoding::Hex => hmac::hex(&mac),
        HmacEncoding::Base64 => STANDARD.encode(mac),
    };
    kept(request, &config.header, &format!("{}{signature}", config.prefix));
}

/// The value of the header `name`, which is `value` where there was none.
fn kept(request: &mut Received, name: &str, value: &str) -> String {
    let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
        return String::new();
    };
    let there = request.headers.entry(name).or_insert(value);
    String::from_utf8_lossy(there.as_bytes()).into_owned()
}

fn first_key(algorithm: HmacAlgorithm, secrets: &[Secret]) -> Key {
    Key::new(algorithm, secrets.first().map(Secret::expose).unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, header::CONTENT_TYPE};
    use serde_json::{Value, json};

    use super::*;
    use crate::http::verify::Verifier;

    const NOW: Timestamp = Timestamp(1_767_225_600_000);

    fn schemes() -> Vec<Value> {
        let preset = json!({ "secrets": ["first", "second"] });
        let names = ["stripe", "github", "shopify", "slack", "square", "twilio"];
        let mut schemes: Vec<Value> = names.iter().map(|name| json!({ *name: preset })).collect();
        let key = "whsec_ZGVtby1sb3lhbHR5LXdlYmhvb2stc2VjcmV0";
        schemes.extend([
            json!({ "standard_webhooks": { "secrets": [key], "tolerance": "5m" } }),
            json!({ "api_key": { "header": "X-Api-Key", "keys": ["first"] } }),
            json!({ "basic": { "username": "u", "password": "p" } }),
            json!({ "none": {} }),
            json!({ "hmac": {
                "header": "X-Signature", "encoding": "base64", "prefix": "v1=",
                "secrets": ["00ff"], "secret_encoding": "hex", "tolerance": "5m",
                "signed": "{id}.{timestamp}.{url}.{raw}",
                "timestamp_header": "X-Timestamp", "id_header": "X-Id",
            } }),
        ]);
        schemes
    }

    fn request() -> Received {
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        Received {
            method: Method::POST,
            url: "https://hooks.example/hook".to_owned(),
            path: "/hook".to_owned(),
            query: String::new(),
            headers: HeaderMap::from_iter([(CONTENT_TYPE, form)]),
            raw: "b=2&a=1+%2B&b=2".into(),
        }
    }

    #[test]
    fn every_scheme_believes_what_is_signed_for_it_and_nothing_that_was_changed_since() {
        for scheme in schemes() {
            let config: VerifyConfig = serde_json::from_value(scheme.clone()).unwrap();
            let verifier = Verifier::new(&config).unwrap();
            let mut signed = request();
            sign(&config, &mut signed, NOW);
            let verified = verifier.verify(&signed, NOW);
            assert!(verified.is_ok(), "{scheme}: {verified:?}");
            let covers_body = ["api_key", "basic", "none"].iter().all(|n| scheme.get(n).is_none());
            signed.raw = "b=3".into();
            assert_eq!(verifier.verify(&signed, NOW).is_err(), covers_body, "{scheme}");
        }
    }

    #[test]
    fn a_signature_that_is_there_stays_and_is_refused() {
        let preset = json!({ "stripe": { "secrets": ["first"] } });
        let config: VerifyConfig = serde_json::from_value(preset).unwrap();
        let mut forged = request();
        let forgery = HeaderValue::from_static("t=1767225600,v1=00");
        forged.headers.insert("stripe-signature", forgery.clone());
        sign(&config, &mut forged, NOW);
        assert_eq!(forged.headers["stripe-signature"], forgery);
        assert!(Verifier::new(&config).unwrap().verify(&forged, NOW).is_err());
    }
}
