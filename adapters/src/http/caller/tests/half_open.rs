//! A connection whose other end has gone without a word.

use std::sync::atomic::AtomicBool;

use tokio::{io::copy, net::TcpStream};

use super::*;

/// A server of HTTP/2 over TLS by `authority`.
async fn http2(authority: &crate::http::tls::tests::Authority) -> Server {
    let acceptor = authority.acceptor_for("localhost", None, b"h2");
    Server::start(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service =
                hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| {
                    // The authority is said once, in a field of its own.
                    let said_once = request.uri().authority().is_some()
                        && !request.headers().contains_key(http::header::HOST);
                    let body = http_body_util::Full::new(Bytes::from_static(b"{}"));
                    let mut answer = hyper::Response::new(body);
                    *answer.status_mut() =
                        if said_once { http::StatusCode::OK } else { http::StatusCode::GONE };
                    std::future::ready(Ok::<_, std::convert::Infallible>(answer))
                });
            let io = hyper_util::rt::TokioIo::new(stream);
            let executor = hyper_util::rt::TokioExecutor::new();
            let builder = hyper::server::conn::http2::Builder::new(executor);
            let _ = builder.serve_connection(io, service).await;
        }
    })
    .await
}

/// A way to `server` that loses what its first connection says, from `lost` on, and keeps it open.
async fn way_to(server: &Server, lost: Arc<AtomicBool>) -> Server {
    let address = server.address;
    Server::start(move |number, client| {
        let lost = Arc::clone(&lost);
        async move {
            let server = TcpStream::connect(address).await.unwrap();
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let there = async {
                let mut buffer = vec![0; 16 << 10];
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    if number > 0 || !lost.load(Ordering::SeqCst) {
                        write(&mut to_server, &buffer[..read]).await;
                    }
                }
            };
            let back = async { copy(&mut from_server, &mut to_client).await };
            tokio::select! { () = there => {}, _ = back => {} }
        }
    })
    .await
}

#[tokio::test]
async fn u7_a_half_open_http2_connection_is_left_for_a_new_one() {
    let authority = crate::http::tls::tests::Authority::new();
    let (server, lost) = (http2(&authority).await, Arc::new(AtomicBool::new(false)));
    let way = way_to(&server, Arc::clone(&lost)).await;
    let mut config = api_config(&format!("https://localhost:{}/", way.address.port()));
    config.tls = Some(authority.trusted());
    let (api, rules) = (api(&config), target_config());
    attempt(&api, &rules).await.unwrap();
    lost.store(true, Ordering::SeqCst);
    // One after the other, each given up sooner than the pings would notice: so that the
    // connection is never idle for long, and never busy for long either.
    let mut given_up = 0;
    let once = || tokio::time::timeout(Duration::from_secs(1), attempt(&api, &rules));
    while !matches!(once().await, Ok(Ok(_))) {
        given_up += 1;
        assert!(given_up < 40, "the connection that is dead is used for ever");
    }
    assert!(given_up > 0, "it was lost");
    assert_eq!(way.connections(), 2, "a new one");
}
