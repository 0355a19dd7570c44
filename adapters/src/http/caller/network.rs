//! What a network error means: which result, and whether anything had been sent.
//!
//! reqwest wraps hyper-util wraps hyper wraps rustls wraps io, so the chain of sources is walked
//! and each link asked what it is. Messages are made from the innermost cause; the outer ones
//! carry the URL, which may hold secrets.

use std::{error::Error as StdError, io};

use rustls::AlertDescription;

use crate::{AttemptResult, http::egress::RefusedAddress};

/// What is known about a request that got no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Of the closed set.
    pub(crate) result: AttemptResult,
    /// Whether the other side may have seen the request.
    pub(crate) sent: bool,
    /// One sentence.
    pub(crate) detail: String,
}

/// Reads `error`; `sent` tells whether the request had been handed to a connection.
pub(crate) fn diagnose(error: reqwest::Error, sent: bool) -> Broken {
    let error = error.without_url();
    let links = chain(&error);
    let root = links.last().map(ToString::to_string).unwrap_or_default();
    let broken = |result, sent, what: &str| Broken {
        result,
        sent,
        detail: if root.is_empty() { what.to_owned() } else { format!("{what}: {root}") },
    };
    if let Some(refused) = find::<RefusedAddress>(&links) {
        let detail = refused.to_string();
        return Broken { result: AttemptResult::RefusedAddress, sent: false, detail };
    }
    if error.is_builder() {
        return broken(AttemptResult::Oversize, false, "the request cannot be sent");
    }
    if error.is_dns() {
        return broken(AttemptResult::Dns, false, "the name does not resolve");
    }
    let tls = find::<rustls::Error>(&links);
    if error.is_connect() {
        return if tls.is_some() || is_handshake(&links) {
            broken(AttemptResult::Tls, false, "no TLS connection")
        } else {
            broken(AttemptResult::Connect, false, "no connection")
        };
    }
    // In TLS 1.3 the server looks at the client's certificate after our side is done.
    if let Some(rustls::Error::AlertReceived(alert)) = tls
        && is_about_certificates(*alert)
    {
        return broken(AttemptResult::Tls, false, "the client certificate was refused");
    }
    let hyper = find::<hyper::Error>(&links);
    let is = |test: fn(&hyper::Error) -> bool| hyper.is_some_and(test);
    // hyper's word for a request that it gives back because no connection had taken it.
    if !sent || is(hyper::Error::is_canceled) {
        let result = if tls.is_some() { AttemptResult::Tls } else { AttemptResult::Connect };
        return broken(result, false, "the connection closed before the request");
    }
    if is(hyper::Error::is_timeout) {
        return broken(AttemptResult::Timeout, true, "the connection went silent");
    }
    if is(hyper::Error::is_parse) {
        return broken(AttemptResult::Protocol, true, "the answer is not HTTP");
    }
    broken(AttemptResult::Reset, true, "the connection broke after the request was sent")
}

/// Every error in the chain, outermost first. `io::Error` hides what it wraps from `source()`,
/// and shows that one's source instead.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
    let mut links = vec![error];
    let mut next = step(error);
    while let Some(link) = next {
        links.push(link);
        next = step(link);
    }
    links
}

fn step<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn find<'a, E: StdError + 'static>(links: &[&'a (dyn StdError + 'static)]) -> Option<&'a E> {
    links.iter().find_map(|link| link.downcast_ref())
}

/// Whether a failed connect failed in the handshake: the TLS connector wraps its `io::Error` in
/// another one, the TCP connector does not.
fn is_handshake(links: &[&(dyn StdError + 'static)]) -> bool {
    links.iter().filter(|link| link.is::<io::Error>()).count() > 1
}

fn is_about_certificates(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}
