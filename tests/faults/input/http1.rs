//! HTTP/1.1 as no library would write it.

use std::time::Duration;

use tidegate_tests::eventually;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, interval, timeout},
};

use super::{IN_TIME, KEY, Site};

const JSON: &str = "content-type: application/json\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n11_a_head_beyond_its_bounds_is_a_431_and_costs_no_memory() {
    let site = Site::start("").await;
    site.serves().await;
    let before = site.gateway.peak_memory();
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let large = format!("x-large: {}\r\n", "y".repeat(500_000));
    let cookies = "cookie: a=b\r\n".repeat(40_000);
    for headers in [many, large, cookies] {
        let said = site.post("/hooks", &format!("{JSON}{headers}"), b"{}").await;
        assert_eq!(said.status, 431, "{said:?}");
    }
    for target in [format!("/hooks?{}", "q".repeat(70_000)), format!("/{}", "p".repeat(500_000))] {
        let said = site.post(&target, JSON, b"{}").await;
        assert!(matches!(said.status, 414 | 431), "{said:?}");
    }
    let fits: String = (0..100).map(|n| format!("x-{n}: {}\r\n", "y".repeat(200))).collect();
    let said = site.post("/hooks", &format!("{JSON}{fits}"), b"{}").await;
    assert_eq!(said.status, 202, "{said:?}");
    let grown = site.gateway.peak_memory().saturating_sub(before);
    assert!(grown < 16 << 20, "memory grew by {grown} bytes");
    site.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n19_a_path_is_the_one_that_is_configured_or_a_404() {
    let site = Site::start("").await;
    for path in [
        "/hooks/",
        "//hooks",
        "/./hooks",
        "/x/../hooks",
        "/hooks/../hooks",
        "/%2e/hooks",
        "/x/%2e%2e/hooks",
        "/x%2f..%2fhooks",
        "/%2fhooks",
        "/hooks%2f",
        "/hooks%00",
        "/hooks%20",
        "/hooks;a=b",
        "/HOOKS",
        "/%68%6F%6Fks/x",
        "/%2568ooks",
        "/hoo%ks",
        "/hooks%",
        "/",
    ] {
        let said = site.post(path, JSON, b"{}").await;
        assert_eq!(said.status, 404, "{path}: {said:?}");
    }
    for path in ["hooks", "/hooks x", "\\hooks", "/hooks#\u{7f}"] {
        let said = site.post(path, JSON, b"{}").await;
        assert!(matches!(said.status, 0 | 400 | 404), "{path}: {said:?}");
    }
    // RFC 9112 §3.2.3 and §3.2.4: asterisks and authorities are no paths.
    for line in ["POST * HTTP/1.1", "OPTIONS * HTTP/1.1", "CONNECT x:1 HTTP/1.1"] {
        let request = format!("{line}\r\nhost: x\r\nx-key: {KEY}\r\nconnection: close\r\n\r\n");
        let said = site.raw(request.as_bytes()).await;
        assert!(matches!(said.status, 400 | 404 | 405), "{line}: {said:?}");
    }
    assert_eq!(site.taken("hooks").await, 0);
    // One normalisation, and RFC 9112 §3.2.2: a whole URL is the same as its path.
    let query = format!("/hooks?{}", "a=%ff&b=/../&".repeat(1_000));
    for path in ["/hooks", "/%68%6fok%73", "http://other.example/hooks", "/hooks?/../x", &query] {
        let said = site.post(path, JSON, b"{}").await;
        assert_eq!(said.status, 202, "{path}: {said:?}");
    }
    eventually("those have been taken", IN_TIME, || async {
        (site.gateway.count("hooks", "delivered").await == 5).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n20_expectations_upgrades_and_trailers_change_nothing_and_hang_nobody() {
    let site = Site::start("").await;
    let upgrades = [
        "upgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-version: 13\r\n",
        "upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
        "upgrade: TLS/1.0\r\n",
    ];
    for headers in upgrades {
        let said = site.post("/hooks", &format!("{JSON}{headers}"), b"{}").await;
        assert_eq!(said.status, 202, "{said:?}");
        assert!(!said.text.contains("101 "), "{said:?}");
    }
    // Whoever does not wait for the invitation is read all the same.
    let said = site.post("/hooks", &format!("{JSON}expect: 100-continue\r\n"), b"{}").await;
    assert!(said.text.contains("HTTP/1.1 202 "), "{said:?}");
    let said = site.post("/hooks", &format!("{JSON}expect: a-miracle\r\n"), b"{}").await;
    assert!(matches!(said.status, 202 | 417), "{said:?}");
    let chunked = |headers: &str, trailers: &str| {
        format!(
            "POST /hooks HTTP/1.1\r\nhost: x\r\n{JSON}{headers}transfer-encoding: chunked\r\n\
             \r\n2;ext=\"a\"\r\n{{}}\r\n0\r\n{trailers}\r\n"
        )
    };
    let key = format!("x-key: {KEY}\r\n");
    for (headers, trailers, expected) in [
        (&*key, "", 202),
        (&*key, "x-trailer: a\r\ncontent-length: 5\r\nhost: y\r\n", 202),
        // What comes behind the body proves nothing.
        ("", &*key, 401),
        (&*format!("{key}trailer: x-many\r\n"), &*"x-many: a\r\n".repeat(10_000), 0),
    ] {
        let said = site.raw(chunked(headers, trailers).as_bytes()).await;
        match expected {
            0 => assert!(matches!(said.status, 0 | 202 | 400 | 431), "{said:?}"),
            _ => assert_eq!(said.status, expected, "{said:?}"),
        }
    }
    site.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n8_who_drips_is_hung_up_on_however_many_they_are_and_the_others_get_in() {
    const SLOW: usize = 300;
    let limits = ", max_connections: 100, header_timeout: 1s, body_timeout: 1s";
    let site = Site::start(limits).await;
    let mut dripping = JoinSet::new();
    for n in 0..SLOW {
        let address = site.address.clone();
        dripping.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let head = match n % 2 {
                0 => "POST /hooks HTTP/1.1\r\nhost: x\r\nx-slow: ".to_owned(),
                _ => format!(
                    "POST /hooks HTTP/1.1\r\nhost: x\r\nx-key: {KEY}\r\n{JSON}\
                     content-length: 100000\r\n\r\n"
                ),
            };
            let _ = stream.write_all(head.as_bytes()).await;
            let (mut reading, mut writing) = stream.into_split();
            let drip = async {
                let mut drops = interval(Duration::from_millis(50));
                loop {
                    drops.tick().await;
                    if writing.write_all(b" ").await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            };
            let mut answer = Vec::new();
            tokio::select! {
                _ = drip => {}
                _ = reading.read_to_end(&mut answer) => {}
            }
            String::from_utf8_lossy(&answer).into_owned()
        });
    }
    // In the midst of them.
    let began = Instant::now();
    for _ in 0..5 {
        site.serves().await;
    }
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    let ended = timeout(IN_TIME, dripping.join_all()).await.expect("all are hung up on");
    let timed_out = ended.iter().filter(|answer| answer.starts_with("HTTP/1.1 408 ")).count();
    assert!(timed_out > 0, "those who drip a body are told");
    assert_eq!(site.taken("hooks").await, 5);
    site.serves().await;
}
