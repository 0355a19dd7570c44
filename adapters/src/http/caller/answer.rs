//! What an answer means. The only place that reads a status code.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, value::RawValue};

use super::{network::Broken, retry_after};
use crate::{
    AttemptResult, DeadReason, Delivery, Exchange, Failure, Health, Receipt, Throttle, Timestamp,
    Verdict,
    expression::{Expression, ExpressionError, Input, Variables},
    http::{HttpTargetConfig, RetryOn, StatusPattern},
    secret::Mask,
};

/// How the answers to one route's requests are read.
#[derive(Debug)]
pub struct AnswerRules {
    success: Vec<StatusPattern>,
    retry_on: Vec<RetryOn>,
    outcome: Option<Expression>,
    retry_after: Option<Expression>,
    retry_after_max: Duration,
    max_response: u64,
    /// Whether a reply wants the answer.
    for_reply: bool,
    mask: Mask,
}

/// An answer as it came, the body as far as it was read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) cut: Option<Cut>,
}

/// Why a body is not all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Longer than `max_response`.
    TooLong,
    /// The connection broke.
    Broken,
    /// It did not end in reasonable time.
    Slow,
}

impl Cut {
    pub(super) fn note(self) -> &'static str {
        match self {
            Self::TooLong => "body truncated: longer than max_response",
            Self::Broken => "body truncated: the connection broke",
            Self::Slow => "body truncated: it was still coming when the status had decided",
        }
    }
}

/// What is known besides the answer.
pub(super) struct Context<'a> {
    pub(super) delivery: &'a Arc<Delivery>,
    pub(super) attempt: u32,
    pub(super) now: Timestamp,
    pub(super) exchange: Exchange,
}

/// What `outcome` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Delivered,
    Retry,
    Dead,
}

impl AnswerRules {
    /// The rules of a route to an upstream whose `retry_after` expression is given; no wait that
    /// an answer asks for is heeded beyond `retry_after_max`. Whatever is kept is masked by `mask`.
    #[must_use]
    pub fn new(
        config: &HttpTargetConfig,
        retry_after: Option<Expression>,
        retry_after_max: Duration,
        mask: Mask,
    ) -> Self {
        let retry_on = config.retry_on.iter().flat_map(|entry| match entry {
            RetryOn::Default => RetryOn::DEFAULT.to_vec(),
            other => vec![*other],
        });
        Self {
            success: config.success.clone(),
            retry_on: retry_on.collect(),
            outcome: config.outcome.clone(),
            retry_after,
            retry_after_max,
            max_response: config.max_response,
            for_reply: false,
            mask,
        }
    }

    /// Hands answers on, for the route's reply.
    pub(crate) fn keep_for_reply(&mut self) {
        self.for_reply = true;
    }

    /// How much of a body is read, in bytes.
    #[must_use]
    pub fn max_response(&self) -> usize {
        usize::try_from(self.max_response).unwrap_or(usize::MAX)
    }

    /// Every secret known.
    pub(super) fn mask(&self) -> &Mask {
        &self.mask
    }

    /// Whether nothing but status and headers decides.
    pub(super) fn status_decides(&self) -> bool {
        self.outcome.is_none() && !self.for_reply
    }

    /// What an answer means.
    pub(super) fn read(&self, answer: &Answer, context: Context<'_>) -> Result<Receipt, Failure> {
        let status = answer.status.as_u16();
        let Some(result) = result_of(status) else {
            let detail = format!("answered {}, which is no final status", answer.status);
            let broken = Broken { result: AttemptResult::Protocol, sent: true, detail };
            return Err(self.broken(broken, context.exchange));
        };
        if answer.cut == Some(Cut::Broken) && self.outcome_needs_body() {
            let detail = format!("answered {}, but its body broke off", answer.status);
            let broken = Broken { result: AttemptResult::Reset, sent: true, detail };
            return Err(self.broken(broken, context.exchange));
        }
        let mut detail = format!("answered {}", answer.status);
        let said = self.run_outcome(answer, &context, &mut detail);
        let said = said.unwrap_or_else(|| self.by_status(status));
        let header = retry_after::of_headers(&answer.headers, context.now);
        let throttled = status == 429 || (status == 503 && header.is_some());
        let health = match status {
            _ if throttled => Health::Silent,
            401 | 407 | 500..=599 => Health::Bad,
            _ => Health::Good,
        };
        if said == Said::Delivered {
            let response = self.response(answer);
            return Ok(Receipt { result, health, exchange: context.exchange, response });
        }
        let after = header
            .or_else(|| self.run_retry_after(answer, &context))
            .map(|wait| wait.min(self.retry_after_max));
        Err(Failure {
            result: Some(result),
            verdict: match said {
                Said::Dead => Verdict::Dead(DeadReason::Rejected),
                Said::Delivered | Said::Retry => Verdict::Retry { after },
            },
            health,
            throttle: throttled.then_some(Throttle { after }),
            detail: self.mask.apply(&detail),
            exchange: context.exchange,
            response: self.response(answer),
        })
    }

