//! What is served where, and who answers it: the one table of both.
//!
//! The document at `/openapi.json` describes every row of it, and nothing else; a test holds the
//! two against each other.

use http::Method;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Alive,
    Ready,
    Metrics,
    OpenApi,
    Routes,
    Route,
    PauseRoute,
    ResumeRoute,
    Upstreams,
    Upstream,
    PauseUpstream,
    ResumeUpstream,
    ResetUpstream,
    Deliveries,
    Delivery,
    ReplayDelivery,
    DiscardDelivery,
    ReplayDeliveries,
    DiscardDeliveries,
    Publish,
    Reload,
}

/// Method, path and what answers. A name in braces stands for one segment; HEAD goes where GET
/// does. The one kind of name that holds a slash is that of a route of replies: `orders/reply`.
pub(super) static TABLE: [(Method, &str, Endpoint); 24] = [
    (Method::GET, "/healthz", Endpoint::Alive),
    (Method::GET, "/readyz", Endpoint::Ready),
    (Method::GET, "/metrics", Endpoint::Metrics),
    (Method::GET, "/openapi.json", Endpoint::OpenApi),
    (Method::GET, "/api/v1/routes", Endpoint::Routes),
    (Method::GET, "/api/v1/routes/{name}", Endpoint::Route),
    (Method::POST, "/api/v1/routes/{name}/pause", Endpoint::PauseRoute),
    (Method::POST, "/api/v1/routes/{name}/resume", Endpoint::ResumeRoute),
    (Method::GET, "/api/v1/routes/{name}/reply", Endpoint::Route),
    (Method::POST, "/api/v1/routes/{name}/reply/pause", Endpoint::PauseRoute),
    (Method::POST, "/api/v1/routes/{name}/reply/resume", Endpoint::ResumeRoute),
    (Method::GET, "/api/v1/upstreams", Endpoint::Upstreams),
    (Method::GET, "/api/v1/upstreams/{name}", Endpoint::Upstream),
    (Method::POST, "/api/v1/upstreams/{name}/pause", Endpoint::PauseUpstream),
    (Method::POST, "/api/v1/upstreams/{name}/resume", Endpoint::ResumeUpstream),
    (Method::POST, "/api/v1/upstreams/{name}/reset", Endpoint::ResetUpstream),
    (Method::GET, "/api/v1/deliveries", Endpoint::Deliveries),
    (Method::GET, "/api/v1/deliveries/{id}", Endpoint::Delivery),
    (Method::POST, "/api/v1/deliveries/{id}/replay", Endpoint::ReplayDelivery),
    (Method::POST, "/api/v1/deliveries/{id}/discard", Endpoint::DiscardDelivery),
    (Method::POST, "/api/v1/deliveries/replay", Endpoint::ReplayDeliveries),
    (Method::POST, "/api/v1/deliveries/discard", Endpoint::DiscardDeliveries),
    (Method::POST, "/api/v1/events", Endpoint::Publish),
    (Method::POST, "/api/v1/reload", Endpoint::Reload),
];

/// Why nothing answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// Nothing is there.
    Nowhere,
    /// Something is, for other methods: these.
    Method(String),
}

/// What answers `method` at `path`, and the name or id in it (empty where there is none).
pub(super) fn find(method: &Method, path: &str) -> Result<(Endpoint, String), Missed> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    let mut allowed: Vec<&str> = Vec::new();
    for (served, pattern, endpoint) in &TABLE {
        let Some(named) = named(pattern, path) else { continue };
        if served == method {
            return Ok((*endpoint, named));
        }
        allowed.extend(match *served {
            Method::GET => &["GET", "HEAD"][..],
            _ => &["POST"],
        });
    }
    match allowed.is_empty() {
        true => Err(Missed::Nowhere),
        false => Err(Missed::Method(allowed.join(", "))),
    }
}

/// The name or id in `path`, if it is of this `pattern`.
fn named(pattern: &str, path: &str) -> Option<String> {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    let mut named = String::new();
    let mut after_name = false;
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(named),
            (Some(name), Some(given)) if name.starts_with('{') => {
                given.clone_into(&mut named);
                after_name = true;
            }
            (Some(name), Some(given)) if name == given => {
                if after_name && name == "reply" {
                    named.push_str("/reply");
                }
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_endpoint_and_the_name_in_it() {
        for (method, path, endpoint, name) in [
            (Method::GET, "/healthz", Endpoint::Alive, ""),
            (Method::HEAD, "/api/v1/routes/a", Endpoint::Route, "a"),
            (Method::GET, "/api/v1/routes/a/reply", Endpoint::Route, "a/reply"),
            (Method::GET, "/api/v1/routes/reply", Endpoint::Route, "reply"),
            (Method::POST, "/api/v1/routes/a/reply/pause", Endpoint::PauseRoute, "a/reply"),
            (Method::POST, "/api/v1/routes/a/resume", Endpoint::ResumeRoute, "a"),
            (Method::POST, "/api/v1/upstreams/pause/pause", Endpoint::PauseUpstream, "pause"),
            (Method::POST, "/api/v1/deliveries/7/replay", Endpoint::ReplayDelivery, "7"),
            (Method::POST, "/api/v1/deliveries/replay", Endpoint::ReplayDeliveries, ""),
        ] {
            assert_eq!(find(&method, path), Ok((endpoint, name.to_owned())), "{method} {path}");
        }
    }

    #[test]
    fn what_is_missed_says_whether_another_method_would_do() {
        let methods = |path| find(&Method::PUT, path).unwrap_err();
        for path in ["", "/", "//healthz", "/healthz/", "/api/v1/routes/a/b", "/api/v1/reload/x"] {
            assert_eq!(methods(path), Missed::Nowhere, "{path}");
        }
        for (path, allowed) in [
            ("/metrics", "GET, HEAD"),
            ("/api/v1/reload", "POST"),
            ("/api/v1/deliveries/replay", "GET, HEAD, POST"),
        ] {
            assert_eq!(methods(path), Missed::Method(allowed.to_owned()), "{path}");
        }
    }
}
