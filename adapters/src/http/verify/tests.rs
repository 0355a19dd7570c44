//! What holds for every scheme; [`vectors`] are the providers' own, [`tampering`] changes genuine
//! requests bit by bit.

mod tampering;
mod vectors;

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderName, Method};
use proptest::prelude::*;

use super::*;
use crate::{
    http::{
        BasicConfig, HmacAlgorithm, HmacEncoding,
        hmac::{Key, hex},
        webhook::{
            ApiKeyConfig, HmacVerifyConfig, NoVerifyConfig, PresetConfig, SecretEncoding,
            StandardWebhooksVerifyConfig,
        },
    },
    secret::Secret,
};

const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// A POST to `https://hooks.example.com/in` with these headers and this body.
fn request(headers: &[(&str, &str)], raw: impl Into<Bytes>) -> Received {
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
        raw: raw.into(),
    }
}

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new(*text)).collect()
}

fn preset(texts: &[&str]) -> PresetConfig {
    PresetConfig { secrets: secrets(texts) }
}

fn standard_webhooks(texts: &[&str]) -> VerifyConfig {
    let secrets = secrets(texts);
    VerifyConfig::StandardWebhooks(StandardWebhooksVerifyConfig {
        secrets,
        tolerance: FIVE_MINUTES,
    })
}

/// Hexadecimal HMAC-SHA256 of the body by `key`, in `X-Signature`.
fn plain() -> HmacVerifyConfig {
    HmacVerifyConfig {
        header: "X-Signature".into(),
        algorithm: HmacAlgorithm::Sha256,
        encoding: HmacEncoding::Hex,
        prefix: String::new(),
        secrets: secrets(&["key"]),
        secret_encoding: SecretEncoding::Utf8,
        signed: "{raw}".into(),
        timestamp_header: None,
        tolerance: FIVE_MINUTES,
        id_header: None,
    }
}

fn hmac(change: impl FnOnce(&mut HmacVerifyConfig)) -> VerifyConfig {
    let mut config = plain();
    change(&mut config);
    VerifyConfig::Hmac(config)
}

fn api_key(keys: &[&str]) -> VerifyConfig {
    VerifyConfig::ApiKey(ApiKeyConfig { header: "X-Api-Key".into(), keys: secrets(keys) })
}

fn basic(username: &str, password: &str) -> VerifyConfig {
    let password = Secret::new(password);
    VerifyConfig::Basic(BasicConfig { username: username.into(), password })
}

/// The moment `seconds` after the epoch.
fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1000)
}

fn sha256(key: &str, signed: &[u8]) -> Vec<u8> {
    Key::new(HmacAlgorithm::Sha256, key.as_bytes()).mac([signed])
}

fn verify(
    config: &VerifyConfig,
    request: &Received,
    now: Timestamp,
) -> Result<Verified, Unverified> {
    Verifier::new(config).unwrap().verify(request, now)
}

fn refusal(config: &VerifyConfig, request: &Received) -> String {
    let verified = verify(config, request, at(1_614_265_330));
    verified.expect_err("this request is not genuine").to_string()
}

fn problem(config: &VerifyConfig) -> String {
    Verifier::new(config).expect_err("this configuration cannot work").to_string()
}

// ===== hmac =====

#[test]
fn every_hash_encoding_prefix_and_spelling_of_the_key_is_read() {
    for (algorithm, length) in
        [(HmacAlgorithm::Sha1, 20), (HmacAlgorithm::Sha256, 32), (HmacAlgorithm::Sha512, 64)]
    {
        let signature = Key::new(algorithm, b"\xff key").mac([&b"body"[..]]);
        assert_eq!(signature.len(), length);
        let lower = hex(&signature);
        for (encoding, text) in [
            (HmacEncoding::Hex, lower.clone()),
            (HmacEncoding::Hex, lower.to_uppercase()),
            (HmacEncoding::Base64, STANDARD.encode(&signature)),
        ] {
            for (secret_encoding, secret) in
                [(SecretEncoding::Hex, "FF206b6579"), (SecretEncoding::Base64, "/yBrZXk=")]
            {
                for prefix in ["", "sha=", "v1,", "Signature keyId=a, "] {
                    let config = hmac(|config| {
                        config.algorithm = algorithm;
                        config.encoding = encoding;
                        config.prefix = prefix.into();
                        config.secret_encoding = secret_encoding;
                        config.secrets = secrets(&[secret]);
                    });
                    let request = request(&[("x-signature", &format!("{prefix}{text}"))], "body");
                    let verified = verify(&config, &request, at(0));
                    assert!(verified.is_ok(), "{prefix}{text}: {verified:?}");
                }
            }
        }
    }
}

