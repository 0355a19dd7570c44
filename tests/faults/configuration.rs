//! Configurations that are wrong, cut short or change under way.

use std::{path::Path, process::Output, time::Duration};

use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};
use serde_json::json;
use tidegate_tests::{
    Api, Gateway,
    amqp::{Message, Publisher},
    eventually,
    gateway::{binary, client},
    rabbitmq::Node,
};
use tokio::{process::Command, time::timeout};

use crate::events_to_apis::{one_route, order};

const IN_TIME: Duration = Duration::from_secs(120);

/// `check` of `path`; it ends in time, whatever it reads.
async fn check(path: &Path) -> Output {
    let mut check = Command::new(binary());
    check.arg("check").arg("-c").arg(path).env("EMPTY", "").kill_on_drop(true);
    timeout(IN_TIME, check.output()).await.expect("in time").expect("the binary")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One webhook to the embedded broker, with further lines before.
fn webhook(name: &str, key: &str) -> String {
    format!(
        "  {name}:
    from:
      webhook:
        path: /{name}
        verify: {{ api_key: {{ header: X-Key, keys: ['{key}'] }} }}
        event: {{ type: t }}
    to: {{ rabbitmq: {{ exchange: hooks, on_unroutable: drop }} }}
"
    )
}

#[tokio::test]
async fn c4_a_file_without_end_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let large = folder.path().join("large.yaml");
    let file = std::fs::File::create(&large).expect("writable");
    file.set_len(1 << 30).expect("a file of holes");
    let zeros = folder.path().join("zeros.yaml");
    std::os::unix::fs::symlink("/dev/zero", &zeros).expect("a link");
    for path in [large, zeros] {
        let output = check(&path).await;
        assert_eq!(output.status.code(), Some(78), "{}", said(&output));
        assert!(said(&output).contains("is larger than 16 MiB"), "{}", said(&output));
    }
}

