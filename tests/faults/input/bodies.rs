//! Bodies that are not what they say, or say it in odd ways.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tidegate_tests::eventually;
use tokio::process::Command;

use super::{IN_TIME, Site};

const JSON: &str = "content-type: application/json\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n1_n2_n3_n4_n5_a_body_is_passed_on_byte_for_byte_or_refused_and_never_mended() {
    let site = Site::start("").await;
    let many = |open: &str| open.repeat(100_000).into_bytes();
    let deep = [many("["), many("]")].concat();
    let refused: [&[u8]; 17] = [
        b"{",
        b"{\"a\":",
        b"{\"a\":\"",
        b"[1,]",
        b"{\"a\" 1}",
        b"{'a': 1}",
        b"nul",
        b"{} {}",
        b"01",
        b"[1e]",
        &many("["),
        &many("{\"a\":"),
        &deep,
        b"\xef\xbb\xbf{}",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":\"\xc0\xaf\"}",
        b"{\"a\":\"\x00\"}",
    ];
    for body in refused {
        let said = site.post("/hooks", JSON, body).await;
        let begin = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(said.status, 400, "{begin}: {said:?}");
        assert!(said.text.contains("application/problem+json"), "{begin}: {said:?}");
    }
    assert_eq!(site.taken("hooks").await, 0, "nothing of that is kept");
    // None at all is no data.
    assert_eq!(site.post("/hooks", JSON, b"").await.status, 202);
    let passed = [
        r#"{"a":1,"a":2,"a":{"a":3}}"#,
        r#"{ "b" : 1.0 , "a":1e400,"c":-0,"d":1.10 }"#,
        "[18446744073709551616,123456789012345678901234567890,0.1e-400]",
        r#"{"nul":"\u0000","pair":"\ud83d\ude00","slash":"\/"}"#,
        r#"{"lone":"\ud800"}"#,
        "\"\u{2028}\u{feff}\u{10ffff}\"",
        "null",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    ];
    for body in passed {
        let said = site.post("/hooks", JSON, body.as_bytes()).await;
        assert_eq!(said.status, 202, "{body}: {said:?}");
        let data = format!("\"data\":{body}");
        eventually(&format!("{body} arrives"), IN_TIME, || async {
            site.api.requests().iter().any(|request| request.body.contains(&data)).then_some(())
        })
        .await;
    }
    // What says it is no JSON is not looked into.
    for body in [&b"\xff\x00\xfe{"[..], b"\xef\xbb\xbf[", b"\0"] {
        let said = site.post("/hooks", "content-type: application/octet-stream\r\n", body).await;
        assert_eq!(said.status, 202, "{said:?}");
        eventually("it arrives", IN_TIME, || async {
            let mut requests = site.api.requests().into_iter();
            requests.any(|request| data_of(&request.body) == body).then_some(())
        })
        .await;
    }
    assert_eq!(site.gateway.count("hooks", "dead").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n12_nothing_that_is_compressed_is_inflated() {
    let site = Site::start("").await;
    site.serves().await;
    let before = site.gateway.peak_memory();
    let bomb = Command::new("sh").args(["-c", "head -c 256M /dev/zero | gzip -9"]).output().await;
    let bomb = bomb.expect("gzip(1)").stdout;
    assert!((100_000..900_000).contains(&bomb.len()), "{}", bomb.len());
    for coding in ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, gzip", "unheard-of"] {
        let headers = format!("{JSON}content-encoding: {coding}\r\n");
        let said = site.post("/hooks", &headers, &bomb).await;
        assert_eq!(said.status, 415, "{coding}: {said:?}");
    }
    // As data of that kind it is taken, as it is.
    let said = site.post("/hooks", "content-type: application/gzip\r\n", &bomb).await;
    assert_eq!(said.status, 202, "{said:?}");
    eventually("it arrives", IN_TIME, || async {
        let mut requests = site.api.requests().into_iter();
        requests.any(|request| data_of(&request.body) == bomb).then_some(())
    })
    .await;
    let grown = site.gateway.peak_memory().saturating_sub(before);
    assert!(grown < 64 << 20, "memory grew by {grown} bytes");
    site.serves().await;
}

/// The bytes of the event that `body` is.
fn data_of(body: &str) -> Vec<u8> {
    let event: Value = serde_json::from_str(body).unwrap_or_default();
    STANDARD.decode(event["data_base64"].as_str().unwrap_or_default()).expect("Base64")
}