    /// What follows from a request without an answer.
    pub(super) fn broken(&self, broken: Broken, exchange: Exchange) -> Failure {
        let class = if broken.sent { RetryOn::Ambiguous } else { RetryOn::Connect };
        let refused = broken.result == AttemptResult::RefusedAddress;
        let unsendable = broken.result == AttemptResult::Oversize;
        let retried = refused || (!unsendable && self.retry_on.contains(&class));
        Failure {
            result: Some(broken.result),
            verdict: if retried {
                Verdict::Retry { after: None }
            } else {
                Verdict::Dead(DeadReason::Rejected)
            },
            health: if refused || unsendable { Health::Silent } else { Health::Bad },
            throttle: None,
            detail: broken.detail,
            exchange,
            response: None,
        }
    }

    /// What the route's reply is given, if it has one.
    fn response(&self, answer: &Answer) -> Option<Bytes> {
        self.for_reply.then(|| self.mask.apply(&input_json(answer)).into())
    }

    /// A wait some other answer asked for, capped.
    pub(super) fn capped(&self, after: Option<Duration>) -> Option<Duration> {
        after.map(|wait| wait.min(self.retry_after_max))
    }

    fn by_status(&self, status: u16) -> Said {
        let retried = self.retry_on.iter().any(|entry| match entry {
            RetryOn::Status(pattern) => pattern.matches(status),
            RetryOn::Connect | RetryOn::Ambiguous | RetryOn::Default => false,
        });
        if self.success.iter().any(|pattern| pattern.matches(status)) {
            Said::Delivered
        } else if retried || matches!(status, 401 | 407) {
            Said::Retry
        } else {
            Said::Dead
        }
    }

    /// An `outcome` that never looks at the body is not kept from its say by a broken one.
    fn outcome_needs_body(&self) -> bool {
        self.outcome.as_ref().is_some_and(|outcome| outcome.source().contains("body"))
    }

    /// What `outcome` says; its error is a retry, and part of `detail`.
    fn run_outcome(
        &self,
        answer: &Answer,
        context: &Context<'_>,
        detail: &mut String,
    ) -> Option<Said> {
        let outcome = self.outcome.as_ref()?;
        let output = input(answer).and_then(|input| outcome.run(&input, &variables(context)));
        let problem = match output.map(|output| output.to_value()) {
            Ok(Value::Null) => return None,
            Ok(Value::String(word)) => match word.as_str() {
                "delivered" => return Some(Said::Delivered),
                "retry" => return Some(Said::Retry),
                "dead" => return Some(Said::Dead),
                _ => format!("outcome gave \"{}\"", start_of(&word)),
            },
            Ok(other) => format!("outcome gave {}", start_of(&other.to_string())),
            Err(error) => format!("outcome failed ({error})"),
        };
        *detail = format!("{detail}; {problem}, which is none of delivered, retry, dead and null");
        Some(Said::Retry)
    }

    /// Seconds by the upstream's own expression. Answers without the figure it looks for are the
    /// usual case, so that an error says as much as nothing.
    fn run_retry_after(&self, answer: &Answer, context: &Context<'_>) -> Option<Duration> {
        let expression = self.retry_after.as_ref()?;
        let output = expression.run(&input(answer).ok()?, &variables(context)).ok()?;
        retry_after::of_seconds(output.to_value().as_f64()?)
    }
}

/// The result a final status stands for; `None` for what cannot end an exchange.
fn result_of(status: u16) -> Option<AttemptResult> {
    match status {
        200..=299 => Some(AttemptResult::Success),
        300..=399 => Some(AttemptResult::Redirect),
        401 | 407 => Some(AttemptResult::Auth),
        400..=499 => Some(AttemptResult::ClientError),
        500..=599 => Some(AttemptResult::ServerError),
        _ => None,
    }
}

fn variables(context: &Context<'_>) -> Variables {
    Variables::of(context.delivery, context.attempt)
}

/// `{status, headers, body}`: header names in lower case, values of repeated ones joined by
/// commas; the body spliced in as it came when it is JSON, else as text.
fn input(answer: &Answer) -> Result<Input, ExpressionError> {
    Input::json(Bytes::from(input_json(answer)))
}

fn input_json(answer: &Answer) -> String {
    let mut headers = serde_json::Map::new();
    for name in answer.headers.keys() {
        let values = answer.headers.get_all(name).iter();
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let joined = values.collect::<Vec<_>>().join(", ");
        headers.insert(name.as_str().to_owned(), Value::String(joined));
    }
    let body = match json_body(answer) {
        Some(json) => json.to_owned(),
        None if answer.body.is_empty() => "null".to_owned(),
        None => Value::from(String::from_utf8_lossy(&answer.body)).to_string(),
    };
    let headers = Value::Object(headers);
    format!(r#"{{"status":{},"headers":{headers},"body":{body}}}"#, answer.status.as_u16())
}

/// The body's text when it is JSON: said to be, or of no said type, and well-formed.
fn json_body(answer: &Answer) -> Option<&str> {
    let kind = answer.headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    let said = kind.is_none_or(|kind| kind.to_ascii_lowercase().windows(4).any(|w| w == b"json"));
    let text = std::str::from_utf8(&answer.body).ok().filter(|_| said)?;
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
}

/// Enough of it to recognise it by.
fn start_of(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests;
