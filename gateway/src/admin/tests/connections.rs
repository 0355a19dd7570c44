//! HTTP itself: methods, paths, bodies, limits, stopping.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::world::open;

#[tokio::test]
async fn what_is_not_there_is_a_404_in_problem_json() {
    let admin = open().await;
    for path in ["/", "/nowhere", "/api/v1", "/api/v2/routes", "/healthz/x", "/api/v1/routes/a/b"] {
        let said = admin.get(path).await;
        assert_eq!(said.status, 404, "{path}");
        assert_eq!(said.header("content-type"), "application/problem+json");
        let problem = said.json();
        assert_eq!(problem["status"], 404);
        assert_eq!(problem["title"], "Not Found");
        assert!(problem["detail"].as_str().unwrap().contains(path));
    }
}

#[tokio::test]
async fn a_method_that_is_not_for_this_path_names_those_that_are() {
    let admin = open().await;
    for path in ["/healthz", "/metrics", "/api/v1/routes", "/api/v1/deliveries/1"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let said = admin.ask(method, path, &[], "").await;
            assert_eq!((said.status, said.header("allow")), (405, "GET, HEAD"), "{method} {path}");
        }
    }
    let said = admin.get("/api/v1/events").await;
    assert_eq!((said.status, said.header("allow")), (405, "POST"));
}

#[tokio::test]
async fn head_says_what_get_would_without_the_body() {
    let admin = open().await;
    for path in ["/readyz", "/metrics", "/api/v1/routes", "/nowhere"] {
        let (get, head) = (admin.get(path).await, admin.ask("HEAD", path, &[], "").await);
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        assert_eq!(head.body, "", "{path}");
    }
}

#[tokio::test]
async fn nothing_is_cached_or_sniffed() {
    let admin = open().await;
    for path in ["/readyz", "/metrics", "/api/v1/routes", "/nowhere"] {
        let said = admin.get(path).await;
        assert_eq!(said.header("cache-control"), "no-store", "{path}");
        assert_eq!(said.header("x-content-type-options"), "nosniff", "{path}");
    }
}

#[tokio::test]
async fn a_body_beyond_4_mib_is_refused_and_nothing_published() {
    let admin = open().await;
    let head = format!(
        "POST /api/v1/events?exchange=e HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        admin.address,
        5 << 20
    );
    let mut request = head.into_bytes();
    request.resize(request.len() + (4 << 20) + 65_536, b' ');
    let said = admin.send(&request).await;
    assert_eq!(said.status, 413);
    assert!(admin.world.published.lock().is_empty());
}

#[tokio::test]
async fn bytes_that_are_not_http_get_a_400_and_the_next_is_served() {
    let admin = open().await;
    assert_eq!(admin.send(b"\x16\x03\x01 hello\r\n\r\n").await.status, 400);
    assert_eq!(admin.get("/readyz").await.status, 200);
}

/// On the paused clock: time goes on by itself whenever everything waits.
#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_ends_the_connection() {
    let admin = open().await;
    let mut silent = TcpStream::connect(admin.address).await.unwrap();
    silent.write_all(b"GET /readyz HTTP/1.1\r\nhost: 127").await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(Duration::from_secs(60), silent.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "still open after a minute");
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_the_listener() {
    let admin = open().await;
    let mut idle = TcpStream::connect(admin.address).await.unwrap();
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {}\r\n\r\n", admin.address);
    idle.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    admin.shutdown.cancel();
    let stopped = timeout(Duration::from_secs(10), admin.running).await;
    stopped.expect("it stops in time").expect("it did not panic");
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(TcpStream::connect(admin.address).await.is_err(), "nothing listens any more");
}
