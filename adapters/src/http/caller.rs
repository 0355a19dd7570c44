//! The HTTP target's end: sends a rendered request, and reads what came of it.
//!
//! ```text
//! credentials ─► gate ─► sign ─► send ─► read the body, bounded ─► classify
//!      ▲                                        │
//!      └──── 401 to an OAuth2 token, once ◄─────┘
//! ```

mod answer;
mod api;
mod client;
mod connection;
mod dial;
mod exchange;
pub(crate) mod network;
pub(crate) mod retry_after;
pub mod script;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;

pub(crate) use self::api::route_headers;
pub(crate) use self::client::{Client, Sending};
pub use self::{answer::AnswerRules, api::Api, client::Progress};
use self::{
    answer::{Answer, Cut},
    network::Broken,
    script::Sent,
};
pub use super::target::HttpTarget;
use super::{
    HttpRequest,
    auth::oauth2::{Token, TokenError},
};
use crate::{AttemptResult, Call, Exchange, Failure, Health, Receipt, Request, Verdict};

/// How long a body may take that decides nothing: the status has, and a second attempt because
/// of a body nobody waits for would be a duplicate.
const BODY_PATIENCE: Duration = Duration::from_secs(2);

/// Calls one upstream. Clones share it.
#[derive(Debug, Clone)]
pub struct Caller {
    api: Arc<Api>,
}

impl Caller {
    /// A caller of `api`.
    #[must_use]
    pub fn new(api: Arc<Api>) -> Self {
        Self { api }
    }
}

impl tower::Service<Call> for Caller {
    type Response = Receipt;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Receipt, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let api = Arc::clone(&self.api);
        Box::pin(async move { api.attempt(call).await })
    }
}

/// What to make of `request` when its attempt has taken longer than `timeout` and was dropped.
#[must_use]
pub fn timed_out(request: &HttpRequest, timeout: Duration) -> Failure {
    let broken = if request.progress.sent() {
        let detail = format!("no complete answer within {timeout:?}");
        Broken { result: AttemptResult::Timeout, sent: true, detail }
    } else {
        let detail = format!("no connection within {timeout:?}; nothing was sent");
        Broken { result: AttemptResult::Connect, sent: false, detail }
    };
    let HttpRequest { method, url, headers, body, answer, .. } = request;
    let none = std::iter::empty();
    let text = exchange::request(answer.mask(), method, url, none, headers, body);
    answer.broken(broken, Exchange { request: text, ..Exchange::default() })
}

impl Api {
    async fn attempt(&self, call: Call) -> Result<Receipt, Failure> {
        let Request::Http(request) = &call.request else {
            unreachable!("a route's target renders for its own leaf")
        };
        let rules = &request.answer;
        if let Some(refused) = self.refused {
            let (result, detail) = (AttemptResult::RefusedAddress, refused.to_string());
            let broken = Broken { result, sent: false, detail };
            return Err(rules.broken(broken, Exchange::default()));
        }
        let no_token = |error, exchange| no_token(rules, error, exchange);
        let first = self.token(None).await;
        let first = first.map_err(|error| no_token(error, Exchange::default()))?;
        call.gate.pass().await;
        let (mut exchange, mut answer) = self.send(&call, request, first.as_ref()).await?;
        // A token that the API does not take is renewed and the request sent again, once.
        if let Some(refused) = first.filter(|_| answer.status == http::StatusCode::UNAUTHORIZED) {
            match self.token(Some(refused.generation)).await {
                Ok(second) => {
                    call.gate.pass_again().await;
                    (exchange, answer) = self.send(&call, request, second.as_ref()).await?;
                }
                Err(error) => return Err(no_token(error, exchange)),
            }
        }
        let context = answer::Context {
            delivery: &call.delivery,
            attempt: call.attempt,
            now: (self.now)(),
            exchange,
        };
        rules.read(&answer, context)
    }

    /// The OAuth2 token, when there is such a thing; a rehearsal has a stand-in for it.
    async fn token(&self, refused: Option<u64>) -> Result<Option<Token>, TokenError> {
        match &self.script {
            None => self.auth.token(refused).await,
            Some(_) => Ok(self.auth.stand_in(refused)),
        }
    }

