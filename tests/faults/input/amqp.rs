//! Messages whose headers no client library would write.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::{
    Api, Gateway, eventually,
    rabbitmq::Node,
    wire::{RawPublisher, entry, nested},
};

use crate::events_to_apis::one_route;

const IN_TIME: Duration = Duration::from_secs(120);
const QUEUE: &str = "tidegate.award-points";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n17_whatever_headers_rabbitmq_passes_on_become_an_event_or_are_dead() {
    let broker = Node::shared().await.vhost().await;
    let api = Api::start().await;
    let yaml = one_route(&broker.url(), &api.url(), "", "")
        .replace("/members/{.data.customerId}/points", "/points")
        .replace("'{points: (.data.total | floor), reference: .id, n: .data.n}'", ".data");
    let yaml = yaml.replace(
        "order.confirmed.#' }]",
        "order.confirmed.#' }]\n        event: { data: '{body: .body, headers: .headers}' }",
    );
    let gateway = Gateway::start(&yaml).await;
    eventually("it consumes", IN_TIME, || async {
        (broker.consumers(QUEUE).await == 1).then_some(())
    })
    .await;
    let publish = async |headers: &[u8], body: &str| {
        let mut publisher = RawPublisher::connect(&broker.url()).await;
        publisher.publish("orders", "order.confirmed", headers, body.as_bytes()).await
    };
    // Every type there is, at its limits; and each of them arrives.
    let table = [
        entry("flag", b"t\x01"),
        entry("i8", b"b\x80"),
        entry("u8", b"B\xff"),
        entry("i16", b"s\x80\x00"),
        entry("u16", b"u\xff\xff"),
        entry("i32", b"I\x80\0\0\0"),
        entry("u32", b"i\xff\xff\xff\xff"),
        entry("i64", b"l\x80\0\0\0\0\0\0\0"),
        entry("float", b"f\x3d\xcc\xcc\xcd"),
        entry("double", b"d\x40\x04\0\0\0\0\0\0"),
        entry("decimal", b"D\x02\0\0\x04\xe2"),
        entry("late", b"T\xff\xff\xff\xff\xff\xff\xff\xff"),
        entry("text", b"S\0\0\0\x02\xc3\xb6"),
        entry("no-text", b"S\0\0\0\x02\xff\x00"),
        entry("bytes", b"x\0\0\0\x03\x01\x02\x03"),
        entry("nothing", b"V"),
        entry("", &nested(1)),
        entry("deep", &nested(100)),
    ];
    publish(&table.concat(), r#"{"n": 1}"#).await.expect("taken");
    let request = eventually("it arrives", IN_TIME, || async { api.requests().pop() }).await;
    let arrived: Value = serde_json::from_str(&request.body).expect("JSON");
    let mut headers = arrived["headers"].clone();
    assert!(headers["deep"].take().is_array());
    assert_eq!(
        headers,
        json!({
            "flag": true, "i8": -128, "u8": 255, "i16": i16::MIN, "u16": u16::MAX,
            "i32": i32::MIN, "u32": u32::MAX, "i64": i64::MIN, "float": 0.1, "double": 2.5,
            "decimal": "12.50", "late": u64::MAX, "text": "ö", "no-text": "/wA=",
            "bytes": "AQID", "nothing": null, "": [], "deep": null,
        })
    );
    // Deeper than an event may be, up to all that a frame holds.
    const DEEP: [usize; 5] = [127, 130, 1_000, 10_000, 26_000];
    for levels in DEEP {
        publish(&entry("x", &nested(levels)), "{}").await.expect("taken");
    }
    eventually("they are dead", IN_TIME, || async {
        (gateway.count("award-points", "dead").await == DEEP.len() as u64).then_some(())
    })
    .await;
    let dead = gateway.get("/api/v1/deliveries?state=dead").await;
    for delivery in dead["deliveries"].as_array().expect("a list") {
        assert_eq!(delivery["reason"], "invalid", "{delivery}");
    }
    // What RabbitMQ itself does not understand never gets so far.
    for headers in [
        entry("x", b"?"),
        entry("x", b"d\x7f\xf8\0\0\0\0\0\0"),
        entry("x", b"S\xff\xff\xff\xff"),
        b"\xff".to_vec(),
    ] {
        let said = publish(&headers, "{}").await;
        assert!(said.is_err(), "RabbitMQ takes {headers:?}");
    }
    publish(&entry("x", b"V"), r#"{"n": 2}"#).await.expect("taken");
    eventually("the next one flows", IN_TIME, || async {
        api.requests().pop().filter(|request| request.body.contains("\"n\":2"))
    })
    .await;
    assert_eq!((api.count(), broker.messages(QUEUE).await), (2, 0));
    assert_eq!(gateway.log().matches("RabbitMQ connected").count(), 2, "no connection was lost");
}