#[test]
fn one_of_several_signatures_must_be_right_and_keys_can_be_replaced() {
    let right = hex(&sha256("new", b"body"));
    let wrong = hex(&sha256("unknown", b"body"));
    let config = hmac(|config| {
        config.secrets = secrets(&["old", "new"]);
        config.prefix = "v1=".into();
    });
    for listed in [
        format!("v1={wrong},v1={right}"),
        format!("v1={wrong}, v1={right}"),
        format!("v1={right} v1={wrong}"),
        format!("t=5,v0=zz,v1={right}"),
        format!("v1=zz,v1={right}"),
    ] {
        let genuine = request(&[("x-signature", &listed)], "body");
        assert!(verify(&config, &genuine, at(0)).is_ok(), "{listed}");
        let only_old = hmac(|config| {
            config.secrets = secrets(&["old"]);
            config.prefix = "v1=".into();
        });
        assert!(verify(&only_old, &genuine, at(0)).is_err(), "{listed}");
    }
    for listed in [format!("xv1={right}"), right.clone(), format!("v1={wrong}"), "v1=".into()] {
        let forged = request(&[("x-signature", &listed)], "body");
        assert!(verify(&config, &forged, at(0)).is_err(), "{listed}");
    }
}

#[test]
fn what_is_signed_is_byte_exact_with_the_timestamp_and_id_as_their_headers_write_them() {
    let config = hmac(|config| {
        config.signed = "v0:{timestamp}:{id}:{url}:{raw}".into();
        config.timestamp_header = Some("X-Timestamp".into());
        config.id_header = Some("X-Id".into());
    });
    for timestamp in ["1614265330", "1614265330000", "2021-02-25T15:02:10+00:00"] {
        let mut signed = format!("v0:{timestamp}:m 1:https://hooks.example.com/in:").into_bytes();
        signed.extend(b"\xff{id}\n");
        let signature = hex(&sha256("key", &signed));
        let request = request(
            &[("x-signature", &signature), ("x-timestamp", timestamp), ("x-id", "m 1")],
            &b"\xff{id}\n"[..],
        );
        let verified = verify(&config, &request, at(1_614_265_330)).unwrap();
        assert_eq!(verified.id.as_deref(), Some("m 1"));
        let late = verify(&config, &request, at(1_614_265_330 + 900)).unwrap_err();
        assert_eq!(late.to_string(), "the timestamp is 900 s old; 300 s are allowed");
        assert!(verify(&config, &request, at(1_614_265_330 - 900)).is_err());
    }
}

#[test]
fn an_id_that_is_not_signed_is_taken_from_its_header_which_must_be_there() {
    let config = hmac(|config| config.id_header = Some("X-Id".into()));
    let signature = hex(&sha256("key", b"body"));
    let with = request(&[("x-signature", &signature), ("x-id", "m1")], "body");
    assert_eq!(verify(&config, &with, at(0)).unwrap().id.as_deref(), Some("m1"));
    let without = request(&[("x-signature", &signature)], "body");
    assert_eq!(refusal(&config, &without), "header `x-id` is missing");
}

// ===== credentials =====

