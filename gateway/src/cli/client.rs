//! The client of a running gateway's admin listener: one request, one connection.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use url::Url;

use super::{AdminArgs, table::clean};

/// Where the token comes from: an argument would show in the list of processes.
const TOKEN: &str = "TIDEGATE_ADMIN_TOKEN";

const EXAMPLE: &str = "http://127.0.0.1:9090";

/// So much of what an error says is repeated, in characters.
const SAID_MAX: usize = 500;

/// For a whole exchange.
const PATIENCE: Duration = Duration::from_secs(15);

/// For one that may take long: a gateway goes on with a replay for five minutes, then answers.
const LONG_PATIENCE: Duration = Duration::from_secs(330);

/// The largest answer it reads.
const ANSWER_MAX: usize = 64 << 20;

/// What no name of a route, an upstream or a delivery holds.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Where a gateway's admin listener is, and the token for it.
pub(super) struct Admin {
    url: Url,
    token: Option<HeaderValue>,
}

impl Admin {
    /// What the arguments name, with the token of the environment.
    ///
    /// # Errors
    /// When the address or the token cannot be one.
    pub(super) fn new(arguments: &AdminArgs) -> Result<Self, String> {
        let token = std::env::var_os(TOKEN).unwrap_or_default();
        Self::at(&arguments.url, token.to_str().ok_or_else(|| format!("{TOKEN} is not text"))?)
    }

    fn at(address: &str, token: &str) -> Result<Self, String> {
        let url = Url::parse(address)
            .map_err(|error| format!("--admin `{address}`: {error}; as in {EXAMPLE}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            // Not repeated: it may be the token.
            return Err(format!("--admin: no user in the address; the token goes into {TOKEN}"));
        }
        match url.scheme() {
            "http" => {}
            "https" => {
                return Err(format!(
                    "--admin {url}: the admin listener speaks plain http; through TLS, ask a \
                     local end of a tunnel"
                ));
            }
            _ => return Err(format!("--admin {url}: not an http address; as in {EXAMPLE}")),
        }
        let header = |token: &str| HeaderValue::from_str(&format!("Bearer {token}"));
        let token = match token.trim() {
            "" => None,
            token => {
                // Which character it is would be a part of it.
                let token = header(token).map_err(|_| format!("{TOKEN} cannot be a header"));
                Some(token?)
            }
        };
        Ok(Self { url, token })
    }

    /// GETs `path`; an answer other than 2xx is an error in words.
    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        self.parse(self.get_text(path).await?.as_bytes())
    }

    /// GETs `path`, as JSON text.
    pub(super) async fn get_text(&self, path: &str) -> Result<String, String> {
        let (status, body) = self.ask(Method::GET, path, None, PATIENCE).await?;
        self.read(status, &body)
    }

    /// GETs `path`, whatever the status: it, and the JSON.
    pub(super) async fn look(&self, path: &str) -> Result<(StatusCode, Value), String> {
        let (status, body) = self.ask(Method::GET, path, None, PATIENCE).await?;
        Ok((status, self.parse(&body)?))
    }

    /// POSTs a structured CloudEvent.
    pub(super) async fn post_event(&self, query: &str, event: String) -> Result<Value, String> {
        let path = format!("/api/v1/events?{query}");
        let body = Some(("application/cloudevents+json", event));
        let (status, body) = self.ask(Method::POST, &path, body, PATIENCE).await?;
        self.parse(self.read(status, &body)?.as_bytes())
    }