#[tokio::test]
async fn c6_a_secret_that_is_not_there_keeps_it_from_starting_and_none_is_told() {
    const GOOD: &str = "canary-secret-0123456789";
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("good"), format!("{GOOD}\n")).expect("writable");
    std::fs::write(at("empty"), "").expect("writable");
    std::fs::write(at("newline"), "\n").expect("writable");
    std::fs::write(at("bytes"), b"canary-\xff-0123456789").expect("writable");
    std::fs::create_dir(at("folder")).expect("writable");
    std::os::unix::fs::symlink(at("nowhere"), at("dangling")).expect("a link");
    let path = folder.path().join("gateway.yaml");
    let write = |secret: &str| {
        let good = format!("${{file:{}}}", at("good"));
        let yaml = format!(
            "broker: {{ embedded: {{}} }}\nroutes:\n{}{}",
            webhook("first", &good),
            webhook("second", secret)
        );
        std::fs::write(&path, yaml).expect("writable");
    };
    for (secret, why) in [
        (format!("${{file:{}}}", at("missing")), "cannot be read"),
        (format!("${{file:{}}}", at("dangling")), "cannot be read"),
        (format!("${{file:{}}}", at("folder")), "cannot be read"),
        (format!("${{file:{}}}", at("empty")), "must not be empty"),
        (format!("${{file:{}}}", at("newline")), "must not be empty"),
        (format!("${{file:{}}}", at("bytes")), "is not UTF-8 text"),
        ("${file:/dev/zero}".to_owned(), "larger than 1 MiB"),
        ("${EMPTY}".to_owned(), "must not be empty"),
        ("${TIDEGATE_TEST_UNSET}".to_owned(), "TIDEGATE_TEST_UNSET is not set"),
    ] {
        write(&secret);
        let output = check(&path).await;
        assert_eq!(output.status.code(), Some(78), "{secret}: {}", said(&output));
        let said = said(&output);
        assert!(said.contains(why), "{secret}: {said}");
        assert!(said.contains("gateway.yaml:14:"), "its place: {said}");
        assert!(!said.contains("canary"), "{said}");
    }
    write(GOOD);
    assert_eq!(check(&path).await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c11_a_port_that_is_taken_is_told_and_a_reload_that_needs_it_changes_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let yaml =
        |routes: &str, more: &str| format!("broker: {{ embedded: {{}} }}\n{more}routes:\n{routes}");
    let hooks = webhook("hooks", "canary-api-key-77");
    let mut gateway = Gateway::new(&yaml(&hooks, ""));
    gateway.set("TIDEGATE__SERVER__LISTEN", &address);
    gateway.spawn();
    let status = gateway.exit().await;
    assert_eq!(status.code(), Some(1), "{}", gateway.log());
    eventually("it says why", IN_TIME, || async {
        gateway.log().contains(&format!("listen {address}: Address already in use")).then_some(())
    })
    .await;
    // Without webhooks it needs no public listener, until a reload brings one.
    let api = Api::start().await;
    let other = "  other:
    from: { rabbitmq: { bind: [{ exchange: orders, key: '#' }] } }
    to: { http: { upstream: api } }
";
    let upstream = format!(
        "upstreams: {{ api: {{ url: '{}', egress: {{ allow: [127.0.0.0/8] }} }} }}\n",
        api.url()
    );
    let write = |gateway: &Gateway, yaml: &str| {
        std::fs::write(gateway.folder().join("gateway.yaml"), yaml).expect("writable");
    };
    write(&gateway, &yaml(other, &upstream));
    gateway.run().await;
    let both = yaml(&format!("{other}{hooks}"), &upstream);
    write(&gateway, &both);
    let (status, said) = gateway.post("/api/v1/reload", &json!({})).await;
    assert_eq!(status, 503, "{said}");
    assert!(said["detail"].as_str().is_some_and(|why| why.contains(&address)), "{said}");
    assert!(gateway.text("/metrics").await.contains("tidegate_config_last_reload_success 0"));
    let emitted = gateway.verb(&["emit", "t", "--exchange", "orders"]).await;
    assert!(emitted.status.success(), "{emitted:?}");
    eventually("what is in force works", IN_TIME, || async { (api.count() == 1).then_some(()) })
        .await;
    drop(taken);
    eventually("the port is free", IN_TIME, || async {
        let (status, _) = gateway.post("/api/v1/reload", &json!({})).await;
        (status == 200).then_some(())
    })
    .await;
    let send = async || {
        let request = client().post(format!("http://{address}/hooks"));
        request.header("X-Key", "canary-api-key-77").body("{}").send().await.expect("an answer")
    };
    assert_eq!(send().await.status().as_u16(), 202);
    // What is bound once is not bound anew under way, but refused by name; and goes on.
    write(&gateway, &format!("server: {{ max_connections: 7 }}\n{both}"));
    let (status, said) = gateway.post("/api/v1/reload", &json!({})).await;
    assert_eq!(status, 409, "{said}");
    assert!(said.to_string().contains("server.max_connections"), "{said}");
    assert_eq!(send().await.status().as_u16(), 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_a_queue_that_is_declared_otherwise_is_told_exactly_and_others_run() {
    let broker = Node::shared().await.vhost().await;
    let url = broker.url();
    let connection = Connection::connect(&url, ConnectionProperties::default());
    let connection = connection.await.expect("the test's own node");
    let channel = connection.create_channel().await.expect("a channel");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare("theirs".into(), durable, FieldTable::default());
    declared.await.expect("a classic queue");
    let api = Api::start().await;
    let yaml = format!(
        "{}  refused:
    from: {{ rabbitmq: {{ queue: theirs, bind: [{{ exchange: orders, key: '#' }}] }} }}
    to: {{ http: {{ upstream: loyalty }} }}
",
        one_route(&broker.url(), &api.url(), "", "")
    );
    let gateway = Gateway::start(&yaml).await;
    eventually("it says what differs", IN_TIME, || async {
        let log = gateway.log();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains("inequivalent arg 'x-queue-type'"))?;
        assert!(line.contains("refused") && line.contains("theirs"), "{line}");
        Some(())
    })
    .await;
    eventually("the other consumes", IN_TIME, || async {
        (broker.consumers("tidegate.award-points").await == 1).then_some(())
    })
    .await;
    let publisher = Publisher::connect(&broker.url()).await;
    let messages: Vec<Message> = (0..10).map(|n| order(n, 5)).collect();
    publisher.publish("orders", &messages).await;
    eventually("the other delivers", IN_TIME, || async { (api.count() == 10).then_some(()) }).await;
    let metrics = gateway.text("/metrics").await;
    for (route, up) in [("award-points", 1), ("refused", 0)] {
        let line = format!("tidegate_source_up{{route=\"{route}\"}} {up}");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
    // Nobody's queue is deleted or changed to make it fit.
    assert!(!broker.is_quorum("theirs").await);
    broker.delete_queue("theirs").await;
    eventually("put right, it consumes by itself", IN_TIME, || async {
        (broker.consumers("theirs").await == 1).then_some(())
    })
    .await;
}
