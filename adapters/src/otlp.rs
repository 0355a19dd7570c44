//! The collector's end: spans as OTLP, over gRPC or HTTP
//! (<https://opentelemetry.io/docs/specs/otlp/>, 1.x).
//!
//! One unary call of one method is all there is, and its message comes encoded: a request with five
//! bytes before it and a status behind. No proxy, no redirect, and nothing from the environment.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use url::Url;

use crate::http::tls;

/// The method that takes spans, as gRPC names it.
const METHOD: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// For a whole export, the dialling included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// For the dialling.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest answer that is read: it says little.
const ANSWER_MAX: usize = 64 << 10;

/// So much of what a collector says about an error is repeated, in characters.
const SAID_MAX: usize = 200;

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Collector {
    client: reqwest::Client,
    url: Url,
    protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP, in protobuf.
    Http,
}

/// Why spans were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ExportError {
    /// In one sentence.
    pub detail: String,
    /// Whether the same spans may be taken later (OTLP, "Failures").
    pub again: bool,
}

impl Collector {
    /// The collector at `url`: gRPC where it names no path, else HTTP to just that path, as in
    /// `http://127.0.0.1:4318/v1/traces`. Connects to nothing.
    ///
    /// # Errors
    /// When TLS is asked for and the system has no certificate authorities.
    pub fn new(url: &Url) -> Result<Self, String> {
        let (mut url, mut builder) = (url.clone(), reqwest::Client::builder());
        let protocol = match url.path() {
            "" | "/" => Protocol::Grpc,
            _ => Protocol::Http,
        };
        let tls = match url.scheme() {
            "https" => tls::client_config(None),
            _ => tls::client_config_without_authorities(),
        };
        let mut tls = tls.map_err(|error| error.to_string())?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        match protocol {
            Protocol::Grpc => {
                url.set_path(METHOD);
                builder = builder.http2_prior_knowledge();
            }
            Protocol::Http => tls.alpn_protocols.push(b"http/1.1".to_vec()),
        }
        let client = builder
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .pool_max_idle_per_host(1)
            .build()
            .map_err(|error| error.without_url().to_string())?;
        Ok(Self { client, url, protocol })
    }

    /// Hands over one encoded `ExportTraceServiceRequest`. Takes seconds at most.
    ///
    /// # Errors
    /// When it was not taken.
    pub async fn export(&self, message: &[u8]) -> Result<(), ExportError> {
        let (kind, body) = match self.protocol {
            Protocol::Grpc => ("application/grpc", framed(message)),
            Protocol::Http => ("application/x-protobuf", Bytes::copy_from_slice(message)),
        };
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, kind)
            .header(header::USER_AGENT, crate::http::USER_AGENT)
            .body(body);
        if self.protocol == Protocol::Grpc {
            request = request.header(header::TE, "trailers");
        }
        let answer = request.send().await.map_err(broken)?;
        let status = answer.status();
        let answer: http::Response<reqwest::Body> = answer.into();
        let (head, body) = answer.into_parts();
        let collected = Limited::new(body, ANSWER_MAX).collect().await;
        let collected = collected.map_err(|error| ExportError {
            detail: format!("the answer broke off: {error}"),
            again: true,
        })?;
        match self.protocol {
            Protocol::Http => http_status(status),
            Protocol::Grpc => {
                http_status(status)?;
                // An answer without a message has its status where the head is.
                let trailers = collected.trailers().unwrap_or(&head.headers);
                grpc_status(trailers)
            }
        }
    }
}

/// A message as gRPC frames it: not compressed, and so long
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
fn framed(message: &[u8]) -> Bytes {
    let mut body = BytesMut::with_capacity(5 + message.len());
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).expect("a batch is some hundred KiB"));
    body.put_slice(message);
    body.freeze()
}

fn http_status(status: StatusCode) -> Result<(), ExportError> {
    if status.is_success() {
        return Ok(());
    }
    let again = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    Err(ExportError { detail: format!("the collector answered {status}"), again })
}

fn grpc_status(trailers: &HeaderMap) -> Result<(), ExportError> {
    let text = |name| trailers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let Some(code) = text("grpc-status").and_then(|code| code.parse::<u16>().ok()) else {
        let detail = "the answer has no grpc-status: no collector of OTLP over gRPC".to_owned();
        return Err(ExportError { detail, again: true });
    };
    if code == 0 {
        return Ok(());
    }
    let said: String = text("grpc-message").unwrap_or_default().chars().take(SAID_MAX).collect();
    // Cancelled, deadline exceeded, resource exhausted, aborted, out of range, unavailable, data
    // loss: OTLP, "Failures".
    let again = matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15);
    Err(ExportError { detail: format!("the collector answered grpc-status {code}: {said}"), again })
}

fn broken(error: reqwest::Error) -> ExportError {
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        detail.push_str(": ");
        detail.push_str(&cause.to_string());
        source = cause.source();
    }
    ExportError { detail, again: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trailers(status: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (header::HeaderName::from_static("grpc-status"), HeaderValue::from_static(status)),
            (header::HeaderName::from_static("grpc-message"), HeaderValue::from_static("why")),
        ])
    }

    #[test]
    fn what_a_collector_says_tells_whether_to_try_again() {
        assert_eq!(grpc_status(&trailers("0")), Ok(()));
        for (status, again) in [("14", true), ("4", true), ("3", false), ("12", false)] {
            let refused = grpc_status(&trailers(status)).unwrap_err();
            assert_eq!(refused.again, again, "{status}");
            assert!(refused.detail.ends_with(": why"), "{}", refused.detail);
        }
        assert!(grpc_status(&HeaderMap::new()).is_err());
        assert_eq!(http_status(StatusCode::OK), Ok(()));
        assert!(http_status(StatusCode::SERVICE_UNAVAILABLE).unwrap_err().again);
        assert!(!http_status(StatusCode::BAD_REQUEST).unwrap_err().again);
    }

    #[test]
    fn a_path_means_http_and_none_means_grpc() {
        let collector = |url: &str| Collector::new(&Url::parse(url).unwrap()).unwrap();
        let grpc = collector("http://127.0.0.1:4317");
        assert_eq!((grpc.protocol, grpc.url.path()), (Protocol::Grpc, METHOD));
        let http = collector("http://127.0.0.1:4318/v1/traces");
        assert_eq!((http.protocol, http.url.path()), (Protocol::Http, "/v1/traces"));
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_is_an_error_that_names_the_cause() {
        let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", free.local_addr().unwrap());
        drop(free);
        let collector = Collector::new(&Url::parse(&url).unwrap()).unwrap();
        let refused = collector.export(b"").await.unwrap_err();
        assert!(refused.again && refused.detail.contains("refused"), "{}", refused.detail);
    }
}