    /// Sends once. An error means that there is no answer.
    async fn send(
        &self,
        call: &Call,
        request: &HttpRequest,
        token: Option<&Token>,
    ) -> Result<(Exchange, Answer), Failure> {
        let mut url = request.url.clone();
        let mut headers = request.headers.clone();
        let id = || call.delivery.idempotency_key().to_string();
        self.auth.apply(token, id, (self.now)(), &mut url, &mut headers, &request.body);
        let names = self.auth.query_names();
        let method = &request.method;
        let text =
            exchange::request(&self.mask, method, &request.url, names, &headers, &request.body);
        let mut exchange = Exchange { request: text, ..Exchange::default() };

        let (status, headers, body, cut) = match &self.script {
            Some(script) => {
                let sent =
                    Sent { method: method.clone(), url, headers, body: request.body.clone() };
                let (head, body) = script::send(&**script, sent)
                    .map_err(|broken| self.no_answer(broken, request, &mut exchange))?
                    .into_parts();
                let limit = request.answer.max_response();
                let cut = (body.len() > limit).then_some(Cut::TooLong);
                (head.status, head.headers, body.slice(..body.len().min(limit)), cut)
            }
            None => {
                let sending = Sending { method, url: &url, headers, body: request.body.clone() };
                let mut answer = self
                    .client
                    .send(sending, Some(&*call.gate), &request.progress)
                    .await
                    .map_err(|broken| self.no_answer(broken, request, &mut exchange))?;
                let (status, headers) = (answer.status, std::mem::take(&mut answer.headers));
                let (body, cut) = read_body(answer, &request.answer).await;
                (status, headers, body, cut)
            }
        };
        let note = cut.map(Cut::note);
        exchange.status = Some(status.as_u16());
        exchange.response = exchange::response(&self.mask, status, &headers, &body, note);
        Ok((exchange, Answer { status, headers, body, cut }))
    }

    fn no_answer(
        &self,
        mut broken: Broken,
        request: &HttpRequest,
        exchange: &mut Exchange,
    ) -> Failure {
        broken.detail = self.mask.apply(&broken.detail);
        request.answer.broken(broken, std::mem::take(exchange))
    }
}

/// As much of the body as the rules allow, and why it is not all, if it is not. What is left
/// unread closes the connection when the response is dropped.
async fn read_body(mut answer: client::Answer, rules: &AnswerRules) -> (Bytes, Option<Cut>) {
    let limit = rules.max_response();
    let (mut first, mut more) = (Bytes::new(), BytesMut::new());
    let reading = async {
        while let Some(chunk) = answer.chunk().await {
            let Ok(chunk) = chunk else { return Some(Cut::Broken) };
            let room = limit - first.len() - more.len();
            let fits = chunk.slice(..chunk.len().min(room));
            // Most bodies come in one piece, which need not be copied.
            if first.is_empty() {
                first = fits;
            } else {
                more.extend_from_slice(&fits);
            }
            if chunk.len() > room {
                return Some(Cut::TooLong);
            }
        }
        None
    };
    let cut = if rules.status_decides() {
        tokio::time::timeout(BODY_PATIENCE, reading).await.unwrap_or(Some(Cut::Slow))
    } else {
        reading.await
    };
    if cut.is_none() {
        answer.finish().await;
    }
    if more.is_empty() {
        return (first, cut);
    }
    let mut body = BytesMut::with_capacity(first.len() + more.len());
    body.extend_from_slice(&first);
    body.extend_from_slice(&more);
    (body.freeze(), cut)
}

/// The upstream cannot be asked without a token: try again, whatever `retry_on` says, since the
/// event has no part in it.
fn no_token(rules: &AnswerRules, error: TokenError, exchange: Exchange) -> Failure {
    let refused = error.result == AttemptResult::RefusedAddress;
    Failure {
        result: Some(error.result),
        verdict: Verdict::Retry { after: rules.capped(error.after) },
        health: if refused { Health::Silent } else { Health::Bad },
        throttle: None,
        detail: error.to_string(),
        exchange,
        response: None,
    }
}

#[cfg(test)]
mod tests;