    /// POSTs to `path`, and waits as long as is needed for something that takes long.
    pub(super) async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let (status, body) = self.post_whatever(path, body).await?;
        self.parse(self.read(status, &body)?.as_bytes())
    }

    /// The same, whatever the status: it, and the body.
    pub(super) async fn post_whatever(
        &self,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), String> {
        let body = body.map(|body| ("application/json", body.to_string()));
        self.ask(Method::POST, path, body, LONG_PATIENCE).await
    }

    fn parse(&self, body: &[u8]) -> Result<Value, String> {
        serde_json::from_slice(body).map_err(|error| format!("{}: {error}", self.url))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), String> {
        let asked = timeout(patience, self.exchange(method, path, body)).await;
        let asked = asked.map_err(|_| format!("{}: no answer within {patience:?}", self.url))?;
        asked.map_err(|error| {
            format!(
                "{}: {error}; is a gateway running there? Say where with --admin or TIDEGATE_ADMIN",
                self.url
            )
        })
    }

    /// One request on a connection of its own.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<(&'static str, String)>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url.path().trim_end_matches('/')))
            .header(header::HOST, self.url.authority())
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, token);
        }
        if let Some((content_type, _)) = &body {
            request = request.header(header::CONTENT_TYPE, *content_type);
        }
        let body = body.map(|(_, body)| body).unwrap_or_default();
        let request = request.body(Full::new(Bytes::from(body)))?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await?;
            Ok((status, body.to_bytes()))
        };
        // The connection moves the bytes; it has nothing to say once the exchange is done.
        tokio::pin!(exchange);
        let connection = async {
            // What breaks it, the exchange hears of, too.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            done = &mut exchange => done,
            () = connection => unreachable!("it waits for ever"),
        }
    }

    /// JSON of a success, or what is wrong in words.
    pub(super) fn read(&self, status: StatusCode, body: &[u8]) -> Result<String, String> {
        let text = String::from_utf8_lossy(body).into_owned();
        let is_json = serde_json::from_str::<IgnoredAny>(&text).is_ok();
        if status.is_success() {
            return match is_json {
                true => Ok(text),
                false => Err(format!("{}: what answers there is no Tidegate", self.url)),
            };
        }
        let problem: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = problem["detail"].as_str().unwrap_or(&text);
        let said: String = clean(said).chars().take(SAID_MAX).collect();
        let remedy = match (status, &self.token) {
            (StatusCode::UNAUTHORIZED, None) => format!("; set {TOKEN}"),
            (StatusCode::UNAUTHORIZED, Some(_)) => format!("; that of {TOKEN} is none it knows"),
            _ => String::new(),
        };
        Err(format!("{status}: {said}{remedy}"))
    }
}

/// `name` as a part of a path; the slash of a route of replies stays.
pub(super) fn path_part(name: &str) -> String {
    let parts = name.split('/').map(|part| utf8_percent_encode(part, ENCODED).to_string());
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> Admin {
        Admin::at("http://127.0.0.1:9090", "").unwrap()
    }

    #[test]
    fn an_address_that_cannot_be_one_is_refused_with_a_remedy() {
        for (address, says) in [
            ("127.0.0.1:9090", "http://127.0.0.1:9090"),
            ("localhost:9090", "http://127.0.0.1:9090"),
            ("https://gateway.example", "plain http"),
            ("ftp://gateway.example", "not an http address"),
            ("http://", "http://127.0.0.1:9090"),
        ] {
            let problem = Admin::at(address, "").err().unwrap();
            assert!(problem.contains(says), "{address}: {problem}");
        }
    }

    #[test]
    fn a_token_shows_in_no_error() {
        for (address, token) in
            [("http://:s3cret-token@localhost", ""), ("http://localhost", "s3cret-token\n2")]
        {
            let problem = Admin::at(address, token).err().unwrap();
            assert!(!problem.contains("s3cret"), "{problem}");
            assert!(problem.contains(TOKEN), "{problem}");
        }
    }

    #[test]
    fn a_problem_is_told_in_its_own_words() {
        let problem = br#"{"title":"Not Found","status":404,"detail":"there is no route `x`"}"#;
        let said = admin().read(StatusCode::NOT_FOUND, problem).unwrap_err();
        assert_eq!(said, "404 Not Found: there is no route `x`");
        let said = admin().read(StatusCode::UNAUTHORIZED, b"{}").unwrap_err();
        assert!(said.ends_with("; set TIDEGATE_ADMIN_TOKEN"), "{said}");
    }

    #[test]
    fn another_server_at_that_address_is_noticed() {
        let said = admin().read(StatusCode::OK, b"<html>hello</html>").unwrap_err();
        assert!(said.contains("no Tidegate"), "{said}");
        let page = format!("\u{1b}[2J{}", "x".repeat(10_000));
        let said = admin().read(StatusCode::BAD_GATEWAY, page.as_bytes()).unwrap_err();
        assert!(said.len() < 1000 && !said.contains('\u{1b}'), "{said}");
    }

    #[test]
    fn a_name_stays_a_part_of_the_path() {
        assert_eq!(path_part("award-points_2.x"), "award-points_2.x");
        assert_eq!(path_part("award-points/reply"), "award-points/reply");
        assert_eq!(path_part("a b?c#d%é"), "a%20b%3Fc%23d%25%C3%A9");
    }
}
