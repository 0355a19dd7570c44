//! CloudEvents that are none, and all of a batch or nothing.

use serde_json::Value;
use tidegate_tests::eventually;

use super::{IN_TIME, Site};

const STRUCTURED: &str = "content-type: application/cloudevents+json\r\n";
const BATCH: &str = "content-type: application/cloudevents-batch+json\r\n";

fn event(id: &str, more: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"t"{more}}}"#)
}

fn batch(from: u32, to: u32) -> String {
    let events: Vec<String> = (from..to).map(|n| event(&format!("b-{n}"), "")).collect();
    format!("[{}]", events.join(","))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n16_a_wrong_cloudevent_is_a_400_and_a_batch_is_taken_whole_or_not_at_all() {
    let site = Site::start("").await;
    let binary = "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: /s\r\nce-type: t\r\n";
    let without = |name: &str| {
        let lines = binary.split_inclusive('\n').filter(|line| !line.starts_with(name));
        lines.collect::<String>()
    };
    let one_bad = batch(0, 500).replace(r#""id":"b-499""#, r#""id":"""#);
    let refused = [
        (without("ce-id"), String::new()),
        (without("ce-type"), String::new()),
        (without("ce-source"), String::new()),
        (without("ce-specversion"), String::new()),
        (binary.replace("1.0", "0.3"), String::new()),
        (binary.replace("1.0", "2.0"), String::new()),
        (format!("{binary}ce-time: yesterday\r\n"), String::new()),
        (format!("{binary}ce-id: 2\r\n"), String::new()),
        (STRUCTURED.to_owned(), event("", "")),
        (STRUCTURED.to_owned(), event("1", "").replace("1.0", "1.1")),
        (STRUCTURED.to_owned(), event("1", "").replace(r#""id":"1","#, "")),
        (STRUCTURED.to_owned(), event("1", r#","data":1,"data_base64":"AA==""#)),
        (STRUCTURED.to_owned(), format!("[{}]", event("1", ""))),
        (BATCH.to_owned(), event("1", "")),
        (BATCH.to_owned(), one_bad),
        (BATCH.to_owned(), format!("[{0},{0}]", event("1", ""))),
        (BATCH.to_owned(), batch(0, 10_000)),
    ];
    for (headers, body) in refused {
        let said = site.post("/events", &headers, body.as_bytes()).await;
        let begin = body.chars().take(80).collect::<String>();
        assert_eq!(said.status, 400, "{headers} {begin}: {said:?}");
    }
    assert_eq!(site.taken("events").await, 0, "nothing of that is kept");
    // What does not say that it is one is none, and nobody would send it otherwise again.
    let said = site.post("/events", "content-type: application/json\r\n", b"{}").await;
    assert_eq!(said.status, 202, "{said:?}");
    assert_eq!(site.gateway.count("events", "dead").await, 1);
    // Headers of the binary mode say nothing beside a structured event.
    let headers = format!("{STRUCTURED}{}", binary.replace("ce-id: 1", "ce-id: other"));
    let said = site.post("/events", &headers, event("own", "").as_bytes()).await;
    assert!(said.status == 202 && said.text.contains(r#"{"id":"own"}"#), "{said:?}");
    assert_eq!(site.post("/events", binary, b"").await.status, 202);
    assert_eq!(site.post("/events", BATCH, b"[]").await.status, 202);
    let said = site.post("/events", BATCH, batch(0, 1_000).as_bytes()).await;
    assert_eq!(said.status, 202, "{said:?}");
    eventually("all arrive", IN_TIME, || async {
        (site.gateway.count("events", "delivered").await == 1_002).then_some(())
    })
    .await;
    let mut ids: Vec<String> = Vec::new();
    for request in site.api.requests() {
        let event: Value = serde_json::from_str(&request.body).expect("an event");
        ids.push(event["id"].as_str().expect("its id").to_owned());
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), site.api.count()), (1_002, 1_002));
}
