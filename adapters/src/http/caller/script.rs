//! A script in the network's stead, for rehearsing a route: everything up to the wire and
//! everything after it is what runs in earnest.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

use super::network::Broken;
use crate::AttemptResult;

/// A request as it leaves, credentials and signatures included.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Its method.
    pub method: Method,
    /// Its whole address.
    pub url: Url,
    /// Its headers, but for those that frame it.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

/// Who answers in the network's stead.
pub trait Script: fmt::Debug + Send + Sync {
    /// The answer to one request.
    ///
    /// # Errors
    /// What the network did instead: one of dns, connect, tls, timeout, reset, protocol and
    /// refused_address.
    fn answer(&self, request: Sent) -> Result<http::Response<Bytes>, AttemptResult>;
}

/// The answer of `script` to `sent`.
pub(super) fn send(script: &dyn Script, sent: Sent) -> Result<http::Response<Bytes>, Broken> {
    script.answer(sent).map_err(|result| {
        let unsent = [
            AttemptResult::Dns,
            AttemptResult::Connect,
            AttemptResult::Tls,
            AttemptResult::RefusedAddress,
        ];
        Broken { result, sent: !unsent.contains(&result), detail: "as the script says".to_owned() }
    })
}
