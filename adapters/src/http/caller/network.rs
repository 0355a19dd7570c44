//! What a network error means: which result, and whether anything had been sent.
//!
//! hyper wraps rustls wraps io, so the chain of sources is walked and each link asked what it is.
//! Messages are made from the innermost cause, and hold no URL.

use std::{error::Error as StdError, io};

use rustls::AlertDescription;

use super::{
    connection::Unanswered,
    dial::{CONNECT_TIMEOUT, DialError},
};
use crate::AttemptResult;

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

/// What came of dialling.
pub(super) fn undialled(error: &DialError) -> Broken {
    let (result, what, cause): (_, _, &(dyn StdError + 'static)) = match error {
        DialError::Refused(refused) => {
            let detail = refused.to_string();
            return Broken { result: AttemptResult::RefusedAddress, sent: false, detail };
        }
        DialError::TimedOut => {
            let detail = format!("no connection: none within {} s", CONNECT_TIMEOUT.as_secs());
            return Broken { result: AttemptResult::Connect, sent: false, detail };
        }
        DialError::Name(error) => (AttemptResult::Dns, "the name does not resolve", error),
        DialError::Tls(error) => (AttemptResult::Tls, "no TLS connection", error),
        DialError::Connect(error) => (AttemptResult::Connect, "no connection", &**error),
    };
    Broken { result, sent: false, detail: because(what, &chain(cause)) }
}

/// A request that is not one: the address is too long.
pub(super) fn unsendable() -> Broken {
    let detail = "the request cannot be sent: its address does not fit".to_owned();
    Broken { result: AttemptResult::Oversize, sent: false, detail }
}

/// What became of a request on a connection.
pub(super) fn unanswered(unanswered: &Unanswered) -> Broken {
    let error = &unanswered.error;
    let mut links = chain(error);
    if let Some(ended) = &unanswered.ended {
        links.extend(chain(ended));
    }
    let broken = |result, sent, what| Broken { result, sent, detail: because(what, &links) };
    let tls = find::<rustls::Error>(&links);
    // In TLS 1.3 the server looks at the client's certificate after our side is done.
    if let Some(rustls::Error::AlertReceived(alert)) = tls
        && is_about_certificates(*alert)
    {
        return broken(AttemptResult::Tls, false, "the client certificate was refused");
    }
    // hyper's word for a request that it gives back because no connection had taken it.
    if unanswered.unsent.is_some() || error.is_canceled() {
        let result = if tls.is_some() { AttemptResult::Tls } else { AttemptResult::Connect };
        return broken(result, false, "the connection closed before the request");
    }
    if error.is_timeout() {
        return broken(AttemptResult::Timeout, true, "the connection went silent");
    }
    if error.is_parse() {
        return broken(AttemptResult::Protocol, true, "the answer is not HTTP");
    }
    broken(AttemptResult::Reset, true, "the connection broke after the request was sent")
}

/// An answer that broke off.
pub(crate) fn cut_off() -> Broken {
    let detail = "the connection broke within the answer".to_owned();
    Broken { result: AttemptResult::Reset, sent: true, detail }
}

/// `what`, and the innermost cause of it.
fn because(what: &str, links: &[&(dyn StdError + 'static)]) -> String {
    match links.last().map(ToString::to_string).filter(|root| !root.is_empty()) {
        Some(root) => format!("{what}: {root}"),
        None => what.to_owned(),
    }
}

/// Every error in the chain, outermost first. `io::Error` hides what it wraps from `source()`,
/// and shows that one's source instead.
pub(super) fn chain<'a>(error: &'a (dyn StdError + 'static)) -> Vec<&'a (dyn StdError + 'static)> {
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

/// The outermost link that is an `E`.
pub(super) fn find<'a, E: StdError + 'static>(
    links: &[&'a (dyn StdError + 'static)],
) -> Option<&'a E> {
    links.iter().find_map(|link| link.downcast_ref())
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
