//! What each provider publishes, or what its own client library computes.

use super::*;

fn genuine(config: &VerifyConfig, request: &Received, now: Timestamp) -> Verified {
    verify(config, request, now).unwrap()
}

/// The example of the reference libraries (`standardwebhooks`, test `sign_function_works`).
#[test]
fn standard_webhooks() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let sent = |prefix: &str, listed: &str| {
        let [id, timestamp, signature] =
            ["id", "timestamp", "signature"].map(|name| format!("{prefix}-{name}"));
        let headers = [
            (&*id, "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            (&*timestamp, "1614265330"),
            (&*signature, listed),
        ];
        request(&headers, r#"{"test": 2432232314}"#)
    };
    let now = at(1_614_265_330);
    for prefix in ["webhook", "svix"] {
        let verified = genuine(&super::standard_webhooks(&[secret]), &sent(prefix, signature), now);
        assert_eq!(verified.id.as_deref(), Some("msg_p5jXN8AQM9LWM0D4loKWxJek"));
    }
    // While a secret is replaced: several signatures, several secrets, versions not known here.
    let other = "whsec_b3RoZXIgc2VjcmV0IG9mIHNlbmRlcg==";
    let wrong = format!("v1,{}", STANDARD.encode([7; 32]));
    for listed in [
        format!("{wrong} {signature}"),
        format!("{signature} {wrong}"),
        format!("v1a,{} {signature}", STANDARD.encode([7; 64])),
        format!("v1,no v2 {signature}"),
    ] {
        let request = sent("webhook", &listed);
        for secrets in [[other, secret], [secret, other]] {
            assert!(verify(&super::standard_webhooks(&secrets), &request, now).is_ok());
        }
        assert!(verify(&super::standard_webhooks(&[other]), &request, now).is_err());
    }
    let only_v1a = sent("webhook", &signature.replace("v1,", "v1a,"));
    assert_eq!(
        refusal(&super::standard_webhooks(&[secret]), &only_v1a),
        "`webhook-signature` holds no signature: `v1,` and Base64 is due"
    );
    let late =
        verify(&super::standard_webhooks(&[secret]), &sent("svix", signature), at(1_614_265_631));
    assert_eq!(late.unwrap_err().0, "the timestamp is 301 s old; 300 s are allowed");
}

/// Computed with Stripe's own library: Python `stripe` 16.1.0, `WebhookSignature`.
#[test]
fn stripe() {
    let config = VerifyConfig::Stripe(preset(&["whsec_old", "whsec_test_secret"]));
    let right = "v1=799c4ba7bb339f3c8601adfd112f0e477c930a268be1243d341abb8286501c2f";
    let wrong = format!("v1={}", "0".repeat(64));
    let sent = |value: &str| request(&[("stripe-signature", value)], r#"{"id":"evt_1"}"#);
    let now = at(1_492_774_577);
    for value in [
        format!("t=1492774577,{right}"),
        format!("t=1492774577,{wrong},{right},v0=6ffb"),
        format!("{right}, t=1492774577"),
    ] {
        assert_eq!(genuine(&config, &sent(&value), now).id.as_deref(), Some("evt_1"));
    }
    let value = format!("t=1492774577,{right}");
    let late = verify(&config, &sent(&value), at(1_492_774_577 + 301)).unwrap_err();
    assert_eq!(late.to_string(), "the timestamp is 301 s old; 300 s are allowed");
    assert!(verify(&config, &sent(&value), at(1_492_774_577 - 301)).is_err());
    for (value, expected) in [
        (right.to_owned(), "`stripe-signature` must hold one `t=`, the timestamp"),
        (format!("t=1,{value}"), "`stripe-signature` must hold one `t=`, the timestamp"),
        (format!("t=,{right}"), "`stripe-signature` has no timestamp: seconds since 1970 are due"),
    ] {
        assert_eq!(refusal(&config, &sent(&value)), expected);
    }
    let only_v0 = verify(&config, &sent("t=1492774577,v0=6ffb"), now).unwrap_err().to_string();
    assert_eq!(only_v0, "`stripe-signature` holds no signature: `v1=` and hexadecimal is due");
    assert!(Verifier::new(&config).unwrap().answer().is_none());
}

/// The values to test with of
/// <https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries>.
#[test]
fn github() {
    let config = VerifyConfig::Github(preset(&["It's a Secret to Everybody"]));
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let id = "72d3162e-cc78-11e3-81ab-4c9367dc0958";
    let headers = [("x-hub-signature-256", signature), ("x-github-delivery", id)];
    let verified = genuine(&config, &request(&headers, "Hello, World!"), at(0));
    assert_eq!(verified.id.as_deref(), Some(id));
    let without_id = genuine(&config, &request(&headers[..1], "Hello, World!"), at(0));
    assert_eq!(without_id.id, None);
    // A right signature of the older kind is none.
    let sha1 = hex(&Key::new(HmacAlgorithm::Sha1, b"It's a Secret to Everybody").mac([&b"x"[..]]));
    let older = request(&[("x-hub-signature", &format!("sha1={sha1}"))], "x");
    assert_eq!(refusal(&config, &older), "header `x-hub-signature-256` is missing");
    let older = request(&[("x-hub-signature-256", &format!("sha1={sha1}"))], "x");
    assert!(verify(&config, &older, at(0)).is_err());
    assert!(Verifier::new(&config).unwrap().answer().is_none());
}

/// Computed as Shopify's page does, with Python's `hmac`: Shopify publishes no figures.
#[test]
fn shopify() {
    let config = VerifyConfig::Shopify(preset(&["hush"]));
    let headers = [
        ("x-shopify-hmac-sha256", "qBvrsZF7RfB1iS6BX6IHqJTp5L911P7intnPeTPsH0I="),
        ("x-shopify-webhook-id", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
        ("x-shopify-event-id", "98880550-7158-44d4-b7cd-2c97c8a091b5"),
    ];
    let verified = genuine(&config, &request(&headers, r#"{"id":820982911946154508}"#), at(0));
    assert_eq!(verified.id.as_deref(), Some("b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"));
    let answer = Verifier::new(&config).unwrap().answer().unwrap();
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
}

/// The example of <https://docs.slack.dev/authentication/verifying-requests-from-slack/>.
#[test]
fn slack() {
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow\
        &channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner\
        &command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands\
        %2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN\
        &trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let config = VerifyConfig::Slack(preset(&["8f742231b10e8888abcd99yyyzzz85a5"]));
    let headers = [
        ("x-slack-request-timestamp", "1531420618"),
        (
            "x-slack-signature",
            "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        ),
    ];
    let command = request(&headers, BODY);
    let verified = genuine(&config, &command, at(1_531_420_618));
    assert!(verified.id.is_none() && verified.handshake.is_none());
    assert!(verify(&config, &command, at(1_531_420_618 + 301)).is_err());
    assert!(verify(&config, &command, at(1_531_420_618 - 301)).is_err());
    let answer = Verifier::new(&config).unwrap().answer().unwrap();
    assert_eq!((answer.status, answer.body.len()), (StatusCode::OK, 0));
}

/// <https://docs.slack.dev/reference/events/url_verification/>
#[test]
fn slack_proves_a_url_with_a_challenge_that_is_signed_like_all_else() {
    let config = VerifyConfig::Slack(preset(&["secret"]));
    let sent = |secret: &str, body: &str| {
        let signature = hex(&sha256(secret, format!("v0:1531420618:{body}").as_bytes()));
        let signature = format!("v0={signature}");
        let headers =
            [("x-slack-request-timestamp", "1531420618"), ("x-slack-signature", &*signature)];
        request(&headers, body.to_owned())
    };
    let now = at(1_531_420_618);
    let challenge = r#"{"token": "Jhj5dZrVaK7ZwHHjRyZWjbDl",
        "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",
        "type": "url_verification"}"#;
    let handshake = genuine(&config, &sent("secret", challenge), now).handshake.unwrap();
    assert_eq!(handshake.status, StatusCode::OK);
    assert_eq!(handshake.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(handshake.body, "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P");
    assert!(verify(&config, &sent("other", challenge), now).is_err());

    let event = r#"{"type": "event_callback", "event_id": "Ev9UQ52YNA", "event": {}}"#;
    let verified = genuine(&config, &sent("secret", event), now);
    assert_eq!(verified.id.as_deref(), Some("Ev9UQ52YNA"));
    assert!(verified.handshake.is_none());
    // What is genuine and not readable is still genuine; its mapping says what is wrong with it.
    let deep = "[".repeat(100_000);
    for body in ["", "no JSON", "[]", r#"{"event_id": 5}"#, r#"{"event_id": ""}"#, &deep] {
        let verified = genuine(&config, &sent("secret", body), now);
        assert!(verified.id.is_none() && verified.handshake.is_none());
    }
}

/// The test data of Square's own libraries (`square/square-python-sdk`,
/// `tests/integration/test_webhooks_helper.py`).
#[test]
fn square() {
    const BODY: &str = "{\"merchant_id\":\"MLEFBHHSJGVHD\",\
        \"type\":\"webhooks.test_notification\",\
        \"event_id\":\"ac3ac95b-f97d-458c-a6e6-18981597e05f\",\
        \"created_at\":\"2022-07-13T20:30:59.037339943Z\",\
        \"data\":{\"type\":\"webhooks\",\"id\":\"bc368e64-01aa-407e-b46e-3231809b1129\"}}";
    let config = VerifyConfig::Square(preset(&["Ibxx_5AKakO-3qeNVR61Dw"]));
    let signature = "GF4YkrJgGBDZ9NIYbNXBnMzqb2HoL4RW/S6vkZ9/2N4=";
    let mut request = request(&[("x-square-hmacsha256-signature", signature)], BODY);
    assert!(verify(&config, &request, at(0)).is_err(), "another URL");
    request.url = "https://webhook.site/679a4f3a-dcfa-49ee-bac5-9d0edad886b9".into();
    let verified = genuine(&config, &request, at(0));
    assert_eq!(verified.id.as_deref(), Some("ac3ac95b-f97d-458c-a6e6-18981597e05f"));
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=UTF-8");

fn twilio_request(signature: &str, query: &str, content_type: &str, raw: &str) -> Received {
    let headers = [("x-twilio-signature", signature), ("content-type", content_type)];
    let mut request = request(&headers, raw.to_owned());
    request.url = format!("https://mycompany.com/myapp.php?{query}");
    request.query = query.into();
    request
}

/// The first is the example of <https://www.twilio.com/docs/usage/security>; all were computed with
/// Twilio's own library, Python `twilio` 9.13.0, `RequestValidator`.
#[test]
fn twilio() {
    let config = VerifyConfig::Twilio(preset(&["old", "12345"]));
    let form = "To=%2B18005551212&From=%2B14158675309&Digits=1234\
        &CallSid=CA1234567890ABCDE&Caller=%2B14158675309";
    let sent = |signature| twilio_request(signature, "foo=1&bar=2", FORM.1, form);
    let sha1 = sent("RSOYDt4T1cUTdK1PDd93/VVr8B8=");
    // Pressing a key is no message with an id of its own.
    assert_eq!(genuine(&config, &sha1, at(0)).id, None);
    assert!(verify(&config, &sent("033hgUJA9M/hXIZsYjwkerEP/DBm35nEri5FhCYjA5s="), at(0)).is_ok());

    let mut token = sha1.clone();
    token.headers.insert("i-twilio-idempotency-token", HeaderValue::from_static("t-1"));
    assert_eq!(genuine(&config, &token, at(0)).id.as_deref(), Some("t-1"));

    let answer = Verifier::new(&config).unwrap().answer().unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["content-type"], "text/xml; charset=utf-8");
    assert_eq!(answer.body, r#"<?xml version="1.0" encoding="UTF-8"?><Response/>"#);
}

/// As above; the library was given a name with several values, one of them twice.
#[test]
fn twilio_forms_with_repeated_and_empty_parameters() {
    let config = VerifyConfig::Twilio(preset(&["12345"]));
    let signature = "OBdD7sOmkDSmuzbtbT5rua+6fh8=";
    let raw = "Body=a+b&Empty=&Body=&MessageSid=SM1&Body=a%20b&Body=%C3%A9%26%3d&MessageStatus=";
    for raw in [raw, &raw.replace("&MessageStatus=", "")] {
        let mut request = twilio_request(signature, "", FORM.1, raw);
        request.url = "https://mycompany.com/x".into();
        let verified = verify(&config, &request, at(0));
        // An empty parameter is signed with its name.
        assert_eq!(verified.is_ok(), !raw.contains("MessageStatus"));
    }
}

/// As above.
#[test]
fn twilio_signs_other_bodies_by_their_hash_in_the_url() {
    let config = VerifyConfig::Twilio(preset(&["12345"]));
    let hash = "bodySHA256=0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let json = r#"{"property": "value", "boolean": true}"#;
    let signature = "Klp85180pYIxzIO5cuyxpfh1BKw=";
    let sent = |query: &str, raw: &str| {
        let mut request = twilio_request(signature, query, "application/json", raw);
        request.url = format!("https://example.com/myapp?{query}");
        request
    };
    assert!(verify(&config, &sent(hash, json), at(0)).is_ok());
    let mut with_port = sent(hash, json);
    with_port.url = with_port.url.replace("example.com", "example.com:8443");
    assert!(verify(&config, &with_port, at(0)).is_ok());
    assert_eq!(refusal(&config, &sent(hash, "{}")), "the body is not the one of `bodySHA256`");
    assert_eq!(
        refusal(&config, &sent("bodySHA256=zz", json)),
        "the body is not the one of `bodySHA256`"
    );
    let twice = format!("{hash}&{hash}");
    assert_eq!(refusal(&config, &sent(&twice, json)), "`bodySHA256` is in the URL more than once");
    // Whoever holds a signed URL could hang any body on it.
    assert!(refusal(&config, &sent("", json)).starts_with("the body is not signed"));
}

#[test]
fn twilio_messages_and_calls_are_told_apart_by_what_stays_the_same() {
    let config = VerifyConfig::Twilio(preset(&["12345"]));
    for (raw, signed, expected) in [
        ("MessageSid=SM1&MessageStatus=sent", "MessageSidSM1MessageStatussent", Some("SM1/sent")),
        ("SmsSid=SM1&SmsStatus=received", "SmsSidSM1SmsStatusreceived", Some("SM1/received")),
        ("MessageSid=SM1", "MessageSidSM1", None),
        (
            "CallSid=CA1&CallStatus=ringing&SequenceNumber=0",
            "CallSidCA1CallStatusringingSequenceNumber0",
            Some("CA1/ringing/0"),
        ),
        ("CallSid=CA1&CallStatus=in-progress", "CallSidCA1CallStatusin-progress", None),
    ] {
        let signed = format!("https://hooks.example.com/in{signed}");
        let signature = Key::new(HmacAlgorithm::Sha1, b"12345").mac([signed.as_bytes()]);
        let signature = STANDARD.encode(signature);
        let request = request(&[("x-twilio-signature", &signature), FORM], raw);
        assert_eq!(genuine(&config, &request, at(0)).id.as_deref(), expected, "{raw}");
    }
}
