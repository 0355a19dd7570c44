//! The client of a running gateway's admin listener: one request, one connection.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};

use super::AdminArgs;

/// For a whole exchange.
const PATIENCE: Duration = Duration::from_secs(15);

/// The largest answer it reads.
const ANSWER_MAX: usize = 64 << 20;

/// Where a gateway's admin listener is, and the token for it.
pub(super) struct Admin {
    url: String,
    token: Option<String>,
}

impl Admin {
    pub(super) fn new(arguments: &AdminArgs) -> Self {
        let token = arguments.token.clone().filter(|token| !token.is_empty());
        Self { url: arguments.url.trim_end_matches('/').to_owned(), token }
    }

    /// GETs `path`; an answer other than 2xx is an error in words.
    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        self.ask(Method::GET, path, None).await
    }

    /// POSTs a structured CloudEvent.
    pub(super) async fn post_event(&self, query: &str, event: String) -> Result<Value, String> {
        self.ask(Method::POST, &format!("/api/v1/events?{query}"), Some(event)).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<String>) -> Result<Value, String> {
        let asked = timeout(PATIENCE, self.exchange(method, path, body)).await;
        asked.map_err(|_| format!("{}: no answer within {PATIENCE:?}", self.url))?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Value, String> {
        let unreachable = |error: &dyn std::fmt::Display| {
            format!(
                "{}: {error}; is a gateway running there? Say where with --admin or TIDEGATE_ADMIN",
                self.url
            )
        };
        let url = url::Url::parse(&self.url).map_err(|error| unreachable(&error))?;
        if url.scheme() != "http" {
            return Err(format!("{}: the admin listener speaks plain http", self.url));
        }
        let host = url.host_str().unwrap_or("127.0.0.1").trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(80);
        let stream =
            TcpStream::connect((&*host, port)).await.map_err(|error| unreachable(&error))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(&error))?;
        let driver = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", url.path().trim_end_matches('/')))
            .header(header::HOST, url.authority())
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/cloudevents+json");
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        let request = request.body(body).map_err(|error| format!("cannot be asked: {error}"))?;
        let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| unreachable(&error))?.to_bytes();
        driver.abort();
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        match value["detail"].as_str() {
            Some(detail) => Err(format!("{status}: {detail}")),
            None => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
        }
    }
}
