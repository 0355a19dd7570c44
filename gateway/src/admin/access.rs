//! Who may ask: tokens and roles, and where the request came from.
//!
//! Without tokens the listener is on loopback, and still any web page the operator looks at can
//! send requests to it. So `Host` must be an address or `localhost` (a page that rebinds its own
//! name to 127.0.0.1 sends its name), `Origin` must be our own, and a body must be JSON (a form
//! needs no permission to be sent across sites). With tokens any `Host` will do, service names of a
//! cluster included: a page does not have the token. What it could reach then is health alone,
//! which probes ask without one: names of routes and whether they are up.

use http::{HeaderMap, Method, StatusCode, header, request::Parts};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Answer, problem};
use crate::config::{AdminConfig, Role};

/// Paths that probes ask without a token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// The rules of one listener.
pub(super) struct Access {
    tokens: Vec<Known>,
}

/// A token we know, by its hash: hashes are of one length, so comparing them tells nothing, not
/// even how long the token is.
struct Known {
    name: String,
    hash: [u8; 32],
    role: Role,
}

impl Access {
    pub(super) fn new(config: &AdminConfig) -> Self {
        let tokens = config.tokens.iter().map(|(name, token)| Known {
            name: name.clone(),
            hash: Sha256::digest(token.token.expose()).into(),
            role: token.role,
        });
        Self { tokens: tokens.collect() }
    }

    /// Who asks, for the log.
    ///
    /// # Errors
    /// The answer to give instead: 401, 403 or 421.
    pub(super) fn check(&self, head: &Parts) -> Result<String, Answer> {
        check_origin(&head.headers)?;
        if self.tokens.is_empty() {
            check_host(head)?;
            return Ok("local".to_owned());
        }
        if OPEN.contains(&head.uri.path()) {
            return Ok("anyone".to_owned());
        }
        let Some(Known { name, role, .. }) = self.bearer(&head.headers) else {
            let mut answer = problem(StatusCode::UNAUTHORIZED, "a bearer token is required");
            let scheme = http::HeaderValue::from_static("Bearer");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
            return Err(answer);
        };
        let reading = matches!(head.method, Method::GET | Method::HEAD);
        if !reading && *role < Role::Operate {
            let (method, path) = (&head.method, head.uri.path());
            tracing::warn!(operator = %name, %method, path, "refused: the token may only read");
            let why = format!("token `{name}` has the role read; this takes operate");
            return Err(problem(StatusCode::FORBIDDEN, &why));
        }
        Ok(name.clone())
    }

    /// # Errors
    /// 415, unless the body is JSON.
    pub(super) fn check_body(&self, head: &Parts) -> Result<(), Answer> {
        let content_type = head.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or("");
        let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
        match &*media_type {
            "application/json" | "application/cloudevents+json" => Ok(()),
            _ => Err(problem(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be application/json or application/cloudevents+json",
            )),
        }
    }

    /// Compares with every token, in the same time whichever it is.
    fn bearer(&self, headers: &HeaderMap) -> Option<&Known> {
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, given) = given.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let given = Sha256::digest(given.trim());
        let mut found = None;
        for known in &self.tokens {
            if bool::from(known.hash.ct_eq(&given)) {
                found = Some(known);
            }
        }
        found
    }
}

fn check_host(head: &Parts) -> Result<(), Answer> {
    let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| head.uri.host()).unwrap_or("");
    if is_local_name(host) {
        return Ok(());
    }
    let why = "the Host header must be an IP address or localhost: this listener has no tokens, \
               and other names may belong to a web page";
    Err(problem(StatusCode::MISDIRECTED_REQUEST, why))
}

/// An IP address or `localhost`, with or without a port.
fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok()
}

fn check_origin(headers: &HeaderMap) -> Result<(), Answer> {
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let own = || {
        let (_, origin) = origin.to_str().ok()?.split_once("://")?;
        let host = headers.get(header::HOST)?.to_str().ok()?;
        (origin == host).then_some(())
    };
    own().ok_or_else(|| problem(StatusCode::FORBIDDEN, "requests of other web pages are refused"))
}
