//! One connection: TLS if there is any, HTTP/1.1 or HTTP/2, and its limits.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{HeaderValue, header};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    Site,
    framing::{self, Framing, Watched},
    tls::Certificates,
};

/// Headers of one request, in bytes.
const HEADERS_MAX: usize = 32 << 10;

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// A connection lives so long at most: what a load balancer should spread must not stick for ever.
const LIFE: Duration = Duration::from_secs(3600);

/// Between pings on an HTTP/2 connection, and how long the answer may take.
const PING: Duration = Duration::from_secs(20);

/// How long requests under way may take once the connection is to end.
const LAST: Duration = Duration::from_secs(60);

/// Serves one connection to its end.
pub(super) async fn serve(stream: TcpStream, tls: Option<Certificates>, site: Arc<Site>) {
    // Small answers must not wait for more to send.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return speak(stream, site).await };
    match timeout(site.served().config.header_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => speak(stream, site).await,
        // Scanners and senders that do not trust us: theirs to notice.
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
        Err(_) => tracing::debug!("TLS handshake: nothing in time"),
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, site: Arc<Site>) {
    let framing = Framing::default();
    let header_timeout = site.served().config.header_timeout;
    let stream = Watched::new(stream, framing.clone(), header_timeout);
    let answering = Arc::clone(&site);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (site, framing) = (Arc::clone(&answering), framing.clone());
        async move {
            let (head, body) = request.into_parts();
            let last = framing::is_last(&head) || site.stopping.is_cancelled();
            let http1 = head.version <= http::Version::HTTP_11;
            let mut answer = site.answer(http::Request::from_parts(head, body), &framing).await;
            let headers = answer.headers_mut();
            match http1 {
                true if last => {
                    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                true => {}
                // HTTP/2 has no such header, and its streams do not get mixed up.
                false => _ = headers.remove(header::CONNECTION),
            }
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HEADERS_MAX + 8192)
        .max_headers(128);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADERS_MAX).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(20)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // What a peer does to its own connection is its own affair.
        _ = &mut connection => return,
        () = site.stopping.cancelled() => {}
        () = tokio::time::sleep(LIFE) => {}
    }
    connection.as_mut().graceful_shutdown();
    // Whoever has not taken its answer by then goes without.
    let _ = timeout(LAST, connection).await;
}
