//! Signatures: of other bytes, by other means, of another time, and a second time.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use tidegate_tests::eventually;

use super::{IN_TIME, Site};
use crate::products::now;

/// Two secrets, as while one replaces the other.
pub(super) const OLD: &str = "whsec_b2xkLXNlY3JldC1vbGQtc2VjcmV0LW9sZA==";
pub(in crate::faults) const NEW: &str = "whsec_bmV3LXNlY3JldC1uZXctc2VjcmV0LW5ldw==";

const BODY: &str = r#"{ "b": 1.0, "a": "\u00e9", "a": 2 }"#;

fn signature(secret: &str, id: &str, time: u64, body: &str) -> String {
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("Base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length");
    mac.update(format!("{id}.{time}.{body}").as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn headers(id: &str, time: u64, signature: &str) -> String {
    format!(
        "content-type: application/json\r\nwebhook-id: {id}\r\nwebhook-timestamp: {time}\r\n\
         webhook-signature: {signature}\r\n"
    )
}

pub(in crate::faults) fn genuine(secret: &str, id: &str, time: u64, body: &str) -> String {
    headers(id, time, &format!("v1,{}", signature(secret, id, time, body)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n6_n13_what_is_signed_are_the_bytes_that_came_and_nothing_else_proves_them() {
    let site = Site::start("").await;
    let time = now().as_secs();
    let good = genuine(NEW, "m", time, BODY);
    let plain = signature(NEW, "m", time, BODY);
    let reordered = r#"{"a":2,"b":1}"#;
    let refused = [
        (good.clone(), reordered),
        (good.clone(), r#"{"b":1.0,"a":"\u00e9","a":2}"#),
        (good.clone(), r#"{ "b": 1.0, "a": "é", "a": 2 }"#),
        (good.clone(), "{ \"b\": 1.0, \"a\": \"\\u00e9\", \"a\": 2 }\n"),
        (good.replace("webhook-id: m", "webhook-id: n"), BODY),
        (good.replace(&time.to_string(), &(time - 1).to_string()), BODY),
        (format!("{good}webhook-signature: v1,{plain}\r\n"), BODY),
        (headers("m", time, ""), BODY),
        (headers("m", time, "v1,"), BODY),
        (headers("m", time, &plain), BODY),
        (headers("m", time, &format!("v1a,{plain}")), BODY),
        (headers("m", time, &format!("v2,{plain}")), BODY),
        (headers("m", time, &format!("none,{plain}")), BODY),
        (headers("m", time, &format!("v1,{}", plain.trim_end_matches('='))), BODY),
        (genuine("whsec_bm9ib2R5cy1zZWNyZXQtYXQtYWxsLW5vbmU=", "m", time, BODY), BODY),
        ("content-type: application/json\r\n".to_owned(), BODY),
        // Refused for its signature before anybody asks what it is.
        (format!("{}content-encoding: gzip\r\n", headers("m", time, "v1,AAAA")), BODY),
        (headers("m", time, "v1,AAAA"), "{"),
    ];
    for (headers, body) in refused {
        let said = site.post("/signed", &headers, body.as_bytes()).await;
        assert_eq!(said.status, 401, "{headers}{body}: {said:?}");
    }
    assert_eq!(site.taken("signed").await, 0);
    for (secret, id) in [(OLD, "old"), (NEW, "new")] {
        let said = site.post("/signed", &genuine(secret, id, time, BODY), BODY.as_bytes()).await;
        assert_eq!(said.status, 202, "{said:?}");
    }
    eventually("both arrive as they came", IN_TIME, || async {
        let data = format!("\"data\":{BODY}");
        let requests = site.api.requests();
        (requests.iter().filter(|request| request.body.contains(&data)).count() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n14_n15_a_replay_is_answered_and_not_taken_again_and_an_old_one_is_refused() {
    let mut site = Site::start("").await;
    let time = now().as_secs();
    let first = genuine(NEW, "m", time, BODY);
    let said = site.post("/signed", &first, BODY.as_bytes()).await;
    assert!(said.status == 202 && !said.text.contains("tidegate-duplicate"), "{said:?}");
    let repeated = async |site: &Site, headers: &str, body: &str| {
        let said = site.post("/signed", headers, body.as_bytes()).await;
        assert_eq!(said.status, 202, "{said:?}");
        assert!(said.text.contains("tidegate-duplicate: true"), "{said:?}");
        assert!(said.text.ends_with(r#"{"id":"m"}"#), "{said:?}");
    };
    repeated(&site, &first, BODY).await;
    // Signed anew, as senders do when they try again.
    repeated(&site, &genuine(OLD, "m", time + 1, BODY), BODY).await;
    // One id is one event: what came first counts, whatever else is sent under its name.
    repeated(&site, &genuine(NEW, "m", time, "{}"), "{}").await;
    site.gateway.kill().await;
    site.gateway.run().await;
    let base = site.gateway.webhooks().await;
    base.trim_start_matches("http://").clone_into(&mut site.address);
    repeated(&site, &first, BODY).await;
    for time in [0, time - 301, time + 360, u64::MAX] {
        let headers = genuine(NEW, "late", time, BODY);
        let said = site.post("/signed", &headers, BODY.as_bytes()).await;
        assert_eq!(said.status, 401, "{time}: {said:?}");
    }
    eventually("it is delivered", IN_TIME, || async {
        (site.gateway.count("signed", "delivered").await == 1).then_some(())
    })
    .await;
    assert_eq!(site.taken("signed").await, 1);
    let requests = site.api.requests();
    let keys: std::collections::BTreeSet<_> =
        requests.iter().map(|request| request.idempotency_key()).collect();
    // Killed between the answer and the note of it, it is delivered once more with its key.
    assert_eq!(keys.len(), 1, "{requests:?}");
    assert!(requests.iter().all(|request| request.body.contains(BODY)), "{requests:?}");
}
