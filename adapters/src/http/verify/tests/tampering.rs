//! Genuine requests of every scheme that signs, changed bit by bit.

use super::*;

/// A genuine request.
struct Genuine {
    scheme: fn(&[&str]) -> VerifyConfig,
    request: Received,
    /// Headers that are signed, or signatures.
    protected: &'static [&'static str],
    /// Upper and lower case of a signature are the same.
    hexadecimal: bool,
}

const NOW: i64 = 1_614_265_330;
const SECRET: &str = "a2V5LW9mLXNlbmRlcg==";
const BODY: &str = r#"{"id": "m1", "event_id": "m1"}"#;

fn genuine() -> Vec<Genuine> {
    let sha = |signed: &str| sha256(SECRET, signed.as_bytes());
    let url = "https://hooks.example.com/in";
    let stripe = format!("t={NOW},v1={}", hex(&sha(&format!("{NOW}.{BODY}"))));
    let slack = format!("v0={}", hex(&sha(&format!("v0:{NOW}:{BODY}"))));
    let github = format!("sha256={}", hex(&sha(BODY)));
    let square = STANDARD.encode(sha(&format!("{url}{BODY}")));
    let own = hex(&sha(&format!("{NOW}.m1.{url}.{BODY}")));
    let webhook = sha256("key-of-sender", format!("m1.{NOW}.{BODY}").as_bytes());
    let webhook = format!("v1,{}", STANDARD.encode(webhook));
    let twilio = Key::new(HmacAlgorithm::Sha1, SECRET.as_bytes())
        .mac([format!("{url}From1234Textabc").as_bytes()]);
    let now = NOW.to_string();
    let headers = |headers: &[(&str, &str)]| request(headers, BODY);
    let of = |scheme, request, protected, hexadecimal| Genuine {
        scheme,
        request,
        protected,
        hexadecimal,
    };
    vec![
        of(
            standard_webhooks,
            headers(&[
                ("webhook-id", "m1"),
                ("webhook-timestamp", &now),
                ("webhook-signature", &webhook),
            ]),
            &["webhook-id", "webhook-timestamp", "webhook-signature"],
            false,
        ),
        of(
            |texts| {
                hmac(|config| {
                    config.secrets = secrets(texts);
                    config.signed = "{timestamp}.{id}.{url}.{raw}".into();
                    config.timestamp_header = Some("X-Timestamp".into());
                    config.id_header = Some("X-Id".into());
                })
            },
            headers(&[("x-signature", &own), ("x-timestamp", &now), ("x-id", "m1")]),
            &["x-signature", "x-timestamp", "x-id"],
            true,
        ),
        of(
            |secrets| VerifyConfig::Stripe(preset(secrets)),
            headers(&[("stripe-signature", &stripe)]),
            &["stripe-signature"],
            true,
        ),
        of(
            |secrets| VerifyConfig::Github(preset(secrets)),
            headers(&[("x-hub-signature-256", &github)]),
            &["x-hub-signature-256"],
            true,
        ),
        of(
            |secrets| VerifyConfig::Shopify(preset(secrets)),
            headers(&[("x-shopify-hmac-sha256", &STANDARD.encode(sha(BODY)))]),
            &["x-shopify-hmac-sha256"],
            false,
        ),
        of(
            |secrets| VerifyConfig::Slack(preset(secrets)),
            headers(&[("x-slack-signature", &slack), ("x-slack-request-timestamp", &now)]),
            &["x-slack-signature", "x-slack-request-timestamp"],
            true,
        ),
        of(
            |secrets| VerifyConfig::Square(preset(secrets)),
            headers(&[("x-square-hmacsha256-signature", &square)]),
            &["x-square-hmacsha256-signature"],
            false,
        ),
        of(
            |secrets| VerifyConfig::Twilio(preset(secrets)),
            request(
                &[
                    ("x-twilio-signature", &STANDARD.encode(twilio)),
                    ("content-type", "application/x-www-form-urlencoded"),
                ],
                "Text=abc&From=1234",
            ),
            &["x-twilio-signature"],
            false,
        ),
    ]
}

/// Each of `bytes` with one bit changed.
fn flipped(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    })
}

#[test]
fn n6_n13_no_bit_of_what_is_signed_can_change() {
    for Genuine { scheme, request, protected, hexadecimal } in genuine() {
        let config = scheme(&[SECRET]);
        let verifier = Verifier::new(&config).unwrap();
        assert!(verifier.verify(&request, at(NOW)).is_ok(), "{config} is genuine to begin with");
        let refused = |tampered: &Received, what: &str| {
            let refusal = verifier.verify(tampered, at(NOW)).expect_err(what).to_string();
            assert!(!refusal.contains(SECRET), "{refusal}");
        };
        for raw in flipped(&request.raw) {
            refused(&Received { raw: raw.into(), ..request.clone() }, "body");
        }
        for raw in [&request.raw[1..], b"", &[&request.raw[..], b" "].concat()] {
            refused(&Received { raw: Bytes::copy_from_slice(raw), ..request.clone() }, "length");
        }
        for name in protected {
            let value = request.headers[*name].as_bytes().to_vec();
            for changed in flipped(&value) {
                let Ok(header) = HeaderValue::from_bytes(&changed) else { continue };
                if hexadecimal && changed.eq_ignore_ascii_case(&value) {
                    continue;
                }
                let mut tampered = request.clone();
                tampered.headers.insert(*name, header);
                refused(&tampered, name);
            }
            let mut without = request.clone();
            without.headers.remove(*name);
            refused(&without, name);
            let mut twice = request.clone();
            twice.headers.append(*name, request.headers[*name].clone());
            refused(&twice, name);
        }
        if config.signs_url() {
            for url in flipped(request.url.as_bytes()).filter_map(|url| String::from_utf8(url).ok())
            {
                refused(&Received { url, ..request.clone() }, "URL");
            }
        }
    }
}

#[test]
fn n13_a_secret_can_be_replaced_without_a_gap() {
    let other = "b3RoZXItc2VjcmV0";
    for Genuine { scheme, request, .. } in genuine() {
        for (secrets, believed) in [
            (&[other, SECRET][..], true),
            (&[SECRET, other][..], true),
            (&[other, SECRET, other][..], true),
            (&[other][..], false),
        ] {
            let config = scheme(secrets);
            assert_eq!(verify(&config, &request, at(NOW)).is_ok(), believed, "{config}");
        }
    }
}

#[test]
fn n14_what_is_signed_with_a_timestamp_does_not_stay_genuine() {
    for Genuine { scheme, request, .. } in genuine() {
        let config = scheme(&[SECRET]);
        let Some(tolerance) = config.tolerance() else { continue };
        let seconds = i64::try_from(tolerance.as_secs()).unwrap();
        for (off, believed) in [(0, true), (seconds, true), (seconds + 1, false)] {
            for now in [at(NOW + off), at(NOW - off)] {
                assert_eq!(verify(&config, &request, now).is_ok(), believed, "{config} {off}");
            }
        }
        for now in [i64::MIN, i64::MAX] {
            assert!(verify(&config, &request, Timestamp(now)).is_err(), "{config}");
        }
    }
}
