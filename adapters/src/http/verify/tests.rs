use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;
use crate::{
    http::{
        HmacAlgorithm, HmacEncoding,
        hmac::{Key, hex},
        webhook::{
            HmacVerifyConfig, NoVerifyConfig, PresetConfig, SecretEncoding,
            StandardWebhooksVerifyConfig,
        },
    },
    secret::Secret,
};

const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// A POST to `https://hooks.example.com/in` with these headers and this body.
pub(super) fn request(headers: &[(&str, &str)], raw: &[u8]) -> Received {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(*name).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    Received {
        method: Method::POST,
        url: "https://hooks.example.com/in".into(),
        path: "/in".into(),
        query: String::new(),
        headers: map,
        raw: Bytes::copy_from_slice(raw),
    }
}

pub(super) fn secrets(secrets: &[&str]) -> Vec<Secret> {
    secrets.iter().map(|secret| Secret::new(*secret)).collect()
}

pub(super) fn preset(texts: &[&str]) -> PresetConfig {
    PresetConfig { secrets: secrets(texts) }
}

/// The moment `seconds` after the epoch.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn refusal(verifier: &Verifier, request: &Received, now: Timestamp) -> String {
    verifier.verify(request, now).expect_err("this request is not genuine").to_string()
}

mod standard_webhooks {
    use super::*;

    /// The example of the reference libraries (`standardwebhooks`, test `sign_function_works`).
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNED: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const SENT: i64 = 1_614_265_330;

    fn verifier(texts: &[&str]) -> Verifier {
        Verifier::new(&VerifyConfig::StandardWebhooks(StandardWebhooksVerifyConfig {
            secrets: secrets(texts),
            tolerance: FIVE_MINUTES,
        }))
        .unwrap()
    }

    fn sent(prefix: &str, id: &str, timestamp: &str, signature: &str) -> Received {
        let names = ["id", "timestamp", "signature"].map(|name| format!("{prefix}-{name}"));
        let [a, b, c] = &names;
        request(&[(a, id), (b, timestamp), (c, signature)], BODY)
    }

    #[test]
    fn the_reference_libraries_example_is_genuine_under_either_family_of_names() {
        for prefix in ["webhook", "svix"] {
            let verified = verifier(&[SECRET])
                .verify(&sent(prefix, ID, "1614265330", SIGNED), at(SENT))
                .unwrap();
            assert_eq!(verified.id.as_deref(), Some(ID));
            assert!(verified.handshake.is_none());
        }
    }

    #[test]
    fn any_of_several_secrets_and_any_of_several_signatures_will_do() {
        let other = "whsec_b3RoZXIgc2VjcmV0IG9mIHNlbmRlcg==";
        let wrong = format!("v1,{}", STANDARD.encode([7; 32]));
        for listed in [
            format!("{wrong} {SIGNED}"),
            format!("{SIGNED} {wrong}"),
            format!("v1a,{} {SIGNED}", STANDARD.encode([7; 64])),
            format!("v1,not base64 v2 {SIGNED}"),
        ] {
            let request = sent("webhook", ID, "1614265330", &listed);
            assert!(verifier(&[other, SECRET]).verify(&request, at(SENT)).is_ok(), "{listed}");
            assert!(verifier(&[SECRET, other]).verify(&request, at(SENT)).is_ok(), "{listed}");
            assert!(verifier(&[other]).verify(&request, at(SENT)).is_err(), "{listed}");
        }
    }
}
