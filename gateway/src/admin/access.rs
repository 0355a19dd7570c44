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

/// Who asks.
pub(super) struct Operator {
    /// For the log.
    pub(super) name: String,
    /// Whether they may read: a probe without a token may not.
    pub(super) reads: bool,
}

/// Who asks, by the tokens of the configuration in force: a reload may have changed them.
///
/// # Errors
/// The answer to give instead: 401, 403 or 421.
pub(super) fn check(config: &AdminConfig, head: &Parts) -> Result<Operator, Answer> {
    check_origin(&head.headers)?;
    if config.tokens.is_empty() {
        check_host(head)?;
        return Ok(Operator { name: "local".to_owned(), reads: true });
    }
    let Some((name, role)) = bearer(config, &head.headers) else {
        if OPEN.contains(&head.uri.path()) {
            return Ok(Operator { name: "anyone".to_owned(), reads: false });
        }
        let mut answer = problem(StatusCode::UNAUTHORIZED, "a bearer token is required");
        let scheme = http::HeaderValue::from_static("Bearer");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        return Err(answer);
    };
    let reading = matches!(head.method, Method::GET | Method::HEAD);
    if !reading && role < Role::Operate {
        let (method, path) = (&head.method, head.uri.path());
        tracing::warn!(operator = %name, %method, path, "refused: the token may only read");
        let why = format!("token `{name}` has the role read; this takes operate");
        return Err(problem(StatusCode::FORBIDDEN, &why));
    }
    Ok(Operator { name: name.to_owned(), reads: true })
}

/// # Errors
/// 415, unless the body's type is one of `types`: a form needs no permission to be sent across
/// sites, JSON does.
pub(super) fn check_body(head: &Parts, types: &[&str]) -> Result<(), Answer> {
    let content_type = head.headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if types.contains(&&*media_type) {
        return Ok(());
    }
    let why = format!("the body must be {}", types.join(" or "));
    Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, &why))
}

/// The name and role of the token given. It is compared with every one we know, in the same time
/// whichever it is; by hashes, which are of one length, so that not even the length shows.
fn bearer<'c>(config: &'c AdminConfig, headers: &HeaderMap) -> Option<(&'c str, Role)> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, given) = given.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let given = Sha256::digest(given.trim());
    let mut found = None;
    for (name, known) in &config.tokens {
        if bool::from(Sha256::digest(known.token.expose()).ct_eq(&given)) {
            found = Some((name.as_str(), known.role));
        }
    }
    found
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
