//! Answers: the yes as its route wants it, and refusals as problem details (RFC 9457).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::{
    Rejection,
    http::webhook::{Answer, Malformed},
};

/// What goes back to the sender.
pub(super) type Answered = Response<Full<Bytes>>;

/// Why a request is not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    detail: String,
    rejection: Option<Rejection>,
    headers: HeaderMap,
}

/// An answer as it goes out.
pub(super) fn answered(answer: Answer) -> Answered {
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

impl Refusal {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), rejection: None, headers: HeaderMap::new() }
    }

    /// A request that is not what it says it is.
    pub(super) fn malformed(malformed: Malformed) -> Self {
        let why = match malformed.status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Rejection::MediaType,
            _ => Rejection::Malformed,
        };
        Self::new(malformed.status, malformed.why).because(why)
    }

    /// Counted as this.
    pub(super) fn because(mut self, rejection: Rejection) -> Self {
        self.rejection = Some(rejection);
        self
    }

    /// With `Retry-After`, in whole seconds, at least 1.
    pub(super) fn after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// The connection ends with this answer: what comes on it next cannot be told.
    pub(super) fn closing(self) -> Self {
        self.with(header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub(super) fn rejection(&self) -> Option<Rejection> {
        self.rejection
    }

    pub(super) fn answered(self) -> Answered {
        answered(self.answer())
    }

    pub(super) fn answer(self) -> Answer {
        let title = self.status.canonical_reason().unwrap_or("error");
        let problem = serde_json::json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut headers = self.headers;
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        Answer { status: self.status, headers, body: problem.to_string().into() }
    }
}