#[test]
fn any_of_several_api_keys_will_do_and_nothing_else() {
    let config = api_key(&["first key", "second"]);
    for key in ["first key", "second"] {
        assert!(verify(&config, &request(&[("x-api-key", key)], ""), at(0)).is_ok());
    }
    for key in ["first", "first key2", "Second", "sécond", "\u{fffd}"] {
        let refusal = refusal(&config, &request(&[("x-api-key", key)], ""));
        assert_eq!(refusal, "the key in `x-api-key` is not known here");
    }
    let bearer = VerifyConfig::ApiKey(ApiKeyConfig {
        header: "Authorization".into(),
        keys: secrets(&["Bearer token"]),
    });
    let sent = |value| request(&[("authorization", value)], "");
    assert!(verify(&bearer, &sent("Bearer token"), at(0)).is_ok());
    assert!(verify(&bearer, &sent("token"), at(0)).is_err());
}

/// RFC 7617 §2 and §2.1.
#[test]
fn basic_credentials_of_the_rfc_are_known_and_nothing_else_is() {
    let config = basic("Aladdin", "open sesame");
    let sent = |value: &str| request(&[("authorization", value)], "");
    for value in ["Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ=="] {
        assert!(verify(&config, &sent(value), at(0)).is_ok(), "{value}");
    }
    let pound = sent("Basic dGVzdDoxMjPCow==");
    assert!(verify(&basic("test", "123£"), &pound, at(0)).is_ok());
    let wrong = sent(&format!("Basic {}", STANDARD.encode("Aladdin:open sesame ")));
    assert_eq!(refusal(&config, &wrong), "name or password in `authorization` is wrong");
    for value in ["Basic", "Basic ???", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Basicx"] {
        let refusal = refusal(&config, &sent(value));
        assert!(refusal.starts_with("header `authorization` holds no `Basic`"), "{refusal}");
    }
    let challenge = Verifier::new(&config).unwrap().challenge();
    assert_eq!(challenge, Some(r#"Basic realm="tidegate", charset="UTF-8""#));
    assert_eq!(Verifier::new(&api_key(&["k"])).unwrap().challenge(), None);
}

#[test]
fn without_verification_everything_is_taken() {
    let none = VerifyConfig::None(NoVerifyConfig {});
    let verified = verify(&none, &request(&[], "anything"), at(0)).unwrap();
    assert!(verified.id.is_none() && verified.handshake.is_none());
}

// ===== headers =====

#[test]
fn n13_a_header_that_proves_something_is_there_once_and_readable() {
    let config = hmac(|config| config.prefix = "sha256=".into());
    let genuine = format!("sha256={}", hex(&sha256("key", b"body")));
    let many = vec![genuine.as_str(); 10_000].join(",");
    let nested = "sha256=".repeat(100_000);
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[], "header `x-signature` is missing"),
        (&[("x-signature", "")], "header `x-signature` is empty"),
        (
            &[("x-signature", &genuine), ("x-signature", &genuine)],
            "header `x-signature` is there more than once: send it once",
        ),
        (&[("x-signature", "sha256=é")], "header `x-signature` holds other than visible ASCII"),
        (
            &[("x-signature", "sha1=00")],
            "`x-signature` holds no signature: `sha256=` and hexadecimal is due",
        ),
        (
            &[("x-signature", "sha256=0")],
            "`x-signature` holds no signature: `sha256=` and hexadecimal is due",
        ),
        (
            &[("x-signature", &nested)],
            "`x-signature` holds no signature: `sha256=` and hexadecimal is due",
        ),
        (&[("x-signature", &many)], "`x-signature` holds more than 32 signatures: send fewer"),
    ];
    for (headers, expected) in cases {
        assert_eq!(refusal(&config, &request(headers, "body")), expected);
    }
}

#[test]
fn the_two_families_of_standard_webhooks_headers_are_never_mixed() {
    let config = standard_webhooks(&["whsec_a2V5"]);
    let time = "1614265330";
    let signature = format!("v1,{}", STANDARD.encode(sha256("key", b"m.1614265330.body")));
    let webhook =
        [("webhook-id", "m"), ("webhook-timestamp", time), ("webhook-signature", &*signature)];
    let svix = [("svix-id", "m"), ("svix-timestamp", time), ("svix-signature", &*signature)];
    let now = at(1_614_265_330);

    let both = request(&[webhook, svix].concat(), "body");
    assert!(verify(&config, &both, now).is_ok());
    // What is there whole counts, whatever else a proxy may have added.
    let stray = request(&[&[("webhook-id", "other")][..], &svix].concat(), "body");
    assert_eq!(verify(&config, &stray, now).unwrap().id.as_deref(), Some("m"));
    for mixed in [
        [webhook[0], webhook[1], svix[2]],
        [webhook[0], svix[1], svix[2]],
        [svix[0], webhook[1], webhook[2]],
    ] {
        assert!(refusal(&config, &request(&mixed, "body")).ends_with(" is missing"));
    }
    // No second try with the other family.
    let forged =
        [("webhook-id", "m"), ("webhook-timestamp", time), ("webhook-signature", "v1,AAAA")];
    assert!(verify(&config, &request(&[forged, svix].concat(), "body"), now).is_err());
    assert_eq!(refusal(&config, &request(&[], "body")), "header `webhook-id` is missing");
    assert_eq!(
        refusal(&config, &request(&svix[..2], "body")),
        "header `svix-signature` is missing"
    );
}

// ===== configuration =====

#[test]
fn what_cannot_work_is_refused_when_the_configuration_loads() {
    let signed = |text: &str| hmac(|config| config.signed = text.into());
    let cases = [
        (signed("{body}{raw}"), "hmac.signed: has a brace that starts none of"),
        (signed("{url}"), "hmac.signed: must name {raw}"),
        (signed("{timestamp}.{raw}"), "hmac.timestamp_header: is missing: `signed` names"),
        (signed("{id}.{raw}"), "hmac.id_header: is missing: `signed` names"),
        (
            hmac(|config| config.id_header = Some("x-signature".into())),
            "hmac.id_header: is the signature's own header",
        ),
        (
            hmac(|config| {
                config.signed = "{timestamp}{raw}".into();
                config.timestamp_header = Some("X-Time".into());
                config.tolerance = Duration::ZERO;
            }),
            "hmac.tolerance: is zero",
        ),
        (hmac(|config| config.header = "no name".into()), "hmac.header: `no name` is not"),
        (hmac(|config| config.prefix = " v1=".into()), "hmac.prefix: starts with a space"),
        (hmac(|config| config.prefix = "é".into()), "hmac.prefix: holds other than"),
        (hmac(|config| config.secrets = vec![]), "hmac.secrets: is empty"),
        (hmac(|config| config.secrets = secrets(&["a", ""])), "hmac.secrets[1]: is empty"),
        (
            hmac(|config| config.secret_encoding = SecretEncoding::Hex),
            "hmac.secrets[0]: is not hexadecimal",
        ),
        (
            hmac(|config| config.secret_encoding = SecretEncoding::Base64),
            "hmac.secrets[0]: is not standard Base64",
        ),
        (standard_webhooks(&[]), "standard_webhooks.secrets: is empty"),
        (standard_webhooks(&["whsec_"]), "standard_webhooks.secrets[0]: is empty"),
        (standard_webhooks(&["whsec_?"]), "standard_webhooks.secrets[0]: is not `whsec_`"),
        (VerifyConfig::Stripe(preset(&[])), "stripe.secrets: is empty"),
        (VerifyConfig::Stripe(preset(&["whsec_x "])), "stripe.secrets[0]: starts or ends with"),
        (VerifyConfig::Github(preset(&[""])), "github.secrets[0]: is empty"),
        (VerifyConfig::Shopify(preset(&[""])), "shopify.secrets[0]: is empty"),
        (VerifyConfig::Slack(preset(&[""])), "slack.secrets[0]: is empty"),
        (VerifyConfig::Square(preset(&[""])), "square.secrets[0]: is empty"),
        (VerifyConfig::Twilio(preset(&[""])), "twilio.secrets[0]: is empty"),
        (api_key(&[]), "api_key.keys: is empty"),
        (api_key(&["k", ""]), "api_key.keys[1]: is empty"),
        (api_key(&[" k"]), "api_key.keys[0]: starts or ends with white space"),
        (api_key(&["top\nsecret"]), "api_key.keys[0]: does not fit into a header"),
        (basic("a:b", "p"), "basic.username: must not hold a colon"),
        (basic("a", ""), "basic.password: is empty"),
        (basic("a", "top\nsecret"), "basic.password: holds a control character"),
    ];
    for (config, expected) in cases {
        let problem = problem(&config);
        assert!(problem.starts_with(expected), "{expected}: {problem}");
        assert!(!problem.contains("secret\n") && !problem.contains("top"), "{problem}");
    }
}

#[test]
fn a_verifier_shows_no_secret() {
    for config in every_scheme("open sesame") {
        let shown = format!("{:?}", Verifier::new(&config).unwrap());
        assert!(!shown.contains("open") && !shown.contains("sesame"), "{shown}");
    }
}

/// One configuration for each scheme that verifies anything, all with this secret.
fn every_scheme(secret: &str) -> Vec<VerifyConfig> {
    let preset = || preset(&[secret]);
    vec![
        standard_webhooks(&[&format!("whsec_{}", STANDARD.encode(secret))]),
        hmac(|config| config.secrets = secrets(&[secret])),
        hmac(|config| {
            config.secrets = secrets(&[secret]);
            config.prefix = "v1=".into();
            config.signed = "{timestamp}.{id}.{url}.{raw}".into();
            config.timestamp_header = Some("X-Timestamp".into());
            config.id_header = Some("X-Id".into());
        }),
        VerifyConfig::Stripe(preset()),
        VerifyConfig::Github(preset()),
        VerifyConfig::Shopify(preset()),
        VerifyConfig::Slack(preset()),
        VerifyConfig::Square(preset()),
        VerifyConfig::Twilio(preset()),
        api_key(&[secret]),
        basic("user", secret),
    ]
}

/// A value a scheme might look into, made without the secret.
fn guess() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,80}",
        "(v1|v0|sha256|t)=[0-9a-fA-F]{0,70}",
        "t=16142653[0-9]{2},v1=[0-9a-f]{64}(,v1=[0-9a-f]{64})?",
        "v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)?",
        "[A-Za-z0-9+/]{27}=",
        "[A-Za-z0-9+/]{43}=",
        "[0-9a-f]{64}",
        "-?[0-9]{1,30}",
        "16142653[0-9]{2}",
        "Basic [A-Za-z0-9+/]{0,40}={0,2}",
        Just("application/x-www-form-urlencoded".to_owned()),
        "\\PC{0,20}".prop_filter("a header value", |text| {
            HeaderValue::from_bytes(text.as_bytes()).is_ok()
        }),
    ]
}

proptest! {
    #[test]
    fn who_does_not_hold_the_secret_is_never_believed_and_breaks_nothing(
        values in proptest::collection::vec((any::<prop::sample::Index>(), guess()), 0..16),
        url in "(https://[a-z:@\\[\\]0-9]{0,12})?/[ -~]{0,20}",
        query in "(bodySHA256=[0-9a-fA-F]{0,64})?[ -~]{0,20}",
        raw in proptest::collection::vec(any::<u8>(), 0..200),
        now in any::<i64>(),
    ) {
        const NAMES: [&str; 18] = [
            "webhook-id", "webhook-timestamp", "webhook-signature",
            "svix-id", "svix-timestamp", "svix-signature",
            "x-signature", "x-timestamp", "x-id", "stripe-signature", "x-hub-signature-256",
            "x-shopify-hmac-sha256", "x-slack-signature", "x-slack-request-timestamp",
            "x-square-hmacsha256-signature", "x-twilio-signature", "x-api-key", "authorization",
        ];
        let named: Vec<_> =
            values.iter().map(|(name, value)| (*name.get(&NAMES), value.as_str())).collect();
        let mut request = request(&named, raw);
        (request.url, request.query) = (url, query);
        for config in every_scheme("a secret nobody guesses") {
            let verifier = Verifier::new(&config).unwrap();
            for now in [Timestamp(now), at(1_614_265_330)] {
                prop_assert!(verifier.verify(&request, now).is_err());
            }
        }
    }
}
